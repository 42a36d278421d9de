"""Sweeps on a real Ray: the same as in one process, whatever is killed meanwhile."""

import os
import signal
import subprocess
import sys
import time

import pytest
from climb import ClimbPlan
from plait.design.errors import ConfigError
from plait.design.records import no_progress
from plait.execution.local import LocalExecutor
from plait.execution.ray_train import RayExecutor
from plait.settings import load_settings


@pytest.fixture(scope="module")
def executor(tmp_path_factory):
    settings = load_settings(tmp_path_factory.mktemp("home"), ray_num_cpus=3)
    executor = RayExecutor(settings, seconds_between_checkpoints=0.0)
    yield executor
    executor.close()


def sweep(executor, plan, storage, progress=no_progress):
    return executor.sweep(plan, run_id="s", storage=str(storage), task="sweeping", progress=progress)


def test_a_sweep_that_loses_a_process_ends_as_in_one_process(executor, tmp_path, capfd):
    expected = sweep(LocalExecutor(1), ClimbPlan(num_trials=6, generation=3), tmp_path / "local")
    told = []
    plan = ClimbPlan(num_trials=6, generation=3, kill_in=1, marker=tmp_path / "killed", log=tmp_path / "log")
    outcomes = sweep(executor, plan, tmp_path / "ray", progress=lambda *word: told.append(word))
    assert outcomes == expected
    assert (tmp_path / "killed").exists()
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == [0, 1, 1, 2, 3, 4, 5]
    assert told[0][3] == "starting Ray"
    assert told[-1][1:3] == (6, 6)
    assert capfd.readouterr() == ("", "")
    assert sweep(executor, plan, tmp_path / "ray") == expected
    assert len((tmp_path / "log").read_text().split()) == 7


DRIVER = """
import sys
from pathlib import Path
from climb import ClimbPlan
from plait.design.records import no_progress
from plait.execution.ray_train import RayExecutor
from plait.settings import load_settings
folder = Path(sys.argv[1])
plan = ClimbPlan(num_trials=4, generation=2, seconds=float(sys.argv[2]), log=folder / "log")
executor = RayExecutor(load_settings(folder / "home", ray_num_cpus=2), seconds_between_checkpoints=0.0)
executor.sweep(plan, run_id="s", storage=str(folder / "s"), task="sweeping", progress=no_progress)
"""


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_is_stopped_goes_on(tmp_path, blow):
    expected = sweep(LocalExecutor(1), ClimbPlan(num_trials=4, generation=2), tmp_path / "whole")
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path), "0.5"], stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 90
    while not list(tmp_path.glob("s/trial-000[23]/checkpoints/*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(driver.pid, blow)
    driver.wait(timeout=30)
    finished = len(list(tmp_path.glob("s/*/outcome.json")))
    assert 2 <= finished < 4
    plan = ClimbPlan(num_trials=4, generation=2, log=tmp_path / "log")
    assert sweep(LocalExecutor(1), plan, tmp_path / "s") == expected
    started = list(map(int, (tmp_path / "log").read_text().split()))
    assert started.count(0) == started.count(1) == 1
    assert len(started) == 4 + 4 - finished or len(started) == 4 + 4 - finished - 1


def test_a_trial_needs_its_cpus(tmp_path, executor):
    too_large = RayExecutor(load_settings(tmp_path, ray_num_cpus=3, worker_cpus=64))
    with pytest.raises(ConfigError, match="need 64 CPUs"):
        sweep(too_large, ClimbPlan(), tmp_path / "s")


def test_importing_loads_no_ray():
    code = "import sys, plait.execution.ray_tune; assert not {'ray', 'torch', 'optuna'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
