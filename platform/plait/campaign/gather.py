"""Gathers what a report shows from the registry; nothing is computed that a stage has already recorded."""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from plait.campaign import comparison
from plait.campaign.assays import Assay
from plait.campaign.ports import Laboratory, Ports
from plait.campaign.proposing import open_turn
from plait.campaign.records import Design, Result, Round
from plait.campaign.report_data import (
    AssayAim,
    DataBenchmark,
    FurtherAssay,
    MethodResult,
    ReportData,
    RoundSummary,
    TrajectoryPoint,
)
from plait.campaign.sweep_results import read_sweep
from plait.campaign.turns import Turn
from plait.design.errors import WrongStateError
from plait.metrics.diversity import mean_pairwise_distance, novelty
from plait.metrics.intervals import coverage
from plait.metrics.ranks import spearman

FEWEST_READINGS = 8
LOGO_SIZE = 100


def gather(ports: Ports, name: str, laboratory: Laboratory | None = None) -> ReportData:
    """Everything the report of a campaign shows.

    Args:
        ports: The world.
        name: The campaign.
        laboratory: A simulated lab that knows the truth of every design, where there is one.

    Raises:
        NotFoundError: No such campaign.
        WrongStateError: No round was proposed yet.
    """
    with ports.repository.begin() as uow:
        campaign, rounds = uow.campaign(name), [r for r in uow.rounds(name) if uow.designs(name, r.number)]
        if not rounds:
            raise WrongStateError(f"'{name}' has proposed nothing yet", hint=f"run: plait round propose {name}")
        turns = [open_turn(ports, uow, name, r, {}) for r in rounds]
        designs, results = uow.designs(name), uow.results(name)
        stages = {(s.round, s.stage): s.outputs for s in uow.stages(name)}
        actors = {a.round: a.actor for a in uow.approvals(name)}
    first = turns[0]
    truth = laboratory.truth() if laboratory else {}
    best_first = first.dataset.values.argsort()[::-1]
    methods = [_method(first, row, seconds, laboratory, truth) for row, seconds in comparison.results(ports, name)]
    summaries = [_summary(t, r, designs, results, stages, actors) for t, r in zip(turns, rounds, strict=True)]
    offline = first.space.decode(first.dataset.tokens[best_first[:LOGO_SIZE]])
    return ReportData(
        campaign=name,
        assay=first.config.objective.assay or campaign.dataset,
        dataset=campaign.dataset,
        dataset_version=str(first.version.number),
        unit=first.version.unit,
        goal=first.goal,
        alphabet_letters=first.space.alphabet.letters,
        template=first.space.template,
        space_size=first.space.size,
        notes=campaign.notes,
        has_truth=laboratory is not None,
        offline_best=first.sign * float(first.dataset.values.max()),
        offline_median=first.sign * float(np.median(first.dataset.values)),
        top_threshold=_threshold(first, truth),
        benchmark=_benchmark(ports, stages[rounds[0].number, "benchmark"]),
        methods=tuple(method for method, _ in methods),
        trajectories=tuple(point for _, points in methods for point in points),
        rounds=tuple(summaries),
        logo_offline=tuple(offline),
        logo_prior=next((m.sequences[:LOGO_SIZE] for m, _ in methods if m.method == "prior"), ()),
        logo_designs=summaries[-1].sequences[:LOGO_SIZE],
        plait_version=installed_version("plait"),
        created_at=ports.clock.now().strftime("%Y-%m-%d %H:%M UTC"),
        aims=aims_of(first.assays, first.config.objective.assay) if len(first.assays) > 1 else (),
        scalarisation=first.config.objective.scalarisation,
        sweeps=tuple(
            read_sweep(ports.artifacts.get_json(outputs["sweep"]))
            for r in rounds
            if "sweep" in (outputs := stages[r.number, "sweep"])
        ),
    )


def aims_of(assays: tuple[Assay, ...], own_name: str | None = None) -> tuple[AssayAim, ...]:
    """What is wanted of each of several assays, with their offline readings brought together by item.

    Args:
        assays: The campaign's own first.
        own_name: Name of the own assay in reports; its dataset's by default.
    """
    folded = [assay.dataset for assay in assays]
    read = [
        dict(zip(map(bytes, data.tokens), (assay.sign * data.values).tolist(), strict=True))
        for assay, data in zip(assays, folded, strict=True)
    ]
    items = list(dict.fromkeys(item for values in read for item in values))
    return tuple(
        AssayAim(
            assay=(own_name if assay is assays[0] else None) or assay.name,
            dataset_version=str(assay.version.number),
            unit=assay.version.unit,
            goal=assay.goal,
            weight=assay.weight,
            threshold=assay.threshold,
            offline=tuple(values.get(item) for item in items),
        )
        for assay, values in zip(assays, read, strict=True)
    )


def _benchmark(ports: Ports, outputs: dict[str, Any]) -> DataBenchmark:
    document = ports.artifacts.get_json(outputs["benchmark"])
    return TypeAdapter(DataBenchmark).validate_python(document)


