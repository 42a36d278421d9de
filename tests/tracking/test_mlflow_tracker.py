import json
import sqlite3
from dataclasses import replace

import psycopg
import pytest
from plait.campaign.records import OutboxMessage
from plait.design.errors import RunFailedError
from plait.tracking.mlflow_tracker import ALIAS, MlflowTracker

MESSAGE = OutboxMessage(
    key="splice/1/finetune/0123456789abcdef/policy",
    experiment="splice",
    run_name="splice-policy v1",
    params={"algorithm": "braid", "kl_weight": 0.05, "settings": {"a": [1, 2]}, "nothing": None, "long": "x" * 9000},
    metrics={"reward": 1.5, "loss": 0.1},
    curves={"loss": [(step, 1.0 / step) for step in range(1, 2501)]},
    dataset={"name": "assay", "version": 2, "id": "ab" * 32},
    model={"registry_id": 7, "name": "splice-policy", "version": 1, "kind": "policy", "artifact": "cd" * 32},
    stage_run_id=3,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def tracker(store):
    return MlflowTracker(f"sqlite:///{store}/mlflow.db", str(store / "artifacts"))


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.json").write_text('{"kind": "policy"}')
    (folder / "tensors.safetensors").write_bytes(b"\0" * 8)
    return folder


def rows(store, query):
    with sqlite3.connect(store / "mlflow.db") as connection:
        found = connection.execute(query).fetchall()
    connection.close()
    return found


def test_a_run_says_everything_and_ties_back_to_the_registry(tracker, store, bundle):
    run_id = tracker.record(MESSAGE, bundle)
    client = tracker._client
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "splice-policy v1")
    assert run.data.params["kl_weight"] == "0.05"
    assert json.loads(run.data.params["settings"]) == {"a": [1, 2]}
    assert len(run.data.params["long"]) == 6000
    assert run.data.metrics == {"reward": 1.5, "loss": 1 / 2500}
    history = client.get_metric_history(run_id, "loss")
    assert [(m.step, m.value) for m in history] == MESSAGE.curves["loss"]
    assert run.data.tags["plait.stage_run_id"] == "3"
    assert run.data.tags["plait.model_id"] == "7"
    [given] = run.inputs.dataset_inputs
    assert given.dataset.name == "assay"
    assert json.loads(given.dataset.source)["id"] == "ab" * 32
    assert {f.path for f in client.list_artifacts(run_id, "model")} == {"model/model.json", "model/tensors.safetensors"}
    version = client.get_model_version_by_alias("splice-policy", ALIAS)
    assert (version.run_id, version.tags["plait.version"]) == (run_id, "1")
    assert (store / "artifacts" / "splice" / run_id / "artifacts" / "model" / "model.json").exists()


def counts(store):
    tables = ("runs", "metrics", "params", "inputs", "datasets", "model_versions", "registered_models", "experiments")
    return {table: rows(store, f"select count(*) from {table}")[0][0] for table in tables}


def test_telling_again_changes_nothing(tracker, store, bundle):
    first = tracker.record(MESSAGE, bundle)
    before = counts(store)
    assert tracker.record(MESSAGE, bundle) == first
    assert MlflowTracker(f"sqlite:///{store}/mlflow.db", str(store / "artifacts")).record(MESSAGE, bundle) == first
    assert counts(store) == before


@pytest.mark.parametrize("broken", ["log_inputs", "log_artifacts", "create_model_version", "set_terminated"])
def test_a_run_that_broke_off_is_completed_and_nothing_is_doubled(tracker, store, bundle, monkeypatch, broken):
    message = replace(
        MESSAGE, key=f"key/{broken}", model={**MESSAGE.model, "name": broken}, curves={"loss": [(1, 2.0)]}
    )
    before = counts(store)
    with monkeypatch.context() as patch:
        patch.setattr(tracker._client, broken, lambda *a, **k: (_ for _ in ()).throw(OSError("power cut")))
        with pytest.raises(RunFailedError, match="power cut"):
            tracker.record(message, bundle)
    run_id = tracker.record(message, bundle)
    after = counts(store)
    assert {name: after[name] - before[name] for name in ("runs", "metrics", "inputs", "model_versions")} == {
        "runs": 1,
        "metrics": 2,
        "inputs": 1,
        "model_versions": 1,
    }
    assert tracker._client.get_run(run_id).info.status == "FINISHED"


