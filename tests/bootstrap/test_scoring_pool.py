import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import plait
import pyarrow.parquet
import pytest
import torch
from plait.design.alphabets import DNA
from plait.design.errors import BadInputError, NotFoundError, UsageError, WrongStateError
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.lab.pool_chunks import WorkFolder
from plait.lab.pools import CHUNK_ROWS
from plait.rewards import ensemble
from torch import Generator

LENGTH = 8
SPACE = DesignSpace.from_template(DNA, "N" * LENGTH)


def tokens_of(num, seed=0):
    return np.random.default_rng(seed).integers(0, 4, (num, LENGTH))


@pytest.fixture(scope="module")
def fitted():
    torch.set_num_threads(1)
    tokens = np.unique(tokens_of(80), axis=0)
    noise = np.full(len(tokens), np.nan)
    data = Dataset(SPACE, tokens, (tokens == 2).sum(1) * 1.0, np.ones(len(tokens), np.int64), noise, "au")
    config = ensemble.Config(families=("wide_conv", "mlp"), members=2, steps=5)
    return ensemble.fit(config, data, Generator().manual_seed(0))


@pytest.fixture(scope="module")
def stocked(fitted, tmp_path_factory):
    """A home with a reward "g", and one "v" of a minimising assay with its data."""
    folder = tmp_path_factory.mktemp("stocked")
    fitted.save(folder / "bundle")
    with plait.open(folder / "home", create=True) as home:
        home.model.import_(folder / "bundle", name="g")
        lines = [f"{sequence},{i}" for i, sequence in enumerate(SPACE.decode(tokens_of(30, seed=5)))]
        (folder / "d.csv").write_text("\n".join(["sequence,value", *lines]))
        version = home.data.import_(folder / "d.csv", dataset="d", alphabet="dna", unit="au", goal="minimize").version
        with home.registry.begin() as uow:
            sha = uow.model("g").artifact_sha256
            known = {"dataset_version_id": version.id, "details": {"role": "final"}, "actor": "a"}
            uow.add_model("v", kind="reward", algorithm="ensemble", artifact_sha256=sha, **known)
    return folder / "home"


@pytest.fixture
def home(stocked, tmp_path):
    with plait.open(shutil.copytree(stocked, tmp_path / "home")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Ten rows more than three chunks hold, as CSV with a column that repeats the row's number."""
    path = tmp_path_factory.mktemp("pool") / "pool.csv"
    sequences = SPACE.decode(tokens_of(3 * CHUNK_ROWS + 10, seed=1))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("n", "sequence"), *enumerate(sequences)])
    return path, sequences


def write_pool(path, sequences):
    path.write_text("\n".join(["sequence", *sequences, ""]))
    return path


def test_scores_are_the_model_s_in_the_input_s_order(home, fitted, pool, tmp_path):
    path, sequences = pool
    done = home.score(path, tmp_path / "out.parquet", model="g", conservatism="boot:2", members=True, workers=0)
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["n", "sequence", "mean", "std", "conservative", *(f"member_{i}" for i in range(1, 5))]
    assert table["sequence"].to_pylist() == sequences
    assert table["n"].to_pylist() == [str(i) for i in range(len(sequences))]
    expected = fitted.predict(torch.from_numpy(SPACE.encode(sequences)))
    scale = fitted.calibration.interval_scale
    for name, column in {
        "mean": expected.mean,
        "std": scale * expected.std,
        "conservative": expected.mean - 2 * expected.std,
        "member_3": expected.members[2],
    }.items():
        np.testing.assert_allclose(table[name].to_numpy(), column.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)
    assert (done.model, done.num_rows, done.num_rejected, done.num_resumed) == ("g@1", len(sequences), 0, 0)
    assert done.rate > 0
    assert list((home.path / "artifacts" / "scratch").iterdir()) == []


def test_csv_out_holds_the_same_numbers_and_nothing_a_spreadsheet_runs(home, fitted, tmp_path):
    source = tmp_path / "p.csv"
    source.write_text('sequence,note\nACGTACGT,=1+1\nAAAAAAAA,-2.5\nCCCCCCCC,"a, b"\n')
    home.score(source, tmp_path / "out.csv", model="g", workers=0)
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["note"] for row in rows] == ["'=1+1", "-2.5", "a, b"]
    expected = fitted.predict(torch.from_numpy(SPACE.encode([row["sequence"] for row in rows]))).mean
    np.testing.assert_allclose([float(row["mean"]) for row in rows], expected.numpy(), rtol=1e-5)


def test_an_assay_to_minimise_is_told_in_its_own_direction_and_its_data_is_asked(home, fitted, tmp_path):
    source = write_pool(tmp_path / "p.csv", ["ACGTACGT", "GGGGGGGG"])
    home.score(source, tmp_path / "out.parquet", model="v", conservatism="rarity:1", workers=0)
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    mean = fitted.predict(torch.from_numpy(SPACE.encode(["ACGTACGT", "GGGGGGGG"]))).mean.numpy()
    np.testing.assert_allclose(table["mean"].to_numpy(), -mean, rtol=1e-5)
    assert (table["conservative"].to_numpy() >= table["mean"].to_numpy()).all()
    assert (table["conservative"].to_numpy() > table["mean"].to_numpy()).any()
    with pytest.raises(WrongStateError, match="does not come with it"):
        home.score(source, tmp_path / "out.parquet", model="g", conservatism="bonus", workers=0)