def _threshold(turn: Turn, truth: dict[str, float]) -> float | None:
    """The value above which the best 1% of all known sequences lie (below which, where the goal is to minimise)."""
    if not truth:
        return None
    return turn.sign * float(np.quantile(turn.sign * np.array(list(truth.values())), 0.99))


def _method(
    turn: Turn, row: dict[str, Any], seconds: float, laboratory: Laboratory | None, truth: dict[str, float]
) -> tuple[MethodResult, list[TrajectoryPoint]]:
    row, name = dict(row), row["method"]
    points = [
        TrajectoryPoint(
            method=name,
            update=look["update"],
            kl=look["kl"],
            proxy=look["proxy"],
            conservative=look["conservative"],
            judged=look["judged"],
            measured=_mean_measured(look["sequences"], laboratory),
        )
        for look in row.pop("looks")
    ]
    sequences = tuple(row.pop("sequences"))
    measured = tuple(laboratory.measure(sequences)) if laboratory else None
    threshold, known = _threshold(turn, truth), [truth[s] for s in sequences if s in truth]
    in_top = [turn.sign * value >= turn.sign * threshold for value in known] if threshold is not None else []
    result = TypeAdapter(MethodResult).validate_python(
        row
        | {
            "sequences": sequences,
            "measured": measured,
            "top_share": float(np.mean(in_top)) if in_top else None,
            "seconds": seconds,
        }
    )
    return result, points


def _mean_measured(sequences: list[str], laboratory: Laboratory | None) -> float | None:
    known = [v for v in laboratory.measure(sequences) if v is not None] if laboratory else []
    return float(np.mean(known)) if known else None


def _summary(
    turn: Turn,
    of: Round,
    designs: list[Design],
    results: list[Result],
    stages: dict[tuple[int, str], dict[str, Any]],
    actors: dict[int, str],
) -> RoundSummary:
    batch = [d for d in designs if d.round == of.number]
    predicted, std = tuple(d.predicted_mean for d in batch), tuple(d.predicted_std for d in batch)
    measured = _measured(batch, results, turn.own)
    skill, covered = _agreement(predicted, std, measured)
    tokens = turn.space.encode([d.sequence for d in batch])
    sampled, funnel = stages[of.number, "sample"], stages[of.number, "filter"]
    chosen = stages[of.number, "sweep"]
    return RoundSummary(
        number=of.number,
        state=of.state,
        funnel=(
            ("sampled", sampled["num_sampled"]),
            ("enumerated", sampled["num_enumerated"]),
            *funnel["funnel"].items(),
            ("selected", len(batch)),
        ),
        rejected=funnel["rejected"]
        | {f"screening: {why}": 1 for why in stages[of.number, "select"]["screening"]["stopped"].values()},
        sequences=tuple(d.sequence for d in batch),
        predicted_mean=predicted,
        predicted_std=std,
        measured=measured,
        diversity=mean_pairwise_distance(tokens),
        novelty=float(np.median(novelty(tokens, turn.dataset.tokens))),
        held_out_spearman=stages[of.number, "fit_reward"]["calibration"]["spearman"],
        measured_spearman=skill,
        coverage_90=covered,
        actor=actors.get(of.number, ""),
        conservatism="none" if chosen["kind"] == "none" else f"{chosen['kind']}, scale {chosen['scale']:g}",
        kl=stages[of.number, "finetune"]["last"].get("kl"),
        unique_fraction=stages[of.number, "finetune"]["attempts"][-1]["unique_fraction"],
        further=tuple(_further(assay, batch, results) for assay in turn.assays[1:]),
    )


def _further(assay: Assay, batch: list[Design], results: list[Result]) -> FurtherAssay:
    views = [d.details["assays"][assay.name] for d in batch]
    predicted, std = tuple(v["predicted_mean"] for v in views), tuple(v["predicted_std"] for v in views)
    measured = _measured(batch, results, assay)
    return FurtherAssay(
        assay.name, assay.version.unit, assay.goal, predicted, std, measured, *_agreement(predicted, std, measured)
    )


def _measured(batch: list[Design], results: list[Result], assay: Assay) -> tuple[float | None, ...]:
    """The mean reading of each design in an assay."""
    values: dict[str, list[float]] = {}
    for result in results:
        if result.value is not None and result.assay == assay.name:
            values.setdefault(result.design_id, []).append(result.value)
    return tuple(float(np.mean(values[d.design_id])) if d.design_id in values else None for d in batch)


def _agreement(
    predicted: tuple[float, ...], std: tuple[float, ...], measured: tuple[float | None, ...]
) -> tuple[float | None, float | None]:
    """Spearman and 90% coverage of predictions against readings; None with too few readings."""
    known = np.array([v is not None for v in measured])
    readings = np.array([v for v in measured if v is not None])
    if len(readings) < FEWEST_READINGS:
        return None, None
    mean = np.array(predicted)[known]
    return spearman(mean, readings), coverage(readings, mean, np.array(std)[known])
