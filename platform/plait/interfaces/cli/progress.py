"""How far long work is, on stderr: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from plait.design.records import Progress, no_progress
from plait.interfaces.cli.output import is_fancy, write

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def progress_on(stream: TextIO, *, is_quiet: bool) -> Iterator[Progress]:
    """A Progress that shows itself on `stream` until the block ends."""
    if is_quiet:
        yield no_progress
    elif is_fancy(stream):
        bars = ProgressBars(stream)
        try:
            yield bars
        finally:
            bars.stop()
    else:
        yield ProgressLines(stream)


class ProgressLines:
    """A line when a task begins, ends, or has not been heard of for a while."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._task, self._said_at, self._is_done = "", 0.0, False

    def __call__(self, task: str, done: int, total: int, message: str) -> None:
        """Say it, if it is time to; total 0 is unknown."""
        is_done, now = 0 < total <= done, time.monotonic()
        is_same = task == self._task
        if is_same and (self._is_done if is_done else now - self._said_at < SECONDS_BETWEEN_LINES):
            return
        self._task, self._said_at, self._is_done = task, now, is_done
        count = f" {done}/{total}" if total else ""
        write(self._stream, f"{task}{count}{f': {message}' if message else ''}\n")


class ProgressBars:
    """One bar a task, redrawn in place."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, task: str, done: int, total: int, message: str) -> None:
        """Draw it; total 0 is unknown."""
        if self._bars is None:
            self._bars = _make_bars(self._stream)
            self._bars.start()
        if task not in self._tasks:
            self._tasks[task] = self._bars.add_task(task, total=total or None, message="")
        self._bars.update(self._tasks[task], completed=done, total=total or None, message=message)

    def stop(self) -> None:
        """Leave the bars as they are."""
        if self._bars is not None:
            self._bars.stop()


def _make_bars(stream: TextIO) -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}", markup=False),
    )
    return Progress(*columns, console=Console(file=stream), redirect_stdout=False)
