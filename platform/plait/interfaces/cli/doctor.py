"""plait doctor."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from plait.interfaces.cli.output import Block
from plait.interfaces.cli.session import Session, command

FAILED = 5


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    command(app, "doctor", example="plait doctor")(doctor)


def doctor(
    session: Session,
    only: Annotated[list[str] | None, typer.Option(metavar="CHECK", help="This check only; may be repeated.")] = None,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="That one check may take.")] = 60.0,
) -> None:
    """Check everything that the settings speak of, and say what to do; status 5 where something failed."""
    from plait.bootstrap.checks import CHECKS
    from plait.bootstrap.doctor import diagnose
    from plait.design.errors import UsageError
    from plait.interfaces.cli.progress import progress_on

    if unknown := [name for name in only or () if name not in CHECKS]:
        raise UsageError(f"there is no check '{unknown[0]}'", hint=f"checks are {', '.join(CHECKS)}")
    with progress_on(sys.stderr, is_quiet=session.is_quiet) as progress:
        checks = diagnose(session.path, only=only or (), seconds=seconds, progress=progress, **session.options)
    advice: list[Block] = [f"{check.name}: {check.advice}" for check in checks if check.advice]
    table: Block = (["check", "status", "found"], [[check.name, check.status, check.found] for check in checks])
    session.show({"checks": checks}, table, *(["", "What to do", *advice] if advice else []))
    if any(check.status == "failed" for check in checks):
        raise typer.Exit(FAILED)
