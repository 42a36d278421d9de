import json
from dataclasses import fields

import pytest
from plait.benchmarks.cells import finished, make_cell, to_document
from plait.benchmarks.scoring import Scores
from plait.benchmarks.tasks import find_task


@pytest.fixture
def output(tmp_path):
    """A folder in which one cell of the small suite is finished."""
    plain = {f.name: 0.5 for f in fields(Scores)}
    by_round = {name: (0.25,) for name in plain if name.endswith("_by_round")}
    scores = Scores(**(plain | by_round | {"rounds": 1, "wells": 96, "wells_to_first": 3, "wells_to_50": None}))
    cell = make_cell(find_task("splice6"), "braid", 0, "small")
    folder = tmp_path / "output" / "cells" / "splice6" / "braid" / "seed0"
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text(json.dumps(to_document(cell, finished(cell, scores, 10.0, 500.0))))
    return tmp_path / "output"


def test_what_is_finished_is_shown_without_a_home(nowhere, output):
    line = ["benchmark", "run", "--tasks", "splice6", "--methods", "braid", "--output", output]
    text = nowhere(*line)
    assert "splice6  braid" in text.out
    assert "benchmark 1/1" in text.err
    document = nowhere.json(*line, "--quiet")
    assert [(row["method"], row["scores"]["top_share"]) for row in document["rows"]] == [("braid", 0.5)]
    assert {name.rpartition(".")[2] for name in document["files"]} == {"parquet", "md", "png"}
    assert not nowhere.home.exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--suite", "huge"], 2), (["--tasks", "atlantis"], 4), (["--methods", "alchemy"], 4), (["--seeds", "0"], 2)],
)
def test_what_does_not_exist_is_refused(nowhere, tmp_path, arguments, code):
    error = nowhere.json("benchmark", "run", *arguments, "--output", tmp_path / "output", code=code)["error"]
    assert error["hint"]
    assert not (tmp_path / "output").exists()


def test_a_folder_without_the_wheels_fetches_nothing(nowhere, tmp_path, monkeypatch):
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path / "cache"))
    assert nowhere.json("benchmark", "fetch", "--from", tmp_path, code=4)["error"]["code"] == "not_found"
