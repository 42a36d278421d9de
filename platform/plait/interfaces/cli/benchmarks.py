"""plait benchmark: fetch the landscapes, run the methods on them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from plait.interfaces.cli.output import notes, plural
from plait.interfaces.cli.session import Session, command, make_group

Suite = Annotated[Literal["small", "real", "ehrlich"], typer.Option(help="Which tasks and methods.")]
Names = Annotated[str | None, typer.Option(metavar="A,B", help="Names, commas between [the suite's].")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = make_group("benchmark", "Benchmarks: methods against each other where the truth is known.")
    command(group, "run", example="plait benchmark run --suite small")(run)
    command(group, "fetch", example="plait benchmark fetch")(fetch)
    app.add_typer(group)


def run(
    session: Session,
    suite: Suite = "small",
    tasks: Names = None,
    methods: Names = None,
    seeds: Annotated[int | None, typer.Option(metavar="N", min=1, help="Seeds 0 to N - 1 [3; 1 in small].")] = None,
    rounds: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Rounds of every campaign [the task's; 1 in small].")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Campaigns at a time [the number of cores].")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Tables, figures and cells [benchmark-SUITE].")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the home of every campaign.")] = False,
) -> None:
    """Run methods on tasks whose truth is known: one table, one row per task, method and seed.

    Finished campaigns are not run again, broken-off ones go on; remove DIR to start anew.
    """
    import sys

    from plait.bootstrap import benchmarks
    from plait.design.errors import RunFailedError
    from plait.interfaces.cli.output import write
    from plait.interfaces.cli.progress import progress_on
    from plait.settings import load_settings

    settings = load_settings(session.home, **session.options)
    planned = benchmarks.plan(
        suite,
        tasks=_names(tasks),
        methods=_names(methods),
        num_seeds=seeds,
        rounds=rounds,
        cache=settings.cache,
    )
    folder = (output or Path(f"benchmark-{suite}")).absolute()
    with progress_on(sys.stderr, is_quiet=session.is_quiet) as progress:
        done = benchmarks.run(planned, folder, settings, num_workers=workers, is_kept=keep, progress=progress)
    num_failed = sum(row.status == "failed" for row in done.rows)
    session.show(
        {"suite": suite, "rows": [asdict(row) for row in done.rows], "notes": done.notes, "files": done.files},
        benchmarks.summary(done),
        *notes(done.notes),
        *(str(path) for path in done.files),
    )
    if num_failed:
        write(sys.stderr, f"error: {plural(num_failed, 'campaign')} failed; run again to try them once more\n")
        raise typer.Exit(RunFailedError.exit_code)


def fetch(
    session: Session,
    wheels: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="Folder of the wheels, where there is no network.")
    ] = None,
) -> None:
    """Fetch the measured landscapes of the suite real, once; their hashes are checked."""
    import sys

    from plait.benchmarks.wheels import fetch as fetch_wheels
    from plait.interfaces.cli.progress import progress_on
    from plait.settings import load_settings

    cache = load_settings(session.home, **session.options).cache
    with progress_on(sys.stderr, is_quiet=session.is_quiet) as progress:
        fetched = fetch_wheels(cache, wheel_folder=wheels, progress=progress)
    session.show({"cache": cache, "files": fetched}, f"{plural(len(fetched), 'file')} in {cache}")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()
