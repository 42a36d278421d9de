"""One cell of the benchmark in a process of its own: a whole campaign in a home that is thrown away.

A cell's folder holds its home while it runs, then cell.json (its row) and cell.parquet (its designs, read and true).
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plait.benchmarks.cells import Cell, Row
    from plait.benchmarks.scoring import Scores
    from plait.bootstrap.home import Home
    from plait.campaign.ports import Ports
    from plait.campaign.records import OutboxMessage

STARTED, FINISHED, DESIGNS, HOME = "started.json", "cell.json", "cell.parquet", "home"
ACTOR = "plait benchmark"


@dataclass(frozen=True)
class Job:
    """A cell and where it runs; goes to a worker process."""

    cell: Cell
    folder: Path
    cache: Path
    is_kept: bool


class NoTracker:
    """A Tracker for homes that are thrown away: nobody is told."""

    def record(self, message: OutboxMessage, artifact: Path | None) -> str:
        """Nothing is written; no run id."""
        return ""


def run_cell(job: Job) -> Row:
    """Run a cell, or go on with it, in this process; what went wrong is in its row."""
    from plait.benchmarks.cells import failed, finished, to_document
    from plait.bootstrap.home import write_text
    from plait.execution.loop import reason_of

    _clear_another(job)
    try:
        row = finished(job.cell, _campaign(job), *_usage())
    except Exception as error:
        row = failed(job.cell, " ".join(filter(None, reason_of(error))), *_usage())
    if not job.is_kept:
        shutil.rmtree(job.folder / HOME, ignore_errors=True)
    write_text(job.folder / FINISHED, json.dumps(to_document(job.cell, row), indent=1) + "\n")
    return row


def _campaign(job: Job) -> Scores:
    """A whole campaign through the use cases: offline data in, rounds against the task's lab, scores out."""
    from plait.benchmarks.cells import CAMPAIGN, TaskLaboratory
    from plait.benchmarks.scoring import collect, design_rows, score
    from plait.benchmarks.tables import write_records
    from plait.benchmarks.tasks import find_task
    from plait.campaign.simulation import run as run_campaign
    from plait.execution.local import LocalExecutor
    from plait.lab.orders import write_order

    task, orders = find_task(job.cell.task, job.cache), job.folder / HOME
    with _open_home(job.folder / HOME) as home:
        ports = replace(home.ports, executor=LocalExecutor(torch_threads=1), tracker=NoTracker())
        _create(ports, job)
        laboratory = TaskLaboratory(task, job.cell.seed)
        run_campaign(ports, CAMPAIGN, None, laboratory, lambda r, d: write_order(orders / f"round-{r.number}.csv", d))
        batches = collect(ports, CAMPAIGN)
    write_records(job.folder / DESIGNS, design_rows(task, batches))
    return score(task, job.cell.seed, batches, job.cell.config["batch"]["size"])


def _open_home(folder: Path) -> Home:
    """A home whose registry and artifacts lie in its folder, wherever the user's own do."""
    from plait.bootstrap.home import Home
    from plait.registry.store import Registry

    folder.mkdir(parents=True, exist_ok=True)
    database = f"sqlite:///{folder / 'plait.db'}"
    Registry.create(database).close()
    artifacts = str(folder / "artifacts")
    return Home(folder, database_url=database, artifact_root=artifacts, actor=ACTOR, torch_threads=1)


def _create(ports: Ports, job: Job) -> None:
    """The cell's campaign, unless it was created before."""
    from plait.benchmarks.cells import CAMPAIGN, DATASET, alphabet_name
    from plait.benchmarks.methods import merge
    from plait.benchmarks.tasks import find_task
    from plait.bootstrap.home import write_text
    from plait.campaign.campaigns import create
    from plait.campaign.config import parse_config
    from plait.campaign.datasets import import_dataset

    with ports.repository.begin() as uow:
        if CAMPAIGN in {c.name for c in uow.campaigns()}:
            return
    task = find_task(job.cell.task, job.cache)
    import_dataset(
        ports.repository,
        task.offline(job.cell.seed),
        dataset=DATASET,
        alphabet=alphabet_name(task.space.alphabet),
        unit=task.unit,
        goal="maximize",
        mode="new",
        actor=ports.actor,
    )
    config = job.cell.config
    if sequences := task.corpus():
        corpus = job.folder / HOME / "corpus.txt"
        write_text(corpus, "\n".join(sequences) + "\n")
        config = merge({"prior": {"corpus": str(corpus)}}, config)
    create(ports, parse_config(config))


def finished_row(job: Job) -> Row | None:
    """The row of a cell that was finished by this version with this configuration, and did not fail."""
    from plait.benchmarks.cells import from_document

    document = _read(job.folder / FINISHED)
    if document.get("key") != job.cell.key:
        return None
    row = from_document(document)
    return None if row.status == "failed" else row


def _clear_another(job: Job) -> None:
    """Remove what another cell, or a failed attempt, left in the folder; keep what can be gone on with."""
    from plait.bootstrap.home import write_text

    is_ours = _read(job.folder / STARTED).get("key") == job.cell.key
    if not is_ours or (job.folder / FINISHED).exists():
        shutil.rmtree(job.folder, ignore_errors=True)
        job.folder.mkdir(parents=True)
        write_text(job.folder / STARTED, json.dumps({"key": job.cell.key, "config": job.cell.config}) + "\n")


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; {} where there is none, or it is damaged."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _usage() -> tuple[float, float]:
    """CPU seconds and peak memory (MB) of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    per_mb = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return round(usage.ru_utime + usage.ru_stime, 1), round(usage.ru_maxrss / per_mb)
