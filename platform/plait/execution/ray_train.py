"""Trains on Ray: Ray Train for the processes, their group and their replacement; one flat all_reduce an update.

Checkpoints, curves and result are the loop's own files in the storage, the same as those of a training in one process:
Ray's own report of a checkpoint waits for its controller, and would tie the files to a number of workers.
"""

from __future__ import annotations

import json
import math
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from plait.campaign.ports import TrainingJob
from plait.campaign.sweep_ports import SweepPlan, TrialOutcome
from plait.design.errors import ConfigError, PlaitError, RunFailedError
from plait.design.records import Progress
from plait.execution import cluster
from plait.execution.curves import Curves, last_line
from plait.execution.local import LocalExecutor, finish, is_finished, storage_of
from plait.execution.loop import FAILURE, SECONDS_BETWEEN_CHECKPOINTS, Share, reason_of
from plait.execution.storage import Storage, UrlStorage
from plait.execution.telling import Teller
from plait.execution.waiting import run_beside
from plait.settings import Settings

MAX_RESTARTS = 2
MAX_ELASTIC_RESTARTS = 8
"""Nodes that come and go are no failures of the job."""
SECONDS_BETWEEN_FETCHES = 2.0
"""Between two looks at curves that lie behind a URL."""

T = TypeVar("T")
R = TypeVar("R")


class RayExecutor:
    """The Executor over Ray; `num_workers` 0 trains in this process by the same loop.

    Ray comes up on the first training that needs it and stays until the process ends or close().

    Args:
        settings: ray_address, ray_num_cpus, torch_threads, max_workers, worker_cpus, worker_gpus.
        seconds_between_checkpoints: Seconds of work.
    """

    def __init__(self, settings: Settings, seconds_between_checkpoints: float = SECONDS_BETWEEN_CHECKPOINTS) -> None:
        self._settings, self._seconds = settings, seconds_between_checkpoints
        self._local = LocalExecutor(settings.torch_threads, seconds_between_checkpoints)

    def require(self, num_workers: int) -> None:
        """Refuse a training of more workers than the settings allow.

        Raises:
            ConfigError: max_workers is lower.
        """
        most = self._settings.max_workers
        if most is not None and num_workers > most:
            raise ConfigError(
                f"{num_workers} workers are asked for, and the setting max_workers allows {most}",
                hint="lower `workers`, or raise max_workers",
            )

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
        """Train on `num_workers` workers, going on from the last readable checkpoint.

        A worker that dies is replaced, a few times at most; with `min_workers` the training goes on with fewer where
        there is no place for all, and takes more in again when there is. Ctrl-C stops the workers before it goes on
        upwards.

        Raises:
            RunFailedError: The job failed; checkpoints stay.
            ConfigError: More workers than allowed, the cluster is too small, or it cannot be reached.
        """
        place = storage_of(directory, storage)
        if num_workers == 0 or is_finished(place, directory):
            return self._local.train(
                job,
                run_id=run_id,
                directory=directory,
                num_workers=0,
                seed=seed,
                task=task,
                progress=progress,
                storage=storage,
            )
        self.require(num_workers)
        place.remove(FAILURE)
        teller = Teller(progress, task, job.num_steps)
        self._bring_up(num_workers, min_workers or num_workers, teller)
        share = Share(
            job,
            place.root,
            seed,
            self._settings.torch_threads or 1,
            self._seconds,
            is_on_gpu=self._settings.worker_gpus > 0,
        )
        own = directory.absolute() / "ray"
        try:
            with warnings.catch_warnings():  # Ray uses what Ray has deprecated
                warnings.simplefilter("ignore", DeprecationWarning)
                fit = _trainer(share, run_id, own, num_workers, min_workers, self._settings).fit
                run_beside(fit, _Watch(teller, place).look)
        except _fit_errors() as error:
            raise RunFailedError(f"{task} failed: {_reason(error)}", hint="run again to go on from there") from None
        finally:
            shutil.rmtree(own, ignore_errors=True)
        _raise_failure(place, task)
        return finish(place, directory, teller)

    def _bring_up(self, num_workers: int, min_workers: int, teller: Teller) -> None:
        """Ray with room for the workers: an embedded one for all of them, one that is joined for the fewest."""
        is_local = self._settings.ray_address == "local"
        num = num_workers if is_local else min_workers
        cluster.bring_up(
            self._settings,
            math.ceil(num * self._settings.worker_cpus),
            lambda message: teller.say(0, message),
            num_gpus=num * self._settings.worker_gpus,
        )
        teller.say(0, f"starting {num_workers} workers")

    def sweep(self, plan: SweepPlan, *, run_id: str, storage: str, task: str, progress: Progress) -> list[TrialOutcome]:
        """Run the trials of a sweep on Ray Tune, in order of their number; those finished in `storage` are not run.

        Raises:
            RunFailedError: Ray failed; finished trials and checkpoints stay.
            ConfigError: The cluster is too small or cannot be reached.
        """
        from plait.execution import ray_tune

        return ray_tune.sweep(
            self._settings,
            plan,
            run_id=run_id,
            storage=storage,
            task=task,
            progress=progress,
            seconds_between_checkpoints=self._seconds,
        )

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


def _trainer(
    share: Share, run_id: str, own: Path, num_workers: int, min_workers: int | None, settings: Settings
) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from plait.execution.ray_worker import work

    is_elastic = min_workers is not None and min_workers < num_workers
    resources = {"CPU": settings.worker_cpus} | ({"GPU": settings.worker_gpus} if share.is_on_gpu else {})
    # Control words are on the CPU; two workers on one GPU cannot talk by NCCL.
    backend = "cpu:gloo,cuda:nccl" if settings.worker_gpus >= 1 else "gloo"
    return TorchTrainer(
        work,
        train_loop_config={"share": share},
        torch_config=TorchConfig(backend=backend),
        scaling_config=ScalingConfig(
            num_workers=(min_workers, num_workers) if is_elastic else num_workers,
            use_gpu=share.is_on_gpu,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=run_id,
            storage_path=str(own),
            failure_config=FailureConfig(
                max_failures=MAX_ELASTIC_RESTARTS if is_elastic else MAX_RESTARTS, controller_failure_limit=3
            ),
        ),
    )


class _Watch:
    """Reads off the curves, which the first worker writes, how far a training is."""

    def __init__(self, teller: Teller, storage: Storage) -> None:
        self._teller, self._storage, self._done = teller, storage, last_line(storage)[0]
        self._pause = SECONDS_BETWEEN_FETCHES if isinstance(storage, UrlStorage) else 0.0
        self._looked_at = time.monotonic()

    def look(self) -> None:
        """Tell what is new."""
        if time.monotonic() - self._looked_at < self._pause:
            return
        done, figures = last_line(self._storage)
        self._looked_at = time.monotonic()
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


def _raise_failure(storage: Storage, task: str) -> None:
    """Raise what a worker left.

    Raises:
        RunFailedError: If there is something.
    """
    if storage.exists(FAILURE):
        failure = json.loads(storage.read(FAILURE))
        raise RunFailedError(f"{task} failed: {failure['message']}", hint=failure["hint"])
