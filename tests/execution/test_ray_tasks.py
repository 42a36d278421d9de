import os
import signal

import pytest
from plait.design.errors import NotFoundError, RunFailedError
from plait.execution import cluster
from plait.execution.ray_tasks import run_each
from plait.settings import load_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    yield load_settings(tmp_path_factory.mktemp("home"), ray_num_cpus=2)
    cluster.stop()


def work(item):
    if item == "lost":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "broken":
        raise ValueError("the lamp is broken")
    if item == "unknown":
        raise NotFoundError("there is no such thing", hint="look elsewhere")
    return item.upper(), os.getpid()


def test_without_items_ray_stays_down(settings):
    assert list(run_each(settings, work, [], num_workers=2, say=print)) == []
    assert not cluster.is_up()


def test_every_item_ends_in_a_process_of_its_own_whatever_happens_to_the_others(settings, capfd):
    items = ["lost", "a", "broken", "b", "unknown", "c"]
    told = []
    ends = dict(run_each(settings, work, items, num_workers=2, say=told.append))
    assert set(ends) == set(items)
    assert [ends[name][0] for name in "abc"] == ["A", "B", "C"]
    assert len({os.getpid(), *(ends[name][1] for name in "abc")}) == 4
    assert ends["broken"].message == "ValueError: the lamp is broken"
    assert isinstance(ends["unknown"], NotFoundError)
    assert ends["unknown"].hint == "look elsewhere"
    assert isinstance(ends["lost"], RunFailedError)
    assert told == ["starting Ray"]
    assert capfd.readouterr() == ("", "")


def test_who_stops_listening_stops_what_runs(settings):
    ends = run_each(settings, work, ["a", "b", "c"], num_workers=2, say=print)
    next(ends)
    ends.close()
    assert not cluster.is_up()
