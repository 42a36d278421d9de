"""plait init, plait demo."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.interfaces.cli.output import Block, facts
from plait.interfaces.cli.session import Session, command

if TYPE_CHECKING:
    from plait.campaign.report_data import ReportData


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "init", example="plait init")(init)
    command(app, "demo", example="plait demo --report report.html")(demo)


def init(
    session: Session,
    database_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Registry [SQLite in the home]; postgresql://user@host/name.")
    ] = None,
) -> None:
    """Make a home, or bring one up to date; safe to repeat."""
    from plait.bootstrap.home import create_home
    from plait.settings import redacted

    options = session.options if database_url is None else {**session.options, "database_url": database_url}
    with create_home(session.home, **options) as home:
        database, path = redacted(home.settings.database_url), home.path
    step = "plait data import FILE --dataset NAME --alphabet dna --unit UNIT"
    session.show({"home": path, "database": database, "next": step}, facts(home=path, database=database, next=step))


def demo(
    session: Session,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of 96 designs.")] = 3,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of the offline draw and the campaign.")] = 0,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="HTML file [report.html].")] = None,
) -> None:
    """Run a campaign on measured splice sites and write its report."""
    from plait.bootstrap.demo import demo as run_demo

    with session.open(create=True) as home:
        done = run_demo(home, rounds=rounds, seed=seed, report=report)
    session.show(
        {"campaign": done.campaign, "report": done.report, **outcome_document(done.data)},
        *outcome_tables(done.data),
        f"report: {done.report}",
    )


def outcome_document(data: ReportData) -> dict[str, Any]:
    """Methods and rounds as the report shows them, for --json."""
    return {
        "has_truth": data.has_truth,
        "offline_best": data.offline_best,
        "benchmark": asdict(data.benchmark),
        "methods": [asdict(method) for method in data.methods],
        "rounds": [asdict(summary) for summary in data.rounds],
    }


def outcome_tables(data: ReportData) -> list[Block]:
    """Methods and rounds as tables."""
    from plait.reporting.tables import further_table, method_table, round_table

    blocks: list[Block] = ["", "Methods, on round 1's data", method_table(data)] if data.methods else []
    further = further_table(data)
    beside: list[Block] = ["", "Further assays", further] if further[1] else []
    return [*blocks, "", "Rounds", round_table(data), *beside, ""]
