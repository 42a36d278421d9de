"""`plait doctor` on homes that are well and on homes that are not; every check runs in its real process."""

import os
import shutil
import socket
import sqlite3
import time

import plait
import pytest
from plait.bootstrap import checks
from plait.bootstrap.checks import CHECKS, Finding
from plait.bootstrap.doctor import diagnose
from plait.execution.nodes import Node
from plait.settings import SETTINGS_FILE, load_settings, save_settings


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doctor") / "home"
    plait.open(folder, create=True).close()
    return folder


@pytest.fixture
def home(template, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("PLAIT_")]:
        monkeypatch.delenv(name)
    return shutil.copytree(template, tmp_path / "home")


def look(check, home, **options):
    """The findings of one check, in this process."""
    return CHECKS[check](load_settings(home, **options))


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_new_home_is_well_and_stays_as_it_was(home):
    before = sorted(path.name for path in home.iterdir())
    found = diagnose(home)
    assert [check.name for check in found] == list(CHECKS)
    assert {check.name: check for check in found if check.status != "ok"} == {
        "screening": next(check for check in found if check.name == "screening")
    }
    assert all(bool(check.advice) == (check.status != "ok") for check in found)
    assert sorted(path.name for path in home.iterdir()) == before


def test_no_home_and_settings_that_cannot_be_read_are_findings(tmp_path):
    found = {check.name: check for check in diagnose(tmp_path / "none", only=["home", "database"])}
    assert {name: check.status for name, check in found.items()} == {"home": "failed", "database": "failed"}
    assert "plait init" in found["home"].advice
    assert not (tmp_path / "none").exists()
    (tmp_path / SETTINGS_FILE).write_text("ray_num_cpus: many\ndatabase_url: postgresql://u:geheim@host/x\n")
    [only] = diagnose(tmp_path)
    assert (only.name, only.status) == ("settings", "failed")
    assert "ray_num_cpus" in only.found
    assert "geheim" not in repr(only)


