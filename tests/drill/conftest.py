"""Drills: the product disturbed while it works; PLAIT_DRILL=long makes them thorough."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import plait
import psycopg
import pytest
from plait.registry.store import Registry
from sqlalchemy.engine import make_url

sys.path.insert(0, str(Path(__file__).parent))

from drilling import IS_LONG, Drilled, Facts, write_inputs

COLUMNS = ("drill", "what", "times", "lost", "doubled", "seconds", "seen")


@dataclass(frozen=True)
class Line:
    """The result of one drill."""

    drill: str
    what: str
    times: int
    lost: int
    doubled: int
    seconds: float
    seen: str = ""

    def cells(self) -> list[str]:
        return [
            self.drill,
            self.what,
            *map(str, (self.times, self.lost, self.doubled)),
            f"{self.seconds:.0f}",
            self.seen,
        ]


LINES: list[Line] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Drills may last."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(3600 if IS_LONG else 600))


@pytest.fixture(scope="session")
def size() -> Callable[[int, int], int]:
    """The first of two numbers in a short drill, the second in a long one."""
    return lambda short, long: long if IS_LONG else short


@pytest.fixture
def tell(capfd: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Puts the result of a drill on record, and on the screen."""

    def say(*cells: object, **more: object) -> None:
        line = Line(*cells, **more)  # type: ignore[arg-type]
        LINES.append(line)
        with capfd.disabled():
            sys.stdout.write(" | ".join(line.cells()) + "\n")

    return say


def pytest_sessionfinish() -> None:
    """The results as a Markdown table, where one was asked for."""
    if LINES and (file := os.environ.get("PLAIT_DRILL_REPORT")):
        rows = [COLUMNS, ["---"] * len(COLUMNS), *(line.cells() for line in LINES)]
        Path(file).write_text("".join(f"| {' | '.join(row)} |\n" for row in rows))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the campaign, nothing proposed, and with MLflow's store, which takes seconds to make."""
    folder = tmp_path_factory.mktemp("template")
    _fill(folder / "home", folder)
    return folder / "home"


def _fill(home: Path, folder: Path, **settings: str) -> None:
    """Make a home with the campaign, nothing proposed, and with MLflow's store, which takes seconds to make."""
    table, config = write_inputs(folder)
    with plait.open(home, create=True, **settings) as opened:
        opened.data.import_(table, dataset="splice", alphabet="dna", unit="log10 PSI")
        opened.campaign.create(config)
        opened.prior.train("warm-up", dataset="splice", settings={"num_pretrain_steps": 1, "width": 4})


@pytest.fixture(scope="session")
def fill() -> Callable[..., None]:
    """Makes such a home on another database: home, folder for its inputs, settings."""
    return _fill


@pytest.fixture(scope="session")
def postgres_template(
    tmp_path_factory: pytest.TempPathFactory, postgres: str, new_database: Callable[[str], str]
) -> tuple[Path, str]:
    """The same with PostgreSQL behind it, MLflow's store too: the home and the database's name."""
    folder, url = tmp_path_factory.mktemp("template-pg"), new_database("template_plait")
    _fill(folder / "home", folder, database_url=url, mlflow_tracking_uri=url)
    database = make_url(url).database
    with psycopg.connect(postgres, autocommit=True) as connection:  # MLflow keeps its own open
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])
    return folder / "home", str(database)


@pytest.fixture
def sqlite_home(template: Path, tmp_path: Path) -> Iterator[Drilled]:
    """A copy of the home on SQLite."""
    copied = copy_home(template, tmp_path / "home")
    yield copied
    copied.close()


def copy_home(template: Path, path: Path) -> Drilled:
    shutil.copytree(template, path)
    return Drilled.at(path)


@pytest.fixture
def postgres_home(
    postgres_template: tuple[Path, str], new_database: Callable[[str], str], tmp_path: Path
) -> Iterator[Drilled]:
    """A copy of the home on PostgreSQL."""
    home, database = postgres_template
    shutil.copytree(home, tmp_path / "home")
    url = new_database(database)
    copied = Drilled(tmp_path / "home", url, url)
    yield copied
    copied.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request: pytest.FixtureRequest) -> Drilled:
    """A home on either database."""
    found: Drilled = request.getfixturevalue("sqlite_home" if request.param == "sqlite" else "postgres_home")
    return found


@pytest.fixture(scope="session")
def whole(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """What the campaign leaves behind when nothing disturbs it."""
    undisturbed = copy_home(template, tmp_path_factory.mktemp("whole") / "home")
    undisturbed.finish()
    return undisturbed.facts()


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that holds an empty registry."""
    file = tmp_path_factory.mktemp("sqlite") / "plait.db"
    Registry.create(f"sqlite:///{file}").close()
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty registry on either database."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("new_database")("template_plait"))
    shutil.copy(request.getfixturevalue("empty_registry"), tmp_path / "plait.db")
    return f"sqlite:///{tmp_path / 'plait.db'}"
