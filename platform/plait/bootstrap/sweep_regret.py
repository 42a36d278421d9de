"""How good is the chosen point of a sweep? `python -m plait.bootstrap.sweep_regret --output DIR [--seeds 0,1,2]`.

A campaign on a benchmark task leaves its leash (and, with --scale, its pessimism) open; every trial's policy is then
asked for the truth, which no sweep ever sees. Written to DIR: sweep_regret.json and a picture a seed. A seed that is
done is not computed again; one that was interrupted goes on.

    regret = (best true mean of the sweep - true mean of the chosen) / best true mean of the sweep

The truth is that of fresh designs that pass constraints and support gate, as a round's batch has to; that of all
designs stands beside it. Best is taken over all trials, over those within the floors, and over those that finished.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

if TYPE_CHECKING:
    from plait.bootstrap.home import Home
    from plait.campaign.sweep_results import SweepResult

CAMPAIGN = DATASET = "sweep"
NUM_DESIGNS = 1_024
"""Fresh designs of every policy that are asked for the truth."""


@dataclass(frozen=True)
class TrueTrial:
    """A trial with the truth about its policy.

    Attributes:
        number: Of the trial.
        state: finished, stopped, "below a floor" or failed.
        values: What was tried.
        score: The judge's lower bound.
        proxy: What the climbed reward predicts.
        kl: Path KL, nats.
        unique: Share of distinct designs.
        true_mean: Of designs that pass constraints and gate (of all, where none does).
        true_q90: Their 90% quantile.
        true_mean_of_all: Of all designs.
    """

    number: int
    state: str
    values: dict[str, float]
    score: float
    proxy: float
    kl: float
    unique: float
    true_mean: float
    true_q90: float
    true_mean_of_all: float


@dataclass(frozen=True)
class Regret:
    """A seed's sweep; regrets as shares, see the module; rank 1 is the truly best trial."""

    seed: int
    chosen: int
    regret: float
    regret_within_floors: float
    regret_of_finished: float
    rank: int
    spearman: float
    offline_mean: float
    offline_best: float
    seconds: float
    trials: tuple[TrueTrial, ...]


def run_seed(task_name: str, seed: int, config: dict[str, Any], folder: Path) -> Regret:
    """The sweep of one seed and the truth about it."""
    from plait.bootstrap.benchmark_cells import NoTracker
    from plait.bootstrap.home import create_home
    from plait.campaign import sweeps
    from plait.campaign.proposing import propose

    started = time.monotonic()
    with create_home(folder / "home", actor="sweep regret", progress=_say) as home:
        _create(home, task_name, seed, config)
        propose(replace(home.ports, tracker=NoTracker()), CAMPAIGN)
        found = sweeps.show(home.ports, CAMPAIGN)
        trials = _with_truth(home, task_name, found)
        _draw(home, folder / "sweep.png")
    return _regret(seed, task_name, found, trials, time.monotonic() - started)


def _say(task: str, done: int, total: int, message: str) -> None:
    _print(f"  {task} {done}/{total} {message}")


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _create(home: Home, task_name: str, seed: int, config: dict[str, Any]) -> None:
    from plait.benchmarks.cells import alphabet_name
    from plait.benchmarks.tasks import find_task
    from plait.campaign.datasets import import_dataset

    if CAMPAIGN in {campaign.name for campaign in home.campaign.list()}:
        return
    task = find_task(task_name)
    import_dataset(
        home.registry,
        task.offline(seed),
        dataset=DATASET,
        alphabet=alphabet_name(task.space.alphabet),
        unit=task.unit,
        goal="maximize",
        mode="new",
        actor=home.settings.actor,
    )
    home.campaign.create({"name": CAMPAIGN, "dataset": DATASET, "seed": seed, "rounds": 1, **config})


def _with_truth(home: Home, task_name: str, found: SweepResult) -> list[TrueTrial]:
    import torch

    from plait.benchmarks.tasks import find_task
    from plait.campaign.jobs import load_prior
    from plait.campaign.proposing import open_turn
    from plait.rewards.support_gate import SupportGate

    ports, task = home.ports, find_task(task_name)
    with ports.repository.begin() as uow:
        turn = open_turn(ports, uow, CAMPAIGN, uow.rounds(CAMPAIGN)[0], {})
    gate, known = SupportGate.fit(turn.dataset), []
    for trial in found.trials:
        if not trial.policy:
            continue
        policy = load_prior(turn.config.prior.algorithm, ports.artifacts.path(trial.policy), turn.space)
        drawn = policy.decode(policy.draw(NUM_DESIGNS, torch.Generator().manual_seed(0))).numpy()
        passes = turn.space.is_feasible(drawn) & gate.judge(drawn).is_supported
        truth = task.truth(drawn)
        counted = truth[passes] if passes.any() else truth
        figures = (float(v) for v in (counted.mean(), np.quantile(counted, 0.9), truth.mean()))
        shown = (float(v or 0.0) for v in (trial.score, trial.proxy, trial.kl, trial.unique))
        known.append(TrueTrial(trial.number, trial.state, trial.values, *shown, *figures))
    return known


