"""Waiting for Ray without missing Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread

from plait.execution import cluster

SECONDS_BETWEEN_LOOKS = 0.1


def run_beside(work: Callable[[], object], look: Callable[[], None]) -> None:
    """Run `work` beside this thread, which looks on: so that Ctrl-C arrives here and not in Ray.

    An interruption, or an error of `look`, stops Ray and goes on upwards.

    Raises:
        BaseException: What `work` raised.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=run, name="ray-work", daemon=True)
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
