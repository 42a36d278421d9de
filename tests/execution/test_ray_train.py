import os
import signal
import subprocess
import sys
import time

import pytest
from fit_line import FitLine, read_line
from plait.design.errors import ConfigError, NotFoundError, RunFailedError
from plait.design.records import no_progress
from plait.execution import cluster
from plait.execution.local import LocalExecutor
from plait.execution.ray_train import RayExecutor
from plait.settings import load_settings

CHECKPOINT_INTERVAL = 0.5


@pytest.fixture(scope="module")
def executor(tmp_path_factory):
    settings = load_settings(tmp_path_factory.mktemp("home"), ray_num_cpus=4)
    executor = RayExecutor(settings, seconds_between_checkpoints=CHECKPOINT_INTERVAL)
    yield executor
    executor.close()


def train(executor, directory, job, num_workers, progress=no_progress):
    return executor.train(
        job, run_id="run", directory=directory, num_workers=num_workers, seed=5, task="fitting", progress=progress
    )


def test_without_workers_ray_stays_down(executor, tmp_path):
    train(executor, tmp_path, FitLine(), 0)
    assert executor.map(abs, [-1, 2]) == [1, 2]
    assert not cluster.is_up()


def test_two_workers_of_which_one_is_killed_end_where_one_process_ends(executor, tmp_path, capfd):
    whole = train(LocalExecutor(1), tmp_path / "whole", FitLine(sees_all=True), 0)
    told = []
    log = tmp_path / "log"
    job = FitLine(sees_all=True, kill_at=30, marker=tmp_path / "killed", seconds=0.05, log=log)
    curves = train(executor, tmp_path / "ray", job, 2, progress=lambda *word: told.append(word))
    assert (tmp_path / "killed").exists()
    made = [(int(step), float(at)) for step, at in (line.split() for line in log.read_text().splitlines())]
    lost = [at for index, (step, at) in enumerate(made) if step in [later for later, _ in made[index + 1 :]]]
    assert not lost or lost[-1] - lost[0] < 2 * CHECKPOINT_INTERVAL  # none where it died right after a checkpoint
    assert read_line(tmp_path / "ray") == pytest.approx(read_line(tmp_path / "whole"), abs=1e-6)
    assert [v for _, v in curves["slope"]] == pytest.approx([v for _, v in whole["slope"]], abs=1e-6)
    assert [step for step, _ in curves["loss"]] == list(range(1, 41))
    assert sorted(p.name for p in (tmp_path / "ray").iterdir()) == ["curves", "result"]
    assert [word[3] for word in told[:2]] == ["starting Ray", "starting 2 workers"]
    assert any(0 < word[1] < 40 for word in told)
    assert told[-1][1:3] == (40, 40)
    assert capfd.readouterr() == ("", "")


def test_a_job_that_fails_on_one_worker_is_told_in_one_line(executor, tmp_path):
    with pytest.raises(RunFailedError, match=r"^fitting failed: ValueError: the lamp is broken$"):
        train(executor, tmp_path, FitLine(fail_at=5, fail_on_rank=1), 2)


def test_kill_9_of_the_driver_then_again_ends_as_if_never_interrupted(executor, tmp_path):
    whole = train(LocalExecutor(1), tmp_path / "whole", FitLine(), 0)
    code = (
        "from pathlib import Path; from fit_line import FitLine; import sys;"
        "from plait.execution.ray_train import RayExecutor; from plait.design.records import no_progress;"
        "from plait.settings import load_settings; d = Path(sys.argv[1]);"
        "RayExecutor(load_settings(d / 'home'), 0.5).train(FitLine(seconds=0.2), run_id='run', directory=d,"
        " num_workers=1, seed=5, task='t', progress=no_progress)"
    )
    broken = tmp_path / "broken"
    driver = subprocess.Popen([sys.executable, "-c", code, str(broken)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(broken.glob("checkpoints/*-0-of-1.checkpoint")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert not (broken / "result").exists()
    told = []
    curves = train(executor, broken, FitLine(), 1, progress=lambda *word: told.append(word))
    assert curves == whole
    assert read_line(broken) == read_line(tmp_path / "whole")


def missing(item):
    raise NotFoundError(f"no {item}", hint="look elsewhere")


def test_map_runs_on_ray_keeps_order_and_tells_errors(executor, tmp_path):
    from ray.cloudpickle import register_pickle_by_value

    register_pickle_by_value(sys.modules[__name__])
    assert len(set(executor.map(lambda _: os.getpid(), [1, 2, 3])) - {os.getpid()}) >= 1
    assert executor.map(abs, [-1, 2, -3]) == [1, 2, 3]
    with pytest.raises(NotFoundError, match="no 1") as caught:
        executor.map(missing, [1, 2])
    assert caught.value.hint == "look elsewhere"
    with pytest.raises(RunFailedError, match="a Ray task failed: TypeError: bad operand"):
        executor.map(abs, ["a", "b"])


def test_more_workers_than_cpus_is_said_not_waited_for(executor, tmp_path):
    with pytest.raises(ConfigError, match="the workers need 5 CPUs, Ray has 4"):
        train(executor, tmp_path, FitLine(), 5)


JOINING = """
import sys, ray
from plait.design.errors import RunFailedError
from plait.execution import cluster
from plait.settings import load_settings
cluster.SECONDS_FOR_NODES = 2
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
try:
    cluster.bring_up(load_settings(sys.argv[1], ray_address="auto"), 4, print, num_gpus=1)
except RunFailedError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize(("is_growing", "said"), [("0", "the workers need 4 CPUs, Ray has 1"), ("1", "")])
def test_a_cluster_that_grows_may_be_small_yet(tmp_path, is_growing, said):
    environment = {**os.environ, "RAY_enable_autoscaler_v2": is_growing}
    line = [sys.executable, "-c", JOINING, str(tmp_path)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1] if done.returncode else "") == (int(bool(said)), said)


def test_limits_are_kept_before_anything_runs(tmp_path):
    few = RayExecutor(load_settings(tmp_path / "home", max_workers=2))
    few.require(2)
    with pytest.raises(ConfigError, match="3 workers are asked for, and the setting max_workers allows 2"):
        train(few, tmp_path / "run", FitLine(), 3)
    assert not (tmp_path / "run").exists()


def test_what_a_worker_needs_is_asked_of_ray(executor, tmp_path):
    greedy = RayExecutor(load_settings(tmp_path / "home", ray_num_cpus=4, worker_cpus=2.5))
    with pytest.raises(ConfigError, match="the workers need 5 CPUs, Ray has 4"):
        train(greedy, tmp_path, FitLine(), 2)
    seeing = RayExecutor(load_settings(tmp_path / "home", ray_num_cpus=4, worker_gpus=64))
    with pytest.raises(ConfigError, match="the workers need 128 GPUs"):
        train(seeing, tmp_path, FitLine(), 2)


def test_importing_the_executor_loads_neither_ray_nor_torch():
    code = "import sys, plait.execution.ray_train; assert not {'ray', 'torch', 'mlflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
