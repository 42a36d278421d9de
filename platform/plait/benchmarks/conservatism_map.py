"""When conservatism pays: `python -m plait.benchmarks.conservatism_map --output DIR [--tasks a,b] [--quick]`.

Measured landscapes, offline sets of several kinds (Situation), a reward fitted on each, every uncertainty at scales
from optimism to pessimism, every leash: the optimum of each objective is known in closed form (_map_policies), so what
is compared is what the methods aim at. Written to DIR: policies.parquet, batches.parquet, correlations.parquet,
choices.parquet, map.md and figures. A cell (task, situation, seed) that is done is not computed again.

    STRL: no leash, nothing subtracted    DRAKES: leash    BRAID-Boot, BRAID-Bonus: leash, spread or elliptical bonus

A correlation is partial and by ranks: of an uncertainty and the truth, given the prediction, over the new items that
the reward ranks highest; below 0 a penalty helps there. `auto` is rewards.choosing_conservatism: it sees offline data.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from plait.benchmarks import _map_uncertainties, real_tasks
from plait.benchmarks._map_figures import write_figures
from plait.benchmarks._map_policies import (
    BATCH,
    KL_WEIGHTS,
    BatchRow,
    Landscape,
    PolicyRow,
    batch_row,
    letters_law,
    loosest_row,
    policy_row,
)
from plait.benchmarks._map_tables import write_tables
from plait.design.records import Dataset, Readings, to_dataset
from plait.metrics.ranks import partial_spearman
from plait.rewards import choosing_conservatism, ensemble
from plait.rewards.base import RewardModel
from plait.rewards.splits import judge_split
from plait.rewards.support_gate import SupportGate
from plait.rewards.uncertainty import bootstrap_spread, elliptical, rarity
from plait.settings import load_settings

TASKS = ("six6", "pax4", "hoxc4", "arx", "dmsc", "gb1", "splice")
SCALES = (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)
UPPER_SHARE = 0.05
"""Of all items, those of the highest prediction: where correlations are taken."""
NUM_ITEMS = 33_000
"""Items of a landscape at most; of larger ones a random sample stands for the whole."""


@dataclass(frozen=True)
class Situation:
    """An offline set and a proxy.

    Attributes:
        percentile: Readings lie at or below it; None takes the task's own (60, of splice 90).
        size: Offline items.
        noise: Standard deviations of the offline readings that are added to each as noise.
        is_underfit: The proxy is a perceptron of 30 updates instead of an ensemble of 300.
    """

    percentile: float | None = None
    size: int = 2_000
    noise: float = 0.0
    is_underfit: bool = False


SITUATIONS = {
    "base": Situation(),
    "cut at 90 %": Situation(percentile=90),
    "uncut": Situation(percentile=100),
    "500 items": Situation(size=500),
    "8,000 items": Situation(size=8_000),
    "noisy": Situation(noise=1.0),
    "underfit": Situation(is_underfit=True),
    "uncut, noisy, 500 items": Situation(percentile=100, size=500, noise=1.0),
    "uncut, underfit": Situation(percentile=100, is_underfit=True),
}
QUICK = ("base", "uncut")
PROXY = ensemble.Config(families=("wide_conv", "mlp"), members=2)
"""The strong proxy: the families that carry most, few members, so that the whole map takes an hour or two."""


@dataclass(frozen=True)
class Cell:
    """All that is known of one task, situation and seed.

    Attributes:
        policies: Of every uncertainty, scale, leash, with and without the gate.
        loosest: Of every uncertainty and scale, at the loosest leash that keeps designs distinct, with the gate.
        batches: Of every uncertainty and scale.
        correlations: By uncertainty.
        choice: What offline data alone says, a choosing_conservatism.Choice.
    """

    task: str
    situation: str
    seed: int
    policies: list[PolicyRow]
    loosest: list[PolicyRow]
    batches: list[BatchRow]
    correlations: dict[str, float]
    choice: dict[str, Any]


def offline_set(task: real_tasks.RealTask, situation: Situation, seed: int) -> Dataset:
    """The offline readings of a situation, noise added; as many as there are where the task has fewer."""
    percentile = task.percentile if situation.percentile is None else situation.percentile
    measured = task.landscape().offline
    available = measured[np.isfinite(measured)]
    low = int((available <= np.percentile(available, percentile)).sum())
    readings = replace(task, percentile=percentile, num_offline=min(situation.size, low)).offline(seed)
    noise = np.random.default_rng([seed, 2]).standard_normal(len(readings)) * situation.noise * readings.values.std()
    noisy = Readings(readings.sequences, readings.values + noise, readings.replicates)
    return to_dataset(noisy, task.space, unit=task.unit)


def survey(task: real_tasks.RealTask, dataset: Dataset, num_items: int) -> Landscape:
    """The items of a task and what is known of them but no model, given what was measured offline."""
    tokens, truth = task.everything()
    if len(tokens) > num_items:
        chosen = np.sort(np.random.default_rng(0).choice(len(tokens), num_items, replace=False))
        tokens, truth = tokens[chosen], truth[chosen]
    measured = {row.tobytes() for row in dataset.tokens}
    corpus = task.space.encode(task.corpus()) if task.corpus() else None
    shift = float(dataset.values.mean())
    unit = float(np.sort(truth)[-BATCH:].mean()) - shift
    return Landscape(
        tokens=tokens.copy(),
        truth=(truth - shift) / unit,
        log_prior=letters_law(dataset, corpus, tokens),
        is_new=np.array([row.tobytes() not in measured for row in tokens]),
        is_supported=SupportGate.fit(dataset).judge(tokens).is_supported,
        is_top=truth >= np.quantile(truth, 0.99),
        shift=shift,
        unit=unit,
        std=float(dataset.values.std()) / unit,
    )


def cell(task: real_tasks.RealTask, name: str, situation: Situation, seed: int, config: ensemble.Config) -> Cell:
    """Fit, list the optimum of every objective, and ask offline data for its choice."""
    dataset = offline_set(task, situation, seed)
    land = survey(task, dataset, NUM_ITEMS)
    if situation.is_underfit:
        config = config.model_copy(update={"families": ("mlp",), "steps": 30})

    def fit(data: Dataset, number: int, is_bootstrap: bool = False) -> ensemble.Ensemble:
        settings = config.model_copy(update={"is_bootstrap": is_bootstrap})
        return ensemble.fit(settings, data, Generator().manual_seed(4 * seed + number))

    reward, halves = fit(dataset, 0), judge_split(dataset, seed, 1 / 3)
    choice = choosing_conservatism.choose(halves, (fit(halves[0], 1), fit(halves[1], 2)))
    boot = fit(dataset, 0, is_bootstrap=True)
    views = _views(land, dataset, reward, boot)
    policies: list[PolicyRow] = []
    loosest: list[PolicyRow] = []
    batches: list[BatchRow] = []
    correlations: dict[str, float] = {}
    for uncertainty, (mean, std) in views.items():
        for scale in (0.0,) if uncertainty == "none" else SCALES:
            batches.append(batch_row(land, uncertainty, scale, mean, std))
            loosest.append(loosest_row(land, uncertainty, scale, mean, std))
            leashes = itertools.product(KL_WEIGHTS, (False, True))
            policies += [policy_row(land, uncertainty, scale, mean, std, weight, gate) for weight, gate in leashes]
        upper = _upper(land, mean)
        correlations[uncertainty] = partial_spearman(std[upper], land.truth[upper], mean[upper])
    del correlations["none"]
    return Cell(task.name, name, seed, policies, loosest, batches, correlations, asdict(choice))


def _views(
    land: Landscape, dataset: Dataset, reward: RewardModel, boot: RewardModel
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Uncertainty -> mean and std (N,), in gains."""
    tokens = torch.from_numpy(land.tokens)
    prediction, resampled = reward.predict(tokens), boot.predict(tokens)
    mean, boot_mean = (land.gains(p.mean.double().numpy()) for p in (prediction, resampled))
    spread = bootstrap_spread.fit(dataset, boot, None).std(tokens, resampled)
    stds: dict[str, NDArray[np.float64]] = {
        "elliptical": elliptical.fit(dataset, reward, None).std(tokens, prediction).double().numpy(),
        "rarity": rarity.fit(dataset, None, None).std(tokens, prediction).double().numpy(),
        "distance": _map_uncertainties.distance(dataset, land.tokens),
        "unlikeliness": _map_uncertainties.unlikeliness(dataset, land.log_prior),
    }
    views = {"none": (mean, np.zeros(len(mean)))}
    views["bootstrap_spread"] = (boot_mean, spread.double().numpy() / land.unit)
    return views | {name: (mean, std / land.unit) for name, std in stds.items()}


