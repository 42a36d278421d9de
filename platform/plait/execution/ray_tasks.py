"""Independent pieces of work side by side on Ray, each in a process of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from plait.design.errors import PlaitError, RunFailedError
from plait.execution import cluster
from plait.execution.loop import reason_of
from plait.settings import Settings

SECONDS_BETWEEN_LOOKS = 0.2

T = TypeVar("T")
R = TypeVar("R")


def run_each(
    settings: Settings,
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    num_workers: int,
    say: Callable[[str], None],
) -> Iterator[tuple[T, R | PlaitError]]:
    """Function of each item, as they end: what it returned, or why it did not.

    Every item has a fresh process with one CPU, so that memory and time are its own; at most `num_workers` run at a
    time. An interruption stops Ray, and with it what runs.

    Args:
        settings: ray_address, ray_num_cpus.
        function: A plain function of its item, picklable as the items are.
        items: In the order in which they begin.
        num_workers: Processes at a time.
        say: Is told what Ray does.

    Raises:
        RunFailedError: Ray does not start.
        ConfigError: The cluster is too small or cannot be reached.
    """
    if not items:
        return
    cluster.bring_up(settings, num_workers, say)
    import ray

    call = ray.remote(num_cpus=1, max_calls=1, max_retries=0)(_call)
    waiting, running = deque(items), dict[Any, T]()
    try:
        while waiting or running:
            while waiting and len(running) < num_workers:
                item = waiting.popleft()
                running[call.remote(function, item)] = item
            ready, _ = ray.wait(list(running), timeout=0)
            if not ready:
                time.sleep(SECONDS_BETWEEN_LOOKS)  # a signal is to arrive here, not within Ray
            for reference in ready:
                yield running.pop(reference), _outcome(reference)
    finally:
        if running:
            cluster.stop()


def _call(function: Callable[[T], R], item: T) -> R:
    return function(item)


def _outcome(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        return cause if isinstance(cause, PlaitError) else RunFailedError(reason_of(cause)[0])
    except ray.exceptions.RayError as error:
        return RunFailedError(reason_of(error)[0])
