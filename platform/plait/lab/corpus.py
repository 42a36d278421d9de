"""A corpus of natural sequences at the door: plain lines, FASTA, or a table with a column `sequence`."""

from __future__ import annotations

from pathlib import Path

from plait.design.alphabets import Alphabet
from plait.design.errors import BadInputError, RowProblem
from plait.design.space import DesignSpace
from plait.lab.delimited import DelimitedTable, RawFile, read_delimited, read_text, refuse
from plait.lab.tables import check_sequences

COLUMN = "sequence"


def read_corpus(path: Path | str, space: DesignSpace | Alphabet, length: int | None = None) -> list[str]:
    """Sequences in file order, repeats kept.

    Args:
        path: One sequence per line, FASTA (a record may span lines), or a CSV, TSV or semicolon-separated table with a
            column `sequence`.
        space: The design space they must lie in (its constraints are not asked of natural sequences), or only the
            alphabet they are written in.
        length: Their length where only an alphabet is given; None takes the length that most have.

    Raises:
        NotFoundError: No such file.
        BadInputError: The file cannot be read, or sequences are bad, all of them listed (rows are lines, from 1).
    """
    raw = read_text(Path(path))
    first = raw.text.strip().split("\n", 1)[0].strip()
    if first.startswith(">"):
        table = _from_fasta(raw)
    elif COLUMN in first.lower() or any(delimiter in first for delimiter in ",;\t"):
        table = read_delimited(Path(path), [COLUMN])
    else:
        table = _from_lines(raw)
    if isinstance(space, Alphabet):
        refuse(table, check_sequences(table, COLUMN, space, length))
    else:
        problems = check_sequences(table, COLUMN, space.alphabet, space.length)
        refuse(table, problems or _outside(table, space))
    return list(table.cells[COLUMN])


def _outside(table: DelimitedTable, space: DesignSpace) -> list[RowProblem]:
    try:
        space.encode(table.cells[COLUMN])
    except BadInputError as error:
        return [RowProblem(table.rows[p.row - 1], COLUMN, p.value, p.reason) for p in error.problems]
    return []


def _from_lines(raw: RawFile) -> DelimitedTable:
    numbered = [(row, line.strip()) for row, line in enumerate(raw.text.split("\n"), start=1) if line.strip()]
    rows, cells = zip(*numbered, strict=True)
    return DelimitedTable(raw, (COLUMN,), {COLUMN: cells}, rows, (), ())


def _from_fasta(raw: RawFile) -> DelimitedTable:
    """Records by the line of their `>`; letters of a record's lines are joined."""
    rows: list[int] = []
    parts: list[list[str]] = []
    for row, line in enumerate(raw.text.split("\n"), start=1):
        if line.lstrip().startswith(">"):
            rows.append(row)
            parts.append([])
        elif line.strip():
            parts[-1].append(line.strip())
    return DelimitedTable(raw, (COLUMN,), {COLUMN: tuple("".join(part) for part in parts)}, tuple(rows), (), ())
