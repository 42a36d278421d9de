"""Chunks of data through Ray Data: a pool of processes that each load what they need once.

What moves through Ray are the numbers of chunks: a worker reads its chunk and writes what came of it where every node
sees both, so that the object store stays empty and a chunk that is finished is finished for ever.
"""

from __future__ import annotations

import logging
import queue
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any

from plait.design.errors import RunFailedError
from plait.execution import cluster
from plait.execution.loop import reason_of
from plait.settings import Settings

MAX_RESTARTS = 2
SECONDS_BETWEEN_LOOKS = 0.1
_COLUMNS = ("chunk", "seconds", "message", "hint")

Process = Callable[[int], None]
"""Does the work of one chunk."""


@dataclass(frozen=True)
class Ended:
    """A chunk that was processed, and the seconds that took in its worker."""

    number: int
    seconds: float


def process_chunks(
    settings: Settings,
    load: Callable[[], Process],
    chunks: Sequence[int],
    *,
    num_workers: int | None,
    say: Callable[[str], None],
) -> Iterator[Ended]:
    """Have every chunk processed; yields them as they end.

    A worker that dies costs the chunks under way, and is replaced twice at most; a chunk that fails ends the run.
    Ctrl-C arrives in the caller's thread and stops the workers.

    Args:
        settings: ray_address, ray_num_cpus, torch_threads.
        load: Picklable; called once in every worker.
        chunks: Numbers; the work of one may be done twice.
        num_workers: Processes, one CPU each; None takes all CPUs of the cluster.
        say: Is told what Ray does.

    Raises:
        RunFailedError: A chunk failed, workers died too often, or Ray does not start.
        ConfigError: The cluster is too small or cannot be reached.
    """
    if not chunks:
        return
    wanted = min(num_workers or len(chunks), len(chunks))
    cluster.bring_up(settings, wanted if num_workers else 1, say)
    left = list(chunks)
    try:
        for attempt in range(MAX_RESTARTS + 1):
            try:
                for ended in _run(settings, load, left.copy(), wanted):
                    left.remove(ended.number)
                    yield ended
                return
            except _ray_errors() as error:
                if attempt == MAX_RESTARTS:
                    raise RunFailedError(
                        f"workers died {attempt + 1} times: {reason_of(error)[0]}",
                        hint="run again to go on from there; with fewer --workers if memory is short",
                    ) from None
                say("a worker was lost; starting again")
    finally:
        if left:
            cluster.stop()


def _run(settings: Settings, load: Callable[[], Process], chunks: list[int], wanted: int) -> Iterator[Ended]:
    """One execution of Ray Data, in a thread of its own: so that Ctrl-C arrives here and not in Ray."""
    import ray

    num_workers = max(1, min(wanted, len(chunks), int(ray.cluster_resources().get("CPU", 1))))
    dataset = _dataset(load, chunks, num_workers, settings.torch_threads)
    ends: queue.Queue[Any] = queue.Queue()

    def consume() -> None:
        try:
            for batch in dataset.iter_batches(batch_size=None, prefetch_batches=0):
                for row in zip(*(batch[name].tolist() for name in _COLUMNS), strict=True):
                    ends.put(row)
            ends.put(None)
        except BaseException as error:
            ends.put(error)

    Thread(target=consume, name="ray-data", daemon=True).start()
    while (end := _next(ends)) is not None:
        if isinstance(end, BaseException):
            raise end
        number, seconds, message, hint = end
        if message:
            raise RunFailedError(message, hint=hint)
        yield Ended(number, seconds)


def _next(ends: queue.Queue[Any]) -> Any:
    while True:
        try:
            return ends.get_nowait()
        except queue.Empty:
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _dataset(load: Callable[[], Process], chunks: list[int], num_workers: int, torch_threads: int) -> Any:
    import ray.data
    from ray.data import ActorPoolStrategy, DataContext

    told = logging.getLogger("ray.data")  # it logs to a file of Ray's session as well
    told.handlers = [handler for handler in told.handlers if not isinstance(handler, logging.StreamHandler)]
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"ray\.data")  # Ray uses what Ray deprecated
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # a chunk takes as long as its model does
    with warnings.catch_warnings():  # without max_restarts a chunk that kills its worker would be tried for ever
        warnings.simplefilter("ignore", DeprecationWarning)
        return ray.data.from_items(chunks, override_num_blocks=len(chunks)).map_batches(
            _Worker,
            fn_constructor_args=(load, torch_threads),
            batch_size=1,
            compute=ActorPoolStrategy(size=num_workers, max_tasks_in_flight_per_actor=2),
            num_cpus=1,
            max_restarts=0,
        )


class _Worker:
    """A process of the pool. A chunk that fails is told, not raised: Ray would try it again."""

    def __init__(self, load: Callable[[], Process], torch_threads: int) -> None:
        self._load, self._threads = load, torch_threads
        self._process: Process | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        (number,) = batch["item"].tolist()
        seconds, message, hint = 0.0, "", ""
        try:
            if self._process is None:
                import torch

                torch.set_num_threads(self._threads)
                self._process = self._load()
            started = time.perf_counter()
            self._process(number)
            seconds = time.perf_counter() - started
        except Exception as error:
            message, hint = reason_of(error)
        return dict(zip(_COLUMNS, ([number], [seconds], [message], [hint]), strict=True))


def _ray_errors() -> tuple[type[BaseException], ...]:
    from ray.exceptions import RayError

    return (RayError,)