def test_the_model_left_out_is_the_champion_then_the_newest(home, tmp_path):
    source = write_pool(tmp_path / "p.csv", ["ACGTACGT"])
    assert home.score(source, tmp_path / "o.csv", workers=0).model == "v@1"
    home.model.promote("g", alias="champion")
    assert home.score(source, tmp_path / "o.csv", workers=0).model == "g@1"
    with plait.open(tmp_path / "bare", create=True) as bare, pytest.raises(NotFoundError) as caught:
        bare.score(source, tmp_path / "o.csv")
    assert "plait campaign run" in caught.value.hint


def test_a_call_that_was_stopped_goes_on_and_scores_no_chunk_twice(home, pool, tmp_path):
    path, _ = pool
    stops = iter([False, True])

    def stop(task, done, total, message):
        if task == "scoring" and message and next(stops):
            raise KeyboardInterrupt

    home.progress = stop
    with pytest.raises(KeyboardInterrupt):
        home.score(path, tmp_path / "out.parquet", model="g", workers=0)
    (work,) = (home.path / "artifacts" / "scratch").iterdir()
    before = {name.name: name.stat().st_mtime_ns for name in work.iterdir() if name.suffix == ".arrow"}
    assert len([name for name in before if name.startswith("scores")]) == 2
    seen = {}
    home.progress = lambda task, *_: (
        task == "writing" and seen.update({name.name: name.stat().st_mtime_ns for name in work.iterdir()})
    )
    done = home.score(path, tmp_path / "out.parquet", model="g", workers=0)
    assert done.num_resumed == 2 * CHUNK_ROWS
    assert {name: seen[name] for name in before} == before
    assert not work.exists()
    other = tmp_path / "other.parquet"
    home.score(path, other, model="g", workers=0)
    assert pyarrow.parquet.read_table(other).equals(pyarrow.parquet.read_table(tmp_path / "out.parquet"))


def test_bad_rows_refuse_the_pool_or_are_listed_beside_the_output(home, tmp_path):
    source = write_pool(tmp_path / "p.csv", ["ACGTACGT", "ACGT", "GGGGGGGG"])
    with pytest.raises(BadInputError, match="1 of 3 rows"):
        home.score(source, tmp_path / "o.csv", model="g", workers=0)
    assert not (tmp_path / "o.csv").exists()
    done = home.score(source, tmp_path / "o.csv", model="g", workers=0, skip_bad_rows=True)
    assert (done.num_rows, done.num_rejected) == (2, 1)
    assert done.rejected.read_text().splitlines()[1] == '3,"sequence","ACGT","length 4, expected 8"'


def test_columns_that_csv_cannot_hold_are_no_loss(home, tmp_path):
    source = tmp_path / "p.parquet"
    table = pyarrow.table({"sequence": ["ACGTACGT"], "key": pyarrow.array([b"\xff\xfe"], pyarrow.binary(2))})
    pyarrow.parquet.write_table(table, source)
    with pytest.raises(BadInputError, match="cannot be written") as caught:
        home.score(source, tmp_path / "o.csv", model="g", workers=0)
    assert ".parquet" in caught.value.hint
    assert not list(tmp_path.glob("*o.csv*"))
    assert home.score(source, tmp_path / "o.parquet", model="g", workers=0).num_resumed == 1


def test_fasta_has_one_column_of_sequences_whatever_it_is_called(home, tmp_path):
    source = tmp_path / "p.fasta"
    source.write_text("\n>a\nACGT\nACGT\n")
    assert home.score(source, tmp_path / "o.csv", model="g", workers=0, sequence_column="seq").num_rows == 1


def test_what_cannot_be_done_is_said_before_any_work(home, tmp_path):
    source = write_pool(tmp_path / "p.csv", ["ACGTACGT"])
    for output in (tmp_path / "o.txt", tmp_path / "no" / "o.csv", source, Path("/dev/null.csv/x.csv"), tmp_path):
        with pytest.raises(BadInputError):
            home.score(source, output, model="g", workers=0)
    for conservatism in ("auto", "boot:x", "hope", "none:1"):
        with pytest.raises(UsageError, match="--conservatism"):
            home.score(source, tmp_path / "o.csv", model="g", conservatism=conservatism)
    with pytest.raises(NotFoundError):
        home.score(tmp_path / "none.csv", tmp_path / "o.csv", model="g")
    with pytest.raises(NotFoundError):
        home.score(source, tmp_path / "o.csv", model="nobody")


def test_kill_9_in_the_middle_on_ray_loses_nothing_and_doubles_nothing(home, fitted, pool, tmp_path):
    path, sequences = pool
    out = tmp_path / "out.parquet"
    line = [sys.executable, "-m", "plait.interfaces.cli", "--home", home.path, "score", "--model", "g"]
    line += ["--workers", "1", "--input", path, "--output", out]
    process = subprocess.Popen([*map(str, line)], stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    scratch = home.path / "artifacts" / "scratch"
    while not list(scratch.glob("*/scores-*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    (work,) = scratch.iterdir()
    num = len(WorkFolder(str(work)).finished())
    done = home.score(path, out, model="g", workers=0)
    assert done.num_resumed >= num * CHUNK_ROWS >= CHUNK_ROWS
    table = pyarrow.parquet.read_table(out)
    assert table["sequence"].to_pylist() == sequences
    expected = fitted.predict(torch.from_numpy(SPACE.encode(sequences))).mean.numpy()
    np.testing.assert_allclose(table["mean"].to_numpy(), expected, rtol=1e-4, atol=1e-5)
