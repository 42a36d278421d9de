"""Pools of sequences as files: CSV, TSV, FASTA (plain or gzip) and Parquet, read part by part in bounded memory.

Nothing is inferred: every cell of a text file stays text, so that NA is a peptide. Rows count from 1: at the header of
a table, at the first row of Parquet; a FASTA record is known by the line of its `>`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from plait.design.errors import BadInputError, NotFoundError, RowProblem
from plait.lab.delimited import shorten

SEQUENCE, NAME = "sequence", "name"
BLOCK_BYTES = 8 * 2**20
"""Of a text file at a time; also the longest row."""
PARQUET_ROWS = 65_536
_HEADER_BYTES = 2**20
_GZIP, _ARROW_PARQUET = b"\x1f\x8b", b"PAR1"
_DELIMITERS = ",\t;"
_NEWLINE, _RETURN, _RECORD = ord("\n"), ord("\r"), ord(">")


@dataclass(frozen=True)
class Part:
    """Some rows of a file, in its order.

    Attributes:
        table: The rows that could be split into cells; its column of sequences is binary and may hold nulls.
        rows: (n,) int64, their numbers.
        problems: Rows between them that could not be split.
    """

    table: pa.Table
    rows: NDArray[np.int64]
    problems: tuple[RowProblem, ...] = ()


def read_parts(path: Path, column: str) -> Iterator[Part]:
    """The file part by part.

    Args:
        path: .csv, .tsv, .fasta, .fa (each also with .gz) or .parquet.
        column: Holds the sequences of a table.

    Raises:
        NotFoundError: No such file.
        BadInputError: Of another kind than its name says, no such column, or broken beyond single rows.
    """
    kind, compression = kind_of(path)
    if not path.exists():
        raise NotFoundError(f"there is no file {path}")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if (magic[:2] == _GZIP) != (compression is not None) or (magic == _ARROW_PARQUET) != (kind == "parquet"):
            raise BadInputError(f"{path} is not what its name says", hint="name it .csv, .fasta, .csv.gz or .parquet")
        if kind == "parquet":
            yield from _parquet_parts(path, column)
        elif kind == "fasta":
            yield from _fasta_parts(lambda: pa.input_stream(str(path), compression=compression), path)
        else:
            yield from _table_parts(lambda: pa.input_stream(str(path), compression=compression), path, column)
    except (OSError, pa.ArrowException) as error:
        raise BadInputError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def kind_of(path: Path) -> tuple[str, str | None]:
    """The kind of a file by its name (table, fasta or parquet) and its compression.

    Raises:
        BadInputError: No known kind.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = "gzip" if suffixes[-1:] == [".gz"] else None
    last = suffixes[-2:-1] if compression else suffixes[-1:]
    kinds = {".csv": "table", ".tsv": "table", ".fasta": "fasta", ".fa": "fasta", ".parquet": "parquet"}
    kind = kinds.get(last[0] if last else "")
    if kind is None or (kind == "parquet" and compression):
        raise BadInputError(
            f"{path.name} is of no known kind", hint="give .csv, .tsv, .fasta or .fa (each also .gz), or .parquet"
        )
    return kind, compression


