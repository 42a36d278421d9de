import json
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest


def counts(home: Path) -> dict[str, int]:
    database = sqlite3.connect(home / "plait.db")
    tables = ("round", "design", "stage_run", "model", "screening")
    found = {table: database.execute(f'select count(*) from "{table}"').fetchone()[0] for table in tables}
    database.close()
    return found


def designs(document: dict) -> list[tuple]:
    return [(d["design_id"], d["sequence"], d["predicted_mean"]) for d in document["designs"]]


def wait_for_stage(home: Path, process: subprocess.Popen, num: int) -> None:
    """Until `num` stages are on record, or the process has ended."""
    while process.poll() is None:
        database = sqlite3.connect(home / "plait.db", timeout=60)
        done = database.execute("select count(*) from stage_run").fetchone()[0]
        database.close()
        if done >= num:
            return
        time.sleep(0.01)


@pytest.mark.parametrize("num_stages", [1, 4])
def test_killed_and_run_again_it_makes_the_same_designs(campaign, proposed, num_stages):
    process = campaign.start("round", "propose", "c")
    assert process.stderr is not None
    process.stderr.readline()
    wait_for_stage(campaign.home, process, num_stages)
    process.kill()
    process.communicate()
    again = campaign.json("round", "propose", "c")
    uninterrupted = type(campaign)(proposed).json("round", "show", "c")
    assert again["round"]["state"] == "proposed"
    assert designs(again) == designs(uninterrupted)
    assert counts(campaign.home) == counts(proposed)


def test_two_at_once_make_one_round(campaign, proposed):
    both = [campaign.start("round", "propose", "c", "--json") for _ in range(2)]
    answers = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    first, second = (designs(json.loads(out)) for out, _ in answers)
    assert first == second == designs(type(campaign)(proposed).json("round", "show", "c"))
    assert counts(campaign.home) == counts(proposed)


def test_two_imports_at_once_wait(cli, readings, tmp_path):
    new = ["--alphabet", "dna", "--unit", "au", "--json"]
    table = Path(shutil.copy(readings, tmp_path / "t.csv"))
    both = [cli.start("data", "import", table, "--dataset", name, *new) for name in ("a", "b", "a")]
    answers = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0, 0], answers
    assert [d["number"] for d in cli.json("data", "list")] == [1, 1]
