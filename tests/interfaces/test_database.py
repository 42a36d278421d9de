"""plait db and plait gc: a home moves between databases, is backed up while it works, and is cleaned."""

import os
import sqlite3
import time
from pathlib import Path
from zipfile import ZIP_LZMA, ZipFile

import plait
import pytest
from plait.campaign.schedules import Standing
from plait.campaign.scheduling import change_standing
from plait.campaign.stage_runs import scratch_key
from plait.registry.artifacts import LocalArtifacts

LONG_AGO = time.time() - 30 * 86400


def designs(document):
    return [(d["design_id"], d["sequence"], d["predicted_mean"]) for d in document["designs"]]


@pytest.fixture
def expected(campaign, proposed):
    """The designs of a round that nothing disturbs."""
    return designs(type(campaign)(proposed).json("round", "show", "c"))


def until_stage(home, process, num):
    """Until `num` stages are on record, or the process has ended."""
    with plait.open(home) as opened:
        while process.poll() is None:
            if len(opened.registry.transact(lambda uow: uow.stages("c"))) >= num:
                return
            time.sleep(0.02)


def measured(cli, tmp_path):
    """Approve, order, measure and close the proposed round."""
    cli("round", "approve", "c")
    cli("round", "export", "c", "--output", tmp_path / "order.csv")
    lines = (tmp_path / "order.csv").read_text().splitlines()[1:]
    rows = "".join(f"{line.split(',')[0]},{number / 3!r}\n" for number, line in enumerate(lines))
    (tmp_path / "results.csv").write_text(f"design_id,value\n{rows}")
    cli("results", "import", "c", tmp_path / "results.csv")
    cli("round", "close", "c")


def everything(cli):
    """All that the command line tells of the campaign and its data."""
    lines = (["campaign", "show", "c"], ["round", "show", "c"], ["data", "show", "d"], ["model", "list"])
    return [cli.json(*line) for line in lines]


def test_a_campaign_runs_on_postgresql_and_moves_with_all_it_has(campaign, expected, new_database, tmp_path):
    file, moved = tmp_path / "r.zip", type(campaign)(tmp_path / "cluster" / "home")
    rows = {t["name"]: (t["num_rows"], t["sha256"]) for t in campaign.json("db", "export", file)["tables"]}
    moved("init", "--database-url", new_database("template0"))
    moved("db", "import", file)
    assert everything_but_round(moved) == everything_but_round(campaign)
    assert designs(moved.json("round", "propose", "c")) == expected
    measured(moved, tmp_path)
    before = everything(moved)
    moved("db", "export", tmp_path / "later.zip")
    back = f"sqlite:///{tmp_path / 'back.db'}"
    stale = moved.json("db", "import", file, "--database-url", back, code=4)["error"]["message"]
    assert "as they are now" in stale
    now = moved.json("db", "import", tmp_path / "later.zip", "--database-url", back)
    assert {t["name"]: (t["num_rows"], t["sha256"]) for t in now["tables"]}["dataset"] == rows["dataset"]
    assert everything(moved) == before
    assert back in (moved.home / "settings.yaml").read_text()
    again = moved.json("round", "propose", "c")
    assert (again["round"]["number"], again["round"]["state"]) == (2, "proposed")
    assert {check["is_sound"] for check in moved.json("db", "check")["checks"]} == {True}


def everything_but_round(cli):
    return [cli.json("campaign", "show", "c"), cli.json("data", "show", "d")]


def test_a_backup_of_a_running_round_goes_on_elsewhere(campaign, expected, tmp_path):
    (campaign.home / "deny_list.json").write_text(
        (Path(plait.__file__).parent / "lab" / "data" / "deny_list.json").read_text()
    )
    process = campaign.start("round", "propose", "c")
    until_stage(campaign.home, process, 4)
    made = campaign.json("db", "backup", tmp_path / "b.zip")
    assert process.poll() is None
    assert process.communicate(timeout=120)[0]
    assert process.returncode == 0
    elsewhere = type(campaign)(tmp_path / "elsewhere" / "home")
    restored = elsewhere.json("db", "restore", tmp_path / "b.zip")
    assert restored["num_rows"] == made["num_rows"]
    assert elsewhere.json("campaign", "show", "c")["rounds"][0]["state"] == "running"
    assert elsewhere.json("db", "restore", tmp_path / "b.zip", code=4)["error"]["code"] == "wrong_state"
    assert designs(elsewhere.json("round", "propose", "c")) == expected
    assert (elsewhere.home / "deny_list.json").exists()
    assert {check["is_sound"] for check in elsewhere.json("db", "check")["checks"]} == {True}


