"""A tiny but real sweep: climb to the value that a trial was given, and be judged by how near 0.3 that is."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from plait.campaign.sweep_ports import OUTCOME, Axis

LOOKS = (2, 4, 8)


@dataclass(frozen=True)
class ClimbPlan:
    """x is sought in 0..1; above `breaks_above` the training fails, below `floor` it misses a floor."""

    num_trials: int = 12
    generation: int = 4
    reduction: int = 2
    max_concurrent: int | None = None
    seed: int = 3
    breaks_above: float = 2.0
    floor: float = -1.0
    seconds: float = 0.0
    kill_in: int | None = None
    marker: Path | None = None
    log: Path | None = None

    @property
    def axes(self):
        return {"x": Axis(0.0, 1.0), "n": Axis(1, 4, is_whole=True)}

    def seed_of(self, trial):
        return self.seed * 1000 + trial.number

    def start(self, trial):
        return ClimbJob(self, trial)


@dataclass(frozen=True)
class ClimbJob:
    plan: ClimbPlan
    trial: object
    num_steps: int = LOOKS[-1]

    def start(self, rank, world_size, generator):
        return Climb(self, generator)


class Climb:
    def __init__(self, job, generator):
        self.plan, self.trial, self.generator = job.plan, job.trial, generator
        self.done, self.at, self.looks, self.is_stopped = 0, 0.0, [], False
        if self.plan.log is not None:
            with self.plan.log.open("a") as log:
                log.write(f"{self.trial.number}\n")

    def step(self, average_gradients):
        x = self.trial.values["x"]
        if x > self.plan.breaks_above:
            raise ValueError(f"nothing holds at {x:.1f}")
        time.sleep(self.plan.seconds)
        if self.done == 5 and self.trial.number == self.plan.kill_in and not self.plan.marker.exists():
            self.plan.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self.done += 1
        self.at = x * self.done / LOOKS[-1]
        if self.done in LOOKS:
            shortfall = max(0.0, self.plan.floor - x)
            look = {"update": self.done, "score": (1 - abs(x - 0.3)) * self.done, "shortfall": shortfall}
            self.looks.append(look)
            cutoff = dict(self.trial.cutoffs).get(self.done)
            self.is_stopped = self.done < LOOKS[-1] and cutoff is not None and look["score"] < cutoff
        return {"at": self.at}

    def is_done(self):
        return self.is_stopped

    def state_dict(self):
        return {"done": self.done, "at": self.at, "looks": json.dumps(self.looks), "is_stopped": self.is_stopped}

    def load_state_dict(self, state):
        self.done, self.at, self.looks = state["done"], state["at"], json.loads(state["looks"])
        self.is_stopped = state["is_stopped"]

    def save(self, directory):
        directory.mkdir()
        document = {"looks": self.looks, "artifact": f"policy {self.trial.number}", "is_stopped": self.is_stopped}
        (directory / OUTCOME).write_text(json.dumps(document))
