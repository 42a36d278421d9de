"""Use cases over campaigns: create one from a checked configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from plait.campaign import catalog
from plait.campaign.assays import Assay, of_campaign
from plait.campaign.config import CampaignConfig
from plait.campaign.corpora import inside, pin_corpus
from plait.campaign.jobs import judge_algorithm, needs_scorers, reward_settings
from plait.campaign.ports import Ports, Scorers
from plait.campaign.race import POLICY
from plait.campaign.ranges import check_ranges
from plait.campaign.records import Campaign, DatasetVersion
from plait.campaign.schedules import Schedule
from plait.campaign.shares import check_training
from plait.design.alphabets import find_alphabet
from plait.design.errors import ConfigError
from plait.design.space import DesignSpace

FEWEST_ITEMS = 50


def create(ports: Ports, config: CampaignConfig) -> Campaign:
    """Register a campaign on the latest versions of its datasets; the prior's corpus is kept by content.

    Raises:
        NotFoundError: No such dataset, corpus file or model.
        BadInputError: The corpus file cannot be read.
        ConfigError: Unknown algorithm, settings out of bounds, a space that the data does not fit, a further assay
            over other sequences.
        WrongStateError: The name is taken.
    """
    check_algorithms(config)
    for number in range(1, config.rounds + 1):
        ports.executor.require(config.workers_of(number))
    check_scorers(config, ports.scorers)
    with ports.repository.begin() as uow:
        version = uow.dataset_version(config.dataset)
        readings = uow.readings(version.id)
        further = [uow.dataset_version(assay.dataset) for assay in config.assays]
        data = [(version, readings), *((v, uow.readings(v.id)) for v in further)]
    space, notes = resolve_space(config, version, readings.sequences)
    notes += [_describe_assay(other, found.sequences, version, space) for other, found in data[1:]]
    notes += [note for assay in of_campaign(config, space, 0, data) if (note := _out_of_reach(assay))]
    pinned, note = pin_corpus(ports, config.prior, space)
    document = config.model_copy(update={"prior": pinned}).model_dump(mode="json", exclude_unset=True)
    with ports.repository.begin() as uow:
        made = uow.add_campaign(
            config.name,
            dataset_version_id=version.id,
            config=document,
            space=space.model_dump(mode="json"),
            notes=[*notes, note],
            actor=ports.actor,
            further=[(v.dataset, v.id) for v in further],
        )
        given = config.schedule
        wanted = Schedule(made.name, priority=given.priority, every=given.every, when=given.when, not_before=given.at)
        if wanted != Schedule(made.name):
            uow.put_schedule(wanted, "campaign.queued", ports.actor)
        return made


def _out_of_reach(assay: Assay) -> str:
    """What is to be said of a threshold that no reading meets."""
    best = float(assay.readings.values.max() if assay.goal == "maximize" else assay.readings.values.min())
    if assay.threshold is None or assay.sign * best >= assay.sign * assay.threshold:
        return ""
    return (
        f"no reading of {assay.name} meets its threshold {assay.threshold:g} (the best is {best:g}): there the models "
        "can only guess, and designs that they know least of look most likely to meet it"
    )


def _describe_assay(assay: DatasetVersion, sequences: Sequence[str], own: DatasetVersion, space: DesignSpace) -> str:
    """What a further assay brings.

    Raises:
        ConfigError: Its sequences are others than those of the campaign's own dataset.
    """
    if find_alphabet(assay.alphabet) != find_alphabet(own.alphabet):
        raise ConfigError(f"assays: {assay.dataset} is written in {assay.alphabet}, {own.dataset} in {own.alphabet}")
    if assay.length != own.length:
        raise ConfigError(f"assays: {assay.dataset} has {assay.length} letters, {own.dataset} has {own.length}")
    sequences = list(dict.fromkeys(sequences))
    num_items = len(inside(sequences, space))
    if num_items < FEWEST_ITEMS:
        raise ConfigError(
            f"assays: only {num_items} distinct sequences of {assay.dataset} lie in the space {space.template}",
            hint=f"a campaign learns from at least {FEWEST_ITEMS} in each assay: widen space.template or add data",
        )
    what = f"{assay.unit}, version {assay.number}"
    return f"further assay {assay.dataset} ({what}): {num_items} of {len(sequences)} sequences lie in the space"


def check_algorithms(config: CampaignConfig) -> None:
    """Every algorithm named exists and takes its settings.

    Raises:
        ConfigError: Otherwise.
    """
    rewards = [config.reward, *(a.reward for a in config.assays if a.reward is not None)]
    sections: list[tuple[str, str, dict[str, Any]]] = [
        ("priors", config.prior.algorithm, config.prior.settings),
        *(("rewards", r.algorithm, reward_settings(r, "maximize")) for r in rewards),
        ("rewards", judge_algorithm(config.reward.algorithm), config.judge.settings),
        ("samplers", config.sampler.algorithm, config.sampler.settings),
        ("acquisition", config.acquisition.algorithm, config.acquisition.settings),
    ]
    sections += [("samplers", arm, {}) for arm in config.arms or () if arm != POLICY]
    for room, name, settings in sections:
        catalog.configure(room, name, settings)
    for end in check_ranges(config):
        check_training(end)
        if end.finetuner != "none":
            catalog.configure("finetune", end.finetuner, finetune_settings(end))
    _check_gradients(config)


def _check_gradients(config: CampaignConfig) -> None:
    """A method that follows gradients or features meets no reward without them."""
    rewards = [config.reward, *(a.reward for a in config.assays if a.reward is not None)]
    is_black_box = any(needs_scorers(r.algorithm) for r in rewards)
    schedule = [config.conservatism_of(number) for number in range(1, config.rounds + 1)]
    if is_black_box and any(c.kind == "bonus" for c in schedule):
        raise ConfigError(
            "conservatism: bonus needs a reward with features, a black box has none", hint="use kind boot or none"
        )
    reason = "a black-box reward has no gradient" if is_black_box else ""
    if config.objective.scalarisation == "hypervolume":
        reason = "hypervolume improvement has no gradient"
    for room, name in {"samplers": config.sampler.algorithm, "finetune": config.finetuner}.items():
        if reason and name != "none" and catalog.find(room, name).needs_gradient:
            fits = [n for n, module in catalog.algorithms(room).items() if not module.needs_gradient]
            raise ConfigError(
                f"{room}: {name} follows the gradient of the reward, but {reason}",
                hint=f"choose one of {', '.join(fits)}" + (", or none" if room == "finetune" else ""),
            )


def check_scorers(config: CampaignConfig, scorers: Scorers) -> None:
    """Every scorer that the configuration names is known here, and its program is there.

    Raises:
        ConfigError: Otherwise.
    """
    for section in (config.reward, *(a.reward for a in config.assays if a.reward is not None)):
        if needs_scorers(section.algorithm):
            name = catalog.configure("rewards", section.algorithm, section.settings).scorer
            if name not in scorers:
                known = f"known are {', '.join(sorted(scorers))}" if scorers else "none is known"
                raise ConfigError(
                    f"reward: there is no scorer '{name}' here, {known}",
                    hint="describe it under scorers in the home's settings.yaml, or give it to plait.open(scorers=...)",
                )
            problem = getattr(scorers[name], "problem", str)()
            if problem:
                raise ConfigError(f"reward: the scorer '{name}' cannot be used: {problem}")


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
