"""Trains in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from plait.campaign.ports import TrainingJob
from plait.design.errors import PlaitError, RunFailedError
from plait.design.records import Progress
from plait.execution.curves import CURVES, Curves, read_curves
from plait.execution.loop import RESULT, SECONDS_BETWEEN_CHECKPOINTS, Worker, reason_of, run_worker
from plait.execution.telling import Teller

CHECKPOINTS = "checkpoints"
NUM_KEPT = 2

T = TypeVar("T")
R = TypeVar("R")


class LocalExecutor:
    """The Executor of one process; `num_workers` is not looked at.

    Args:
        torch_threads: Threads of torch while it trains; None leaves them as they are.
        seconds_between_checkpoints: Seconds of work.
    """

    def __init__(
        self, torch_threads: int | None = None, seconds_between_checkpoints: float = SECONDS_BETWEEN_CHECKPOINTS
    ) -> None:
        self._torch_threads, self._seconds = torch_threads, seconds_between_checkpoints

    def train(
        self,
        job: TrainingJob,
        *,
        run_id: str,
        directory: Path,
        num_workers: int,
        seed: int,
        task: str,
        progress: Progress,
    ) -> Curves:
        """Train, going on from the last readable checkpoint; a finished directory is returned as it is.

        Raises:
            RunFailedError: The job failed; checkpoints stay.
        """
        if (directory / RESULT).exists():
            return read_curves(directory / CURVES)
        import torch

        from plait.execution.checkpoints import SUFFIX, newest_readable, write_checkpoint
        from plait.priors.base import keep_gradients

        if self._torch_threads is not None:
            torch.set_num_threads(self._torch_threads)
        folder = directory / CHECKPOINTS
        files = sorted(folder.glob(f"*{SUFFIX}"), reverse=True)
        states = newest_readable([[file] for file in files])
        teller = Teller(progress, task, job.num_steps)

        def save(step: int, state: dict[str, Any]) -> None:
            write_checkpoint(folder / f"{step:010d}{SUFFIX}", state)
            for old in sorted(folder.glob(f"*{SUFFIX}"), reverse=True)[NUM_KEPT:]:
                old.unlink()

        worker = Worker(save, keep_gradients, on_update=teller.tell, seconds_between_checkpoints=self._seconds)
        try:
            run_worker(job, directory, seed, worker, states[0] if states else None)
        except PlaitError:
            raise
        except Exception as error:
            message, hint = reason_of(error)
            raise RunFailedError(f"{task} failed: {message}", hint=hint) from error
        shutil.rmtree(folder, ignore_errors=True)
        teller.finish()
        return read_curves(directory / CURVES)

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Function of each item, in order."""
        return [function(item) for item in items]
