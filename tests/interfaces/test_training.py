"""The section `training` and the limits on workers, at the command line."""

import sqlite3

import pytest
import yaml


def create(cli, code=0, **more):
    config = cli.home.parent / "t.yaml"
    config.write_text(yaml.safe_dump({"name": "t", "dataset": "d", **more}))
    return cli("campaign", "create", config, code=code)


TINY = {
    "rounds": 1,
    "prior": {"settings": {"num_pretrain_steps": 20, "num_steps": 6, "width": 16}},
    "reward": {"members": 2, "settings": {"steps": 20}},
    "judge": {"settings": {"steps": 20}},
    "finetune": {"settings": {"num_updates": 4, "batch_size": 8}},
    "batch": {"size": 8, "num_candidates": 64},
}


def test_a_round_is_trained_in_pieces_and_in_bfloat16(campaign):
    create(campaign, **TINY, training={"precision": "bfloat16", "accumulation": 3})
    document = campaign.json("round", "propose", "t")
    assert document["round"]["state"] == "proposed"
    assert len(document["designs"]) == 8


def test_more_workers_than_the_settings_allow_are_refused_before_anything_runs(campaign, monkeypatch):
    monkeypatch.setenv("PLAIT_MAX_WORKERS", "1")
    said = create(campaign, code=3, **TINY, workers=2).err
    assert "2 workers are asked for, and the setting max_workers allows 1" in said
    monkeypatch.delenv("PLAIT_MAX_WORKERS")
    create(campaign, **TINY, workers=2)
    monkeypatch.setenv("PLAIT_MAX_WORKERS", "1")
    assert "lower `workers`, or raise max_workers" in campaign("round", "propose", "t", code=3).err
    database = sqlite3.connect(campaign.home / "plait.db")
    assert database.execute("select count(*) from stage_run").fetchone() == (0,)
    database.close()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"workers": 1, "training": {"min_workers": 2}}, "training.min_workers is 2, and round 1 has 1 workers"),
        ({"workers": 9}, "9 workers cannot share batch_size 8"),
        ({"training": {"precision": "float16"}}, "training.precision"),
        ({"training": {"accumulation": 0}}, "training.accumulation"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_the_door(campaign, given, reason):
    assert reason in create(campaign, code=3, **{**TINY, **given}).err
