"""Disks that fill up, each a small tmpfs: the home's, MLflow's, and that of a training's checkpoints."""

import errno
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from disturbing import Watch, moments
from drilling import IS_LONG, Drilled, pretraining
from plait.design.errors import RunFailedError
from plait.design.records import no_progress
from plait.execution.local import LocalExecutor


class SmallDisk:
    """A file system of a few megabytes."""

    def __init__(self, path: Path) -> None:
        self.path, self._ballast = path, path / "ballast"

    @property
    def is_full(self) -> bool:
        return self._ballast.exists()

    def fill(self) -> None:
        """Leave no room at all."""
        with self._ballast.open("ab", buffering=0) as stream:
            block = b"\0" * 65_536
            while block:
                try:
                    stream.write(block)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    block = block[: len(block) // 2]

    def make_room(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """40 MB, unmounted afterwards."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a small tmpfs")
    yield SmallDisk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def assert_is_clear(code: int, err: str) -> None:
    """An error of which a user sees one sentence and what to do."""
    assert code == 5, (code, err)
    assert "Traceback" not in err
    assert "error: " in err
    assert "hint: " in err, err


def test_a_home_whose_disk_fills_up_goes_on_when_there_is_room(sqlite_home, whole, disk, size, tell):
    started, num_refused, said = time.monotonic(), 0, set()
    shutil.move(sqlite_home.path, disk.path / "home")
    home = replace(Drilled.at(disk.path / "home"), started=sqlite_home.started)
    watch = Watch(home)
    for moment in moments(whole, size(2, 10), seed=5):
        process = home.start("campaign", "run", "drill", "--lab", "splice")
        watch.wait(process, moment.after)
        time.sleep(moment.seconds)
        disk.fill()
        _, err = process.communicate(timeout=120)
        if process.returncode:
            assert_is_clear(process.returncode, err)
            num_refused += 1
            said.add(err[err.index("error: ") :].partition("\n")[0].replace(str(disk.path), "DISK")[:60])
        home.facts()  # what was there before is there and whole
        disk.make_room()
    home.finish()
    watch.close()
    facts = home.facts()
    times = time.monotonic() - started
    lost, doubled = facts.lost(whole), facts.doubled(whole)
    tell("disk full", "the home's", num_refused, lost, doubled, times, f"{len(said)} different errors, all exit 5")
    assert not facts.difference(whole), said
    assert num_refused


@pytest.mark.skipif(not IS_LONG, reason="a minute more: make drill")
def test_mlflow_s_disk_may_fill_up(sqlite_home, whole, disk, tell):
    started = time.monotonic()
    shutil.move(sqlite_home.path / "mlflow.db", disk.path / "mlflow.db")
    home = replace(sqlite_home, mlflow_url=f"sqlite:///{disk.path}/mlflow.db")
    disk.fill()
    code, _, err = home.run("campaign", "run", "drill", "--lab", "splice")
    assert_is_clear(code, err)
    assert "MLflow" in err
    disk.make_room()
    home.finish()
    facts = home.facts()
    seconds = time.monotonic() - started
    tell("disk full", "MLflow's", 1, facts.lost(whole), facts.doubled(whole), seconds, "round proposed, told later")
    assert not facts.difference(whole)


def test_a_training_whose_disk_fills_up_at_a_checkpoint_goes_on_from_the_one_before(disk, tmp_path, tell):
    started, job = time.monotonic(), pretraining(num_steps=60)
    train = {"run_id": "run", "num_workers": 0, "seed": 3, "task": "pre-training"}
    undisturbed = LocalExecutor(1, 0.0).train(job, directory=tmp_path / "whole", progress=no_progress, **train)
    executor, directory = LocalExecutor(1, 0.0), disk.path / "run"

    def fill_once(task: str, done: int, total: int, message: str) -> None:
        if done > 20 and not disk.is_full:
            disk.fill()

    with pytest.raises(RunFailedError, match="No space left") as caught:
        executor.train(job, directory=directory, progress=fill_once, **train)
    assert caught.value.hint
    kept = sorted((directory / "checkpoints").glob("*.checkpoint"))
    assert kept
    disk.make_room()
    curves = executor.train(job, directory=directory, progress=no_progress, **train)
    assert curves == undisturbed
    whole, again = (
        {p.name: p.read_bytes() for p in (folder / "result").iterdir()} for folder in (tmp_path / "whole", directory)
    )
    tell("disk full", "at a checkpoint", 1, 0, 0, time.monotonic() - started, "the one before is used")
    assert again == whole
