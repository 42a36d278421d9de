"""Ray brought up on first use: embedded in this process's lifetime, or an existing cluster that the settings name."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable

from plait.design.errors import ConfigError, RunFailedError
from plait.settings import Settings, redacted

OBJECT_STORE_BYTES = 100_000_000
SECONDS_FOR_NODES = 60.0
"""That nodes of a cluster may take to come."""

DRIVER_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # 15 by default: workers starve beside anything else on a small machine
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # paces start, reports and end; 2 s by default
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # 60 by default: others may have the machines for a while
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # a lost worker is our progress to tell, not a line on the user's stdout
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in jobs mean the same in every process
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread of Ray Data that outlives stop() would start another Ray
}
"""What Ray reads in the driver; a variable that is set already wins."""


def is_up() -> bool:
    """Whether this process is connected to a Ray, without importing it."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def bring_up(settings: Settings, num_cpus: int, say: Callable[[str], None], num_gpus: float = 0) -> None:
    """Connect to a Ray with at least `num_cpus` logical CPUs and `num_gpus` GPUs; one that is up is used as it is.

    A cluster that is joined has a minute for its nodes to come, as after a restart of all of it; one with an
    autoscaler (version 2, as KubeRay's) may stay smaller: it grows for what waits.

    Raises:
        ConfigError: The embedded Ray is too small, or the cluster cannot be reached.
        RunFailedError: The cluster is too small now, or the embedded Ray does not start.
    """
    for name, value in DRIVER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    is_local = settings.ray_address == "local"
    if ray.is_initialized() and is_local and settings.ray_num_cpus is None and _num_cpus() < num_cpus:
        ray.shutdown()
    if not ray.is_initialized():
        _start(settings, num_cpus, say) if is_local else _join(settings.ray_address, say)
    if not is_local and not _grows_to(num_cpus, num_gpus, say) and _can_grow():
        return
    too_small = ConfigError if is_local else RunFailedError  # a cluster's nodes may come back
    if _num_cpus() < num_cpus:
        raise too_small(
            f"the workers need {num_cpus} CPUs, Ray has {_num_cpus()}",
            hint="lower `workers` or worker_cpus, raise ray_num_cpus, or join a larger cluster (ray_address)",
        )
    if (there := _num("GPU")) < num_gpus:
        raise too_small(
            f"the workers need {num_gpus:g} GPUs, Ray has {there:g}",
            hint="lower `workers` or the setting worker_gpus, or join a larger cluster (ray_address)",
        )


def stop() -> None:
    """Leave Ray; an embedded one ends. Nothing to do where none is up."""
    if is_up():
        import ray

        ray.shutdown()


def _start(settings: Settings, num_cpus: int, say: Callable[[str], None]) -> None:
    import ray

    say("starting Ray")
    try:
        ray.init(
            address="local",  # never a cluster that happens to run here
            num_cpus=settings.ray_num_cpus or max(os.cpu_count() or 1, num_cpus),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
        )
    except Exception as error:
        raise RunFailedError(f"Ray does not start: {error}", hint="`workers: 0` trains without it") from error


def _join(address: str, say: Callable[[str], None]) -> None:
    import ray

    say(f"joining the Ray cluster at {redacted(address)}")
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except Exception as error:
        raise ConfigError(
            f"no Ray cluster answers at {redacted(address)}: {error}", hint="correct ray_address, or set it to local"
        ) from error


def _grows_to(num_cpus: int, num_gpus: float, say: Callable[[str], None]) -> bool:
    """Whether a cluster is large enough by now, or once nodes that are just starting have come."""
    until, has_said = time.monotonic() + SECONDS_FOR_NODES, False
    while _num_cpus() < num_cpus or _num("GPU") < num_gpus:
        if time.monotonic() > until or _can_grow():
            return False
        if not has_said:
            has_said = True
            say(f"waiting for nodes: {num_cpus} CPUs and {num_gpus:g} GPUs are needed")
        time.sleep(1)
    return True


def _can_grow() -> bool:
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    return bool(is_autoscaler_v2(fetch_from_server=True))


def _num_cpus() -> int:
    return int(_num("CPU"))


def _num(resource: str) -> float:
    import ray

    return float(ray.cluster_resources().get(resource, 0))