def test_a_check_that_hangs_is_ended(home):
    """A server that takes the call and says nothing, as a real PostgreSQL behind a bad network does."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u:geheim@127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=60"
        started = time.monotonic()
        found = diagnose(home, only=["database"], seconds=4, database_url=url)
    assert found[0].status == "failed"
    assert "no answer within 4 s" in found[0].found
    assert time.monotonic() - started < 15


def test_rights_and_room(home, monkeypatch):
    save_settings(home, actor="ada")
    (home / SETTINGS_FILE).chmod(0o644)
    home.chmod(0o777)
    assert [f.status for f in look("home", home)] == ["ok", "warning"]
    [file] = look("settings", home)
    assert (file.status, file.advice) == ("warning", f"run: chmod 600 {home / SETTINGS_FILE}")
    (home / SETTINGS_FILE).chmod(0o600)
    monkeypatch.setenv("PLAIT_TORCH_THREADS", "2")
    [file] = look("settings", home)
    assert file == Finding("ok", f"{home / SETTINGS_FILE}; from the environment: PLAIT_TORCH_THREADS")
    monkeypatch.setattr(checks, "LEAST_ROOM", 2**60)
    assert look("home", home)[0].status == "failed"


def test_databases(home, new_database, tmp_path):
    [sqlite] = look("database", home)
    assert sqlite.found.startswith("SQLite 3.")
    url = new_database("template_plait")
    [postgres] = look("database", home, database_url=url)
    assert postgres.found.startswith("PostgreSQL 1")
    assert "on a cluster" not in postgres.found
    assert [f.status for f in look("database", home, ray_address="10.0.0.1:6379")] == ["ok", "warning"]
    [empty] = diagnose(home, only=["database"], database_url=new_database("template0"))
    assert (empty.status, empty.advice) == ("failed", "run: plait init")
    (tmp_path / "x.db").write_bytes(b"no database" * 200)
    [broken] = diagnose(home, only=["database"], database_url=f"sqlite:///{tmp_path / 'x.db'}")
    assert broken.status == "failed"


def test_mlflow_stores(home, new_database, tmp_path):
    [made_later] = look("mlflow", home)
    assert "made when the first run is told" in made_later.found
    connection = sqlite3.connect(home / "mlflow.db")
    connection.execute("CREATE TABLE experiments (x)")
    connection.close()
    assert look("mlflow", home)[0].found == f"SQLite, sqlite:///{home / 'mlflow.db'}"
    [postgres] = look("mlflow", home, mlflow_tracking_uri=new_database("template_plait"))
    assert postgres.found.startswith("PostgreSQL, schema mlflow, its tables are made")
    gone = f"http://127.0.0.1:{free_port()}"
    [server] = diagnose(home, only=["mlflow"], mlflow_tracking_uri=gone)
    assert server.status == "failed"
    assert gone in server.found
    (tmp_path / "file").write_text("")
    assert look("mlflow", home, mlflow_artifacts=str(tmp_path / "file"))[1].status == "failed"


def test_artifact_roots(home, s3, tmp_path):
    assert "made when the first" in look("artifacts", home)[0].found
    (home / "artifacts" / "kept").mkdir(parents=True)
    for root in (str(home / "artifacts"), s3):
        [there] = look("artifacts", home, artifact_root=root)
        assert there.status == "ok"
        assert "written, read and removed" in there.found
    assert list((home / "artifacts" / "kept").iterdir()) == []
    [missing] = diagnose(home, only=["artifacts"], artifact_root="s3://nobody-made-this/x")
    assert (missing.status, missing.advice) == ("failed", "make the bucket, or correct artifact_root")
    (tmp_path / "file").write_text("")
    assert look("artifacts", home, artifact_root=str(tmp_path / "file" / "x"))[0].status == "failed"


def test_scorers_and_lists_and_gpus(home, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        (home / SETTINGS_FILE).write_text(
            f"""
            scorers:
              there: {{kind: subprocess, command: [cat]}}
              nowhere: {{kind: subprocess, command: [no-such-program]}}
              up: {{kind: http, url: "http://127.0.0.1:{server.getsockname()[1]}/"}}
              down: {{kind: http, url: "http://127.0.0.1:{free_port()}/"}}
              secret: {{kind: http, url: "http://127.0.0.1/", headers: {{Authorization: NO_SUCH_TOKEN}}}}
            """
        )
        found = {f.found.partition(":")[0]: f for f in look("scorers", home)}
    assert [name for name, f in found.items() if f.status == "failed"] == ["nowhere", "down", "secret"]
    assert "NO_SUCH_TOKEN" in found["secret"].found
    (home / "deny_list.json").write_text("{")
    [screening] = diagnose(home, only=["screening"])
    assert screening.status == "failed"
    [torch] = look("torch", home, worker_gpus=1)
    assert torch.status == "failed"


def test_a_cluster_is_asked_node_by_node(home, tmp_path):
    from ray.cluster_utils import Cluster

    [nobody] = diagnose(home, only=["ray"], ray_address=f"127.0.0.1:{free_port()}")
    assert (nobody.status, "nobody listens" in nobody.found) == ("failed", True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 10**8})
    try:
        found = diagnose(home, only=["ray"], ray_address=cluster.address, seconds=90, max_workers=9)
    finally:
        cluster.shutdown()
    assert [check.status for check in found if "node " in check.found] == ["ok"]
    assert "2 CPUs" in found[0].found
    assert any("max_workers 9 need 9 CPUs, the cluster has 2" in check.found for check in found)


def test_a_node_that_cannot_work_is_named(home, tmp_path):
    elsewhere = checks.look_around(str(tmp_path / "not mounted"), "0" * 64)
    blind = checks._node(Node("10.0.0.7", 4, 1, 8.0, elsewhere), load_settings(home))
    assert blind.status == "failed"
    assert "node 10.0.0.7: 4 CPUs, 1 GPUs, 8.0 GiB memory; does not see the artifact root" in blind.found
    assert "that all nodes mount" in blind.advice
    bare = checks._node(Node("10.0.0.8", 4, 0, 8.0, None, "No module named 'plait'"), load_settings(home))
    assert (bare.status, "cannot run Plait" in bare.found) == ("failed", True)
    assert checks._node(Node("10.0.0.9", 4, 0, 8.0, ""), load_settings(home)).status == "ok"
