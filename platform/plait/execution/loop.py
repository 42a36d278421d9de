"""The training loop, the same in this process and in every Ray worker: update, note the figures, save now and then."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.campaign.ports import TrainingJob, TrainingRun
from plait.design.errors import PlaitError, RunFailedError
from plait.execution.curves import CURVES, CurveLog

if TYPE_CHECKING:  # reading and registering load no torch
    from torch import Generator

    from plait.priors.base import AverageGradients

RESULT = "result"
FAILURE = "failure.json"
SECONDS_BETWEEN_CHECKPOINTS = 10.0


@dataclass(frozen=True)
class Worker:
    """One worker's place among all that train together.

    Attributes:
        save: Keeps (updates done, state) as a checkpoint.
        average_gradients: Joins the workers' gradients.
        rank: 0 .. size - 1; rank 0 writes curves and result.
        size: Number of workers.
        agree: Rank 0's word for every worker.
        on_update: Told (updates done, figures) after each.
        seconds_between_checkpoints: Of work, by rank 0's clock.
    """

    save: Callable[[int, dict[str, Any]], None]
    average_gradients: AverageGradients
    rank: int = 0
    size: int = 1
    agree: Callable[[bool], bool] = bool
    on_update: Callable[[int, dict[str, float]], None] = lambda done, figures: None
    seconds_between_checkpoints: float = SECONDS_BETWEEN_CHECKPOINTS


@dataclass(frozen=True)
class Share:
    """What travels to each Ray worker.

    Attributes:
        job: The training.
        directory: Of the run: curves and result.
        checkpoints: Folder in which Ray keeps this run's.
        seed: Of all workers' generators.
        torch_threads: Of one worker.
        seconds_between_checkpoints: Seconds of work.
    """

    job: TrainingJob
    directory: Path
    checkpoints: Path
    seed: int
    torch_threads: int
    seconds_between_checkpoints: float


def worker_generator(seed: int, rank: int) -> Generator:
    """The generator of one worker, seeded by the first 63 bits of SHA-256 over "seed/rank"."""
    from torch import Generator

    digest = hashlib.sha256(f"{seed}/{rank}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def run_worker(job: TrainingJob, directory: Path, seed: int, worker: Worker, checkpoint: dict[str, Any] | None) -> None:
    """Train from a checkpoint (None: from the start) to the end; rank 0 leaves directory/"result".

    Raises:
        RunFailedError: A figure is not finite.
        Exception: Whatever the job raises.
    """
    run = job.start(worker.rank, worker.size, worker_generator(seed, worker.rank))
    done = 0
    if checkpoint is not None:
        run.load_state_dict(checkpoint["run"])
        done = checkpoint["step"]
    with CurveLog(directory / CURVES, done) if worker.rank == 0 else nullcontext() as curves:
        saved_at = time.monotonic()
        while done < job.num_steps and not run.is_done():
            figures = run.step(worker.average_gradients)
            done += 1
            _check_finite(done, figures)
            if curves is not None:
                curves.append(done, figures)
            worker.on_update(done, figures)
            if worker.agree(time.monotonic() - saved_at >= worker.seconds_between_checkpoints):
                if curves is not None:
                    curves.sync()
                worker.save(done, {"step": done, "run": run.state_dict()})
                saved_at = time.monotonic()
    if worker.rank == 0:
        _save_result(run, directory)


def reason_of(error: BaseException) -> tuple[str, str]:
    """An error as one line for the user, and what to do about it (may be empty)."""
    if isinstance(error, PlaitError):
        return error.message, error.hint
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__, ""


def _check_finite(step: int, figures: dict[str, float]) -> None:
    bad = [f"{name} is {value}" for name, value in figures.items() if not math.isfinite(value)]
    if bad:
        raise RunFailedError(f"diverged at update {step}: {', '.join(bad)}", hint="lower the learning rate")


def _save_result(run: TrainingRun, directory: Path) -> None:
    temporary = directory / f".{RESULT}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    run.save(temporary)
    for file in sorted(temporary.rglob("*")):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    temporary.rename(directory / RESULT)
