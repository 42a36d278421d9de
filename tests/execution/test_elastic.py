"""A training on two machines goes on when one of them is gone."""

import os
import time
from threading import Thread

import pytest
from fit_line import FitLine, read_line
from plait.design.records import no_progress
from plait.execution import cluster
from plait.execution.curves import last_line
from plait.execution.ray_train import RayExecutor
from plait.execution.storage import open_storage
from plait.settings import load_settings

pytestmark = [
    pytest.mark.skipif(os.environ.get("PLAIT_DRILL") != "long", reason="a minute or more of Ray: PLAIT_DRILL=long"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(name="machines")
def _machines():
    """Two machines of one CPU each, of which the second may be lost."""
    from ray.cluster_utils import Cluster

    for name, value in cluster.DRIVER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    cluster.stop()
    room = {"num_cpus": 1, "object_store_memory": 80_000_000}
    made = Cluster(initialize_head=True, head_node_args=room)
    yield made, made.add_node(**room)
    cluster.stop()
    made.shutdown()


def test_a_machine_is_lost_and_the_other_ends_the_training(machines, tmp_path):
    made, second = machines
    executor = RayExecutor(load_settings(tmp_path / "home", ray_address=made.address), seconds_between_checkpoints=0.5)
    storage = open_storage(str(tmp_path / "shared"))
    lost_at = []

    def lose_a_machine():
        while last_line(storage)[0] < 20:
            time.sleep(0.1)
        made.remove_node(second, allow_graceful=False)
        lost_at.append(last_line(storage)[0])

    watcher = Thread(target=lose_a_machine)
    watcher.start()
    curves = executor.train(
        FitLine(num_steps=80, seconds=0.1),
        run_id="elastic",
        directory=tmp_path / "own",
        num_workers=2,
        seed=5,
        task="fitting",
        progress=no_progress,
        storage=storage.root,
        min_workers=1,
    )
    watcher.join()
    assert 20 <= lost_at[0] < 80
    assert [step for step, _ in curves["loss"]] == list(range(1, 81))
    assert {size for _, size in curves["workers"]} == {1.0, 2.0}
    assert {size for _, size in curves["batch"]} == {8.0}
    assert read_line(tmp_path / "own") == pytest.approx([3, -1], abs=0.2)
