"""plait db, plait gc: the registry and the artifacts as a whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.interfaces.cli.output import Block, facts, plural
from plait.interfaces.cli.session import Session, command, make_group

if TYPE_CHECKING:
    from plait.bootstrap.database import Database

BROKEN = 5
NUM_SHOWN = 20

File = Annotated[Path, typer.Argument(metavar="FILE", help="A zip.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="The home's database from now on; sqlite:////path or postgresql://user@host/name."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = make_group("db", "The registry's database: versions, checks, moves and backups.")
    command(group, "upgrade", example="plait db upgrade")(upgrade)
    command(group, "downgrade", example="plait db downgrade 0002 --yes")(downgrade)
    command(group, "check", example="plait db check")(check)
    command(group, "export", example="plait db export registry.zip")(export)
    command(group, "import", example="plait db import registry.zip --database-url postgresql://plait@db/plait")(import_)
    command(group, "backup", example="plait db backup monday.zip")(backup)
    command(group, "restore", example="plait db restore monday.zip --home /srv/plait")(restore)
    app.add_typer(group)
    command(app, "gc", example="plait gc --dry-run")(gc)


@contextmanager
def _database(session: Session, *, create: bool = False, **options: Any) -> Iterator[Database]:
    """The verbs over a home whose registry may be of any revision."""
    from plait.bootstrap.database import reach
    from plait.interfaces.cli.progress import progress_on

    with (
        progress_on(sys.stderr, is_quiet=session.is_quiet) as progress,
        reach(session.path, create=create, progress=progress, **session.options | options) as home,
    ):
        yield home.database


def upgrade(session: Session) -> None:
    """Bring the tables up to date, or make them."""
    with _database(session) as database:
        before, after = database.upgrade()
    text = f"the registry is at {after}" + (f", it was at {before}" if before not in (None, after) else "")
    session.show({"before": before, "revision": after}, text)


def downgrade(
    session: Session,
    revision: Annotated[str, typer.Argument(metavar="REVISION", help="An older one, such as 0002.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it: what newer versions brought is taken away.")] = False,
) -> None:
    """Bring the tables back for an older Plait; refused where rows would be lost."""
    with _database(session) as database:
        before, after = database.downgrade(revision, is_confirmed=yes)
    session.show({"before": before, "revision": after}, f"the registry is at {after}, it was at {before}")


def check(session: Session) -> None:
    """Check tables, triggers, rows, audit trail and artifacts; status 5 where something is broken."""
    with _database(session) as database:
        found = database.check()
    rows = [[finding.check, "ok" if finding.is_sound else "BROKEN", finding.found] for finding in found]
    session.show({"checks": found}, (["check", "status", "found"], rows))
    if not all(finding.is_sound for finding in found):
        raise typer.Exit(BROKEN)


def export(session: Session, file: File) -> None:
    """Write the whole registry into one portable file; artifacts stay where they are."""
    with _database(session) as database:
        contents = database.export(file)
    session.show(
        {"file": file.absolute(), "revision": contents.revision, "tables": contents.tables},
        f"{plural(contents.num_rows, 'row')} of {plural(len(contents.tables), 'table')} written to {file}",
    )


def import_(session: Session, file: File, database_url: DatabaseUrl = None) -> None:
    """Fill an empty registry from an export, verified row by row; with a URL the home moves there."""
    from plait.settings import redacted

    with _database(session, create=True) as database:
        contents = database.import_(file, database_url=database_url)
    where = redacted(database_url) if database_url else "the home's database"
    session.show(
        {"revision": contents.revision, "tables": contents.tables, "database": where},
        f"{plural(contents.num_rows, 'row')} of {plural(len(contents.tables), 'table')} read into {where}",
    )


def backup(session: Session, file: File) -> None:
    """Write registry, artifacts and MLflow's local store into one file, while campaigns run; settings stay out."""
    with _database(session) as database:
        made = database.backup(file)
    session.show(
        {"file": file.absolute(), "num_rows": made.contents.num_rows, "num_artifacts": len(made.artifacts)}
        | {"has_mlflow": made.has_mlflow},
        facts(
            file=file, rows=f"{made.contents.num_rows:,}", artifacts=len(made.artifacts), mlflow=_yes(made.has_mlflow)
        ),
    )


def restore(session: Session, file: File, database_url: DatabaseUrl = None) -> None:
    """Fill a new or empty home from a backup; the next step is as it was, and settings are given anew."""
    from plait.settings import save_settings

    options = {} if database_url is None else {"database_url": database_url}
    with _database(session, create=True, **options) as database:
        made = database.restore(file)
    if database_url is not None:
        save_settings(session.path, database_url=database_url)
    session.show(
        {"home": session.path, "num_rows": made.contents.num_rows, "num_artifacts": len(made.artifacts)}
        | {"has_mlflow": made.has_mlflow},
        facts(
            home=session.path,
            rows=f"{made.contents.num_rows:,}",
            artifacts=len(made.artifacts),
            mlflow=_yes(made.has_mlflow),
        ),
    )


def _yes(is_there: bool) -> str:
    return "its store and artifacts" if is_there else "not in it"


def gc(
    session: Session,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look only.")] = False,
    days: Annotated[float, typer.Option(min=0, max=36500, help="That things stay at least; never under an hour.")] = 7,
    alone: Annotated[
        bool, typer.Option("--alone", help="No other registry uses the artifact root, though it is outside the home.")
    ] = False,
) -> None:
    """Remove artifacts that nothing refers to, and unfinished work that nobody will go on with."""
    with session.open() as home:
        found = home.database.gc(days=days, is_dry=dry_run, is_alone=alone)
    things = [("artifact", kept.sha256, kept.num_bytes, kept.kept_at) for kept in found.artifacts]
    things += [("unfinished work", work.key, work.num_bytes, work.changed_at) for work in found.unfinished]
    rows = [[what, name, f"{size:,}", f"{at:%Y-%m-%d %H:%M}"] for what, name, size, at in things[:NUM_SHOWN]]
    table: Block = (["what", "name", "bytes", "written"], rows)
    more = [f"and {len(things) - NUM_SHOWN:,} more"] if len(things) > NUM_SHOWN else []
    done = f"{plural(len(things), 'thing')}, {found.num_bytes:,} bytes {'would be' if dry_run else 'were'} removed"
    session.show(
        {"artifacts": found.artifacts, "unfinished": found.unfinished, "num_kept": found.num_kept}
        | {"num_bytes": found.num_bytes, "is_dry_run": dry_run},
        *([table, *more] if things else []),
        f"{done}; {plural(found.num_kept, 'artifact')} stay",
    )
