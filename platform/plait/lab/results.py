"""Results that come back from the lab: a CSV file of readings by design, with every bad row named."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from plait.design.errors import BadInputError, RowProblem
from plait.lab.delimited import DelimitedTable, read_delimited, refuse, shorten
from plait.lab.tables import REPLICATE, check_labels, why_no_number

DESIGN_ID, ASSAY, VALUE, STATUS = "design_id", "assay", "value", "status"
Key = tuple[str, str, str]
"""What a reading is known by: design, assay and replicate."""
Status = Literal["ok", "failed"]


@dataclass(frozen=True)
class ResultRow:
    """One reading of a design.

    Attributes:
        row: Row in the file, counted from 1 at the header.
        design_id: The design.
        assay: What was measured: the name of a dataset of the campaign.
        value: The reading in the assay's unit; None where the well failed.
        replicate: Replicate label, "1" where the file names none.
        status: "ok" or "failed".
    """

    row: int
    design_id: str
    assay: str
    value: float | None
    replicate: str
    status: Status


@dataclass(frozen=True)
class ResultTable:
    """A results file that was read without a problem; sha256 and num_bytes are those of the file."""

    rows: tuple[ResultRow, ...]
    filename: str
    sha256: str
    num_bytes: int
    notes: tuple[str, ...]


def read_results(
    path: Path | str,
    assays: Sequence[str],
    known_ids: Collection[str],
    ordered_ids: Collection[str] | None = None,
    registered: Mapping[Key, float | None] | None = None,
) -> ResultTable:
    """Read a results file: design_id, value and, where wanted, assay, replicate and status (ok or failed).

    Args:
        path: CSV, TSV or semicolon-separated UTF-8 text with a header.
        assays: The campaign's, by the names of their datasets; with several the column assay must be there, with one
            it may be left out.
        known_ids: Designs of the campaign.
        ordered_ids: Those of them that wait for results; None for all.
        registered: Readings that are there already, by design, assay and replicate; None where the well failed.

    Raises:
        NotFoundError: No such file.
        BadInputError: The file cannot be read or a column is missing; or rows are bad (unknown design or assay, no
            number, an empty value that is not failed, the same design, assay and replicate twice, another value than
            the registered one), all of them listed.
    """
    table = read_delimited(Path(path), [DESIGN_ID, VALUE])
    problems: list[RowProblem] = []
    ids = _ids(table, frozenset(known_ids), None if ordered_ids is None else frozenset(ordered_ids), problems)
    measured = _assays(table, assays, problems)
    replicates = ("1",) * len(table.rows)
    if REPLICATE in table.columns:
        replicates = check_labels(table, REPLICATE, problems)
    statuses = _statuses(table, problems)
    _check_values(table, statuses, problems)
    keys = list(zip(ids, measured, replicates, strict=True))
    problems += _repeated(table, keys)
    refuse(table, problems)
    values = [float(cell) if cell.strip() else None for cell in table.cells[VALUE]]
    refuse(table, _contradictions(table, keys, values, registered or {}))
    rows = tuple(map(ResultRow, table.rows, ids, measured, values, replicates, statuses))
    unused = [name for name in table.columns if name not in (DESIGN_ID, ASSAY, VALUE, REPLICATE, STATUS)]
    notes = [*table.notes, *([f"columns not used: {shorten(', '.join(map(repr, unused)), 400)}"] if unused else [])]
    return ResultTable(rows, table.source.name, table.source.sha256, table.source.num_bytes, tuple(notes))


def _ids(
    table: DelimitedTable, known: frozenset[str], ordered: frozenset[str] | None, problems: list[RowProblem]
) -> tuple[str, ...]:
    ids = check_labels(table, DESIGN_ID, problems)
    for row, design_id in zip(table.rows, ids, strict=True):
        if design_id and design_id not in known:
            problems.append(RowProblem(row, DESIGN_ID, shorten(design_id), "no design of this campaign"))
        elif design_id and ordered is not None and design_id not in ordered:
            problems.append(RowProblem(row, DESIGN_ID, shorten(design_id), "this design does not wait for results"))
    return ids


def _assays(table: DelimitedTable, assays: Sequence[str], problems: list[RowProblem]) -> tuple[str, ...]:
    may_stand = " or ".join(assays)
    if ASSAY in table.columns:
        names = check_labels(table, ASSAY, problems)
        for row, name in zip(table.rows, names, strict=True):
            if name and name not in assays:
                problems.append(RowProblem(row, ASSAY, shorten(name), f"no assay of this campaign: write {may_stand}"))
        return names
    if len(assays) > 1:
        raise BadInputError(
            f"{table.source.name} has no column '{ASSAY}', and this campaign has {len(assays)} assays",
            hint=f"add the column '{ASSAY}', and write {may_stand} in every row",
            problems=[RowProblem(1, ASSAY, "", f"this column is missing; {may_stand} may stand in it")],
        )
    return (assays[0],) * len(table.rows)


def _statuses(table: DelimitedTable, problems: list[RowProblem]) -> list[Status]:
    if STATUS not in table.columns:
        return ["ok"] * len(table.rows)
    statuses: list[Status] = []
    for row, cell in zip(table.rows, table.cells[STATUS], strict=True):
        if cell.strip() not in ("ok", "failed", ""):
            problems.append(RowProblem(row, STATUS, shorten(cell), "write ok or failed"))
        statuses.append("failed" if cell.strip() == "failed" else "ok")
    return statuses


def _check_values(table: DelimitedTable, statuses: list[Status], problems: list[RowProblem]) -> None:
    for row, cell, status in zip(table.rows, table.cells[VALUE], statuses, strict=True):
        reason = why_no_number(cell)
        if status == "failed":
            reason = "a failed well has no value: leave it empty, or write status ok" if cell.strip() else ""
        elif not cell.strip():
            reason = "empty value: fill it in, or write failed in the column 'status'"
        if reason:
            problems.append(RowProblem(row, VALUE, shorten(cell), reason))


def _repeated(table: DelimitedTable, keys: list[Key]) -> list[RowProblem]:
    seen: dict[Key, int] = {}
    problems = []
    what = "design, assay and replicate" if ASSAY in table.columns else "design and replicate"
    for row, key in zip(table.rows, keys, strict=True):
        first = seen.setdefault(key, row)
        if first != row and key[0]:
            problems.append(RowProblem(row, DESIGN_ID, shorten(key[0]), f"the same {what} as row {first}"))
    return problems


def _contradictions(
    table: DelimitedTable,
    keys: list[Key],
    values: list[float | None],
    registered: Mapping[Key, float | None],
) -> list[RowProblem]:
    problems = []
    for row, key, value, cell in zip(table.rows, keys, values, table.cells[VALUE], strict=True):
        if key in registered and registered[key] != value:
            was = "failed" if registered[key] is None else f"{registered[key]:g}"
            what = f"{key[0]} replicate {key[2]}" + (f" in {key[1]}" if ASSAY in table.columns else "")
            why = f"{what} is registered as {was}; name another replicate if it was measured again"
            problems.append(RowProblem(row, VALUE, shorten(cell), why))
    return problems
