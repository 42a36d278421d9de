"""Trains on Ray: TorchTrainer with gloo, one flat all_reduce an update, checkpoints that survive worker and driver."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from plait.campaign.ports import TrainingJob
from plait.design.errors import PlaitError, RunFailedError
from plait.design.records import Progress
from plait.execution import cluster
from plait.execution.curves import CURVES, Curves, last_line, read_curves
from plait.execution.local import NUM_KEPT, LocalExecutor
from plait.execution.loop import FAILURE, RESULT, SECONDS_BETWEEN_CHECKPOINTS, Share, reason_of
from plait.execution.telling import Teller
from plait.settings import Settings

MAX_RESTARTS = 2
SECONDS_BETWEEN_LOOKS = 0.1

T = TypeVar("T")
R = TypeVar("R")


class RayExecutor:
    """The Executor over Ray; `num_workers` 0 trains in this process by the same loop.

    Ray comes up on the first training that needs it and stays until the process ends or close(). The directory of a
    training must be on a disk that every node sees. Checkpoints belong to a number of workers: with another number a
    training that was interrupted starts again.

    Args:
        settings: ray_address, ray_num_cpus, torch_threads.
        seconds_between_checkpoints: Seconds of work; a checkpoint on Ray costs about half a second.
    """

    def __init__(self, settings: Settings, seconds_between_checkpoints: float = SECONDS_BETWEEN_CHECKPOINTS) -> None:
        self._settings, self._seconds = settings, seconds_between_checkpoints
        self._local = LocalExecutor(settings.torch_threads, seconds_between_checkpoints)

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
        """Train on `num_workers` workers, going on from the last readable checkpoint.

        A worker that dies is replaced, twice at most; Ctrl-C stops the workers before it goes on upwards.

        Raises:
            RunFailedError: The job failed; checkpoints stay.
            ConfigError: The cluster is too small or cannot be reached.
        """
        if num_workers == 0 or (directory / RESULT).exists():
            return self._local.train(
                job, run_id=run_id, directory=directory, num_workers=0, seed=seed, task=task, progress=progress
            )
        directory = directory.absolute()
        directory.mkdir(parents=True, exist_ok=True)
        (directory / FAILURE).unlink(missing_ok=True)
        teller = Teller(progress, task, job.num_steps)
        cluster.bring_up(self._settings, num_workers, lambda message: teller.say(0, message))
        teller.say(0, f"starting {num_workers} workers")
        storage = directory / f"ray-{num_workers}"
        share = Share(job, directory, storage / run_id, seed, self._settings.torch_threads or 1, self._seconds)
        try:
            with warnings.catch_warnings():  # Ray uses what Ray has deprecated
                warnings.simplefilter("ignore", DeprecationWarning)
                fit = _trainer(share, run_id, storage, num_workers).fit
                _wait(fit, _Watch(teller, directory / CURVES).look)
        except _fit_errors() as error:
            raise RunFailedError(f"{task} failed: {_reason(error)}", hint="run again to go on from there") from None
        _raise_failure(directory, task)
        shutil.rmtree(storage, ignore_errors=True)
        teller.finish()
        return read_curves(directory / CURVES)

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Function of each item, in order; as Ray tasks if Ray is up and there are several.

        Raises:
            RunFailedError: A task failed; errors raised on purpose come through as they are.
        """
        if len(items) < 2 or not cluster.is_up():
            return self._local.map(function, items)
        import ray

        call = ray.remote(max_retries=MAX_RESTARTS)(_call)
        try:
            return [ray.get(ref) for ref in [call.remote(function, item) for item in items]]
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, PlaitError):
                raise cause from None
            raise RunFailedError(f"a Ray task failed: {reason_of(cause)[0]}") from None
        except ray.exceptions.RayError as error:
            raise RunFailedError(f"a Ray task failed: {reason_of(error)[0]}", hint="run again") from None

    def close(self) -> None:
        """Stop Ray, if it is up."""
        cluster.stop()


def _call(function: Callable[[T], R], item: T) -> R:
    return function(item)


def _trainer(share: Share, run_id: str, storage: Path, num_workers: int) -> Any:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from plait.execution.ray_worker import work

    return TorchTrainer(
        work,
        train_loop_config={"share": share},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=num_workers, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name=run_id,
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=MAX_RESTARTS, controller_failure_limit=3),
            checkpoint_config=CheckpointConfig(num_to_keep=NUM_KEPT),
        ),
    )


def _wait(fit: Callable[[], Any], look: Callable[[], None]) -> None:
    """Run `fit` beside this thread, which looks on: so that Ctrl-C arrives here and not in Ray."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            fit()
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=run, name="ray-train", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(SECONDS_BETWEEN_LOOKS)
            look()
    except BaseException:
        cluster.stop()
        raise
    if errors:
        raise errors[0]


class _Watch:
    """Reads off the curves, which the first worker writes, how far a training is."""

    def __init__(self, teller: Teller, path: Path) -> None:
        self._teller, self._path, self._done = teller, path, last_line(path)[0]

    def look(self) -> None:
        """Tell what is new."""
        done, figures = last_line(self._path)
        if done != self._done:
            self._done = done
            self._teller.tell(done, figures)


def _fit_errors() -> tuple[type[BaseException], ...]:
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError

    return RayError, TrainingFailedError


def _reason(error: BaseException) -> str:
    """Why fit() gave up, in one line: the first worker that did not just miss another one."""
    failures = list(getattr(error, "worker_failures", {}).values())
    telling = [e for e in failures if "PeerLostError" not in str(e)]
    cause = (telling or failures or [getattr(error, "controller_failure", error)])[0]
    return reason_of(cause)[0]


def _raise_failure(directory: Path, task: str) -> None:
    """Raise what a worker left.

    Raises:
        RunFailedError: If there is something.
    """
    if (directory / FAILURE).exists():
        failure = json.loads((directory / FAILURE).read_text())
        raise RunFailedError(f"{task} failed: {failure['message']}", hint=failure["hint"])
