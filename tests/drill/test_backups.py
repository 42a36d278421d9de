"""A backup, and a clean-up, in the middle of a running campaign."""

import time
from dataclasses import replace

import pytest
from disturbing import Watch, moments
from drilling import databases

ELSEWHERE = ("orders",)
"""What no backup holds: files that `round export` and simulated labs wrote for people."""


@pytest.mark.parametrize("home", databases("sqlite"), indirect=True)
def test_a_backup_of_a_running_campaign_goes_on_to_the_same_end(home, whole, size, tell, request, tmp_path):
    started, num, lost, doubled, differences = time.monotonic(), size(1, 5), 0, 0, []
    is_sqlite = home.database_url.startswith("sqlite")
    skipped = ELSEWHERE if is_sqlite else (*ELSEWHERE, "MLflow runs", "MLflow models")
    process, watch = home.start(), Watch(home)
    files = []
    for number, moment in enumerate(moments(whole, num, seed=23)):
        watch.wait(process, moment.after)
        files.append(tmp_path / f"{number}.zip")
        code, out, err = home.run("db", "backup", files[-1])
        assert code == 0, (out, err)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, (out, err)
    watch.close()
    for number, file in enumerate(files):
        folder = tmp_path / f"restored-{number}"
        url = f"sqlite:///{folder}/plait.db" if is_sqlite else request.getfixturevalue("new_database")("template0")
        restored = replace(home, path=folder, database_url=url, mlflow_url=f"sqlite:///{folder}/mlflow.db")
        code, out, err = restored.run("db", "restore", file)
        assert code == 0, (out, err)
        restored.finish()
        facts = restored.facts()
        lost, doubled = lost + facts.lost(whole, skipped), doubled + facts.doubled(whole, skipped)
        differences.append(facts.difference(whole, skipped))
    difference = home.facts().difference(whole)
    what = f"while a campaign runs on {home.database_url.partition(':')[0]}"
    tell("db backup, restore", what, num, lost, doubled, time.monotonic() - started, "each restored and run to its end")
    assert not any(differences), differences
    assert not difference


def test_clean_ups_in_the_middle_take_nothing_that_is_needed(sqlite_home, whole, size, tell):
    started, home, num = time.monotonic(), sqlite_home, 0
    (home.path / "artifacts" / "kept").mkdir(parents=True, exist_ok=True)
    process = home.start()
    while process.poll() is None and num < size(2, 20):
        code, out, err = home.run("gc", "--days", "0")
        assert code == 0, (out, err)
        num += 1
    process.communicate(timeout=600)
    assert process.returncode == 0
    facts = home.facts()
    lost, doubled = facts.lost(whole), facts.doubled(whole)
    tell("gc", "while a campaign runs", num, lost, doubled, time.monotonic() - started, "of things of any age")
    assert not facts.difference(whole)
    assert num
