"""Ray underneath a running campaign: a worker of its training is killed, a machine is taken away, the driver dies."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import plait
import psutil
import pytest
from drilling import Drilled, kill, write_inputs
from plait.execution import cluster

NAME = "drill-on-ray"
SECONDS_TO_NOTICE = 60
"""For Ray's own processes to notice that their driver is gone."""


@pytest.fixture(autouse=True, scope="module")
def _only_long(size) -> None:
    if size(1, 0):
        pytest.skip("minutes of Ray: make drill")


def add_campaign(home: Drilled) -> Drilled:
    """One that trains its prior on two workers for a minute or so."""
    _, config = write_inputs(home.path.parent)
    with plait.open(home.path) as opened:
        prior = {
            **config["prior"],
            "settings": {"num_pretrain_steps": 6000, "patience": 1000, "num_steps": 16, "width": 64},
        }
        opened.campaign.create({**config, "name": NAME, "rounds": 1, "prior": prior, "workers": [2, 0]})
    return home


@pytest.fixture
def home(sqlite_home: Drilled) -> Drilled:
    return add_campaign(sqlite_home)


@pytest.fixture(scope="module")
def undisturbed(template: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The batch of that campaign when nothing disturbs it."""
    home = Drilled.at(tmp_path_factory.mktemp("ray") / "home")
    shutil.copytree(template, home.path)
    return propose(add_campaign(home))


def propose(home: Drilled) -> list[str]:
    code, out, err = home.run("round", "propose", NAME)
    assert code == 0, (out, err)
    return home.designed(NAME)


def scratch_of(home: Drilled) -> Path | None:
    return next((home.path / "artifacts" / "scratch").glob(f"{NAME}-*-prior"), None)


def step_of(scratch: Path) -> int:
    """Updates on record."""
    newest = max((scratch / "curves").glob("[0-9]*.jsonl"))
    return int(json.loads(newest.read_bytes().splitlines()[-1])["step"])


def wait_for_checkpoint(home: Drilled, process: subprocess.Popen[str]) -> tuple[Path, int]:
    """The scratch folder and the step of the newest checkpoint, once there is one."""
    while True:
        assert process.poll() is None, process.communicate()
        scratch = scratch_of(home)
        names = [] if scratch is None else [p.name for p in (scratch / "checkpoints").glob("[0-9]*-1-of-2.*")]
        if scratch is not None and names:
            return scratch, int(max(names).partition("-")[0])
        time.sleep(0.2)


def family_of(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """All processes below a driver."""
    return psutil.Process(driver.pid).children(recursive=True)


def test_a_killed_worker_costs_one_checkpoint_interval_at_most(home, undisturbed, tell):
    started, process = time.monotonic(), home.start("round", "propose", NAME)
    scratch, kept = wait_for_checkpoint(home, process)
    time.sleep(3)  # well into the next interval
    victim = next(p for p in family_of(process) if "RayTrainWorker" in " ".join(p.cmdline()))
    victim.kill()
    at, lowest = step_of(scratch), None
    while process.poll() is None and lowest is None:
        with suppress(OSError, IndexError, ValueError):
            lowest = step if (step := step_of(scratch)) < at else None
        time.sleep(0.01)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, (out, err)
    batch = home.designed(NAME)
    lost = 0 if lowest is None else at - lowest
    seen = f"at update {at}, checkpoint {kept}: {lost} updates were made again"
    tell("kill -9 of a Train worker", "of two", 1, 0, int(batch != undisturbed), time.monotonic() - started, seen)
    assert lost <= at - kept
    assert batch == undisturbed


def test_a_killed_driver_leaves_no_ray_behind_and_goes_on(home, undisturbed, tell):
    started, process = time.monotonic(), home.start("round", "propose", NAME)
    _, kept = wait_for_checkpoint(home, process)
    family = family_of(process)
    kill(process)
    _, alive = psutil.wait_procs(family, timeout=SECONDS_TO_NOTICE)
    again = time.monotonic()
    batch = propose(home)
    seen = f"{len(family)} processes of Ray, {len(alive)} left; the rest took {time.monotonic() - again:.0f} s"
    what = f"on Ray Train, after update {kept}"
    tell("kill -9 of the driver", what, 1, 0, int(batch != undisturbed), time.monotonic() - started, seen)
    assert not alive
    assert batch == undisturbed


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """A cluster of two machines of one CPU each, of which the second may be lost."""
    from ray.cluster_utils import Cluster

    for name, value in cluster.DRIVER_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    room = {"num_cpus": 1, "object_store_memory": 80_000_000}
    made = Cluster(initialize_head=True, head_node_args=room)
    yield made, made.add_node(**room)
    made.shutdown()


def test_a_machine_is_lost_and_the_campaign_goes_on_when_there_is_another(home, undisturbed, machines, tell):
    (made, second), started = machines, time.monotonic()
    home = replace(home, environment={"PLAIT_RAY_ADDRESS": made.address})
    process = home.start("round", "propose", NAME)
    wait_for_checkpoint(home, process)
    made.remove_node(second, allow_graceful=False)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=60)
    is_waiting = process.poll() is None
    made.add_node(num_cpus=1, object_store_memory=80_000_000)
    out, err = process.communicate(timeout=600)
    if process.returncode:
        assert process.returncode == 5, (out, err)
        assert "Traceback" not in err
        assert "hint: " in err
    batch = propose(home)
    ended = "waited and went on by itself" if is_waiting and not process.returncode else "ended with a clear error"
    tell("a machine removed", "one of two", 1, 0, int(batch != undisturbed), time.monotonic() - started, ended)
    assert batch == undisturbed