def _draw(home: Home, file: Path) -> None:
    from plait.bootstrap.sweeps import Sweeps

    Sweeps(home).show(CAMPAIGN, figure=file)


def _regret(seed: int, task_name: str, found: SweepResult, trials: list[TrueTrial], seconds: float) -> Regret:
    from plait.benchmarks.tasks import find_task
    from plait.campaign.sweep_results import FINISHED, INFEASIBLE
    from plait.metrics.ranks import spearman

    chosen = next(trial for trial in trials if trial.number == found.chosen).true_mean
    kept = [trial for trial in trials if trial.state != INFEASIBLE]
    finished = [trial for trial in trials if trial.state == FINISHED]

    def regret(among: list[TrueTrial]) -> float:
        best = max(trial.true_mean for trial in among)
        return (best - chosen) / best if best > 0 else 0.0

    offline = find_task(task_name).offline(seed).values
    return Regret(
        seed=seed,
        chosen=found.chosen,
        regret=regret(trials),
        regret_within_floors=regret(kept),
        regret_of_finished=regret(finished),
        rank=1 + sum(trial.true_mean > chosen for trial in trials),
        spearman=spearman(np.array([t.score for t in finished]), np.array([t.true_mean for t in finished])),
        offline_mean=float(offline.mean()),
        offline_best=float(offline.max()),
        seconds=round(seconds, 1),
        trials=tuple(trials),
    )


def table(of: Regret) -> str:
    """A seed's trials by truth, best first, as text."""
    lines = ["trial  state          score   proxy     KL  unique  true mean  true q90  of all  values"]
    for trial in sorted(of.trials, key=lambda t: -t.true_mean):
        mark = "*" if trial.number == of.chosen else " "
        values = ", ".join(f"{place.rpartition('.')[2]} {value:.4g}" for place, value in trial.values.items())
        lines.append(
            f"{trial.number:4d}{mark}  {trial.state:13s} {trial.score:6.3f}  {trial.proxy:6.3f} {trial.kl:6.1f}  "
            f"{trial.unique:6.2f}  {trial.true_mean:9.4f}  {trial.true_q90:8.4f}  {trial.true_mean_of_all:6.4f}  "
            f"{values}"
        )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    from plait.benchmarks.methods import merge

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--task", default="ehrlich-s4-l50")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--scale", action="store_true", help="sweep BRAID's pessimism as well")
    parser.add_argument("--config", type=Path, help="YAML, laid over the campaign's configuration")
    given = parser.parse_args()
    config: dict[str, Any] = {
        "finetune": {"kl_weight": "auto", "settings": {"num_updates": given.updates}},
        "sweep": {"num_trials": given.trials},
        "arms": ["policy"],
        "conservatism": {"kind": "boot", "scale": "auto"} if given.scale else {"kind": "none"},
    }
    if given.config is not None:
        config = merge(config, yaml.safe_load(given.config.read_text()))
    found = []
    for seed in map(int, given.seeds.split(",")):
        found.append(run_seed(given.task, seed, config, given.output / f"seed-{seed}"))
        _print(f"\nseed {seed}\n{table(found[-1])}\n{_line(found[-1])}")
    document = {"task": given.task, "config": config, "seeds": [asdict(each) for each in found]}
    (given.output / "sweep_regret.json").write_text(json.dumps(document, indent=1) + "\n")
    _print("\n" + "\n".join(f"seed {each.seed}: {_line(each)}" for each in found))


def _line(of: Regret) -> str:
    return (
        f"regret {of.regret:.1%} of all, {of.regret_within_floors:.1%} within the floors, {of.regret_of_finished:.1%} "
        f"of the finished; rank {of.rank} of {len(of.trials)}; {of.seconds:.0f} s"
    )


if __name__ == "__main__":
    main()
