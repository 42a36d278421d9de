"""The stages that make a batch of candidates: sample, filter, select (with the screening inside)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from plait.acquisition import as_drawn
from plait.acquisition._choosing import distance
from plait.acquisition.base import Pool
from plait.campaign import catalog, race
from plait.campaign.assays import Assay
from plait.campaign.jobs import item_elbo, needs_scorers
from plait.campaign.turns import Outcome, Turn
from plait.design.errors import RunFailedError
from plait.metrics.hypervolume import pareto_ranks
from plait.rewards.conservatism import Objective
from plait.rewards.multi_objective import MultiObjective
from plait.rewards.support_gate import SupportGate

ENUMERATED = 16_384
"""Best designs of an exhaustively scored space that go on to the filters, at least."""
NATURALNESS = 0.25
"""Default floor of prior ELBO, as a quantile of the policy's samples, for priors that know more than the dataset."""
ELBO_DRAWS = 16
NATURAL_DRAWS = 256
"""Samples of the prior that set the floor where no policy runs."""
SPARE = 1.25
"""Designs drawn of a sampler that runs as an arm, per well: some are measured or rejected."""
SCORED_AT_ONCE = 8_192
"""Items of an enumerated space that several assays score at a time."""
FEASIBLE = 0.5
"""P(all thresholds are met) below which a chosen design is said aloud to be a gamble."""


def sample(turn: Turn) -> Outcome:
    """Candidates of every running arm; the policy's are joined by the best of a space small enough to score whole."""
    objective, generator = turn.objective("final"), turn.generator("sample")
    pools = {arm: _draw(turn, arm, objective, generator) for arm in turn.running}
    drawn = np.concatenate(list(pools.values()))
    if race.POLICY in pools and _is_enumerated(turn):
        pools[race.EXHAUSTIVE] = _best_of_space(turn, objective, max(20 * turn.config.batch.size, ENUMERATED))
    document = [[source, turn.space.decode(tokens)] for source, tokens in pools.items()]
    return Outcome(
        {
            "pool": turn.ports.artifacts.put_json(document),
            "num_sampled": len(drawn),
            "num_enumerated": len(pools.get(race.EXHAUSTIVE, ())),
            "unique_fraction": len(np.unique(drawn, axis=0)) / max(1, len(drawn)),
            "wells": turn.running,
        }
    )


def _draw(turn: Turn, arm: str, objective: Objective, generator: Generator) -> NDArray[np.int64]:
    """An arm's candidates, (n, L) int64, canonical: many of the policy, of a sampler hardly more than its wells."""
    section, progress = turn.config.sampler, turn.ports.progress
    name, num = arm, math.ceil(SPARE * turn.running[arm])
    settings = section.settings if name == section.algorithm else {}
    if arm == race.POLICY:
        name, num, settings = section.algorithm, turn.config.batch.num_candidates, section.settings
    sampler, config = catalog.find("samplers", name), catalog.configure("samplers", name, settings)
    state = sampler.prepare(config, turn.policy(), objective, turn.dataset, generator, progress)
    progress("sampling", 0, num, name)
    drawn = sampler.sample(state, num, generator, progress).tokens
    progress("sampling", num, num, name)
    return turn.space.canonical(drawn.numpy())


def _is_enumerated(turn: Turn) -> bool:
    """The space is small enough to be scored whole; with a black box, which may be dear, only if asked for."""
    batch = turn.config.batch
    is_wanted = "exhaustive_limit" in batch.model_fields_set or not any(
        needs_scorers(assay.section.algorithm) for assay in turn.assays
    )
    return is_wanted and turn.space.size <= batch.exhaustive_limit


