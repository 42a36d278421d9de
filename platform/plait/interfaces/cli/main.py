"""`plait`: the command line. Every command is a thin call of the home's verbs; heavy imports wait for their command."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from types import FrameType
from typing import Annotated

import typer

from plait.interfaces.cli import (
    benchmarks,
    campaigns,
    data,
    database,
    doctor,
    homes,
    metrics,
    models,
    scheduling,
    score,
    sweeps,
)
from plait.interfaces.cli.session import Session, make_group


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        typer.echo(f"plait {version('plait')}")
        raise typer.Exit


INTERRUPTED = 130

VERSION = inspect.Parameter(
    "version",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ],
)

app = make_group(
    "plait",
    "Active design of biological sequences: a prior, a conservative reward, a batch to the lab, and back.",
    VERSION,
)
for room in (homes, doctor, data, campaigns, models, benchmarks, metrics, score, scheduling, sweeps, database):
    room.register(app)


def main(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name); returns the exit code and never raises."""
    session = Session(sys.stdout)
    try:
        outcome: object = app(list(arguments) or ["--help"], prog_name="plait", standalone_mode=False, obj=session)
    except BaseException as error:  # the one door: everything leaves through it
        outcome = error
    if outcome is None or outcome == 0:
        return 0
    from plait.interfaces.cli.door import interrupted, is_interruption, leave

    session.is_json = session.is_json or "--json" in arguments  # the line may be wrong before its --json
    if is_interruption(outcome):
        return interrupted(session)
    return leave(outcome, session) if isinstance(outcome, BaseException) else int(str(outcome))


def run() -> None:
    """The entry point of the command `plait`."""
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = main(sys.argv[1:])
    if code == INTERRUPTED:  # Ray aborts a process that ends in good order while its threads still run
        os._exit(code)
    sys.exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
