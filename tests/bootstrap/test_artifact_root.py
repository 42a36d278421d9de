"""A campaign whose artifacts lie behind a URL: the same designs as with a folder, found again by another machine."""

import os
import shutil

import plait
import pytest
from plait.bootstrap.database import Database
from s3fs import S3FileSystem

TINY = {
    "rounds": 1,
    "prior": {"settings": {"num_pretrain_steps": 20, "num_steps": 6, "width": 16}},
    "reward": {"members": 2, "settings": {"steps": 20, "families": ["mlp"]}},
    "judge": {"settings": {"steps": 20, "members": 2, "families": ["mlp"]}},
    "finetune": {"settings": {"num_updates": 3, "batch_size": 8}},
    "batch": {"size": 8, "num_candidates": 64},
    "space": {"template": "NNNGYNNNN"},
    "dataset": "splice",
}


@pytest.fixture
def home(tmp_path):
    """A folder with the registry of a campaign that has not begun."""
    from plait.lab.scenarios import find_scenario

    readings = find_scenario("splice").offline_readings(size=200, seed=0)
    rows = [f"{s},{v!r}" for s, v in zip(readings.sequences, readings.values.tolist(), strict=True)]
    (tmp_path / "t.csv").write_text("sequence,value\n" + "\n".join(rows) + "\n")
    with plait.open(tmp_path / "home", create=True) as opened:
        opened.data.import_(tmp_path / "t.csv", dataset="splice", alphabet="dna", unit="log10 PSI")
        opened.campaign.create({"name": "c", **TINY})
    return tmp_path / "home"


def designs_of(folder, **options):
    with plait.open(folder, **options) as home:
        home.round.propose("c")
        return home.round.designs("c", round=1)


def test_one_setting_moves_a_campaign_to_an_object_store(home, s3, tmp_path):
    folder = shutil.copytree(home, tmp_path / "other")
    store = {"mlflow_tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}  # both; to make one takes seconds
    assert designs_of(folder, artifact_root=s3, **store) == designs_of(home, **store)
    names = sorted(path.name for path in (home / "artifacts" / "kept").iterdir())
    assert sorted(path.rpartition("/")[2] for path in S3FileSystem().ls(f"{s3}/kept")) == names
    assert not (folder / "artifacts").exists()
    assert not S3FileSystem().exists(f"{s3}/scratch")
    shutil.rmtree(tmp_path / "caches")  # another machine has no copies
    with plait.open(folder, artifact_root=s3) as there:
        assert there.sample("c-policy", 4).sequences
        assert there.round.propose("c").number == 1


def test_gc_leaves_work_that_goes_on_behind_the_url_alone(s3, tmp_path):
    with plait.open(tmp_path / "home", create=True, artifact_root=s3) as home:
        folder = home.artifacts.scratch("score-1")
        (folder / "lock").touch()
        for path in (folder / "lock", folder):
            os.utime(path, (1e9, 1e9))
        S3FileSystem().pipe_file(f"{home.artifacts.shared('score-1')}/scores-000000.arrow", b"of just now")
        assert Database(home).gc(is_alone=True).unfinished == ()
        assert S3FileSystem().exists(f"{s3}/scratch/score-1")
        S3FileSystem().rm(home.artifacts.shared("score-1"), recursive=True)
        assert [work.key for work in Database(home).gc(is_alone=True).unfinished] == ["score-1"]
