import csv

import numpy as np
import pytest
import torch
from plait.design.alphabets import PROTEIN
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.rewards import ensemble
from torch import Generator

SPACE = DesignSpace.from_template(PROTEIN, "XX")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    tokens = np.random.default_rng(0).integers(0, 20, (60, 2))
    noise = np.full(60, np.nan)
    data = Dataset(SPACE, tokens, tokens.sum(1) * 1.0, np.ones(60, np.int64), noise, "au")
    config = ensemble.Config(families=("mlp",), members=2, steps=3)
    folder = tmp_path_factory.mktemp("bundle") / "dipeptides"
    ensemble.train(config, data, Generator().manual_seed(0)).save(folder)
    return folder


@pytest.fixture
def pool(tmp_path):
    path = tmp_path / "pool.csv"
    path.write_text("id,sequence\none,NA\ntwo,WY\n")
    return path


def test_a_pool_is_scored_and_summed_up(cli, bundle, pool, tmp_path):
    cli("model", "import", bundle)
    out = tmp_path / "scored.csv"
    document = cli.json("score", "--input", pool, "--output", out, "--workers", 0, "--conservatism", "none")
    assert (document["model"], document["num_rows"], document["files"]) == ("dipeptides@1", 2, [str(out)])
    assert set(document["seconds"]) == {"reading", "starting", "scoring", "writing"}
    assert document["rate"] > 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["sequence"]) for row in rows] == [("one", "NA"), ("two", "WY")]
    expected = ensemble.load(bundle).predict(torch.from_numpy(SPACE.encode(["NA", "WY"]))).mean
    assert [float(row["mean"]) for row in rows] == pytest.approx(expected.tolist(), rel=1e-5)
    assert [row["conservative"] for row in rows] == [row["mean"] for row in rows]
    said = cli("score", "--model", "dipeptides", "--input", pool, "--output", out, "--workers", 0)
    assert "boot, 0.5 std subtracted" in said.out
    assert "scoring 2/2" in said.err


def test_bad_rows_end_with_3_and_their_names_or_are_skipped(cli, bundle, pool, tmp_path):
    cli("model", "import", bundle)
    pool.write_text("id,sequence\none,NA\ntwo,WYY\n")
    line = ["score", "--input", pool, "--output", tmp_path / "o.parquet", "--workers", 0]
    error = cli.json(*line, code=3)["error"]
    assert [(p["row"], p["column"], p["value"], p["reason"]) for p in error["problems"]] == [
        (3, "sequence", "WYY", "length 3, expected 2")
    ]
    assert "--skip-bad-rows" in error["hint"]
    document = cli.json(*line, "--skip-bad-rows")
    assert (document["num_rows"], document["num_rejected"]) == (1, 1)
    assert document["files"] == [str(tmp_path / "o.parquet"), str(tmp_path / "o.parquet.rejected.csv")]


def test_what_is_missing_ends_with_4_and_what_makes_no_sense_with_2(cli, bundle, pool, tmp_path):
    line = ["score", "--input", pool, "--output", tmp_path / "o.csv"]
    error = cli.json(*line, code=4)["error"]
    assert "plait campaign run" in error["hint"]
    cli("model", "import", bundle)
    assert cli.json(*line, "--model", "nobody", code=4)["error"]["code"] == "not_found"
    assert cli.json(*line, "--conservatism", "hope", code=2)["error"]["code"] == "usage"
    cli("score", "--input", pool, code=2)
    missing = ["score", "--input", tmp_path / "no.csv", "--output", tmp_path / "o.csv"]
    assert "no.csv" in cli.json(*missing, code=4)["error"]["message"]
