"""Curves of a training: one JSON line an update, cut back to the checkpoint when a run resumes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from plait.execution.files import write_atomically

CURVES = "curves.jsonl"

Curves = dict[str, list[tuple[int, float]]]
"""Name -> [(update counted from 1, value), ...]."""


class CurveLog:
    """Appends the figures of each update to a file; lines after update `done` (of an interrupted run) are dropped."""

    def __init__(self, path: Path, done: int) -> None:
        lines = _lines(path)
        kept = [line for line, record in lines if record["step"] <= done]
        write_atomically(path, b"".join(kept))
        self._stream = path.open("ab", buffering=0)

    def append(self, step: int, figures: dict[str, float]) -> None:
        """Figures of one update; at once visible to readers."""
        self._stream.write(json.dumps({"step": step, **figures}).encode() + b"\n")

    def sync(self) -> None:
        """Everything appended is on the disk when this returns."""
        os.fsync(self._stream.fileno())

    def __enter__(self) -> CurveLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.sync()
        self._stream.close()


def read_curves(path: Path) -> Curves:
    """The curves in a file, empty where there is none."""
    curves: Curves = {}
    for _, record in _lines(path):
        step = int(record.pop("step"))
        for name, value in record.items():
            curves.setdefault(name, []).append((step, value))
    return curves


def last_line(path: Path) -> tuple[int, dict[str, float]]:
    """The update that was appended last and its figures; (0, {}) before the first."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 4096))
            tail = stream.read().splitlines(keepends=True)
    except OSError:
        return 0, {}
    for line in reversed(tail):
        if (record := _parse(line)) is not None:
            return int(record.pop("step")), record
    return 0, {}


def _lines(path: Path) -> list[tuple[bytes, dict[str, float]]]:
    if not path.exists():
        return []
    with path.open("rb") as stream:
        parsed = [(line, _parse(line)) for line in stream]
    return [(line, record) for line, record in parsed if record is not None]


def _parse(line: bytes) -> dict[str, float] | None:
    """A line as a record; None for one that was torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "step" in record else None
