import stat
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from plait.design.errors import ConfigError, CorruptArtifactError, NotFoundError, RunFailedError, WrongStateError
from plait.registry.engine import explained
from plait.registry.store import Registry

HOLDER = """
import sys, time
from plait.registry.store import Registry
registry = Registry.open(sys.argv[1])
with registry.begin() as uow:
    uow.audit("child", "test.first", "test")
    print("holding", flush=True)
    time.sleep(1)
registry.close()
"""
CREATOR = "import sys; from plait.registry.store import Registry; Registry.create(sys.argv[1]).close()"
IMPORTS = (
    "import sys, plait.registry.store; print([m for m in ('torch', 'ray', 'mlflow', 'alembic') if m in sys.modules])"
)


def start(code, *arguments):
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)


def test_a_registry_is_made_once_and_opened_after(empty_url):
    Registry.create(empty_url).close()
    again = Registry.create(empty_url)
    again.check_version()
    again.close()
    opened = Registry.open(empty_url)
    opened.check_version()
    assert opened.verify_audit() == 0
    opened.close()


def test_a_database_without_a_registry_says_what_to_do(empty_url):
    with pytest.raises(NotFoundError) as caught, closing(Registry.open(empty_url)) as registry:
        registry.check_version()
    assert caught.value.hint == "run: plait init"


def test_a_sqlite_file_is_its_owners_alone(tmp_path):
    file = tmp_path / "plait.db"
    registry = Registry.create(f"sqlite:///{file}")
    with registry.begin() as uow:
        uow.audit("ada", "test", "test")
        files = list(tmp_path.iterdir())
        assert len(files) == 3  # the write-ahead log and its index, too
        assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
        mode = uow.connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        keys = uow.connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one()
        synchronous = uow.connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
    registry.close()
    assert (mode, keys, synchronous) == ("wal", 1, 2)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NotFoundError, match="cannot be written"):
        Registry.create(f"sqlite:///{tmp_path}/nowhere/plait.db")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/db", "plait.db", "sqlite+nothing"])
def test_other_databases_are_refused(url):
    with pytest.raises(ConfigError):
        Registry.open(url)


def test_a_server_that_does_not_answer_is_named_without_its_password():
    registry = Registry.open("postgresql://ada:secret@127.0.0.1:1/plait?sslpassword=secret")
    with pytest.raises(NotFoundError) as caught:
        registry.check_version()
    assert "127.0.0.1:1" in caught.value.message
    assert "secret" not in caught.value.message + caught.value.hint


def test_a_second_process_waits_for_the_first(registry, url):
    child = start(HOLDER, url)
    assert child.stdout.readline() == "holding\n"
    with registry.begin() as uow:
        uow.audit("parent", "test.second", "test")
    assert child.wait() == 0
    child.stdout.close()
    assert registry.verify_audit() == 2
    with registry.begin() as uow:
        names = uow.connection.exec_driver_sql("SELECT action FROM audit_event ORDER BY number").scalars().all()
    assert names == ["test.first", "test.second"]


def test_two_processes_may_create_at_once(empty_url):
    children = [start(CREATOR, empty_url) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    for child in children:
        child.stdout.close()
    registry = Registry.open(empty_url)
    registry.check_version()
    registry.close()


def in_threads(function, number=4):
    errors = []

    def guarded(index):
        try:
            function(index)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_four_threads_of_read_modify_write_lose_nothing(registry):
    def append(index):
        for number in range(100):
            with registry.begin() as uow:
                uow.audit(f"thread-{index}", "test", f"{number}")

    in_threads(append)
    assert registry.verify_audit() == 400


def test_four_threads_number_the_versions_of_one_model(registry):
    def register(index):
        for number in range(5):
            with registry.begin() as uow:
                sha, about = f"{index}{number}".ljust(64, "0"), {"kind": "prior", "algorithm": "a", "details": {}}
                uow.add_model("p", artifact_sha256=sha, actor="ada", **about)

    in_threads(register)
    with registry.begin() as uow:
        assert [m.version for m in uow.models()] == list(range(1, 21))


def test_opening_a_registry_loads_nothing_heavy():
    found = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "plait.db").write_bytes(b"hello world" * 1_000)
    url = f"sqlite:///{tmp_path / 'plait.db'}"
    for action in (lambda: Registry.create(url), lambda: Registry.open(url).check_version()):
        with pytest.raises(CorruptArtifactError, match="is damaged") as caught:
            action()
        assert "backup" in caught.value.hint


def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path):
    def fill(uow):
        pages = uow.connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        uow.connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        for _ in range(200):
            uow.audit("ada", "test", "x" * 5_000)

    with closing(Registry.create(f"sqlite:///{tmp_path / 'plait.db'}")) as registry:
        with pytest.raises(RunFailedError, match="is full"), registry.begin() as uow:
            fill(uow)
        assert registry.verify_audit() == 0


def test_a_registry_that_may_not_be_written_is_said(tmp_path):
    with closing(Registry.create(f"sqlite:///{tmp_path / 'plait.db'}")) as registry, registry.begin() as uow:
        uow.connection.exec_driver_sql("PRAGMA query_only=ON")
        with pytest.raises(WrongStateError, match="may not be written"), explained(registry.url):
            uow.audit("ada", "test", "x")
