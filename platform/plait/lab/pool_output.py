"""Scored pools as files: chunks joined in the input's order, in bounded memory, the file whole or not there at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from plait.design.errors import BadInputError, RowProblem
from plait.lab.pool_chunks import CHUNK, SCORES, Pool, WorkFolder

KINDS = (".parquet", ".csv")
_PROBLEM_SCHEMA = pa.schema([("row", pa.int64()), *((name, pa.string()) for name in ("column", "value", "reason"))])
_FORMULA, _NUMBER = r"^[=+\-@\t\r]", r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


def check_output(path: Path, source: Path) -> None:
    """Refuse an output that could not be written, before any work is done.

    Raises:
        BadInputError: Of no known kind, the input itself, no ordinary file, or its folder is missing or read-only.
    """
    reason = ""
    if path.suffix.lower() not in KINDS:
        raise BadInputError(f"{path.name} is of no known kind", hint="give .parquet or .csv")
    if path.exists() and not path.is_file():
        reason = "it is no ordinary file"
    elif path.exists() and source.exists() and path.samefile(source):
        reason = "it is the input"
    elif not path.parent.is_dir():
        reason = "its folder does not exist"
    elif not os.access(path.parent, os.W_OK):
        reason = "its folder may not be written"
    if reason:
        raise BadInputError(f"{path} cannot be written: {reason}", hint="choose another --output")


def join_chunks(folder: WorkFolder, pool: Pool, path: Path, say: Callable[[int], None]) -> None:
    """Write every row of the input with its scores, one chunk after another.

    Args:
        folder: Where all chunks have scores.
        pool: What was parsed.
        path: .parquet or .csv.
        say: Is told how many rows are written.

    Raises:
        BadInputError: A column is of a type that .csv cannot hold.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    num_written = 0
    try:
        with ExitStack() as stack:
            writer: Any = None
            for number in range(len(pool.chunk_rows)):
                chunk, scores = folder.read(CHUNK, number), folder.read(SCORES, number)
                table = pa.table([*chunk.columns, *scores.columns], names=[*chunk.column_names, *scores.column_names])
                if writer is None:
                    writer = stack.enter_context(_open_writer(beside, path.suffix.lower(), table.schema))
                writer.write_table(table if path.suffix.lower() == ".parquet" else safe_for_spreadsheets(table))
                num_written += table.num_rows
                say(num_written)
        beside.replace(path)
    except pa.ArrowException as error:  # bytes, which CSV cannot hold
        reason = " ".join(str(error).split())
        raise BadInputError(f"{path} cannot be written: {reason}", hint="give .parquet; the scores are kept") from error
    finally:
        beside.unlink(missing_ok=True)


def _open_writer(path: Path, kind: str, schema: pa.Schema) -> AbstractContextManager[Any]:
    if kind == ".parquet":
        made: AbstractContextManager[Any] = pa.parquet.ParquetWriter(
            path, schema, compression="zstd", use_dictionary=False
        )
        return made
    return _csv_writer(path, schema)


def _csv_writer(target: Any, schema: pa.Schema) -> AbstractContextManager[Any]:
    options = pa.csv.WriteOptions(quoting_style="needed", quoting_header="needed")
    made: AbstractContextManager[Any] = pa.csv.CSVWriter(target, schema, write_options=options)
    return made


def safe_for_spreadsheets(table: pa.Table) -> pa.Table:
    """The table, with an apostrophe before every text that a spreadsheet would execute; numbers stay numbers."""
    columns = []
    for column in table.columns:
        if pa.types.is_string(column.type):
            is_formula = pc.match_substring_regex(column, _FORMULA)
            if pc.any(is_formula).as_py():
                is_formula = pc.and_not(is_formula, pc.match_substring_regex(column, _NUMBER))
                column = pc.if_else(is_formula, pc.binary_join_element_wise("'", column, ""), column)
        columns.append(column)
    return pa.table(columns, names=table.column_names)


class RejectedWriter:
    """Writes rows that were left out as CSV (row, column, value, reason) into a work folder."""

    def __init__(self, folder: WorkFolder) -> None:
        self._folder = folder

    def __enter__(self) -> RejectedWriter:
        self._stack = ExitStack()
        file = self._stack.enter_context(self._folder.open_rejected("wb"))
        self._writer: Any = self._stack.enter_context(_csv_writer(file, _PROBLEM_SCHEMA))
        return self

    def write(self, problems: Sequence[RowProblem]) -> None:
        """Add some."""
        rows = [asdict(problem) for problem in problems]
        self._writer.write_table(safe_for_spreadsheets(pa.Table.from_pylist(rows, _PROBLEM_SCHEMA)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def copy_rejected(folder: WorkFolder, path: Path) -> None:
    """Put the file of rows that were left out beside the output."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with folder.open_rejected("rb") as source, beside.open("wb") as target:
            shutil.copyfileobj(source, target)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
