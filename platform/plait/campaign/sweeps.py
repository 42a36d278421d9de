"""The sweep of a round: trials of its fine-tuning, judged by the judge's lower bound under floors, one chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from plait.campaign import catalog
from plait.campaign.jobs import FinetuneJob, ObjectivePlan, judge_algorithm
from plait.campaign.ports import Ports
from plait.campaign.ranges import SCALE, with_values
from plait.campaign.rounds import latest_round
from plait.campaign.stage_runs import scratch_key
from plait.campaign.sweep_ports import Axis, TrialOutcome
from plait.campaign.sweep_results import (
    FAILED,
    FINISHED,
    INFEASIBLE,
    STOPPED,
    SweepResult,
    TrialResult,
    choose,
    explain,
    read_sweep,
    with_front,
)
from plait.campaign.trials import Judge, Plan, elbo_floor
from plait.campaign.turns import NewRun, Outcome, Turn
from plait.design.errors import CorruptArtifactError, RunFailedError, WrongStateError
from plait.rewards.support_gate import SupportGate

FLOOR_SAMPLES = 256
"""Designs of the prior by which the floor of the ELBO is set."""
_SHOWN = ("score", "judged", "proxy")


def sweep(turn: Turn, base: FinetuneJob, axes: Mapping[str, Axis]) -> Outcome:
    """Run the trials and choose one; its policy is the round's.

    Returns:
        Outputs of the stage: sweep (the document of a SweepResult), trial, policy, curves, settings, scale, and a
        reason for the scale where it was swept; a run for MLflow of every trial.

    Raises:
        RunFailedError: All trials failed, or none meets the floors.
    """
    plan, ports = _plan(turn, base, axes), turn.ports
    key = scratch_key(turn.campaign, turn.round.number, "sweep")
    outcomes = ports.executor.sweep(
        plan, run_id=key, storage=ports.artifacts.shared(key), task="sweeping", progress=ports.progress
    )
    if all(outcome.error for outcome in outcomes):
        ports.artifacts.drop_scratch(key)  # what was wrong may be put right: the next attempt starts anew
    found = _result(turn, plan, outcomes)
    chosen, job = outcomes[found.chosen], plan.job(found.best.values)
    try:
        ports.artifacts.path(chosen.artifact)
    except CorruptArtifactError as error:  # a sweep that was left lying for long, and tidied away in part
        ports.artifacts.drop_scratch(key)
        raise RunFailedError(
            f"the policy of trial {found.chosen} is kept no more", hint="run again: the round is swept anew"
        ) from error
    ports.progress("sweeping", len(outcomes), len(outcomes), found.reason)
    return Outcome(
        {
            "sweep": ports.artifacts.put_json(asdict(found)),
            "trial": found.chosen,
            "policy": chosen.artifact,
            "curves": ports.artifacts.put_json(chosen.curves),
            "settings": job.settings,
            "scale": job.plan.scale,
            **({"reason": "the judge's choice among the trials of the sweep"} if SCALE in axes else {}),
        },
        runs=tuple(_told(turn, found, trial, outcome) for trial, outcome in zip(found.trials, outcomes, strict=True)),
    )


def show(ports: Ports, name: str, number: int | None = None) -> SweepResult:
    """The sweep of a round, of the latest that swept by default.

    Raises:
        NotFoundError: No such campaign.
        WrongStateError: No such round, or it swept nothing.
    """
    with ports.repository.begin() as uow:
        uow.campaign(name)
        if number is not None:
            latest_round(uow, name, number)
        stages = [s for s in uow.stages(name, number) if s.stage == "sweep" and "sweep" in s.outputs]
    if not stages:
        where = f"round {number} of '{name}'" if number is not None else f"'{name}'"
        raise WrongStateError(
            f"{where} has swept nothing",
            hint="a round sweeps what the configuration leaves open: conservatism.scale or finetune.kl_weight auto, or "
            "a range {low, high, log} in the place of a number",
        )
    return read_sweep(ports.artifacts.get_json(stages[-1].outputs["sweep"]))


def _plan(turn: Turn, base: FinetuneJob, axes: Mapping[str, Axis]) -> Plan:
    section = turn.config.sweep
    judge = Judge(
        plan=_judge_plan(turn, section.pessimism),
        proxy=base.plan,
        gates=tuple(SupportGate.fit(assay.dataset) for assay in turn.assays) if turn.config.filter.support_gate else (),
        section=section,
        min_elbo=elbo_floor(turn.prior(), section.elbo_quantile, FLOOR_SAMPLES, turn.generator("sweep/floor"))
        if section.elbo_quantile > 0
        else None,
        seed=turn.seed("sweep/judge"),
    )
    longest = with_values(base.settings, {place: axis.high for place, axis in axes.items()})
    num_updates = int(catalog.configure("finetune", base.algorithm, longest).num_updates)
    return Plan(axes, base, judge, section, num_updates, turn.config.seed, turn.round.number, turn.ports.artifacts)


def _judge_plan(turn: Turn, pessimism: float) -> ObjectivePlan:
    """The judge's view of the round's objective: of every assay the judge's model, less its own members' spread."""
    plan = turn.plan("judge", "boot", pessimism)
    goals = tuple(
        replace(
            goal,
            reward_algorithm=judge_algorithm(assay.section.algorithm),
            dataset=assay.halves[1],
            interval_scale=float(turn.fits(assay)["judge_calibration"]["interval_scale"]),
        )
        for goal, assay in zip(plan.goals, turn.assays, strict=True)
    )
    return replace(plan, goals=goals)


def _result(turn: Turn, plan: Plan, outcomes: list[TrialOutcome]) -> SweepResult:
    is_joined = len(turn.assays) > 1 or turn.own.threshold is not None
    sign = 1.0 if is_joined else turn.sign
    trials = with_front([_trial(outcome, sign) for outcome in outcomes], sign)
    chosen = choose(trials, sign)
    found = SweepResult(
        campaign=turn.campaign.name,
        round=turn.round.number,
        finetuner=plan.base.algorithm,
        axes={place: (axis.low, axis.high) for place, axis in plan.axes.items()},
        unit="SD" if is_joined else turn.version.unit,
        goal="maximize" if sign > 0 else "minimize",
        pessimism=plan.section.pessimism,
        min_unique=plan.section.min_unique,
        min_supported=plan.section.min_supported,
        min_elbo=plan.judge.min_elbo,
        trials=trials,
        chosen=chosen.number,
        reason="",
    )
    return replace(found, reason=explain(found))


def _trial(outcome: TrialOutcome, sign: float) -> TrialResult:
    trial = outcome.trial
    if outcome.error:
        return TrialResult(trial.number, trial.values, FAILED, reason=outcome.error)
    look = dict(outcome.looks[-1])
    state = INFEASIBLE if look.pop("shortfall") > 0 else STOPPED if outcome.is_stopped else FINISHED
    look |= {name: sign * look[name] for name in _SHOWN}
    return TrialResult(
        trial.number,
        trial.values,
        state,
        error=look.pop("judged_error"),
        missed=tuple(look.pop("missed")),
        policy=outcome.artifact,
        **look,
    )


def _told(turn: Turn, found: SweepResult, trial: TrialResult, outcome: TrialOutcome) -> NewRun:
    """What MLflow hears of a trial."""
    sign = 1.0 if found.goal == "maximize" else -1.0
    curves = {
        name: [(look["update"], (sign if name in _SHOWN else 1.0) * look[name]) for look in outcome.looks]
        for name in (*_SHOWN, "kl", "unique", "elbo", "supported")
    }
    params: dict[str, Any] = {**trial.values, "trial": trial.number, "state": trial.state, "finetuner": found.finetuner}
    params |= {"is_chosen": trial.number == found.chosen} | ({"reason": trial.reason} if trial.reason else {})
    return NewRun(f"trial-{trial.number}", params, {name: points for name, points in curves.items() if points})
