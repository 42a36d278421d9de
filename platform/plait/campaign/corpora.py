"""The sequences a prior is pre-trained on, kept by content from the day a campaign is created."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plait.campaign.jobs import load_prior
from plait.campaign.ports import Ports
from plait.campaign.records import Campaign
from plait.campaign.sections import PriorConfig
from plait.design.errors import ConfigError
from plait.design.space import DesignSpace

PINNED = "sha256:"
FEWEST_SEQUENCES = 20


def pin_corpus(ports: Ports, section: PriorConfig, space: DesignSpace) -> tuple[PriorConfig, str]:
    """The section with its corpus replaced by a kept artifact ("sha256:...") or its model by NAME@VERSION.

    Returns:
        The section, and what to tell the user.

    Raises:
        NotFoundError: No such file, dataset or model.
        BadInputError: The file cannot be read.
        ConfigError: Too few of its sequences fit the space, or the model does not.
    """
    if section.model is not None:
        return _pin_model(ports, section, section.model, space)
    if section.corpus is None and section.dataset is None:
        return section, "prior: pre-trained on the dataset's own sequences"
    if section.corpus is not None:
        source, sequences = (
            Path(section.corpus).name,
            ports.read_corpus(Path(section.corpus), space.alphabet, space.length),
        )
    else:
        source = f"dataset {section.dataset}"
        with ports.repository.begin() as uow:
            sequences = list(uow.readings(uow.dataset_version(str(section.dataset)).id).sequences)
    sequences = list(dict.fromkeys(sequences))
    num_inside = len(inside(sequences, space))
    if num_inside < FEWEST_SEQUENCES:
        raise ConfigError(
            f"only {num_inside} of {len(sequences)} corpus sequences lie in the space {space.template}",
            hint=f"a prior needs at least {FEWEST_SEQUENCES} sequences of {space.length} letters that fit the template",
        )
    pinned = section.model_copy(update={"corpus": PINNED + ports.artifacts.put_json(sequences), "dataset": None})
    return (
        pinned,
        f"prior: pre-trained on {num_inside} sequences of {source} ({len(sequences) - num_inside} outside the space)",
    )


def _pin_model(ports: Ports, section: PriorConfig, reference: str, space: DesignSpace) -> tuple[PriorConfig, str]:
    """The section with the model that `reference` means today, whatever its alias points at later."""
    with ports.repository.begin() as uow:
        model = uow.model(reference)
    if model.kind == "reward":
        raise ConfigError(f"prior.model: {model.name} is a reward, not a prior")
    load_prior(model.algorithm, ports.artifacts.path(model.artifact_sha256), space)
    pinned = f"{model.name}@{model.version}"
    return section.model_copy(update={"model": pinned}), f"prior: the registered model {pinned}"


def load_corpus(
    ports: Ports, campaign: Campaign, section: PriorConfig, space: DesignSpace
) -> tuple[NDArray[np.int64], str]:
    """Distinct corpus tokens (n, L) int64 inside the space, and where they come from."""
    if section.corpus is None:
        readings = ports.repository.transact(lambda uow: uow.readings(campaign.dataset_version_id))
        return inside(list(dict.fromkeys(readings.sequences)), space), f"dataset {campaign.dataset}"
    return inside(ports.artifacts.get_json(section.corpus.removeprefix(PINNED)), space), section.corpus


def inside(sequences: list[str], space: DesignSpace) -> NDArray[np.int64]:
    """Tokens (n, L) of the sequences that fit length and template."""
    right = [s for s in sequences if len(s) == space.length and not space.alphabet.problem_in(s)]
    tokens = space.alphabet.encode(right) if right else np.zeros((0, space.length), dtype=np.int64)
    return tokens[space.allowed_mask()[np.arange(space.length), tokens].all(1)]
