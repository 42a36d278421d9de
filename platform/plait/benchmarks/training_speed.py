"""Fine-tuning in a bare loop and by Ray Train with 1 and 2 workers: `python -m plait.bootstrap.training_speed`.

One DRAKES fine-tuning, L = 50, Plait's default network, one torch thread a worker, the same batch shared by the
workers. Each way runs for --seconds of work, --rounds times, in turn, so that other work on the machine meets all.
Times are those between the end of the first update and the end of the last, checkpoints and curves included; what comes
before the first update (Ray, the workers, their imports) is told apart. CPU seconds are those of rank 0's process: they
say what a quiet machine would show where this one is not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator

from plait.benchmarks import _ensemble_speed
from plait.campaign.jobs import FinetuneRun
from plait.campaign.shares import share_of
from plait.design.alphabets import DNA
from plait.design.space import DesignSpace
from plait.finetune import drakes
from plait.priors import masked_diffusion
from plait.priors.base import AverageGradients, keep_gradients
from plait.rewards.conservatism import ConservativeReward

LENGTH = 50
FEWEST_UPDATES = 3
BARE = "bare loop"
Curves = dict[str, list[tuple[int, float]]]
WAYS = {BARE: 0, "Ray Train, 1 worker": 1, "Ray Train, 2 workers": 2}


@dataclass(frozen=True)
class TimedJob:
    """A fine-tuning that ends after `seconds` of work; its curves tell when each update ended."""

    seconds: float
    batch: int
    num_steps: int = 1_000_000

    def start(self, rank: int, world_size: int, generator: Generator) -> TimedRun:
        """The run of one worker: a prior and a reward with random weights, which cost what trained ones do."""
        config, weight = share_of("finetune", "drakes", {"batch_size": self.batch}, rank, world_size)
        space = DesignSpace.from_template(DNA, "N" * LENGTH)
        prior = masked_diffusion.init(masked_diffusion.Config(), space, Generator().manual_seed(0))
        leave = prior.network.get_parameter("backbone.leave.weight")
        torch.nn.init.normal_(leave, 0, 0.1, generator=Generator().manual_seed(0))
        reward = ConservativeReward(_ensemble_speed.untrained(("wide_conv",), LENGTH, "cpu"), None, 0.0, 1.0)
        return TimedRun(self.seconds, drakes, drakes.init(config, prior, reward, None, generator), weight)


class TimedRun(FinetuneRun):
    """A fine-tuning with a clock."""

    def __init__(self, seconds: float, algorithm: Any, state: Any, weight: float) -> None:
        super().__init__(algorithm, state, weight)
        self._seconds, self._started, self._updates = seconds, time.monotonic(), 0

    def step(self, average_gradients: AverageGradients) -> dict[str, float]:
        """One update, and when it ended: wall clock and CPU seconds of this process."""
        super().step(average_gradients)
        self._updates += 1
        return {"wall": time.time(), "cpu": time.process_time()}

    def is_done(self) -> bool:
        """The time is up, and there are updates to be timed."""
        return self._updates >= FEWEST_UPDATES and time.monotonic() - self._started >= self._seconds


@dataclass(frozen=True)
class Timing:
    """Updates after the first one, what they took on the wall clock and of rank 0's CPU, and what came before them."""

    updates: int
    wall: float
    cpu: float
    start_up: float

    @staticmethod
    def read(curves: Curves, called_at: float) -> Timing:
        """From the curves of a TimedJob that was asked for at `called_at`."""
        wall, cpu = ([value for _, value in curves[name]] for name in ("wall", "cpu"))
        first = wall[1] - wall[0]
        return Timing(len(wall) - 1, wall[-1] - wall[0], cpu[-1] - cpu[0], wall[0] - first - called_at)


def by_hand(job: TimedJob) -> Curves:
    """The bare loop."""
    torch.set_num_threads(1)
    run, done = job.start(0, 1, Generator().manual_seed(0)), list[dict[str, float]]()
    while not run.is_done():
        done.append(run.step(keep_gradients))
    return {name: [(number, figures[name]) for number, figures in enumerate(done)] for name in ("wall", "cpu")}


def bare(job: TimedJob) -> Curves:
    """The bare loop in a process of its own."""
    code = f"import json; from {__name__} import TimedJob, by_hand; print(json.dumps(by_hand({job!r})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603
    curves: Curves = json.loads(done.stdout)
    return curves


def table(timings: dict[str, list[Timing]]) -> str:
    """All ways, then the two ratios."""
    lines = [f"{'':<24}{'updates':>9}{'per second':>12}{'CPU s each':>12}{'start-up s':>12}"]
    wall, cpu = dict[str, float](), dict[str, float]()
    for way, runs in timings.items():
        updates = sum(run.updates for run in runs)
        wall[way], cpu[way] = sum(run.wall for run in runs) / updates, sum(run.cpu for run in runs) / updates
        first = min(run.start_up for run in runs)
        lines.append(f"{way:<24}{updates:>9}{1 / wall[way]:>12.3f}{cpu[way]:>12.3f}{first:>12.1f}")
    _, one, two = WAYS
    more, work = wall[one] / wall[BARE] - 1, cpu[one] / cpu[BARE] - 1
    lines.append(f"Ray Train over the bare loop: wall {more:+.1%}, CPU {work:+.1%}")
    lines.append(f"2 workers over 1: wall {wall[one] / wall[two]:.2f}x, CPU {cpu[one] / cpu[two]:.2f}x")
    return "\n".join(lines)


def main(train: Callable[[TimedJob, int], Curves], arguments: list[str] | None = None) -> None:
    """Print the table.

    Args:
        train: Runs a job on a number of Ray Train workers and returns its curves; brings Ray up for it, and down.
        arguments: Of the command line.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of work in one run (default 60)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each way, in turn (default 2)")
    parser.add_argument("--batch", type=int, default=128, help="designs per update (default 128)")
    given = parser.parse_args(arguments)
    job = TimedJob(given.seconds, given.batch)
    timings: dict[str, list[Timing]] = {way: [] for way in WAYS}
    for _ in range(given.rounds):
        for way, runs in timings.items():
            called_at = time.time()
            runs.append(Timing.read(bare(job) if way == BARE else train(job, WAYS[way]), called_at))
    print(f"fine-tuning, L = {LENGTH}, batch {given.batch}, {given.rounds} runs of {given.seconds:g} s each")
    print(table(timings))
