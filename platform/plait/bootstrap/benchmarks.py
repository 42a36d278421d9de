"""`plait benchmark`: whole campaigns side by side on Ray, each in a home of its own, and the table of what came out.

DIR/cells/TASK/METHOD/seedN holds a cell: its home while it runs, then cell.json and cell.parquet. Running again skips
finished cells and goes on with those that were broken off; failed ones are tried again.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from plait.bootstrap.benchmark_cells import Job, finished_row, run_cell
from plait.design.errors import BadInputError, PlaitError, UsageError
from plait.design.records import Progress, no_progress
from plait.settings import Settings

if TYPE_CHECKING:
    from plait.benchmarks.cells import Cell, Row

TABLE, FIGURES = "results", "figures"


@dataclass(frozen=True)
class Plan:
    """What a benchmark is to run.

    Attributes:
        suite: Which tasks and methods, where none are named, and what is cut.
        cells: In the order in which they begin.
        notes: What was left out, and why.
    """

    suite: str
    cells: tuple[Cell, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark left behind.

    Attributes:
        rows: One per cell, in the plan's order.
        notes: What was left out, and why.
        files: Tables and figures.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    files: tuple[Path, ...]


def plan(
    suite: str,
    *,
    tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
    num_seeds: int | None = None,
    rounds: int | None = None,
    cache: Path | None = None,
) -> Plan:
    """Every method on every task from every seed; seeds vary last, so that each method is seen early.

    Args:
        suite: small, real or ehrlich.
        tasks: Names; the suite's by default.
        methods: Names; the suite's by default.
        num_seeds: Seeds 0, 1, ...; three by default (one in the small suite).
        rounds: Of every campaign; the task's by default (one in the small suite).
        cache: Folder of fetched landscapes; the setting `cache` by default.

    Raises:
        NotFoundError: A suite, task or method that does not exist, or a landscape that was not fetched.
        ConfigError: A method cannot be configured.
    """
    from plait.benchmarks.cells import make_cell
    from plait.benchmarks.methods import NUM_SEEDS, is_possible, methods_of, overrides_of
    from plait.benchmarks.tasks import find_task, list_tasks

    found = [find_task(name, cache) for name in dict.fromkeys(tasks or list_tasks(suite, cache))]
    chosen = list(dict.fromkeys(methods or methods_of(suite)))
    for method in chosen:
        overrides_of(method)
    for task in found:
        task.offline(0)  # says now what was not fetched
    pairs = [(task, method) for task in found for method in chosen]
    notes = [
        f"{method} is left out on {task.name}: the space is too large to be ranked whole"
        for task, method in pairs
        if not is_possible(method, task.space)
    ]
    cells = [
        make_cell(task, method, seed, suite, rounds)
        for seed in range(num_seeds or NUM_SEEDS.get(suite, 3))
        for task, method in pairs
        if is_possible(method, task.space)
    ]
    return Plan(suite, tuple(cells), tuple(notes))


def run(
    planned: Plan,
    output: Path,
    settings: Settings,
    *,
    num_workers: int | None = None,
    is_kept: bool = False,
    progress: Progress = no_progress,
) -> Benchmark:
    """Run what is not finished yet, and write the table and the figures of all of it.

    Args:
        planned: What to run.
        output: Folder of cells, tables and figures; made where it does not exist.
        settings: Of Ray and of the cache.
        num_workers: Campaigns at a time; the number of cores by default.
        is_kept: Keep every cell's home (registry, models: some 10 MB a round).
        progress: Is told of every cell that ends.

    Raises:
        UsageError: Nothing is planned.
        BadInputError: The folder cannot be made.
        RunFailedError: Ray does not start; a failing cell is a row that says so.
    """
    if not planned.cells:
        raise UsageError("no method can run on these tasks", hint="; ".join(planned.notes))
    output = _folder(output)
    jobs = [Job(cell, output / _place(cell), settings.cache, is_kept) for cell in planned.cells]
    rows = {job.cell.key: row for job in jobs if (row := finished_row(job)) is not None}
    open_jobs = [job for job in jobs if job.cell.key not in rows]
    progress("benchmark", len(rows), len(jobs), "")
    for job, row in _run_all(open_jobs, settings, num_workers or os.cpu_count() or 1, progress):
        rows[job.cell.key] = row
        progress("benchmark", len(rows), len(jobs), _say(row))
    ordered = tuple(rows[cell.key] for cell in planned.cells)
    return Benchmark(ordered, planned.notes, _write(output, planned.suite, ordered))


def _folder(output: Path) -> Path:
    path = output.expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"{path} cannot be made: {error.strerror}", hint="choose another --output") from error
    return path


def summary(done: Benchmark) -> tuple[list[str], list[list[str]]]:
    """Means over seeds as a table."""
    from plait.benchmarks.tables import summary_table

    return summary_table(done.rows)


def _run_all(jobs: list[Job], settings: Settings, num_workers: int, progress: Progress) -> Iterator[tuple[Job, Row]]:
    """The rows of cells as they end; a process that was lost is a failed row."""
    from plait.benchmarks.cells import failed
    from plait.execution.ray_tasks import run_each

    def say(text: str) -> None:
        progress("benchmark", 0, 0, text)

    for job, outcome in run_each(settings, run_cell, jobs, num_workers=num_workers, say=say):
        yield job, failed(job.cell, outcome.message) if isinstance(outcome, PlaitError) else outcome


def _place(cell: Cell) -> Path:
    return Path("cells") / cell.task / cell.method / f"seed{cell.seed}"


def _write(output: Path, suite: str, rows: Sequence[Row]) -> tuple[Path, ...]:
    from plait.benchmarks.tables import markdown, write_results
    from plait.bootstrap.home import write_text
    from plait.reporting.benchmark_figures import write_figures

    table, text = output / f"{TABLE}.parquet", output / f"{TABLE}.md"
    write_results(table, rows)
    write_text(text, markdown(suite, rows, _machine()))
    return table, text, *write_figures(output / FIGURES, rows)


def _machine() -> str:
    """What the figures were made with, in a line."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("plait", "torch", "numpy"))
    return f"{versions}, Python {platform.python_version()}, {platform.platform()}, {os.cpu_count()} cores"


def _say(row: Row) -> str:
    """A cell in a few words."""
    name = f"{row.task} {row.method} seed {row.seed}"
    if row.scores is None:
        return f"{name} failed: {row.error}"
    found = "best" if row.scores.top_share is None else "in the top 1 %"
    return f"{name}: {found} {row.final:.3g}, {row.scores.seconds:.0f} s" if row.final is not None else name
