"""Trains in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from plait.campaign.ports import TrainingJob
from plait.campaign.sweep_ports import SweepPlan, TrialOutcome
from plait.design.errors import PlaitError, RunFailedError
from plait.design.records import Progress
from plait.execution.curves import Curves, read_curves
from plait.execution.loop import RESULT, SECONDS_BETWEEN_CHECKPOINTS, Worker, reason_of, run_worker
from plait.execution.storage import Storage, open_storage
from plait.execution.telling import Teller

T = TypeVar("T")
R = TypeVar("R")


class LocalExecutor:
    """The Executor of one process; numbers of workers are not looked at.

    Args:
        torch_threads: Threads of torch while it trains; None leaves them as they are.
        seconds_between_checkpoints: Seconds of work.
    """

    def __init__(
        self, torch_threads: int | None = None, seconds_between_checkpoints: float = SECONDS_BETWEEN_CHECKPOINTS
    ) -> None:
        self._torch_threads, self._seconds = torch_threads, seconds_between_checkpoints

    def require(self, num_workers: int) -> None:
        """Any number will do."""

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
        storage: str | None = None,
        min_workers: int | None = None,
    ) -> Curves:
        """Train, going on from the last readable checkpoint; a finished training is returned as it is.

        Raises:
            RunFailedError: The job failed; checkpoints stay.
        """
        place = storage_of(directory, storage)
        if is_finished(place, directory):
            return read_curves(place)
        import torch

        from plait.priors.base import keep_gradients

        if self._torch_threads is not None:
            torch.set_num_threads(self._torch_threads)
        teller = Teller(progress, task, job.num_steps)
        worker = Worker(keep_gradients, on_update=teller.tell, seconds_between_checkpoints=self._seconds)
        try:
            run_worker(job, place, seed, worker)
        except PlaitError:
            raise
        except Exception as error:
            message, hint = reason_of(error)
            raise RunFailedError(f"{task} failed: {message}", hint=hint) from error
        return finish(place, directory, teller)

    def sweep(self, plan: SweepPlan, *, run_id: str, storage: str, task: str, progress: Progress) -> list[TrialOutcome]:
        """Run the trials of a sweep one after the other; those finished in `storage` are not run again.

        Raises:
            RunFailedError: The storage cannot be used.
        """
        from plait.execution.proposals import Generations
        from plait.execution.trials import run_trial

        search, teller = Generations(plan, storage), Teller(progress, task, plan.num_trials)
        while (trial := search.hand_out()) is not None:
            try:
                run_trial(plan, trial, storage, self._torch_threads or 1, self._seconds)
            except OSError as error:
                raise RunFailedError(f"{task} failed: {reason_of(error)[0]}", hint="run again to go on") from error
            search.end(trial)
            teller.say(search.num_ended, f"{search.num_ended} trials judged")
        return search.outcomes

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Function of each item, in order."""
        return [function(item) for item in items]


def storage_of(directory: Path, storage: str | None) -> Storage:
    """The storage that is named; without one, the directory itself, which then must be seen by every worker."""
    return open_storage(storage or str(directory.absolute()))


def is_finished(storage: Storage, directory: Path) -> bool:
    """Whether the result is there, on this machine too once this returns."""
    if not (directory / RESULT).exists() and storage.exists(RESULT):
        directory.mkdir(parents=True, exist_ok=True)
        storage.fetch(RESULT, directory / RESULT)
    return (directory / RESULT).exists()


def finish(storage: Storage, directory: Path, teller: Teller) -> Curves:
    """The curves of a training that has ended; its result comes to this machine, its checkpoints go.

    Raises:
        RunFailedError: The result is not there.
    """
    from plait.execution.checkpoints import CHECKPOINTS

    if not is_finished(storage, directory):
        raise RunFailedError(
            f"the workers have left no result in {storage.root}",
            hint="set artifact_root to a folder or URL that every machine of the cluster sees",
        )
    storage.remove(CHECKPOINTS)
    teller.finish()
    return read_curves(storage)
