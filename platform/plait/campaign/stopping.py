"""A round that runs listens for its campaign being paused or cancelled, and stops as on Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from plait.campaign.repository import Repository
from plait.campaign.schedules import refuse_stopped
from plait.design.errors import PlaitError, StoppedError

SECONDS_BETWEEN_LOOKS = 1.0
SIGNAL = signal.SIGUSR2
"""Wakes this process's main thread, whatever it is waiting for."""


class _Stop(KeyboardInterrupt):
    """Raised in the main thread."""


@contextmanager
def stoppable(repository: Repository, name: str) -> Iterator[Callable[[], None]]:
    """A block that ends within seconds of its campaign being paused or cancelled, as on Ctrl-C.

    In a thread other than the main one (which no signal reaches) it ends at the next call of what it is given.

    Yields:
        A function that raises StoppedError once the campaign was stopped.

    Raises:
        StoppedError: Who stopped the campaign, and why.
    """
    reason: list[StoppedError] = []
    over = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()

    def check() -> None:
        if reason:
            raise reason[0]

    def wake(number: int, frame: FrameType | None) -> None:
        if reason and not over.is_set():
            raise _Stop

    def watch() -> None:
        while not over.wait(SECONDS_BETWEEN_LOOKS):
            stopped = _look(repository, name)
            if stopped is not None:
                reason.append(stopped)
                if is_main:
                    signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)
                return

    before = signal.signal(SIGNAL, wake) if is_main else None
    thread = threading.Thread(target=watch, name="stop-watch", daemon=True)
    thread.start()
    try:
        yield check
    except BaseException:
        if reason:  # whatever it became on its way
            raise reason[0] from None
        raise
    finally:
        over.set()
        thread.join()
        if is_main:
            signal.signal(SIGNAL, before or signal.SIG_DFL)


def _look(repository: Repository, name: str) -> StoppedError | None:
    try:
        with repository.read() as uow:
            refuse_stopped(uow.schedule(name))
    except StoppedError as error:
        return error
    except PlaitError:
        return None  # busy or away: the next look tells
    return None
