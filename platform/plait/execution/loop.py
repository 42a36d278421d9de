"""The training loop, the same in this process and in every Ray worker: update, note the figures, save now and then."""

from __future__ import annotations

import errno
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from plait.campaign.ports import TrainingJob, TrainingRun
from plait.design.errors import PlaitError, RunFailedError
from plait.execution.curves import CurveLog
from plait.execution.storage import Storage

if TYPE_CHECKING:  # reading and registering load no torch
    from torch import Generator

    from plait.priors.base import AverageGradients

RESULT = "result"
FAILURE = "failure.json"
SECONDS_BETWEEN_CHECKPOINTS = 10.0
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Worker:
    """One worker's place among all that train together.

    Attributes:
        average_gradients: Joins the workers' gradients.
        rank: 0 .. size - 1; rank 0 writes curves and result.
        size: Number of workers.
        device: Where it computes, as torch names it.
        first_says: Rank 0's numbers for every worker.
        all_say: Whether something is so on every worker.
        on_update: Told (updates done, figures) after each.
        seconds_between_checkpoints: Of work, by rank 0's clock.
    """

    average_gradients: AverageGradients
    rank: int = 0
    size: int = 1
    device: str = "cpu"
    first_says: Callable[[tuple[int, ...]], tuple[int, ...]] = tuple
    all_say: Callable[[bool], bool] = bool
    on_update: Callable[[int, dict[str, float]], None] = lambda done, figures: None
    seconds_between_checkpoints: float = SECONDS_BETWEEN_CHECKPOINTS


@dataclass(frozen=True)
class Share:
    """What travels to each Ray worker.

    Attributes:
        job: The training.
        storage: Root of the storage that all workers see: checkpoints, curves and result.
        seed: Of all workers' generators.
        torch_threads: Of one worker.
        seconds_between_checkpoints: Seconds of work.
        is_on_gpu: It computes on the GPU that Ray set aside for it.
    """

    job: TrainingJob
    storage: str
    seed: int
    torch_threads: int
    seconds_between_checkpoints: float
    is_on_gpu: bool = False


def worker_seed(*words: int) -> int:
    """The seed of one worker's generator: the first 63 bits of SHA-256 over "seed/rank" (or more words)."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def run_worker(job: TrainingJob, storage: Storage, seed: int, worker: Worker) -> None:
    """Train from the last checkpoint in the storage, if any, to the end; rank 0 leaves "result" there.

    A checkpoint of another number of workers is gone on from as well: weights and optimiser are the same on all, what
    else a worker keeps (a pool, a buffer) is taken over from one of them, and generators start anew. The result is then
    as good, but another one than that of an unbroken run.

    Raises:
        RunFailedError: A figure is not finite.
        Exception: Whatever the job raises.
    """
    from torch import Generator

    generator = Generator(worker.device).manual_seed(worker_seed(seed, worker.rank))
    run = job.start(worker.rank, worker.size, generator)
    done = _resume(run, storage, seed, worker, generator)
    curves = CurveLog(storage, done) if worker.rank == 0 else None
    saved_at = time.monotonic()
    (is_over,) = worker.first_says((int(run.is_done()),))
    while done < job.num_steps and not is_over:
        figures = run.step(worker.average_gradients)
        done += 1
        _check_finite(done, figures)
        if curves is not None:
            curves.append(done, figures)
        worker.on_update(done, figures)
        is_late = time.monotonic() - saved_at >= worker.seconds_between_checkpoints
        is_due, is_over = worker.first_says((int(is_late), int(run.is_done())))
        if is_due:
            _save(run, storage, done, worker, curves)
            saved_at = time.monotonic()
    if curves is not None:
        curves.sync()
        _save_result(run, storage)


def _resume(run: TrainingRun, storage: Storage, seed: int, worker: Worker, generator: Generator) -> int:
    """Load the newest checkpoint that all workers can read; the updates done."""
    from plait.execution.checkpoints import Checkpoint, read_or_skip, whole_checkpoints

    known = iter(whole_checkpoints(storage) if worker.rank == 0 else ())
    while True:
        newest = next(known, Checkpoint(0, 0))
        found = Checkpoint(*worker.first_says((newest.step, newest.size)))
        if found.step == 0:
            return 0
        state = read_or_skip(storage, found.name(worker.rank % found.size))
        if worker.all_say(state is not None) and state is not None:
            run.load_state_dict(state["run"])
            if found.size != worker.size:
                generator.manual_seed(worker_seed(seed, worker.rank, worker.size, found.step))
            return found.step


def _save(run: TrainingRun, storage: Storage, done: int, worker: Worker, curves: CurveLog | None) -> None:
    from plait.execution.checkpoints import Checkpoint, prune, write_checkpoint

    if curves is not None:
        curves.sync()
    write_checkpoint(storage, Checkpoint(done, worker.size).name(worker.rank), {"run": run.state_dict()})
    if worker.rank == 0:
        prune(storage)


def reason_of(error: BaseException) -> tuple[str, str]:
    """An error as one line for the user, and what to do about it (may be empty)."""
    if isinstance(error, PlaitError):
        return error.message, error.hint
    if isinstance(error, OSError) and error.errno in FULL:
        return f"{error.filename or 'a disk'}: {error.strerror}", "make room and run again: the last checkpoint is kept"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__, ""


def _check_finite(step: int, figures: dict[str, float]) -> None:
    bad = [f"{name} is {value}" for name, value in figures.items() if not math.isfinite(value)]
    if bad:
        raise RunFailedError(f"diverged at update {step}: {', '.join(bad)}", hint="lower the learning rate")


def _save_result(run: TrainingRun, storage: Storage) -> None:
    with TemporaryDirectory(prefix="plait-result-") as folder:
        run.save(Path(folder) / RESULT)
        storage.put(Path(folder) / RESULT, RESULT)
