"""Use cases over campaigns: create one from a checked configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from plait.campaign import catalog
from plait.campaign.config import CampaignConfig
from plait.campaign.corpora import pin_corpus
from plait.campaign.ports import Ports
from plait.campaign.records import Campaign, DatasetVersion
from plait.design.alphabets import find_alphabet
from plait.design.errors import ConfigError
from plait.design.space import DesignSpace

FEWEST_ITEMS = 50


def create(ports: Ports, config: CampaignConfig) -> Campaign:
    """Register a campaign on the latest version of its dataset; the prior's corpus is kept by content.

    Raises:
        NotFoundError: No such dataset, corpus file or model.
        BadInputError: The corpus file cannot be read.
        ConfigError: Unknown algorithm, settings out of bounds, a space that the data does not fit.
        WrongStateError: The name is taken.
    """
    check_algorithms(config)
    with ports.repository.begin() as uow:
        version = uow.dataset_version(config.dataset)
        readings = uow.readings(version.id)
    space, notes = resolve_space(config, version, readings.sequences)
    pinned, note = pin_corpus(ports, config.prior, space)
    document = config.model_copy(update={"prior": pinned}).model_dump(mode="json", exclude_unset=True)
    with ports.repository.begin() as uow:
        return uow.add_campaign(
            config.name,
            dataset_version_id=version.id,
            config=document,
            space=space.model_dump(mode="json"),
            notes=[*notes, note],
            actor=ports.actor,
        )


def check_algorithms(config: CampaignConfig) -> None:
    """Every algorithm named exists and takes its settings.

    Raises:
        ConfigError: Otherwise.
    """
    sections: list[tuple[str, str, dict[str, Any]]] = [
        ("priors", config.prior.algorithm, config.prior.settings),
        ("rewards", config.reward.algorithm, config.reward.settings | {"members": config.reward.members}),
        ("rewards", config.reward.algorithm, config.judge.settings),
        ("finetune", config.finetune.algorithm, finetune_settings(config)),
        ("samplers", config.sampler.algorithm, config.sampler.settings),
        ("acquisition", config.acquisition.algorithm, config.acquisition.settings),
    ]
    for room, name, settings in sections:
        catalog.configure(room, name, settings)


def finetune_settings(config: CampaignConfig) -> dict[str, Any]:
    """Settings of the fine-tuner with the leash, where one is given."""
    weight = config.finetune.kl_weight
    return config.finetune.settings | ({} if weight is None else {"kl_weight": weight})


def resolve_space(
    config: CampaignConfig, version: DatasetVersion, sequences: Sequence[str]
) -> tuple[DesignSpace, list[str]]:
    """The campaign's space, and what was decided for the user.

    Raises:
        ConfigError: Contradictions between configuration and data.
    """
    given, notes = config.space, []
    if given.alphabet is not None and find_alphabet(given.alphabet) != find_alphabet(version.alphabet):
        raise ConfigError(f"space.alphabet is {given.alphabet}, the dataset's is {version.alphabet}")
    alphabet = find_alphabet(version.alphabet)
    if given.length is not None and given.length != version.length:
        raise ConfigError(f"space.length is {given.length}, the dataset's sequences have {version.length} letters")
    if given.template is not None:
        space = DesignSpace.from_template(alphabet, given.template, given.constraints, given.strand_symmetric)
        if space.length != version.length:
            raise ConfigError(
                f"space.template has {space.length} positions, the dataset's sequences have {version.length} letters"
            )
    else:
        columns = [sorted(set(letters)) for letters in zip(*sequences, strict=True)]
        allowed = tuple(c[0] if len(c) == 1 else alphabet.letters for c in columns)
        try:
            space = DesignSpace(
                alphabet=alphabet,
                allowed=allowed,
                constraints=given.constraints,
                strand_symmetric=given.strand_symmetric,
            )
        except ValueError as error:
            raise ConfigError(f"space: {error}", hint="give space.template") from error
        fixed = [f"{c[0]}{i}" for i, c in enumerate(columns, start=1) if len(c) == 1]
        if fixed:
            notes.append(
                f"template {space.template}: positions that never vary in the data stay fixed ({', '.join(fixed)})"
            )
    notes.append(f"all designs have {space.length} letters: this version designs one fixed length")
    if not given.strand_symmetric and _has_both_strands(space):
        notes.append(
            "the two strands are different designs; where the assay reads both, set space.strand_symmetric: true"
        )
    tokens = alphabet.encode(sequences)
    mask = space.allowed_mask()
    inside = np.asarray(mask[np.arange(space.length), tokens].all(1))
    num_items = len({s for s, ok in zip(sequences, inside, strict=True) if ok})
    if num_items < FEWEST_ITEMS:
        raise ConfigError(
            f"only {num_items} distinct sequences of the dataset lie in the space {space.template}",
            hint=f"a campaign learns from at least {FEWEST_ITEMS}: widen space.template or add data",
        )
    if not inside.all():
        notes.append(
            f"{int((~inside).sum())} readings lie outside the template {space.template} and are not learnt from"
        )
    if len(space.free_positions()) == 0:
        raise ConfigError("nothing varies: the space holds one sequence", hint="give space.template")
    return space, notes


def _has_both_strands(space: DesignSpace) -> bool:
    """Every design's reverse complement is a design as well."""
    if not space.alphabet.complement:
        return False
    mask = space.allowed_mask()
    return np.array_equal(mask, mask[::-1][:, space.alphabet.complement_tokens()])
