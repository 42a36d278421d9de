import os
import signal
import socket
import subprocess
import sys

import pytest
import torch
from fit_line import FitLine, read_line
from plait.design.errors import CorruptArtifactError, RunFailedError, StoreError
from plait.design.records import no_progress
from plait.execution.checkpoints import Checkpoint, prune, read_checkpoint, whole_checkpoints, write_checkpoint
from plait.execution.local import LocalExecutor
from plait.execution.storage import open_storage
from s3fs import S3FileSystem

JOB = FitLine()


def train(directory, job=JOB, seconds=0.0, progress=no_progress, seed=5, storage=None):
    executor = LocalExecutor(torch_threads=1, seconds_between_checkpoints=seconds)
    return executor.train(
        job,
        run_id="run",
        directory=directory,
        num_workers=0,
        seed=seed,
        task="fitting",
        progress=progress,
        storage=storage,
    )


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    parameter = torch.nn.Parameter(torch.randn(3))
    optimiser = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimiser.step()
    state = {
        "optimiser": optimiser.state_dict(),
        "generator": torch.Generator().manual_seed(1).get_state(),
        "numbers": [1, 2.5, True, None, float("-inf"), "text", (1, (2, []))],
        3: {"transposed": torch.arange(6).view(2, 3).T, "scalar": torch.tensor(2.0, dtype=torch.bfloat16)},
    }
    storage = open_storage(str(tmp_path))
    write_checkpoint(storage, "a/x.checkpoint", state)
    back = read_checkpoint(storage, "a/x.checkpoint")
    assert back["numbers"] == state["numbers"]
    assert back["optimiser"]["param_groups"] == state["optimiser"]["param_groups"]
    assert list(back["optimiser"]["state"]) == [0]
    assert torch.equal(back["optimiser"]["state"][0]["exp_avg"], state["optimiser"]["state"][0]["exp_avg"])
    assert torch.equal(back["generator"], state["generator"])
    assert torch.equal(back[3]["transposed"], state[3]["transposed"])
    assert back[3]["scalar"].dtype == torch.bfloat16
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x.checkpoint"]


def test_code_is_not_checkpointed(tmp_path):
    with pytest.raises(TypeError, match="not function"):
        write_checkpoint(open_storage(str(tmp_path)), "x", {"f": train})


@pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "missing"])
def test_a_damaged_checkpoint_is_found_out(tmp_path, damage):
    storage, file = open_storage(str(tmp_path)), tmp_path / "x"
    write_checkpoint(storage, "x", {"step": 2, "w": torch.zeros(100)})
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    damaged = {"torn": content[:-100], "flipped": content, "empty": b""}
    file.unlink() if damage == "missing" else file.write_bytes(damaged[damage])
    with pytest.raises(CorruptArtifactError):
        read_checkpoint(storage, "x")


def test_checkpoints_of_which_a_worker_is_missing_do_not_count_and_old_ones_go(tmp_path):
    storage = open_storage(str(tmp_path))
    for step, size, ranks in [(1, 1, [0]), (2, 2, [0, 1]), (3, 2, [0, 1]), (4, 2, [1]), (5, 3, [0, 1, 2])]:
        for rank in ranks:
            write_checkpoint(storage, Checkpoint(step, size).name(rank), {"step": step})
    assert whole_checkpoints(storage) == [Checkpoint(5, 3), Checkpoint(3, 2), Checkpoint(2, 2), Checkpoint(1, 1)]
    prune(storage)
    assert whole_checkpoints(storage) == [Checkpoint(5, 3), Checkpoint(3, 2)]
    assert len(storage.names("checkpoints")) == 6


def test_training_learns_says_how_far_it_is_and_is_not_done_twice(tmp_path):
    told = []
    curves = train(tmp_path, progress=lambda *word: told.append(word))
    assert [step for step, _ in curves["loss"]] == list(range(1, 41))
    assert curves["loss"][-1][1] < 0.1 * curves["loss"][0][1]
    assert told[0][:3] == ("fitting", 1, 40)
    assert told[-1][:3] == ("fitting", 40, 40)
    assert "loss" in told[0][3]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curves", "result"]
    before = (tmp_path / "result" / "line.json").stat().st_mtime_ns
    assert train(tmp_path) == curves
    assert (tmp_path / "result" / "line.json").stat().st_mtime_ns == before


