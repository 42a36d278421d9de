"""A pool of sequences at the door: parsed, checked and cut into clean chunks by a process of its own.

That process imports neither Ray nor torch, and unpickles nothing: a file from outside meets Arrow's readers alone,
under a memory limit. It is `python -m plait.lab.pools`; request and answers are lines of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from plait.design.errors import BadInputError, NotFoundError, PlaitError, RowProblem, RunFailedError
from plait.design.space import DesignSpace
from plait.lab.pool_checks import SequenceCheck
from plait.lab.pool_chunks import CHUNK, Pool, WorkFolder
from plait.lab.pool_files import SEQUENCE, Part, read_parts
from plait.lab.pool_output import RejectedWriter

CHUNK_ROWS = 32_768
"""Rows that are scored, and lost to a kill, at a time."""
MAX_NAMED = 10_000
"""Bad rows that an error names one by one."""
MEMORY_BYTES = 8 * 2**30


@dataclass(frozen=True)
class Request:
    """What is to be parsed.

    Attributes:
        path: The file.
        column: Its column of sequences (tables only).
        space: Document of the model's design space.
        folder: Root of the work folder.
        reserved: Column names that the output needs for itself.
        is_skipping: Bad rows are left out; otherwise one of them is enough to refuse the file.
    """

    path: str
    column: str
    space: dict[str, Any]
    folder: str
    reserved: tuple[str, ...]
    is_skipping: bool


def parse_pool(request: Request, say: Callable[[int], None]) -> Pool:
    """Parse a pool in a process of its own; `say` is told how many rows are done.

    Raises:
        NotFoundError: No such file.
        BadInputError: The file cannot be read, or bad rows, all counted and the first 10,000 named.
        RunFailedError: The process died, or the disk is full.
    """
    line = [sys.executable, "-m", "plait.lab.pools"]
    process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
        with process.stdin as stdin:
            stdin.write(json.dumps(asdict(request)))
        for answer in map(json.loads, process.stdout):
            if "pool" in answer:
                return Pool.of(answer["pool"])
            if "error" in answer:
                raise _raised(answer["error"])
            say(answer["rows"])
        code = process.wait()
        raise RunFailedError(f"reading {request.path} ended with exit code {code}", hint="is there enough memory?")
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _raised(error: dict[str, Any]) -> PlaitError:
    message, hint = error["message"], error["hint"]
    if error["code"] == BadInputError.code:
        return BadInputError(message, hint=hint, problems=[RowProblem(**problem) for problem in error["problems"]])
    kind = NotFoundError if error["code"] == NotFoundError.code else RunFailedError
    return kind(message, hint=hint)


def main() -> None:
    """The process: a request on stdin, how far it is and the outcome on stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asked hears Ctrl-C and ends this process
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    request = Request(**json.loads(sys.stdin.read()))
    try:
        outcome: dict[str, Any] = {"pool": asdict(cut(request, lambda rows: _answer({"rows": rows})))}
    except PlaitError as error:
        outcome = error.to_json()
    except MemoryError:
        reason = f"reading {request.path} needs more than {MEMORY_BYTES // 2**30} GB"
        outcome = RunFailedError(reason, hint="split it, or its longest rows").to_json()
    except OSError as error:
        outcome = RunFailedError(f"{request.folder} cannot be written: {error.strerror or error}").to_json()
    except Exception as error:  # the one door of this process
        outcome = RunFailedError(f"reading {request.path} failed: {type(error).__name__}: {error}").to_json()
    _answer(outcome)