def _parquet_parts(path: Path, column: str) -> Iterator[Part]:
    with pa.parquet.ParquetFile(path, pre_buffer=False) as file:
        fields = {field.name: field for field in file.schema_arrow if not pa.types.is_nested(field.type)}
        _check_columns(list(file.schema_arrow.names), column, path)
        if column not in fields or not _is_text(fields[column].type):
            raise BadInputError(f"the column '{column}' of {path.name} holds no text")
        first = 1
        for batch in file.iter_batches(PARQUET_ROWS, columns=list(fields), use_threads=False):
            plain = {name: _plain(batch.column(name)) for name in fields}
            plain[column] = plain[column].cast(pa.string()).cast(pa.binary())
            yield Part(pa.table(plain), np.arange(first, first + batch.num_rows))
            first += batch.num_rows


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(is_(kind) for is_ in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _plain(array: pa.Array) -> pa.Array:
    """The array without what a file's metadata could make of it: no dictionary, no extension type."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _check_columns(columns: list[str], column: str, path: Path) -> None:
    there = shorten(", ".join(map(repr, columns)), 400)
    if column not in columns:
        raise BadInputError(
            f"{path.name} has no column '{column}'; there are {there}", hint="name it by --sequence-column"
        )
    if len(set(columns)) < len(columns):
        raise BadInputError(f"{path.name} names a column twice; there are {there}")


def _table_parts(open_stream: Callable[[], pa.NativeFile], path: Path, column: str) -> Iterator[Part]:
    """Parts of a delimited table; a cell may be quoted, but no row spans lines. Blank lines are left out."""
    delimiter, columns = _header(open_stream, path, column)
    skipped = _Skipped(len(columns))
    with open_stream() as stream:
        reader = pa.csv.open_csv(
            stream,
            pa.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=columns, skip_rows=1),
            pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skipped, ignore_empty_lines=False),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.binary()), strings_can_be_null=False),
        )
        num_good = 0
        for batch in reader:
            _refuse_open_quotes(batch, path)
            rows = _numbers(np.array(skipped.rows, dtype=np.int64), num_good, batch.num_rows)
            num_good += batch.num_rows
            table = pa.Table.from_batches([batch])
            yield _without_blanks(Part(table, rows, skipped.new_problems()), column)
    if problems := skipped.new_problems():
        yield Part(pa.table({name: pa.array([], pa.binary()) for name in columns}), np.zeros(0, np.int64), problems)


class _Skipped:
    """Collects the rows that pyarrow cannot split into as many cells as there are columns."""

    def __init__(self, num_columns: int) -> None:
        self.rows: list[int] = []
        self._num_columns, self._problems = num_columns, list[RowProblem]()

    def __call__(self, row: pyarrow.csv.InvalidRow) -> str:
        self.rows.append(row.number)
        if row.actual_columns > 1 or row.text.strip():
            reason = f"{row.actual_columns} cells, the header has {self._num_columns}"
            self._problems.append(RowProblem(row.number, "(row)", shorten(row.text), reason))
        return "skip"

    def new_problems(self) -> tuple[RowProblem, ...]:
        """Those that were not told yet."""
        problems, self._problems = tuple(self._problems), []
        return problems


def _without_blanks(part: Part, column: str) -> Part:
    """The part without rows whose cells are all empty, as those of a blank line are."""
    if pc.min(pc.binary_length(part.table.column(column))).as_py() != 0:
        return part
    has_text = pa.array(np.zeros(part.table.num_rows, dtype=bool))
    for cells in part.table.columns:
        has_text = pc.or_(has_text, pc.greater(pc.binary_length(cells.combine_chunks()), 0))
    return Part(part.table.filter(has_text), part.rows[np.array(has_text)], part.problems)


def _numbers(skipped: NDArray[np.int64], num_before: int, num: int) -> NDArray[np.int64]:
    """Row numbers of `num` good rows after `num_before` others, where the rows `skipped` (ascending) lie between."""
    order = np.arange(num_before + 2, num_before + 2 + num)  # the header is row 1
    good_before = skipped - np.arange(len(skipped))  # the number of the good row that took the place of each
    return order + np.searchsorted(good_before, order, side="right")


def _header(open_stream: Callable[[], pa.NativeFile], path: Path, column: str) -> tuple[str, list[str]]:
    """The delimiter under which the header holds the column of sequences (then most cells), and its cells."""
    with open_stream() as stream:
        block: bytes = stream.read(_HEADER_BYTES)
    line = block.replace(b"\r", b"\n").split(b"\n", 1)[0].decode("utf-8-sig", "replace")
    if not line.strip():
        raise BadInputError(f"{path.name} is empty", hint="the first row names the columns")
    split = [(d, [name.strip() for name in next(csv.reader([line], delimiter=d), [])]) for d in _DELIMITERS]
    delimiter, columns = max(split, key=lambda candidate: (column in candidate[1], len(candidate[1])))
    _check_columns(columns, column, path)
    return delimiter, columns


def _refuse_open_quotes(batch: pa.RecordBatch, path: Path) -> None:
    for name, cells in zip(batch.schema.names, batch.columns, strict=True):
        spans = pc.match_substring_regex(cells, r"[\r\n]")
        if pc.any(spans).as_py():
            cell = cells[pc.index(spans, True).as_py()].as_py().decode("utf-8", "backslashreplace")
            raise BadInputError(
                f"a cell in the column '{name}' of {path.name} spans several lines: {shorten(cell)!r}",
                hint="is a quote not closed? write every row on one line",
            )


def _fasta_parts(open_stream: Callable[[], pa.NativeFile], path: Path) -> Iterator[Part]:
    """Records `>name` and their letters, joined over lines; columns name and sequence."""
    rest, row = b"", 1
    with open_stream() as stream:
        while block := stream.read(BLOCK_BYTES):
            text = rest + block
            end = text.rfind(b"\n>") + 1
            rest = text[end:]
            if len(rest) > 4 * BLOCK_BYTES:
                raise BadInputError(f"a record of {path.name} is longer than {4 * BLOCK_BYTES // 2**20} MB")
            if text[:end].strip():
                yield _records(text[:end], row, path)
            row += text.count(b"\n", 0, end)
    if rest.strip():
        yield _records(rest, row, path)


def _records(text: bytes, first_row: int, path: Path) -> Part:
    """Whole FASTA records as a part; every byte is looked at by numpy, none by Python."""
    letters = np.frombuffer(text.removeprefix(b"\xef\xbb\xbf") if first_row == 1 else text, dtype=np.uint8)
    starts = np.concatenate([[0], np.flatnonzero(letters == _NEWLINE) + 1])
    starts = starts[starts < len(letters)]
    is_name = letters[starts] == _RECORD
    if not is_name.any() or np.isin(letters[: starts[is_name][0]], list(b" \t\r\n"), invert=True).any():
        raise BadInputError(f"{path.name} is no FASTA: a record begins with '>'")
    lengths = np.diff(np.append(starts, len(letters)))
    is_of_name = np.repeat(is_name, lengths)
    record = np.cumsum(is_name) - 1
    kept = ~np.isin(letters, [_NEWLINE, _RETURN])
    kept[starts[is_name]] = False  # the > itself
    is_blank = (letters == ord(" ")) | (letters == ord("\t"))
    columns = {
        SEQUENCE: _strings(letters, kept & ~is_of_name & ~is_blank, starts, record),
        NAME: _strings(letters, kept & is_of_name, starts, record),
    }
    rows = first_row + np.flatnonzero(is_name)
    return Part(pa.table(columns), rows)


def _strings(
    letters: NDArray[np.uint8], chosen: NDArray[np.bool_], starts: NDArray[np.int64], record: NDArray[np.int64]
) -> pa.Array:
    """The chosen letters of each record as binary cells; a line belongs to `record`, from -1 before the first."""
    per_line = np.add.reduceat(chosen, starts, dtype=np.int64)
    counts = np.bincount(record[record >= 0], per_line[record >= 0]).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    data = letters[chosen].tobytes()
    return pa.Array.from_buffers(pa.binary(), len(counts), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data)])