def test_seed_decides(tmp_path):
    train(tmp_path / "a")
    train(tmp_path / "b")
    train(tmp_path / "c", seed=6)
    assert read_line(tmp_path / "a") == read_line(tmp_path / "b") != read_line(tmp_path / "c")


def interrupt(directory, seconds):
    """Train in a process of its own that dies by SIGKILL in update 30."""
    code = (
        "from pathlib import Path; from fit_line import FitLine; import sys;"
        "from plait.execution.local import LocalExecutor; from plait.design.records import no_progress;"
        "d = Path(sys.argv[1]); job = FitLine(kill_at=29, marker=d / 'killed');"
        "LocalExecutor(1, float(sys.argv[2])).train(job, run_id='run', directory=d, num_workers=0, seed=5, task='t',"
        " progress=no_progress)"
    )
    directory.mkdir()
    done = subprocess.run([sys.executable, "-c", code, str(directory), str(seconds)], env=os.environ)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("damage", [None, "newest", "all"])
def test_kill_9_then_again_ends_as_if_never_interrupted(tmp_path, damage):
    curves = train(tmp_path / "whole")
    broken = tmp_path / "broken"
    interrupt(broken, 0.0)
    kept = sorted((broken / "checkpoints").iterdir())
    assert [p.name for p in kept] == ["0000000028-0-of-1.checkpoint", "0000000029-0-of-1.checkpoint"]
    for file in {None: [], "newest": kept[-1:], "all": kept}[damage]:
        file.write_bytes(file.read_bytes()[:-1])
    assert train(broken) == curves
    assert read_line(broken) == read_line(tmp_path / "whole")


def test_kill_9_before_the_first_checkpoint_starts_again(tmp_path):
    curves = train(tmp_path / "whole")
    interrupt(tmp_path / "broken", 1000.0)
    assert train(tmp_path / "broken", seconds=1000.0) == curves


def test_a_failing_job_is_told_in_one_line_and_goes_on_later(tmp_path):
    with pytest.raises(RunFailedError, match=r"^fitting failed: ValueError: the lamp is broken$"):
        train(tmp_path, FitLine(fail_at=20))
    assert not (tmp_path / "result").exists()
    train(tmp_path)
    train(tmp_path / "whole")
    assert read_line(tmp_path) == read_line(tmp_path / "whole")


def test_another_machine_goes_on_from_an_object_store(tmp_path, s3):
    whole = train(tmp_path / "whole")
    with pytest.raises(RunFailedError, match="lamp"):
        train(tmp_path / "first", FitLine(fail_at=20), storage=s3)
    assert not (tmp_path / "first").exists()
    assert train(tmp_path / "second", storage=s3) == whole
    assert read_line(tmp_path / "second") == read_line(tmp_path / "whole")
    assert open_storage(s3).names("checkpoints") == []
    assert train(tmp_path / "third", FitLine(fail_at=0), storage=s3) == whole
    assert read_line(tmp_path / "third") == read_line(tmp_path / "whole")


def test_what_is_out_of_reach_is_not_taken_for_absent(tmp_path, s3, monkeypatch):
    train(tmp_path / "whole", storage=s3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match="cannot be used") as caught:
        open_storage(s3).exists("result")
    assert "geheim" not in str(caught.value.to_json())
    with pytest.raises(StoreError):
        train(tmp_path / "again", storage=s3)
    S3FileSystem.clear_instance_cache()


def test_divergence_is_a_failure(tmp_path):
    class Diverging(FitLine):
        def start(self, rank, world_size, generator):
            run = super().start(rank, world_size, generator)
            run.step = lambda average: {"loss": float("nan")}
            return run

    with pytest.raises(RunFailedError, match="diverged at update 1: loss is nan"):
        train(tmp_path, Diverging())


def test_map_keeps_order():
    assert LocalExecutor().map(abs, [-1, 2, -3]) == [1, 2, 3]
