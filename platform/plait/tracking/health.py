"""Whether MLflow's store answers; nothing is written, and MLflow itself, which would make its tables, is not loaded."""

from __future__ import annotations

import json
import sqlite3
import urllib.request
from importlib.metadata import version
from pathlib import Path

from plait.design.errors import NotFoundError, PlaitError, RunFailedError
from plait.settings import redacted
from plait.tracking.mlflow_tracker import SCHEMA

SECONDS = 10
TABLE = "experiments"
"""One that every MLflow store has."""


def examine(uri: str) -> str:
    """What kind of store it is and how far it is, in one line.

    Raises:
        RunFailedError: It does not answer, or is no MLflow store.
        NotFoundError: The folder of a SQLite store does not exist.
    """
    kind = uri.partition(":")[0].partition("+")[0]
    ask = {"sqlite": _sqlite, "postgresql": _postgresql, "http": _server, "https": _server}.get(kind)
    if ask is None:
        return f"a store of the kind {kind}, which is not checked"
    try:
        return ask(uri)
    except PlaitError:
        raise
    except Exception as error:
        reason = redacted(" ".join(str(error).split()))
        raise RunFailedError(
            f"MLflow at {redacted(uri)} does not answer: {reason}",
            hint="start it, or correct mlflow_tracking_uri; rounds go on and tell MLflow later",
        ) from error


def _sqlite(uri: str) -> str:
    file = Path(uri.partition(":///")[2].partition("?")[0])
    if not file.parent.is_dir():
        raise NotFoundError(f"there is no folder {file.parent}", hint="make it, or correct mlflow_tracking_uri")
    if not file.exists():
        return "SQLite, made when the first run is told"
    connection = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=SECONDS)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    finally:
        connection.close()
    return _told("SQLite", is_made=TABLE in tables)


def _postgresql(uri: str) -> str:
    import psycopg

    rest = uri.partition("://")[2]
    where = "current_schemas(false)" if "search_path" in rest else f"ARRAY['{SCHEMA}'::name]"
    query = f"SELECT count(*) FROM information_schema.tables WHERE table_name = %s AND table_schema = ANY({where})"  # noqa: S608
    with psycopg.connect(f"postgresql://{rest}", connect_timeout=SECONDS) as connection:
        found = connection.execute(query, [TABLE]).fetchone()
    return _told(f"PostgreSQL, schema {'of the URL' if 'search_path' in rest else SCHEMA}", is_made=found != (0,))


def _server(uri: str) -> str:
    with urllib.request.urlopen(f"{uri.rstrip('/')}/version", timeout=SECONDS) as answer:  # noqa: S310 http(s) only
        theirs = answer.read(100).decode(errors="replace").strip().strip('"')
    return f"server {json.dumps(theirs)[1:-1]}, client {version('mlflow')}"


def _told(store: str, *, is_made: bool) -> str:
    return store if is_made else f"{store}, its tables are made when the first run is told"