def _upper(land: Landscape, mean: NDArray[np.float64]) -> NDArray[np.int64]:
    """The new items of the highest prediction."""
    count = max(BATCH, int(UPPER_SHARE * len(mean)))
    return np.argsort(-np.where(land.is_new, mean, -np.inf), kind="stable")[:count]


def run(
    output: Path, tasks: list[real_tasks.RealTask], situations: list[str], num_seeds: int, config: ensemble.Config
) -> list[Cell]:
    """All cells; each is kept in DIR/cells as soon as it is done, under a name that holds what it was computed with."""
    folder = output / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    cells = []
    for seed in range(num_seeds):
        for name in situations:
            for task in tasks:
                what = json.dumps([task.name, asdict(SITUATIONS[name]), seed, config.model_dump(mode="json")])
                path = folder / f"{task.name}-{hashlib.sha256(what.encode()).hexdigest()[:16]}.json"
                if not path.exists():
                    done = cell(task, name, SITUATIONS[name], seed, config)
                    beside = path.with_suffix(".part")
                    beside.write_text(json.dumps(asdict(done)))
                    beside.replace(path)
                    print(f"{task.name}, {name}, seed {seed}: {done.choice['reason']}", flush=True)
                cells.append(_read(path))
    return cells


def _read(path: Path) -> Cell:
    document = json.loads(path.read_text())
    policies, loosest = ([PolicyRow(**row) for row in document.pop(name)] for name in ("policies", "loosest"))
    batches = [BatchRow(**row) for row in document.pop("batches")]
    return Cell(**document, policies=policies, loosest=loosest, batches=batches)


def main() -> None:
    """Compute what is missing and write tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tasks", default=",".join(TASKS), help="names, comma-separated")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two situations, one seed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    known = {task.name: task for task in real_tasks.tasks(load_settings().cache)}
    tasks = [known[name] for name in given.tasks.split(",")]
    situations, seeds = (list(QUICK), 1) if given.quick else (list(SITUATIONS), given.seeds)
    cells = run(given.output, tasks, situations, seeds, PROXY)
    write_tables(given.output, cells)
    write_figures(given.output, cells)


if __name__ == "__main__":
    main()
