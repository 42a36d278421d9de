"""The benchmark's rows as Parquet and as Markdown."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import Field, asdict, fields
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pyarrow
import pyarrow.parquet

from plait.benchmarks.cells import Row
from plait.benchmarks.scoring import Scores

Table = tuple[list[str], list[list[str]]]

COLUMNS: dict[str, str] = {
    "median": "true median",
    "q10": "10%",
    "q90": "90%",
    "best": "best",
    "best_so_far": "best so far",
    "proxy": "proxy median",
    "gap": "gap",
    "elbo_per_token": "ELBO/token",
    "kmer_correlation": "3-mer corr.",
    "diversity": "diversity",
    "novelty": "novelty",
    "unique_fraction": "unique",
    "pass_rate": "pass",
    "wells_to_first": "wells to 1st",
    "wells_to_50": "wells to 50",
    "seconds": "seconds",
}
"""Field of the scores -> its heading, between the names and the resources of a row."""


_TYPES = {"str": pyarrow.string(), "int": pyarrow.int64(), "float": pyarrow.float64()}


def records(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows flat, one mapping each, every column in every row."""
    empty = {field.name: None for field in fields(Scores)}
    flat = []
    for row in rows:
        document = asdict(row)
        scores = document.pop("scores")
        flat.append(document | empty | (scores or {}))
    return flat


def write_results(path: Path, rows: Iterable[Row]) -> None:
    """The rows as a Parquet file, one column per figure, the same whatever is known."""
    write_records(path, records(rows), pyarrow.schema([(f.name, _type_of(str(f.type))) for f in _fields()]))


def write_records(path: Path, rows: Sequence[dict[str, Any]], schema: Any = None) -> None:
    """Mappings with the same keys as a Parquet file, whole or not at all; types are read off where none are given."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema), beside)
    beside.replace(path)


def _fields() -> list[Field[Any]]:
    return [*(f for f in fields(Row) if f.name != "scores"), *fields(Scores)]


def _type_of(annotation: str) -> Any:
    """The Parquet type of "int", "float | None", "tuple[float | None, ...]" and the like."""
    inner = annotation.removeprefix("tuple[").removesuffix(", ...]").removesuffix(" | None")
    return pyarrow.list_(_TYPES[inner]) if annotation.startswith("tuple[") else _TYPES[inner]


def summary_table(rows: Sequence[Row]) -> Table:
    """Means over seeds (with their standard deviation), one row per task and method, the best first in each task.

    A collapse is a failure whatever its score: methods with a collapsed run come after all that have none, marked
    COLLAPSED; the collapsed runs' figures are in their means. What cannot be listed has no top 1 %.
    """
    headers = ["task", "method", "runs", "top 1 % last round", "best so far", "true median", "gap", "seconds"]
    table = []
    for task in dict.fromkeys(row.task for row in rows):
        groups = {
            m: [r for r in rows if (r.task, r.method) == (task, m)] for m in dict.fromkeys(r.method for r in rows)
        }
        ranked = sorted(groups.items(), key=lambda item: _rank(item[1]))
        table += [_summary_row(task, method, group) for method, group in ranked if group]
    return headers, table


def _rank(rows: list[Row]) -> tuple[bool, float]:
    """What methods are sorted by: clean ones, then those that collapsed or never finished; each by their mean."""
    mean = _mean([row.final for row in rows])
    return any(row.status == "collapsed" for row in rows) or mean == float("-inf"), -mean


def _summary_row(task: str, method: str, rows: list[Row]) -> list[str]:
    scores = [row.scores for row in rows if row.scores is not None]
    counts = {word: sum(row.status == word for row in rows) for word in ("collapsed", "failed")}
    runs = ", ".join([str(len(rows)), *(f"{count} {word.upper()}" for word, count in counts.items() if count)])
    columns = [[getattr(s, name) for s in scores] for name in ("top_share", "best_so_far", "median", "gap", "seconds")]
    return [task, method, runs, *map(_mean_text, columns)]


def run_table(rows: Sequence[Row]) -> Table:
    """Every run: names, status, and every figure."""
    headers = ["task", "method", "seed", "status", "top 1 % by round", *COLUMNS.values(), "CPU s", "peak MB"]
    return headers, [_run_row(row) for row in rows]


def _run_row(row: Row) -> list[str]:
    status = row.status if row.status == "done" else row.status.upper()
    names = [row.task, row.method, str(row.seed), status]
    resources = [number(row.cpu_seconds), number(row.peak_memory_mb)]
    if row.scores is None:
        return [*names, *["–"] * (1 + len(COLUMNS)), *resources]
    shares = " ".join(number(share) for share in row.scores.top_share_by_round)
    return [*names, shares, *(number(getattr(row.scores, name)) for name in COLUMNS), *resources]


def markdown(suite: str, rows: Sequence[Row], machine: str = "") -> str:
    """The page: means over seeds, every run, and what went wrong; `machine` says where it ran."""
    parts = [
        f"# Benchmark: {suite}\n",
        *([f"{machine}\n"] if machine else []),
        "## Means over seeds\n",
        _markdown_table(summary_table(rows)),
    ]
    parts += ["## Every run\n", _markdown_table(run_table(rows))]
    errors = [f"* {row.task}, {row.method}, seed {row.seed}: {row.error}\n" for row in rows if row.error]
    return "\n".join([*parts, *(["## Failed runs\n", "".join(errors)] if errors else [])])


def number(value: float | None) -> str:
    """Three digits; a dash where there is nothing."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return fmean(known) if known else float("-inf")


def _mean_text(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    return number(fmean(known)) + (f" ± {number(stdev(known))}" if len(known) > 1 else "")


def _markdown_table(table: Table) -> str:
    headers, rows = table
    lines = [headers, ["---"] * len(headers), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