def test_a_backup_holds_mlflow_which_finds_its_files_in_the_new_place(batch, tmp_path):
    assert batch.json("db", "backup", tmp_path / "b.zip")["has_mlflow"]
    elsewhere = type(batch)(tmp_path / "elsewhere" / "home")
    elsewhere("db", "restore", tmp_path / "b.zip")
    store = sqlite3.connect(elsewhere.home / "mlflow.db")
    text = "".join(store.iterdump())
    places = [uri for (uri,) in store.execute("SELECT artifact_uri FROM runs")]
    store.close()
    assert str(batch.home) not in text
    assert len(places) == 5
    assert all((Path(place.removeprefix("file://")) / "model" / "model.json").exists() for place in places)
    model = elsewhere.json("model", "show", "c-policy")
    assert model == batch.json("model", "show", "c-policy")
    assert len(elsewhere.json("sample", "--model", "c-policy", "--n", 2)["sequences"]) == 2


def test_a_changed_backup_is_refused(batch, tmp_path):
    batch("db", "backup", tmp_path / "b.zip")
    content = bytearray((tmp_path / "b.zip").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "b.zip").write_bytes(content)
    elsewhere = type(batch)(tmp_path / "elsewhere" / "home")
    assert elsewhere("db", "restore", tmp_path / "b.zip", code=5).out == ""
    assert elsewhere("db", "restore", tmp_path / "nothing.zip", code=4).out == ""
    (tmp_path / "text.zip").write_text("no zip")
    assert elsewhere("db", "restore", tmp_path / "text.zip", code=3).out == ""
    sha = batch.json("model", "show", "c-policy")["artifact_sha256"]
    (batch.home / "artifacts" / "kept" / sha / "tensors.safetensors").write_bytes(b"")
    batch("db", "backup", tmp_path / "c.zip", code=5)
    assert not (tmp_path / "c.zip").exists()


