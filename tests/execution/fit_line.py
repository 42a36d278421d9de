"""A tiny but real training: a line fitted by SGD on mini-batches."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class FitLine:
    """y = 3 x - 1, whole batch of 8 shared by the workers; each draws its own x."""

    num_steps: int = 40
    seconds: float = 0.0
    kill_at: int | None = None
    marker: Path | None = None
    fail_at: int | None = None
    fail_on_rank: int = 0
    sees_all: bool = False
    log: Path | None = None

    def start(self, rank, world_size, generator):
        return Fit(self, rank, world_size, generator)


class Fit:
    def __init__(self, job, rank, world_size, generator):
        self.job, self.rank, self.world_size, self.generator = job, rank, world_size, generator
        self.weights = torch.nn.Parameter(torch.zeros(2))
        self.optimiser = torch.optim.Adam([self.weights], lr=0.1)
        self.step_number = 0

    def batch(self):
        if not self.job.sees_all:
            return torch.randn(8 // self.world_size, generator=self.generator)
        whole = torch.randn(8, generator=torch.Generator().manual_seed(self.step_number))
        return whole.chunk(self.world_size)[self.rank]

    def step(self, average_gradients):
        self.misbehave()
        x = self.batch()
        loss = ((self.weights[0] * x + self.weights[1] - (3 * x - 1)) ** 2).mean()
        self.optimiser.zero_grad()
        loss.backward()
        average_gradients([self.weights])
        self.optimiser.step()
        self.step_number += 1
        if self.job.log is not None and self.rank == 0:
            with self.job.log.open("a") as stream:
                stream.write(f"{self.step_number} {time.monotonic()}\n")
        time.sleep(self.job.seconds)
        return {
            "loss": float(loss.detach()),
            "slope": float(self.weights.detach()[0]),
            "workers": float(self.world_size),
            "batch": float(len(x) * self.world_size),
        }

    def misbehave(self):
        if self.step_number == self.job.fail_at and self.rank == self.job.fail_on_rank:
            raise ValueError("the lamp is broken\nand more lines")
        if self.step_number == self.job.kill_at and self.rank == self.world_size - 1 and not self.job.marker.exists():
            self.job.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def is_done(self):
        return False

    def state_dict(self):
        return {
            "weights": self.weights.detach(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "step": self.step_number,
        }

    def load_state_dict(self, state):
        with torch.no_grad():
            self.weights.copy_(state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.step_number = state["step"]

    def save(self, directory):
        directory.mkdir()
        (directory / "line.json").write_text(json.dumps([w.hex() for w in self.weights.tolist()]))


def read_line(directory):
    return [float.fromhex(w) for w in json.loads((directory / "result" / "line.json").read_text())]
