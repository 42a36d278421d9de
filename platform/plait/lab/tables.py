"""A table of assay measurements at the door: a CSV or TSV file to Readings, with every bad cell named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plait.design.alphabets import Alphabet
from plait.design.errors import RowProblem
from plait.design.records import Readings
from plait.lab.delimited import DelimitedTable, read_delimited, refuse, shorten

REPLICATE = "replicate"
MAX_VALUE = 1e15
"""Largest reading whose square models, which count in single precision, can hold with room to spare."""
_NUMBER = re.compile(r"[ \t]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t]*")


@dataclass(frozen=True)
class MeasurementTable:
    """A measurement table that was read without a problem.

    Attributes:
        readings: Its rows, in file order.
        filename: Name of the file.
        sha256: Hex SHA-256 of the file's bytes.
        num_bytes: Size of the file.
        columns: Names in the header, in order.
        notes: What was understood without being told, one sentence each.
    """

    readings: Readings
    filename: str
    sha256: str
    num_bytes: int
    columns: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def num_rows(self) -> int:
        """Readings in the table."""
        return len(self.readings)


def read_measurements(
    path: Path | str,
    alphabet: Alphabet,
    *,
    sequence_column: str = "sequence",
    value_column: str = "value",
    replicate_column: str | None = None,
    std_column: str | None = None,
    batch_column: str | None = None,
) -> MeasurementTable:
    """Read a measurement table: one row per (sequence, replicate).

    Every cell is text until it is checked here, so the peptide NA stays a sequence.

    Args:
        path: CSV, TSV or semicolon-separated UTF-8 text with a header.
        alphabet: What sequences are written in.
        sequence_column: Column of the sequences, which all have one length.
        value_column: Column of the readings, finite numbers in the assay's unit.
        replicate_column: Column of replicate labels; None takes the column "replicate" where there is one, else every
            row is replicate 1.
        std_column: Column of the readings' standard deviations, in the assay's unit, not negative.
        batch_column: Column of batch labels.

    Raises:
        NotFoundError: No such file.
        BadInputError: The file cannot be read or a named column is missing; or rows are bad, all of them listed.
    """
    named = [replicate_column, std_column, batch_column]
    table = read_delimited(Path(path), [sequence_column, value_column, *(name for name in named if name is not None)])
    notes = [*table.notes]
    replicates = ("1",) * len(table.rows)
    replicate_name = replicate_column or (REPLICATE if REPLICATE in table.columns else None)
    if replicate_name is None:
        notes.append(f"there is no column '{REPLICATE}': every row is replicate 1")
    problems = check_sequences(table, sequence_column, alphabet)
    values = check_numbers(table, value_column, problems)
    stds = None if std_column is None else check_numbers(table, std_column, problems, is_std=True)
    if replicate_name is not None:
        replicates = check_labels(table, replicate_name, problems)
    batches = None if batch_column is None else check_labels(table, batch_column, problems)
    used = {sequence_column, value_column, replicate_name, std_column, batch_column}
    unused = [name for name in table.columns if name not in used]
    if unused:
        notes.append(f"columns not used: {shorten(', '.join(map(repr, unused)), 400)}")
    sequences = table.cells[sequence_column]
    what = "sequence" if replicate_name is None else "sequence and replicate"
    problems += _repeated(table, sequence_column, sequences, replicates, what)
    refuse(table, problems)
    readings = Readings(
        sequences,
        np.array(values, dtype=np.float64),
        replicates,
        None if stds is None else np.array(stds, dtype=np.float64),
        batches,
    )
    source = table.source
    return MeasurementTable(readings, source.name, source.sha256, source.num_bytes, table.columns, tuple(notes))


def check_sequences(
    table: DelimitedTable, column: str, alphabet: Alphabet, length: int | None = None
) -> list[RowProblem]:
    """Cells of `column` that are empty, not written in `alphabet` or not `length` letters long (None: as most are)."""
    cells = table.cells[column]
    is_written = re.compile(f"[{re.escape(alphabet.letters)}]+").fullmatch
    expected, why = length, "expected"
    if expected is None:
        lengths = Counter(map(len, cells))
        lengths.pop(0, None)
        expected = lengths.most_common(1)[0][0] if lengths else 0
        why = "most rows have"
    problems = []
    for row, cell in zip(table.rows, cells, strict=True):
        if len(cell) == expected and is_written(cell):
            continue
        reason = alphabet.problem_in(cell) or f"length {len(cell)}, {why} {expected}"
        problems.append(RowProblem(row, column, shorten(cell), reason if cell else "empty cell"))
    return problems


def check_numbers(table: DelimitedTable, column: str, problems: list[RowProblem], is_std: bool = False) -> list[float]:
    """Cells of `column` as numbers; those that are none, or not finite, or negative for a std, go to `problems`."""
    numbers = []
    for row, cell in zip(table.rows, table.cells[column], strict=True):
        reason = why_no_number(cell)
        number = float("nan") if reason else float(cell)
        if is_std and number < 0:
            reason = "a standard deviation is not negative"
        if reason:
            problems.append(RowProblem(row, column, shorten(cell), reason))
        numbers.append(number)
    return numbers


def why_no_number(cell: str) -> str:
    """Why `cell` is no finite number; "" where it is one."""
    if _NUMBER.fullmatch(cell):
        return "" if abs(float(cell)) <= MAX_VALUE else f"too large (beyond {MAX_VALUE:g})"
    text = cell.strip().lower().lstrip("+-")
    if not text:
        return "empty cell"
    if text == "nan":
        return "not a number (NaN); leave the row out if nothing was measured"
    if text in ("inf", "infinity"):
        return "infinite"
    if _NUMBER.fullmatch(text.replace(",", ".", 1)):
        return "not a number; write a decimal point, not a comma"
    return "not a number"


def check_labels(table: DelimitedTable, column: str, problems: list[RowProblem]) -> tuple[str, ...]:
    """Cells of `column` without surrounding blanks; empty ones go to `problems`."""
    labels = tuple(cell.strip() for cell in table.cells[column])
    for row, label in zip(table.rows, labels, strict=True):
        if not label:
            problems.append(RowProblem(row, column, "", "empty cell"))
    return labels


def _repeated(
    table: DelimitedTable, column: str, sequences: Sequence[str], replicates: Sequence[str], what: str
) -> list[RowProblem]:
    seen: dict[tuple[str, str], int] = {}
    problems = []
    for row, sequence, replicate in zip(table.rows, sequences, replicates, strict=True):
        first = seen.setdefault((sequence, replicate), row)
        if first != row and sequence:
            problems.append(RowProblem(row, column, shorten(sequence), f"the same {what} as row {first}"))
    return problems
