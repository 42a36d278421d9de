"""Delimited text at the door: bytes to named columns of cells, with every line that cannot be read named by its row."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plait.design.errors import BadInputError, NotFoundError, RowProblem

MAX_BYTES = 256 * 2**20
"""Largest file that is read (about ten million readings; it needs some ten times its size in memory)."""
_DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon"}
_FOREIGN = {
    b"PK\x03\x04": "an Excel workbook or zip file",
    b"\x1f\x8b": "a gzip file",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
}


@dataclass(frozen=True)
class RawFile:
    """A file as it came in: its text with LF line ends, the hex SHA-256 of its bytes and their number."""

    name: str
    text: str
    sha256: str
    num_bytes: int


@dataclass(frozen=True)
class DelimitedTable:
    """A delimited file, cell by cell.

    Attributes:
        source: The file.
        columns: Names in the header, in order.
        cells: Column name to its cells in the rows that have as many cells as the header.
        rows: Row number of each of those, counted from 1 at the header.
        problems: Rows that are not among them.
        notes: What was understood without being told (delimiter, blank rows).
    """

    source: RawFile
    columns: tuple[str, ...]
    cells: dict[str, tuple[str, ...]]
    rows: tuple[int, ...]
    problems: tuple[RowProblem, ...]
    notes: tuple[str, ...]


def read_text(path: Path) -> RawFile:
    """A UTF-8 text file, with or without a byte order mark.

    Raises:
        NotFoundError: No such file.
        BadInputError: A directory, too large, empty, binary, or bytes that are not UTF-8 (every such row is named).
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path} cannot be read: {error}", hint="give a CSV file") from error
    if len(data) > MAX_BYTES:
        raise BadInputError(f"{path} is larger than {MAX_BYTES // 2**20} MB", hint="split it into parts")
    for magic, what in _FOREIGN.items():
        if data.startswith(magic):
            raise BadInputError(f"{path} is {what}, not CSV", hint="save it as CSV (UTF-8)")
    if b"\0" in data:
        raise BadInputError(f"{path} is a binary file (zero byte at offset {data.index(0)})", hint="give CSV (UTF-8)")
    text = _decode(data, path).replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise BadInputError(f"{path} is empty", hint="the first row names the columns")
    return RawFile(path.name, text, hashlib.sha256(data).hexdigest(), len(data))


def _decode(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        problems = []
    for row, line in enumerate(data.split(b"\n"), start=1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            reason = f"byte 0x{line[error.start]:02x} at byte {error.start + 1} of the row is not UTF-8"
            problems.append(RowProblem(row, "(row)", shorten(line.decode("utf-8", "backslashreplace")), reason))
    raise BadInputError(f"{path} is not UTF-8 text", hint="save it as CSV UTF-8", problems=problems)


def read_delimited(path: Path, required: Sequence[str]) -> DelimitedTable:
    """A table separated by commas, tabs or semicolons, with a header; CRLF and quoted cells are read.

    Ragged rows and broken quotes do not stop the reading: they are in `problems`, for the caller to add its own.

    Args:
        path: The file.
        required: Columns that must be there.

    Raises:
        NotFoundError: No such file.
        BadInputError: Not text (see read_text), no rows, a required column is missing, or a name stands twice.
    """
    source = read_text(path)
    delimiter, columns = _header(source.text, required)
    _check_header(columns, required, source.name)
    good, rows, problems, num_blank = _records(source.text, delimiter, len(columns))
    if not rows and not problems:
        raise BadInputError(f"{source.name} has a header and no rows")
    notes = [f"{_DELIMITERS[delimiter]} separated"] if delimiter != "," else []
    notes += [f"{num_blank} blank rows left out"] if num_blank else []
    by_column = zip(*good, strict=True) if good else [()] * len(columns)
    cells = dict(zip(columns, by_column, strict=True))
    return DelimitedTable(source, columns, cells, tuple(rows), tuple(problems), tuple(notes))


def _header(lines: str, required: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The delimiter under which the header holds most of the required columns (then most cells), and its cells."""
    candidates = []
    for delimiter in _DELIMITERS:
        try:
            header = next(csv.reader(io.StringIO(lines[: 2**20]), delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        names = tuple(name.strip() for name in header)
        candidates.append((len(set(required) & set(names)), len(names), delimiter, names))
    if not candidates:
        raise BadInputError("the header cannot be read: a quote is not closed", problems=[_broken(1, lines)])
    _, _, delimiter, names = max(candidates, key=lambda candidate: candidate[:2])
    return delimiter, names


def _check_header(columns: tuple[str, ...], required: Sequence[str], name: str) -> None:
    twice = sorted(column for column, count in Counter(columns).items() if column and count > 1)
    missing = [column for column in required if column not in columns]
    if twice:
        problems = [
            RowProblem(1, shorten(column), shorten(column), "this column name stands twice") for column in twice
        ]
        raise BadInputError(f"{name} names a column twice: {shorten(', '.join(map(repr, twice)))}", problems=problems)
    if missing:
        there = shorten(", ".join(map(repr, columns)), 400) or "none"
        problems = [RowProblem(1, column, "", f"this column is missing; there are {there}") for column in missing]
        raise BadInputError(
            f"{name} has no column {', '.join(map(repr, missing))}; there are {there}",
            hint="name the columns by the --...-column options, or rename them in the file",
            problems=problems,
        )


def _records(lines: str, delimiter: str, width: int) -> tuple[list[list[str]], list[int], list[RowProblem], int]:
    """Rows of `width` cells, their numbers, the problems of the others, and how many were blank."""
    good: list[list[str]] = []
    rows: list[int] = []
    problems: list[RowProblem] = []
    num_blank, row = 0, 0
    reader = csv.reader(io.StringIO(lines), delimiter=delimiter, strict=True)
    while True:
        row += 1
        line = reader.line_num
        try:
            record = next(reader, None)
        except csv.Error as error:
            problems.append(RowProblem(row, "(row)", "", f"cannot be split into cells: {error}"))
            row += reader.line_num - line - 1  # an open quote swallowed these
            continue
        if record is None:
            return good, rows, problems, num_blank
        if row == 1:
            continue
        if len(record) == width:
            good.append(record)
            rows.append(row)
        elif record:
            reason = f"{len(record)} cells, the header has {width}"
            problems.append(RowProblem(row, "(row)", shorten(delimiter.join(record)), reason))
        else:
            num_blank += 1


def _broken(row: int, lines: str) -> RowProblem:
    return RowProblem(row, "(row)", shorten(lines.split("\n", 1)[0]), "a quote is not closed")


def shorten(text: str, length: int = 80) -> str:
    """`text`, cut where it is too long to show."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def refuse(table: DelimitedTable, problems: Sequence[RowProblem]) -> None:
    """Raise BadInputError with these and the table's own problems in file order, if there are any."""
    every = sorted([*table.problems, *problems], key=lambda problem: problem.row)
    if every:
        num_bad = len({problem.row for problem in every})
        raise BadInputError(
            f"{num_bad} of {len(table.rows) + len(table.problems)} rows of {table.source.name} cannot be used",
            hint="correct or remove these rows; nothing was stored",
            problems=every,
        )
