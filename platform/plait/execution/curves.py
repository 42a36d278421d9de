"""Curves of a training: one JSON line an update, in short files; cut back to the checkpoint when a run resumes."""

from __future__ import annotations

import json
import time

from plait.design.errors import StoreError
from plait.execution.storage import Storage

CURVES = "curves"
FIRST_PAUSE = 0.5
"""Seconds between two writes, at least."""
MOST_OF_THE_TIME = 0.02
"""Share of the time that writing may take, checkpoints apart."""
LINES_OF_A_FILE = 1000

Curves = dict[str, list[tuple[int, float]]]
"""Name -> [(update counted from 1, value), ...]."""


class CurveLog:
    """Keeps the figures of each update; those after update `done` (of an interrupted run) are dropped.

    A file is named after its first update and written again as it grows, whole each time, for an object store cannot
    append; after LINES_OF_A_FILE lines the next one begins.
    """

    def __init__(self, storage: Storage, done: int) -> None:
        self._storage, self._lines, self._first = storage, list[bytes](), done + 1
        self._written_at, self._pause = time.monotonic(), FIRST_PAUSE
        starts = [int(name.partition(".")[0]) for name in storage.names(CURVES)]
        for start in starts:
            if start > done:
                storage.remove(_name(start))
        if kept := [start for start in starts if start <= done]:
            self._first = kept[-1]
            self._lines = storage.read(_name(self._first)).splitlines(keepends=True)[: done - self._first + 1]
            self.sync()

    def append(self, step: int, figures: dict[str, float]) -> None:
        """Figures of one update; readers see them within a second or so."""
        self._lines.append(json.dumps({"step": step, **figures}).encode() + b"\n")
        if time.monotonic() - self._written_at >= self._pause or len(self._lines) >= LINES_OF_A_FILE:
            self.sync()

    def sync(self) -> None:
        """Everything appended is in the storage when this returns."""
        started = time.monotonic()
        if self._lines:
            self._storage.write(_name(self._first), b"".join(self._lines))
        if len(self._lines) >= LINES_OF_A_FILE:
            self._first, self._lines = self._first + len(self._lines), []
        self._written_at = time.monotonic()
        self._pause = max(FIRST_PAUSE, (self._written_at - started) / MOST_OF_THE_TIME)


def read_curves(storage: Storage) -> Curves:
    """The curves of a training, empty where there are none."""
    curves: Curves = {}
    for name in storage.names(CURVES):
        for line in storage.read(f"{CURVES}/{name}").splitlines():
            record = json.loads(line)
            step = int(record.pop("step"))
            for key, value in record.items():
                curves.setdefault(key, []).append((step, value))
    return curves


def last_line(storage: Storage) -> tuple[int, dict[str, float]]:
    """The last update that was written and its figures; (0, {}) before the first."""
    try:
        newest = storage.names(CURVES)[-1]
        record = json.loads(storage.read(f"{CURVES}/{newest}").splitlines()[-1])
    except (IndexError, OSError, StoreError):  # there is none, it is cut back just now, or out of reach
        return 0, {}
    return int(record.pop("step")), record


def _name(first: int) -> str:
    return f"{CURVES}/{first:010d}.jsonl"
