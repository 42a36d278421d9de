"""What a sweep found: its trials, which of them no other beats, the one chosen, and why in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from plait.design.errors import RunFailedError
from plait.design.records import Goal
from plait.metrics.hypervolume import pareto_ranks

FINISHED, STOPPED, INFEASIBLE, FAILED = "finished", "stopped", "below a floor", "failed"
"""States of a trial: trained to the end; ended early, as others did better; misses a floor; could not be trained."""


@dataclass(frozen=True)
class TrialResult:
    """One trial; values in the sweep's unit and direction, as the judge saw the policy last; None where it failed.

    Attributes:
        number: From 0.
        values: What was tried, by place in the configuration.
        state: finished, stopped, "below a floor" or failed.
        update: Updates done when it was judged last.
        score: Judge's mean less `pessimism` of its standard deviations (more, where lower is better), mean of designs.
        judged: Judge's mean, mean of designs.
        error: Standard error of score, by the choice of designs.
        proxy: What the reward that was climbed predicts, mean of designs.
        kl: Path KL against the prior, nats per design.
        unique: Share of distinct designs.
        elbo: Mean prior ELBO, nats per free position.
        supported: Share of designs that constraints and support gate let through.
        missed: Floors that it misses.
        is_on_front: No finished trial is judged better at a smaller or equal path KL.
        reason: Why it failed, else "".
        policy: Artifact, "" where it failed.
    """

    number: int
    values: dict[str, float]
    state: str
    update: int = 0
    score: float | None = None
    judged: float | None = None
    error: float | None = None
    proxy: float | None = None
    kl: float | None = None
    unique: float | None = None
    elbo: float | None = None
    supported: float | None = None
    missed: tuple[str, ...] = ()
    is_on_front: bool = False
    reason: str = ""
    policy: str = ""


@dataclass(frozen=True)
class SweepResult:
    """A round's sweep.

    Attributes:
        campaign: Its name.
        round: Number.
        finetuner: The algorithm of every trial.
        axes: Place in the configuration -> (low, high).
        unit: Of score, judged and proxy.
        goal: Which way is better.
        pessimism: Judge's standard deviations between judged and score.
        min_unique: Floor of the share of distinct designs.
        min_elbo: Floor of the mean prior ELBO, nats per free position, None for none.
        trials: By number.
        chosen: Number of the chosen trial.
        reason: Why, in words.
        min_supported: Floor of the share of designs that pass constraints and support gate.
    """

    campaign: str
    round: int
    finetuner: str
    axes: dict[str, tuple[float, float]]
    unit: str
    goal: Goal
    pessimism: float
    min_unique: float
    min_elbo: float | None
    trials: tuple[TrialResult, ...]
    chosen: int
    reason: str
    min_supported: float = 0.0

    @property
    def best(self) -> TrialResult:
        """The chosen trial."""
        return self.trials[self.chosen]


def read_sweep(document: Any) -> SweepResult:
    """A sweep from its JSON document."""
    return TypeAdapter(SweepResult).validate_python(document)


def choose(trials: Sequence[TrialResult], sign: float) -> TrialResult:
    """The finished trial that the judge scores best; of equals the first.

    Raises:
        RunFailedError: No trial was finished within the floors.
    """
    finished = [trial for trial in trials if trial.state == FINISHED]
    if finished:
        return max(finished, key=lambda trial: (sign * _known(trial.score), -trial.number))
    failed = [trial for trial in trials if trial.state == FAILED]
    if len(failed) == len(trials):
        raise RunFailedError(
            f"all {len(trials)} trials of the sweep failed: {failed[0].reason}",
            hint="correct the ranges, or what the reason says; round propose sweeps again what failed",
        )
    missed = sorted({name for trial in trials for name in trial.missed})
    raise RunFailedError(
        f"no trial of the sweep meets the floors: all miss {' or '.join(missed)}",
        hint="raise the upper end of finetune.kl_weight (a shorter leash), or lower one of sweep.min_unique, "
        "min_supported, elbo_quantile",
    )


def with_front(trials: Sequence[TrialResult], sign: float) -> tuple[TrialResult, ...]:
    """Trials with the front marked: no other finished one is judged better at a smaller or equal path KL."""
    finished = [trial for trial in trials if trial.state == FINISHED]
    points = np.array([(sign * _known(t.score), -_known(t.kl)) for t in finished]).reshape(-1, 2)
    on_front = {t.number for t, rank in zip(finished, pareto_ranks(points), strict=True) if rank == 0}
    return tuple(replace(trial, is_on_front=trial.number in on_front) for trial in trials)


def explain(sweep: SweepResult) -> str:
    """Why the chosen trial was chosen, for someone who makes the designs."""
    best, unit = sweep.best, f" {sweep.unit}" if sweep.unit else ""
    num_finished = sum(trial.state == FINISHED for trial in sweep.trials)
    said = [
        f"Trial {best.number} ({_values(best.values)}) was chosen: a judge, which learnt from other sequences than the "
        f"model that was climbed, expects {_known(best.judged):.4g}{unit} of its designs and, read with caution, "
        f"{_known(best.score):.4g}, the best of the {num_finished} trials that were tuned to the end within the "
        f"floors. {_known(best.unique):.0%} of its designs differ from each other, and the prior finds them natural "
        "enough."
    ]
    told = [trial for trial in sweep.trials if trial.proxy is not None]
    sign = 1.0 if sweep.goal == "maximize" else -1.0
    loudest = max(told, key=lambda trial: sign * _known(trial.proxy))
    if loudest.number != best.number:
        what = f"the judge expects only {_known(loudest.score):.4g} of it, read with caution"
        if loudest.missed:
            what = f"it misses a floor ({', '.join(loudest.missed)})"
        elif sign * _known(loudest.score) >= sign * _known(best.score):
            what = "it was ended before its time"
        said.append(
            f"Trial {loudest.number} promises most by the climbed model ({_known(loudest.proxy):.4g}), but {what}."
        )
    return " ".join(said)


def _values(values: Mapping[str, float]) -> str:
    return ", ".join(f"{place.rpartition('.')[2]} {value:.3g}" for place, value in values.items())


def _known(value: float | None) -> float:
    return math.nan if value is None else value
