"""Use cases over models: import a bundle, train a prior by itself, draw designs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Generator

from plait.campaign import catalog
from plait.campaign.assays import learnable
from plait.campaign.corpora import FEWEST_SEQUENCES, inside
from plait.campaign.fingerprints import derive_seed, digest
from plait.campaign.jobs import PretrainJob, load_prior, load_reward
from plait.campaign.ports import Ports
from plait.campaign.records import DatasetVersion, Model
from plait.campaign.repository import UnitOfWork
from plait.campaign.stage_runs import flush_outbox, register
from plait.campaign.turns import NewModel
from plait.design.alphabets import find_alphabet
from plait.design.bundles import load_bundle
from plait.design.errors import BadInputError, CorruptArtifactError, UsageError, WrongStateError
from plait.design.records import Readings
from plait.design.space import DesignSpace
from plait.rewards.conservatism import ConservativeReward, Objective

ROOM_OF = {"prior": "priors", "policy": "priors", "reward": "rewards"}


def import_model(ports: Ports, directory: Path, name: str) -> Model:
    """Register a bundle from outside after its sums are checked and it has been loaded once.

    Raises:
        CorruptArtifactError: A file is missing, changed, or describes no model that Plait knows.
    """
    description, _ = load_bundle(directory)
    kind, algorithm = str(description.get("kind")), str(description.get("algorithm"))
    if kind not in ROOM_OF or algorithm not in catalog.algorithms(ROOM_OF[kind]):
        raise CorruptArtifactError(f"{directory} holds a '{kind}' made by '{algorithm}', which Plait does not know")
    if kind == "reward":
        load_reward(algorithm, directory, ports.scorers)
    else:
        load_prior(algorithm, directory)
    sha = ports.artifacts.put(directory)
    details = {"imported_from": directory.name}
    with ports.repository.begin() as uow:
        return uow.add_model(
            name, kind=kind, algorithm=algorithm, artifact_sha256=sha, details=details, actor=ports.actor
        )


def train_prior(
    ports: Ports,
    name: str,
    space: DesignSpace,
    sequences: list[str],
    *,
    algorithm: str,
    settings: dict[str, Any],
    seed: int,
    num_workers: int,
    source: str,
    version: DatasetVersion | None,
) -> Model:
    """Pre-train and register a prior outside any campaign; the same call again finds the same model.

    Raises:
        BadInputError: Too few sequences.
        ConfigError: Settings out of bounds.
    """
    catalog.configure("priors", algorithm, settings)
    corpus = inside(list(dict.fromkeys(sequences)), space)
    if len(corpus) < FEWEST_SEQUENCES:
        raise BadInputError(
            f"{len(corpus)} sequences are too few to train a prior on", hint=f"give at least {FEWEST_SEQUENCES}"
        )
    key = (
        "prior-"
        + digest([name, algorithm, settings, space.model_dump(mode="json"), corpus.tolist(), seed, num_workers])[:24]
    )
    job = PretrainJob(algorithm, settings, space, corpus, derive_seed(seed, 0, "prior"))
    directory = ports.artifacts.scratch(key)
    curves = ports.executor.train(
        job,
        run_id=key,
        directory=directory,
        num_workers=num_workers,
        seed=derive_seed(seed, 0, "prior"),
        task="pre-training the prior",
        progress=ports.progress,
        storage=ports.artifacts.shared(key),
    )
    sha = ports.artifacts.put(directory / "result")
    held_out = max((v for _, v in curves.get("held_out_elbo", [])), default=None)
    details = {"corpus": source, "num_sequences": len(corpus), "held_out_elbo": held_out}
    with ports.repository.begin() as uow:
        register(
            uow, ports, name, NewModel("prior", "prior", algorithm, sha, details, curves, settings), version, key, None
        )
        model = uow.model(name)
    ports.artifacts.drop_scratch(key)
    flush_outbox(ports)
    return model


@dataclass(frozen=True)
class Drawn:
    """Designs drawn from a model; log_weights are zero and log_evidence None where the sampler has no target."""

    model: str
    sampler: str
    seed: int
    sequences: tuple[str, ...]
    log_weights: tuple[float, ...]
    log_evidence: float | None = None


def sample(
    ports: Ports,
    reference: str,
    *,
    num: int,
    sampler: str,
    settings: dict[str, Any],
    seed: int,
    reward: str | None = None,
    dataset: str | None = None,
) -> Drawn:
    """Draw designs from a registered prior or policy.

    Args:
        ports: The world.
        reference: NAME, NAME@ALIAS or NAME@VERSION of a prior or policy.
        num: Designs.
        sampler: File in samplers/.
        settings: Its settings.
        seed: Of the generator.
        reward: A registered reward for samplers that need one; a policy's own by default.
        dataset: Measurements for samplers that learn from them; the model's own by default.

    Raises:
        NotFoundError: No such model or dataset.
        WrongStateError: The model is a reward, or the sampler needs one and none is known.
        ConfigError: Settings out of bounds, or the sampler lacks what it needs.
    """
    config = catalog.configure("samplers", sampler, settings)
    module = catalog.find("samplers", sampler)
    if num < 1:
        raise UsageError(f"--n is {num}; ask for at least one design")
    with ports.repository.begin() as uow:
        model = uow.model(reference)
        chosen = uow.model(reward) if reward is not None else None
        data = _data_of(uow, model, dataset)
    if model.kind == "reward":
        raise WrongStateError(
            f"{model.name} is a reward; designs are drawn from a prior or policy", hint="see: plait model list"
        )
    prior = load_prior(model.algorithm, ports.artifacts.path(model.artifact_sha256))
    own = prior.space.length, prior.space.alphabet
    if data is not None and (data[0].length, find_alphabet(data[0].alphabet)) != own:
        raise WrongStateError(
            f"{data[0].dataset} has {data[0].length} letters of {data[0].alphabet}, the model "
            f"{prior.space.length} of {prior.space.alphabet.name}"
        )
    objective = _objective(ports, model, chosen, prior.space) if module.needs_reward else None
    learnt = None if data is None else learnable(data[1], prior.space, data[0].goal, data[0].unit)
    generator = Generator().manual_seed(seed)
    state = module.prepare(config, prior, objective, learnt, generator, ports.progress)
    drawn = module.sample(state, num, generator, ports.progress)
    return Drawn(
        model=f"{model.name}@{model.version}",
        sampler=sampler,
        seed=seed,
        sequences=tuple(prior.space.decode(drawn.tokens.numpy())),
        log_weights=tuple(drawn.log_weights.tolist()),
        log_evidence=drawn.log_evidence,
    )


def _data_of(uow: UnitOfWork, model: Model, dataset: str | None) -> tuple[DatasetVersion, Readings] | None:
    if dataset is not None:
        version = uow.dataset_version(dataset)
    elif model.dataset_version_id is not None:
        version = uow.dataset_version_by_id(model.dataset_version_id)
    else:
        return None
    return version, uow.readings(version.id)


def _objective(ports: Ports, model: Model, chosen: Model | None, space: DesignSpace) -> Objective:
    """The mean of a registered reward, of the policy's own by default."""
    sha = chosen.artifact_sha256 if chosen else model.details.get("reward")
    if sha is None:
        raise WrongStateError("this sampler needs a reward", hint="add --reward NAME; see: plait model list")
    assays = model.details.get("assays", ())
    if chosen is None and len(assays) > 1:
        raise WrongStateError(
            f"{model.name} was made for several assays ({', '.join(assays)}); a sampler steers by one reward",
            hint="add --reward NAME; see: plait model list",
        )
    if chosen is not None and chosen.kind != "reward":
        raise WrongStateError(f"{chosen.name} is a {chosen.kind}, no reward", hint="see: plait model list")
    algorithm = chosen.algorithm if chosen else model.details.get("reward_algorithm", "ensemble")
    fitted = load_reward(algorithm, ports.artifacts.path(sha), ports.scorers)
    if fitted.space.length != space.length or fitted.space.alphabet != space.alphabet:
        raise WrongStateError("the reward was learnt on another length or alphabet than the model's")
    return ConservativeReward(fitted, None, 0.0, fitted.scale)
