"""The one door through which errors leave: text on stderr or JSON on stdout, and the exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import tempfile
import traceback
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from plait.design.errors import BadInputError, PlaitError, RowProblem, RunFailedError, UsageError
from plait.interfaces.cli.output import aligned, json_text, plural, write
from plait.interfaces.cli.session import Session
from plait.settings import redacted

INTERNAL, INTERRUPTED = 5, 130
NUM_PROBLEMS_SHOWN = 50
MAX_ALIKE = 10
"""More rows with the same mistake than this are one line."""
LOG = "plait.log"
STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""What a disk that is full or may not be written answers: no mistake of ours."""


def leave(error: BaseException, session: Session) -> int:
    """Tell the user about an error; the exit code."""
    if isinstance(error, typer.TyperException):
        error = _usage(error)
    if isinstance(error, OSError) and error.errno in STORAGE:
        error = _storage(error)
    if not isinstance(error, PlaitError):
        return _internal(error, session)
    if session.is_json:
        write(session.stdout, json_text(error.to_json()))
    else:
        problems = error.problems if isinstance(error, BadInputError) else ()
        write(sys.stderr, f"error: {error.message}\n" + _problem_table(problems))
        if error.hint:
            write(sys.stderr, f"hint: {error.hint}\n")
    if error.__cause__ is not None and error.exit_code == INTERNAL:
        write(sys.stderr, f"details: {_log(error, session)}\n")
    return error.exit_code


def interrupted(session: Session) -> int:
    """Tell that the work was stopped from outside; the exit code."""
    hint = "run the same command again: it goes on from the last finished stage"
    _tell(session, "interrupted", "interrupted", hint)
    return INTERRUPTED


def _usage(error: typer.TyperException) -> UsageError:
    context = getattr(error, "ctx", None)
    return UsageError(error.format_message(), hint=f"see: {context.command_path if context else 'plait'} --help")


def _storage(error: OSError) -> RunFailedError:
    where = f"{error.filename} cannot be used" if error.filename else "a file cannot be used"
    return RunFailedError(f"{where}: {error.strerror}", hint="make room, or change its rights, and run again")


def _internal(error: BaseException, session: Session) -> int:
    text = redacted(" ".join(str(error).split()))
    _tell(
        session,
        "internal",
        f"internal error: {type(error).__name__}: {text}",
        f"what happened is in {_log(error, session)}",
    )
    return INTERNAL


def _tell(session: Session, code: str, message: str, hint: str) -> None:
    if session.is_json:
        write(session.stdout, json_text({"error": {"code": code, "message": message, "hint": hint}}))
    else:
        write(sys.stderr, f"{message} ({hint})\n")


def _problem_table(problems: tuple[RowProblem, ...]) -> str:
    """The first problems as a table, and how many more there are; fields of a YAML file are in the message already."""
    lines = _collapsed([p for p in problems if p.row])
    if not lines:
        return ""
    rows = []
    for p, num in lines[:NUM_PROBLEMS_SHOWN]:
        alike = f" ({plural(num, 'row')} like this)" if num > 1 else ""
        rows.append([str(p.row), p.column, p.value, p.reason + alike])
    text = aligned((["row", "column", "value", "reason"], rows))
    more = sum(num for _, num in lines[NUM_PROBLEMS_SHOWN:])
    return text + (f"and {plural(more, 'more problem')}; --json lists all\n" if more > 0 else "")


def _collapsed(problems: list[RowProblem]) -> list[tuple[RowProblem, int]]:
    """Problems and how many rows each stands for: one where it repeats itself in more than MAX_ALIKE rows."""
    counts = Counter((p.column, p.value, p.reason) for p in problems)
    told, lines = set(), []
    for p in problems:
        cell = (p.column, p.value, p.reason)
        is_many = counts[cell] > MAX_ALIKE
        if not (is_many and cell in told):
            lines.append((p, counts[cell] if is_many else 1))
        told.add(cell)
    return lines


def _log(error: BaseException, session: Session) -> Path:
    """Append the trace to the home's log, or to a file of its own where there is no home; only the user may read it."""
    trace = "".join(traceback.format_exception(error))
    entry = redacted(f"{datetime.now(UTC).isoformat()} plait {' '.join(sys.argv[1:])}\n{trace}\n")
    try:
        return _append(session.path / LOG, entry)
    except OSError:  # no such home, or no room in it
        pass
    try:
        descriptor, name = tempfile.mkstemp(prefix="plait-", suffix=".log")
        os.close(descriptor)
        return _append(Path(name), entry)
    except OSError:
        return Path("(no log: no disk takes one)")


def _append(path: Path, entry: str) -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace") as file:
        os.fchmod(descriptor, 0o600)
        file.write(entry)
    return path


def is_interruption(outcome: Any) -> bool:
    """Whether typer's return value, or an exception, says Ctrl-C or SIGTERM (which Ray turns into SystemExit(15))."""
    if isinstance(outcome, SystemExit):
        return outcome.code == signal.SIGTERM
    return outcome == INTERRUPTED or isinstance(outcome, KeyboardInterrupt | typer.Abort)
