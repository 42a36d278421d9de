"""Several workers of one training as threads of this process: the loop's own agreements, without Ray."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from fit_line import Fit, FitLine
from plait.execution.checkpoints import Checkpoint, whole_checkpoints
from plait.execution.curves import LINES_OF_A_FILE, CurveLog, last_line, read_curves
from plait.execution.loop import Worker, run_worker
from plait.execution.storage import open_storage


class Group:
    """What the workers of a training agree on, by a barrier."""

    def __init__(self, size):
        self.size, self.barrier, self.words = size, threading.Barrier(size, timeout=30), [None] * size

    def _gather(self, rank, word):
        self.words[rank] = word
        self.barrier.wait()
        words = list(self.words)
        self.barrier.wait()
        return words

    def worker(self, rank, seconds):
        def average(parameters):
            gradients = self._gather(rank, [p.grad.clone() for p in parameters])
            for parameter, *each in zip(parameters, *gradients, strict=True):
                parameter.grad.copy_(torch.stack(each).mean(0))

        return Worker(
            average,
            rank=rank,
            size=self.size,
            first_says=lambda numbers: self._gather(rank, numbers)[0],
            all_say=lambda is_so: all(self._gather(rank, is_so)),
            seconds_between_checkpoints=seconds,
        )


def train(job, storage, size, seconds=0.0):
    group = Group(size)

    def work(rank):
        try:
            run_worker(job, storage, 5, group.worker(rank, seconds))
        except BaseException:
            group.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        for done in [pool.submit(work, rank) for rank in range(size)]:
            done.result()


@pytest.fixture(name="storage", params=["folder", "url"])
def _storage(request, tmp_path):
    return open_storage(str(tmp_path) if request.param == "folder" else f"memory://{tmp_path.name}")


@dataclass(frozen=True)
class Stopping(FitLine):
    """Every worker has an opinion of its own on when to stop."""

    stops: tuple[int, ...] = ()

    def start(self, rank, world_size, generator):
        run = super().start(rank, world_size, generator)
        run.is_done = lambda: run.step_number >= self.stops[rank]
        return run


def test_rank_0_decides_when_all_stop(storage):
    train(Stopping(stops=(9, 5)), storage, 2)
    assert len(read_curves(storage)["loss"]) == 9
    assert storage.exists("result")


def slopes(storage):
    return [value for _, value in read_curves(storage)["slope"]]


def test_interrupted_workers_go_on_to_the_same_end(storage, tmp_path):
    whole = open_storage(str(tmp_path / "whole"))
    train(FitLine(), whole, 2)
    with pytest.raises((ValueError, threading.BrokenBarrierError)):
        train(FitLine(fail_at=25, fail_on_rank=1), storage, 2)
    assert whole_checkpoints(storage)[:2] == [Checkpoint(25, 2), Checkpoint(24, 2)]
    train(FitLine(), storage, 2)
    assert slopes(storage) == slopes(whole)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3)])
def test_another_number_of_workers_goes_on_from_the_same_weights(storage, before, after):
    with pytest.raises((ValueError, threading.BrokenBarrierError)):
        train(FitLine(fail_at=20), storage, before)
    saved = slopes(storage)
    train(FitLine(), storage, after)
    curves = read_curves(storage)
    assert slopes(storage)[:20] == saved
    assert [size for _, size in curves["workers"]] == 20 * [before] + 20 * [after]
    assert [step for step, _ in curves["loss"]] == list(range(1, 41))
    assert curves["loss"][-1][1] < 0.1 * curves["loss"][0][1]


def test_workers_that_go_on_in_another_number_draw_anew(storage):
    generators = {}

    class Watched(Fit):
        def load_state_dict(self, state):
            super().load_state_dict(state)
            generators[self.rank] = (self.generator, self.generator.get_state())

    @dataclass(frozen=True)
    class Job(FitLine):
        def start(self, rank, world_size, generator):
            return Watched(self, rank, world_size, generator)

    with pytest.raises(ValueError, match="lamp"):
        train(FitLine(fail_at=20), storage, 1)
    train(Job(num_steps=20), storage, 2, seconds=1000)
    states = [generators[rank][0].get_state() for rank in range(2)]
    assert not torch.equal(*states)
    assert not any(torch.equal(generators[rank][1], states[rank]) for rank in range(2))


def test_all_go_back_where_one_worker_cannot_read_its_file(storage):
    with pytest.raises((ValueError, threading.BrokenBarrierError)):
        train(FitLine(fail_at=25, fail_on_rank=1), storage, 2)
    torn = Checkpoint(25, 2).name(1)
    storage.write(torn, storage.read(torn)[:-1])
    started = []

    @dataclass(frozen=True)
    class Job(FitLine):
        def start(self, rank, world_size, generator):
            run = super().start(rank, world_size, generator)
            load = run.load_state_dict
            run.load_state_dict = lambda state: (load(state), started.append(state["step"]))
            return run

    train(Job(), storage, 2)
    assert started == [24, 24]


def test_curves_are_cut_back_and_read_across_files(storage):
    log = CurveLog(storage, 0)
    assert last_line(storage) == (0, {})
    for step in range(1, 2 * LINES_OF_A_FILE + 101):
        log.append(step, {"loss": 1 / step})
    log.sync()
    assert len(storage.names("curves")) == 3
    assert last_line(storage) == (2100, {"loss": 1 / 2100})
    again = CurveLog(storage, LINES_OF_A_FILE + 50)
    assert last_line(storage)[0] == 1050
    again.append(1051, {"loss": 0.5})
    again.sync()
    curve = read_curves(storage)["loss"]
    assert [step for step, _ in curve] == list(range(1, 1052))
    assert curve[-1] == (1051, 0.5)
    CurveLog(storage, 0)
    assert read_curves(storage) == {}


def test_a_folder_is_whole_or_absent_and_comes_back(storage, tmp_path):
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "a").write_bytes(b"1")
    (bundle / "b").write_bytes(b"2")
    assert not storage.exists("x")
    storage.write("x/a", b"half")
    storage.remove("x")
    storage.put(bundle, "x")
    assert storage.exists("x")
    storage.fetch("x", tmp_path / "back")
    assert {p.name: p.read_bytes() for p in (tmp_path / "back").iterdir()} == {"a": b"1", "b": b"2"}
    storage.remove("x")
    assert not storage.exists("x")
    storage.remove("x")
    assert storage.names("nowhere") == []
    with pytest.raises(OSError, match="nothing"):
        storage.read("nothing")
