import os
import signal
from functools import partial

import pytest
from plait.design.errors import NotFoundError, RunFailedError
from plait.execution import cluster
from plait.execution.ray_data import process_chunks
from plait.settings import load_settings

UNKNOWN, DEADLY, ONCE = 101, 102, 103


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    yield load_settings(tmp_path_factory.mktemp("home"), ray_num_cpus=2)
    cluster.stop()


def load(folder):
    loaded = folder / f"loaded-{os.getpid()}-{len(list(folder.iterdir()))}"
    loaded.touch()

    def process(number):
        if number == DEADLY or (number == ONCE and not (folder / "died").exists()):
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number == UNKNOWN:
            raise NotFoundError("there is no such thing", hint="look elsewhere")
        (folder / f"done-{number}").touch()

    return process


def done_in(folder):
    return {int(path.name[5:]) for path in folder.glob("done-*")}


def test_without_chunks_ray_stays_down(settings, tmp_path):
    assert list(process_chunks(settings, partial(load, tmp_path), [], num_workers=2, say=print)) == []
    assert not cluster.is_up()


def test_every_chunk_is_done_once_by_workers_that_load_once_even_if_one_dies(settings, tmp_path, capfd):
    told = []
    chunks = [*range(8), ONCE]
    ended = list(process_chunks(settings, partial(load, tmp_path), chunks, num_workers=2, say=told.append))
    assert sorted(end.number for end in ended) == chunks
    assert all(end.seconds >= 0 for end in ended)
    assert done_in(tmp_path) == set(chunks)
    assert len(list(tmp_path.glob("loaded-*"))) <= 4  # two workers, and two more after the loss
    assert told == ["starting Ray", "a worker was lost; starting again"]
    assert capfd.readouterr() == ("", "")


def test_a_chunk_that_fails_ends_the_run_with_its_reason(settings, tmp_path):
    with pytest.raises(RunFailedError) as caught:
        list(process_chunks(settings, partial(load, tmp_path), [0, UNKNOWN], num_workers=None, say=print))
    assert (caught.value.message, caught.value.hint) == ("there is no such thing", "look elsewhere")
    assert not cluster.is_up()


def test_a_chunk_that_always_kills_its_worker_is_given_up(settings, tmp_path):
    with pytest.raises(RunFailedError, match="workers died 3 times"):
        list(process_chunks(settings, partial(load, tmp_path), [0, DEADLY], num_workers=1, say=print))
    assert done_in(tmp_path) == {0}