def test_the_alias_moves_on_and_a_run_without_a_model_is_a_run(tracker, bundle):
    tracker.record(MESSAGE, bundle)
    second = tracker.record(replace(MESSAGE, key="second", model={**MESSAGE.model, "version": 2}), bundle)
    assert tracker._client.get_model_version_by_alias("splice-policy", ALIAS).run_id == second
    plain = replace(MESSAGE, key="plain", model=None, dataset=None, curves={}, stage_run_id=None)
    assert tracker._client.get_run(tracker.record(plain, None)).data.metrics == {"reward": 1.5, "loss": 0.1}


def test_an_unreachable_store_is_said_without_its_password(tmp_path):
    tracker = MlflowTracker("postgresql://u:geheim@127.0.0.1:1/x", str(tmp_path))
    with pytest.raises(RunFailedError, match=r"u:\*\*\*@127.0.0.1") as caught:
        tracker.record(MESSAGE, None)
    assert "geheim" not in str(caught.value.to_json())


def test_the_user_sees_none_of_mlflows_messages(tmp_path, bundle, capfd):
    MlflowTracker(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "artifacts")).record(MESSAGE, bundle)
    assert capfd.readouterr() == ("", "")


def test_artifacts_may_lie_in_an_object_store(store, bundle, s3):
    from s3fs import S3FileSystem

    tracker = MlflowTracker(f"sqlite:///{store}/mlflow.db", f"{s3}/mlflow")
    run_id = tracker.record(replace(MESSAGE, key="afar", experiment="an assay"), bundle)
    assert S3FileSystem().exists(f"{s3}/mlflow/an%20assay/{run_id}/artifacts/model/model.json")


@pytest.fixture
def beside(new_database):
    """The URL of a PostgreSQL database that holds a registry."""
    return new_database("template_plait")


def test_postgresql_holds_mlflow_beside_the_registry_and_neither_touches_the_other(tmp_path, bundle, beside):
    from plait.registry import upgrades
    from plait.registry.checks import check_registry
    from plait.registry.engine import parse_url

    def tables():
        with psycopg.connect(beside) as connection:
            found = connection.execute("SELECT schemaname, tablename FROM pg_tables").fetchall()
            runs = connection.execute("SELECT run_uuid FROM mlflow.runs").fetchall()
        return {table for schema, table in found if schema == "mlflow"}, runs

    tracker = MlflowTracker(beside, str(tmp_path / "artifacts"))
    run_id = tracker.record(MESSAGE, bundle)
    assert tracker.record(MESSAGE, bundle) == run_id
    before = tables()
    assert {"alembic_version", "runs"} <= before[0]
    assert [finding for finding in check_registry(beside) if not finding.is_sound] == []
    for target in ("base", "head"):
        upgrades.migrate(parse_url(beside), target)
    assert tables() == before == (before[0], [(run_id,)])
    assert [finding for finding in check_registry(beside) if not finding.is_sound] == []
    tracker._client._tracking_client.store._dispose_engine()


def test_a_store_that_was_away_for_a_moment_is_told_all_the_same(tracker, store, bundle, monkeypatch):
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

    monkeypatch.setattr("plait.tracking.mlflow_tracker.PAUSES", (0.01, 0.01))
    failures = [MlflowException("gone", error_code=TEMPORARILY_UNAVAILABLE) for _ in range(2)]
    log_inputs = tracker._client.log_inputs
    monkeypatch.setattr(
        tracker._client, "log_inputs", lambda *a, **k: fail(failures.pop()) if failures else log_inputs(*a, **k)
    )
    before = counts(store)
    tracker.record(replace(MESSAGE, key="away", model={**MESSAGE.model, "name": "away"}), bundle)
    after = counts(store)
    assert {name: after[name] - before[name] for name in ("runs", "inputs")} == {"runs": 1, "inputs": 1}
    assert failures == []


def fail(error):
    raise error