def _best_of_space(turn: Turn, objective: Objective, n: int) -> NDArray[np.int64]:
    """The n best of the space; of several assays the first fronts, so that their ends are candidates as well."""
    if isinstance(objective, MultiObjective):
        every = np.concatenate(list(turn.space.enumerate()))
        pieces = [torch.from_numpy(piece) for piece in np.array_split(every, max(1, len(every) // SCORED_AT_ONCE))]
        values = torch.cat([objective.values(piece) for piece in pieces]).double().numpy()
        conservative = torch.cat([objective(piece).conservative for piece in pieces]).double().numpy()
        is_likely = torch.cat([objective.feasibility(piece) for piece in pieces]).numpy() >= FEASIBLE
        ranks = pareto_ranks(values) if values.shape[1] > 1 else np.zeros(len(every))
        return np.asarray(every[np.lexsort((-conservative, ranks, ~is_likely))[:n]])
    exhaustive = catalog.find("samplers", "exhaustive")
    generator = turn.generator("exhaustive")
    state = exhaustive.prepare(exhaustive.Config(), turn.prior(), objective, turn.dataset, generator)
    return np.asarray(exhaustive.sample(state, min(n, turn.space.size), generator).tokens.numpy())


def naturalness_floor(turn: Turn) -> float:
    """The quantile of the policy's ELBO below which candidates are rejected, 0 for none."""
    given, section = turn.config.filter.naturalness, turn.config.prior
    if given is not None:
        return given
    return NATURALNESS if section.corpus is not None or section.model is not None else 0.0


def _is_natural(turn: Turn, tokens: NDArray[np.int64], from_policy: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,) bool: prior ELBO at or above the floor's quantile of the policy's distinct samples, else of the prior's."""
    quantile = naturalness_floor(turn)
    if quantile == 0:
        return np.ones(len(tokens), dtype=bool)
    generator = turn.generator("filter")
    elbo = item_elbo(turn.prior(), torch.from_numpy(tokens), generator, ELBO_DRAWS).numpy()
    if from_policy.any():
        return np.asarray(elbo >= np.quantile(elbo[from_policy], quantile))
    drawn = turn.prior().decode(turn.prior().draw(NATURAL_DRAWS, generator))
    natural = item_elbo(turn.prior(), drawn, generator, ELBO_DRAWS).numpy()
    return np.asarray(elbo >= np.quantile(natural, quantile))


def filter_pool(turn: Turn) -> Outcome:
    """Candidates that are feasible, supported, natural, and neither measured nor pending."""
    document: list[tuple[str, list[str]]] = turn.ports.artifacts.get_json(turn.outputs["sample"]["pool"])
    source: dict[str, str] = {}
    for name, proposed in document:
        for sequence in proposed:
            source.setdefault(sequence, name)
    sequences = list(source)
    tokens = turn.space.canonical(turn.space.encode(sequences))
    rejected: dict[str, int] = {}
    funnel = {"distinct": len(sequences)}
    keep = turn.space.is_feasible(tokens)
    for rule in {(v.item, v.rule) for v in turn.space.violations(tokens[~keep])}:
        rejected[f"constraint {rule[1]}"] = rejected.get(f"constraint {rule[1]}", 0) + 1
    funnel["feasible"] = int(keep.sum())
    if turn.config.filter.support_gate:
        for assay in turn.assays:
            verdict = SupportGate.fit(assay.dataset).judge(tokens)
            for reason in (r for r, ok in zip(verdict.reasons, keep & ~verdict.is_supported, strict=True) if ok):
                label = reason.split(" at position")[0]
                rejected[label] = rejected.get(label, 0) + 1
            keep &= verdict.is_supported
    funnel["supported"] = int(keep.sum())
    is_natural = _is_natural(turn, tokens, np.array([source[s] == race.POLICY for s in sequences]))
    if (keep & ~is_natural).any():
        rejected["less natural than the policy's own samples"] = int((keep & ~is_natural).sum())
    keep &= is_natural
    funnel["natural"] = int(keep.sum())
    known = set.intersection(*({row.tobytes() for row in assay.dataset.tokens} for assay in turn.assays))
    known |= {row.tobytes() for row in turn.space.canonical(turn.space.alphabet.encode(turn.taken))}
    keep &= np.array([row.tobytes() not in known for row in tokens], dtype=bool)
    funnel["new"] = int(keep.sum())
    kept = [[sequences[i], source[sequences[i]]] for i in np.flatnonzero(keep)]
    if not kept:
        remedy = "loosen space.constraints, set filter.support_gate: false"
        if funnel["natural"]:
            remedy = "all of them are measured or proposed already: widen space.template"
        if funnel["distinct"] < min(turn.config.batch.size, turn.space.size):
            remedy = "the candidates repeat themselves: give the policy a leash (finetune.algorithm drakes, kl_weight)"
        raise RunFailedError(
            f"no candidate is left after filtering: {funnel}, rejected {rejected}",
            hint=f"{remedy}, or raise batch.num_candidates",
        )
    worst = dict(sorted(rejected.items(), key=lambda item: -item[1])[:20])
    return Outcome({"kept": turn.ports.artifacts.put_json(kept), "funnel": funnel, "rejected": worst})


def score(turn: Turn, sequences: list[str]) -> Pool:
    """The final models' view of candidates; several assays are one conservative value in standard deviations."""
    tokens = turn.space.encode(sequences)
    on_torch, objective = torch.from_numpy(tokens), turn.objective("final")
    value = objective(on_torch)
    columns = (value.mean, value.std, value.conservative)
    mean, std, conservative = (column.double().numpy() for column in columns)
    pool = Pool(turn.space, tokens, mean, std, conservative)
    if not isinstance(objective, MultiObjective):
        return pool
    return replace(
        pool,
        values=objective.values(on_torch).double().numpy(),
        feasibility=objective.feasibility(on_torch).double().numpy(),
        front=objective.front,
    )


def _choose(
    turn: Turn, pool: Pool, sources: list[str], taken: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Each arm's share of the batch, (<= batch size,) int64: the policy's by the acquisition, a sampler's as drawn.

    Wells that an arm cannot fill go to the best of all that is left.
    """
    section, batch = turn.config.acquisition, turn.config.batch
    by_acquisition = catalog.find("acquisition", section.algorithm)
    config = catalog.configure("acquisition", section.algorithm, section.settings)
    arm_of = np.array([race.POLICY if source == race.EXHAUSTIVE else source for source in sources])
    chosen = np.zeros(0, dtype=np.int64)
    for arm, share in [*turn.running.items(), ("", batch.size)]:
        num = min(share, batch.size - len(chosen))
        if num == 0:
            continue
        is_left = np.ones(len(pool.tokens), dtype=bool) if not arm else arm_of == arm
        for row in pool.tokens[chosen]:
            is_left &= distance(pool.space, pool.tokens, row) >= max(batch.min_distance, 1)
        rows = np.flatnonzero(is_left)
        is_ranked = arm in (race.POLICY, "")
        how, settings = (by_acquisition, config) if is_ranked else (as_drawn, as_drawn.Config())
        picked = how.select(settings, pool.take(rows), num, batch.min_distance, taken, rng)
        chosen = np.concatenate([chosen, rows[picked]])
    return chosen


def select(turn: Turn) -> Outcome:
    """The batch: chosen, screened, and chosen again without what the screening stopped."""
    kept: list[tuple[str, str]] = turn.ports.artifacts.get_json(turn.outputs["filter"]["kept"])
    batch, sequences, sources = turn.config.batch, [s for s, _ in kept], [source for _, source in kept]
    pool = score(turn, sequences)
    measured = turn.space.canonical(turn.space.alphabet.encode(turn.taken)) if turn.taken else pool.tokens[:0]
    stopped: dict[str, str] = {}
    while True:
        rng = np.random.default_rng(turn.seed("select"))
        taken = np.concatenate([measured, turn.space.encode(list(stopped))])
        chosen = _choose(turn, pool, sources, taken, rng)
        names = [sequences[i] for i in chosen]
        verdicts = turn.ports.screener.screen(names, turn.version.alphabet)
        refused = {name: why for name, (is_cleared, why) in zip(names, verdicts, strict=True) if not is_cleared}
        if not refused:
            break
        stopped |= refused
    if not names:
        raise RunFailedError("the screening stopped every candidate", hint="see the deny-list; no batch was proposed")
    if len(names) < batch.size:
        why = f"only {len(names)} of {batch.size} designs: no more are new, cleared and far enough apart"
        turn.ports.progress("choosing the batch", len(names), batch.size, why)
    if pool.feasibility is not None:
        unlikely = int((pool.feasibility[chosen] < FEASIBLE).sum())
        if unlikely:
            why = (
                f"{unlikely} of {len(chosen)} designs are more likely than not to miss a threshold: no better are left"
            )
            turn.ports.progress("choosing the batch", len(names), batch.size, why)
    batch_rows = _describe(turn, pool, chosen, [sources[i] for i in chosen])
    screening = {"tool": turn.ports.screener.name, "version": turn.ports.screener.version, "stopped": stopped}
    return Outcome({"designs": turn.ports.artifacts.put_json(batch_rows), "screening": screening, "num": len(names)})


def _describe(turn: Turn, pool: Pool, chosen: NDArray[np.int64], sources: list[str]) -> list[dict[str, Any]]:
    tokens = torch.from_numpy(pool.tokens[chosen])
    elbo = item_elbo(turn.prior(), tokens, turn.generator("elbo"))
    per_token = elbo / max(1, len(turn.space.free_positions()))
    names = turn.space.decode(pool.tokens[chosen])
    views = {assay.name: _view(turn, assay, tokens) for assay in turn.assays}
    rows = []
    for row, (i, source) in enumerate(zip(chosen.tolist(), sources, strict=True)):
        by_assay = {name: {key: float(column[row]) for key, column in view.items()} for name, view in views.items()}
        own = by_assay[turn.own.name]
        details: dict[str, Any] = {"judged": own.pop("judged"), "elbo_per_token": float(per_token[row])}
        if pool.feasibility is not None:
            details |= {"objective": float(pool.conservative[i]), "feasibility": float(pool.feasibility[i])}
        if len(views) > 1:
            details["assays"] = {name: view for name, view in by_assay.items() if name != turn.own.name}
        design_id = f"{turn.campaign.name}-r{turn.round.number}-{row + 1:03d}"
        rows.append(
            {
                "design_id": design_id,
                "rank": row + 1,
                "sequence": names[row],
                **own,
                "source": source,
                "details": details,
            }
        )
    return rows


def _view(turn: Turn, assay: Assay, tokens: Tensor) -> dict[str, Tensor]:
    """What the models of one assay say of designs (n, L), in the assay's unit and direction."""
    chosen = turn.outputs["sweep"]
    goal = next(g for g in turn.plan("final", chosen["kind"], chosen["scale"]).goals if g.name == assay.name)
    objective = goal.conservative(chosen["kind"], chosen["scale"], turn.ports.scorers)
    prediction = objective.reward.predict(tokens)
    value = objective.value_of(tokens, prediction)
    return {
        "predicted_mean": assay.sign * value.mean,
        "predicted_std": prediction.std * goal.interval_scale,
        "conservative": assay.sign * value.conservative,
        "judged": assay.sign * turn.reward("judge", assay).predict(tokens).mean,
    }
