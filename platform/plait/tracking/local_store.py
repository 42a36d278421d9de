"""MLflow's store where it is a SQLite file: a copy while it is in use, and new places for its artifacts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

PLACES = ("artifact_location", "artifact_uri", "source", "storage_location")
"""Columns in which MLflow keeps absolute places of artifacts."""


def store_file(tracking_uri: str) -> Path | None:
    """The file of a SQLite store; None for a server or another database."""
    if not tracking_uri.startswith("sqlite:"):
        return None
    return Path(tracking_uri.partition(":///")[2].partition("?")[0])


def copy_store(file: Path, target: Path) -> None:
    """A copy of the store as it is at one moment, whoever writes meanwhile (SQLite's online backup)."""
    place = f"{file.as_uri()}?mode=ro"
    with closing(sqlite3.connect(place, uri=True)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)


def move_artifacts(file: Path, old: Path, new: Path) -> None:
    """Let a store that was copied to another place look for its artifacts there.

    Args:
        file: Of the store.
        old: The folder of artifacts that it speaks of.
        new: Where they are now.
    """
    with closing(sqlite3.connect(file)) as store, store:
        for (table,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = {row[1] for row in store.execute(f'PRAGMA table_info("{table}")')}
            for column in columns.intersection(PLACES):
                change = f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?)'  # noqa: S608 - its own names
                for before, after in ((f"{old.as_uri()}/", f"{new.as_uri()}/"), (f"{old}/", f"{new}/")):
                    values = (after, len(before) + 1, len(before), before)
                    store.execute(f'{change} WHERE substr("{column}", 1, ?) = ?', values)