def age(folder):
    """As if nobody had written there for a month."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (LONG_AGO, LONG_AGO))


def test_gc_takes_what_nothing_refers_to_and_a_round_goes_on(campaign, expected, tmp_path):
    process = campaign.start("round", "propose", "c")
    until_stage(campaign.home, process, 4)
    process.kill()
    process.communicate()
    root = campaign.home / "artifacts"
    store = LocalArtifacts(root)
    fresh, old = store.put_json({"nobody": 1}), store.put_json({"nobody": 2})
    inner = store.put_json({"deep": 1})
    unnamed = store.put_json({"names": inner})
    (store.scratch("over") / "file").write_text("x" * 1000)
    before = {kept.sha256 for kept in store.kept()}
    age(root)
    store.put_json({"nobody": 1})  # kept again: new
    running = {work.key for work in store.unfinished()} - {"over"}
    seen = campaign.json("gc", "--dry-run")
    assert {kept["sha256"] for kept in seen["artifacts"]} == {old, inner, unnamed}
    assert {kept.sha256 for kept in store.kept()} == before
    done = campaign.json("gc")
    assert sorted(k["sha256"] for k in done["artifacts"]) == sorted(k["sha256"] for k in seen["artifacts"])
    assert [work["key"] for work in done["unfinished"]] == ["over"]
    assert {kept.sha256 for kept in store.kept()} == before - {old, inner, unnamed}
    assert fresh in before - {old, inner, unnamed}
    assert {work.key for work in store.unfinished()} == running
    assert designs(campaign.json("round", "propose", "c")) == expected
    age(root)
    assert campaign.json("gc")["artifacts"][0]["sha256"] == fresh
    for model in campaign.json("model", "list"):
        if model["kind"] != "reward":
            campaign("sample", "--model", f"{model['name']}@{model['version']}", "--n", 1)
    assert {check["is_sound"] for check in campaign.json("db", "check")["checks"]} == {True}


def test_gc_asks_where_another_registry_may_keep_its_artifacts(campaign, tmp_path):
    elsewhere = ["--override", f"artifact_root={tmp_path / 'shared'}"]
    assert "--alone" in campaign("gc", *elsewhere, code=2).err
    assert "0 things" in campaign("gc", *elsewhere, "--dry-run").out
    assert "0 things" in campaign("gc", *elsewhere, "--alone").out


def test_gc_asks_where_the_registry_is_not_the_home_s_own(campaign, tmp_path):
    campaign("--home", tmp_path / "other", "init")
    other = ["--override", f"database_url=sqlite:///{tmp_path / 'other' / 'plait.db'}"]
    store = LocalArtifacts(campaign.home / "artifacts")
    store.put_json({"of": "the home"})
    age(campaign.home / "artifacts")
    assert "--alone" in campaign("gc", *other, code=2).err
    assert len(list(store.kept())) == 1


def test_gc_takes_the_unfinished_work_of_a_cancelled_round(campaign, tmp_path):
    with plait.open(campaign.home) as home, home.registry.begin() as uow:
        made = uow.add_round("c", 1, uow.campaign("c").dataset_version_id, "ada")
        key = scratch_key(uow.campaign("c"), made.number, "finetune-0")
    (LocalArtifacts(campaign.home / "artifacts").scratch(key) / "checkpoint").write_text("x")
    age(campaign.home / "artifacts")
    assert campaign.json("gc", "--dry-run")["unfinished"] == []
    with plait.open(campaign.home) as home:  # whoever cancelled it was killed before tidying up
        change_standing(home.registry, "c", Standing.CANCELLED, "ada")
    assert [work["key"] for work in campaign.json("gc")["unfinished"]] == [key]


def test_a_home_in_use_is_not_restored_into_and_keeps_its_database(campaign, tmp_path):
    file, other = tmp_path / "b.zip", f"sqlite:///{tmp_path / 'other.db'}"
    campaign("db", "backup", file)
    (campaign.home / "deny_list.json").write_text("own")
    assert "not empty" in campaign("db", "restore", file, "--database-url", other, code=4).err
    assert not (campaign.home / "settings.yaml").exists()
    assert not (tmp_path / "other.db").exists()


def test_a_restore_goes_where_it_is_told_and_leaves_a_deny_list_alone(batch, tmp_path):
    file, new = tmp_path / "b.zip", type(batch)(tmp_path / "new" / "home")
    (batch.home / "deny_list.json").write_text('{"name": "theirs", "sequences": []}')
    os.utime(batch.home / "deny_list.json", (0, 0))  # as image builders leave it: before a zip's first year
    batch("db", "backup", file)
    new.home.mkdir(parents=True)
    (new.home / "deny_list.json").write_text("mine")
    database, store = tmp_path / "r.db", tmp_path / "other disk" / "mlflow.db"
    line = ["--override", f"database_url=sqlite:///{tmp_path / 'unused.db'}"]
    line += ["--override", f"mlflow_tracking_uri=sqlite:///{store}"]
    new("db", "restore", file, "--database-url", f"sqlite:///{database}", *line)
    assert new.json("campaign", "list")[0]["name"] == "c"
    assert (new.home / "deny_list.json").read_text() == "mine"
    assert store.exists()
    third = type(batch)(tmp_path / "third")
    third("db", "restore", file)
    assert (third.home / "deny_list.json").read_bytes() == (batch.home / "deny_list.json").read_bytes()


def test_a_home_whose_database_is_away_does_not_move(campaign, tmp_path):
    file, home = tmp_path / "r.zip", type(campaign)(tmp_path / "new")
    campaign("db", "export", file)
    home.home.mkdir()
    settings = home.home / "settings.yaml"
    settings.write_text("database_url: postgresql://plait@127.0.0.1:1/plait\n")
    answer = home("db", "import", file, "--database-url", f"sqlite:///{tmp_path / 'x.db'}", code=4)
    assert "cannot be reached" in answer.err
    assert "127.0.0.1:1" in settings.read_text()


def test_what_is_no_ordinary_file_is_not_replaced(campaign, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "no ordinary file" in campaign("db", "export", tmp_path / "pipe", code=3).err
    assert (tmp_path / "pipe").is_fifo()


def test_a_zip_that_is_packed_in_another_way_is_refused(campaign, tmp_path):
    with ZipFile(tmp_path / "x.zip", "w", ZIP_LZMA) as archive:
        archive.writestr("manifest.json", "{}")
    assert "packed in another way" in campaign("db", "import", tmp_path / "x.zip", code=3).err


def test_a_round_outlives_restarts_of_postgresql(campaign, expected, unsteady, tmp_path):
    cluster = type(campaign)(tmp_path / "cluster" / "home")
    campaign("db", "export", tmp_path / "r.zip")
    cluster("init", "--database-url", unsteady.database())
    cluster("db", "import", tmp_path / "r.zip")
    process = cluster.start("round", "propose", "c", "--json")
    for num in (1, 3, 5):
        until_stage(cluster.home, process, num)
        assert process.poll() is None
        unsteady.stop()
        time.sleep(0.5)
        unsteady.start()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert designs(cluster.json("round", "show", "c")) == expected
    assert {check["is_sound"] for check in cluster.json("db", "check")["checks"]} == {True}
    assert len(cluster.json("model", "list")) == 5


def test_versions_go_down_only_when_told_and_up_again(cli):
    assert "--yes" in cli("db", "downgrade", "0002", code=2).err
    assert cli.json("db", "downgrade", "0002", "--yes")["revision"] == "0002"
    [finding] = cli.json("db", "check", code=5)["checks"]
    assert (finding["check"], finding["is_sound"]) == ("revision", False)
    cli("data", "list", code=4)
    cli("db", "downgrade", "0009", "--yes", code=4)
    assert cli.json("db", "upgrade")["before"] == "0002"
    assert cli.json("data", "list") == []


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        ("DROP TRIGGER measurement_no_update", "triggers"),
        ("ALTER TABLE campaign ADD COLUMN colour TEXT", "tables"),
        ("UPDATE actor SET name = 'eve'", "audit trail"),
        ("PRAGMA foreign_keys=OFF; DELETE FROM dataset", "references"),
    ],
)
def test_a_broken_registry_is_found_out(campaign, damage, check):
    database = sqlite3.connect(campaign.home / "plait.db")
    database.executescript(damage)
    database.commit()
    database.close()
    broken = [finding["check"] for finding in campaign.json("db", "check", code=5)["checks"] if not finding["is_sound"]]
    assert broken == [check]