def _answer(document: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # nobody listens any more
        os._exit(1)


def cut(request: Request, say: Callable[[int], None]) -> Pool:
    """Parse, check and cut a pool into the chunks of its work folder, in this process."""
    path, space = Path(request.path), DesignSpace.model_validate(request.space)
    folder, cutter = WorkFolder(request.folder), _Cutter(request, SequenceCheck(space))
    with ExitStack() as stack:
        if request.is_skipping:
            cutter.rejected = stack.enter_context(RejectedWriter(folder))
        chunks: list[int] = []
        for table in _of_size(cutter.clean(read_parts(path, request.column)), CHUNK_ROWS):
            if not chunks:
                cutter.note_constraints(table)
            folder.write(CHUNK, len(chunks), table)
            chunks.append(table.num_rows)
            say(cutter.num_rows)
    cutter.judge(path.name)
    pool = Pool(tuple(chunks), cutter.num_bad, tuple(cutter.notes))
    folder.save_pool(pool)
    return pool


class _Cutter:
    """Turns parts of a file into clean tables, and keeps account of the rows it leaves out."""

    def __init__(self, request: Request, check: SequenceCheck) -> None:
        self._request, self._check = request, check
        self.rejected: RejectedWriter | None = None
        self.num_rows = self.num_bad = 0
        self.notes: list[str] = []
        self._problems: list[RowProblem] = []

    def clean(self, parts: Iterator[Part]) -> Iterator[pa.Table]:
        """The good rows of each part, their sequences in a column `sequence`; nothing once the file is refused."""
        for part in parts:
            self._check_names(part.table.column_names)
            self.num_rows += part.table.num_rows + len(part.problems)
            fits = self._judge_part(part)
            table = part.table if fits.all() else part.table.filter(pa.array(fits))
            if table.num_rows and (self.rejected is not None or not self.num_bad):
                yield self._as_text(table)

    def _check_names(self, names: list[str]) -> None:
        others = [name for name in names if name != self._request.column]
        taken = [name for name in others if name in self._request.reserved]
        if taken:
            raise BadInputError(
                f"the input has a column {', '.join(map(repr, taken))} of its own, the output needs that name",
                hint="rename it, or leave it out",
            )

    def _judge_part(self, part: Part) -> NDArray[np.bool_]:
        """(n,) bool: rows that are kept; the others are written down."""
        cells = part.table.column(self._request.column).combine_chunks()
        fits = self._check.fitting(cells)
        bad = pa.array(~fits)
        problems = [*part.problems]
        if not fits.all():
            problems += self._check.problems(cells.filter(bad), part.rows[~fits], self._request.column)
        for name, column in zip(part.table.column_names, part.table.columns, strict=True):
            if pa.types.is_binary(column.type) and name != self._request.column:
                wrong = _not_utf8(column, part.rows, name, fits)
                fits[[at for at, _ in wrong]] = False
                problems += [problem for _, problem in wrong]
        self._keep(sorted(problems, key=lambda problem: problem.row))
        return fits

    def _keep(self, problems: list[RowProblem]) -> None:
        self.num_bad += len(problems)
        self._problems += problems[: MAX_NAMED - len(self._problems)]
        if self.rejected is not None and problems:
            self.rejected.write(problems)

    def _as_text(self, table: pa.Table) -> pa.Table:
        names = [SEQUENCE if name == self._request.column else name for name in table.column_names]
        columns = [c.cast(pa.string()) if pa.types.is_binary(c.type) else c for c in table.columns]
        return pa.table(dict(zip(names, columns, strict=True)))

    def note_constraints(self, table: pa.Table) -> None:
        """Say how many of these rows break a constraint of the space: they are scored all the same."""
        space = self._check.space
        if not space.constraints:
            return
        tokens = self._check.tokens(table.column(SEQUENCE).combine_chunks()).astype(np.int64)
        feasible = np.logical_and.reduce([rule.is_satisfied(tokens, space.alphabet) for rule in space.constraints])
        if not feasible.all():
            num = int((~feasible).sum())
            self.notes.append(f"{num:,} of the first {len(tokens):,} rows break a constraint of the model's space")

    def judge(self, name: str) -> None:
        """Refuse the file where bad rows are not to be skipped, or where no good one is left.

        Raises:
            BadInputError: It is refused.
        """
        if self.num_rows == 0:
            raise BadInputError(f"{name} holds no sequence")
        if self.num_bad and (self.rejected is None or self.num_bad == self.num_rows):
            raise BadInputError(
                f"{self.num_bad:,} of {self.num_rows:,} rows of {name} cannot be used",
                hint="correct or remove these rows, or add --skip-bad-rows; nothing was scored",
                problems=self._problems,
            )


def _not_utf8(
    column: pa.ChunkedArray, rows: NDArray[np.int64], name: str, fits: NDArray[np.bool_]
) -> list[tuple[int, RowProblem]]:
    try:
        column.cast(pa.string())
    except pa.ArrowInvalid:
        found = []
        for at, cell in enumerate(column.to_pylist()):
            try:
                (cell or b"").decode()
            except UnicodeDecodeError:
                text = cell.decode("utf-8", "backslashreplace")
                found += [(at, RowProblem(int(rows[at]), name, text[:80], "not UTF-8"))] if fits[at] else []
        return found
    return []


def _of_size(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of `size`, the last one of what is left."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(part.num_rows for part in waiting) >= size:
            joined = pa.concat_tables(waiting)
            whole = joined.num_rows - joined.num_rows % size
            for start in range(0, whole, size):
                yield joined.slice(start, size).combine_chunks()
            waiting = [joined.slice(whole)]
    rest = pa.concat_tables(waiting) if waiting else None
    if rest is not None and rest.num_rows:
        yield rest.combine_chunks()


if __name__ == "__main__":
    main()
