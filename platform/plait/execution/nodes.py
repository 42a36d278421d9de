"""The nodes of a Ray cluster: what each has, and what a small task says there."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from plait.design.errors import ConfigError
from plait.execution import cluster
from plait.execution.loop import reason_of
from plait.settings import Settings, redacted

SECONDS_TO_CONNECT = 5.0

T = TypeVar("T")


@dataclass(frozen=True)
class Node(Generic[T]):
    """A node that is alive.

    Attributes:
        address: Its IP address.
        cpus: Logical, as Ray counts them.
        gpus: As Ray counts them.
        memory_gib: That Ray may use.
        answer: What the task returned; None where it failed.
        problem: Why it failed, "" where it did not.
    """

    address: str
    cpus: float
    gpus: float
    memory_gib: float
    answer: T | None
    problem: str = ""

    @property
    def is_on_loopback(self) -> bool:
        """Only this machine reaches it."""
        return self.address.startswith("127.")


def ask_each_node(settings: Settings, function: Callable[[], T], seconds: float) -> list[Node[T]]:
    """Join the cluster that the settings name and run `function` once on each of its nodes.

    Args:
        settings: ray_address.
        function: Picklable; takes no CPU from what runs there.
        seconds: That the nodes may take together.

    Raises:
        ConfigError: No cluster answers, or it runs another Ray or Python.
    """
    _knock(settings.ray_address)
    cluster.bring_up(settings, 0, lambda text: None)
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(_call)
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    asked = {
        key: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(key, soft=False)).remote(function)
        for key in nodes
    }
    ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds)
    return [_node(nodes[key], reference, is_ready=reference in ready) for key, reference in asked.items()]


def sends_token() -> bool:
    """Whether this process shows a token to the clusters that it joins."""
    return os.environ.get("RAY_AUTH_MODE", "").lower() in ("token", "k8s")


def _knock(address: str) -> None:
    """See that somebody listens: Ray itself waits for a minute before it says that nobody does.

    Raises:
        ConfigError: Nobody does.
    """
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    if parts.hostname is None or parts.port is None:
        return  # "auto"
    try:
        socket.create_connection((parts.hostname, parts.port), SECONDS_TO_CONNECT).close()
    except OSError as error:
        raise ConfigError(
            f"nobody listens at {redacted(address)}: {error.strerror or error}",
            hint="start the cluster, or correct ray_address; local needs none",
        ) from error


def _call(function: Callable[[], T]) -> T:
    return function()


def _node(described: dict[str, Any], reference: Any, *, is_ready: bool) -> Node[Any]:
    import ray

    answer, problem = None, "" if is_ready else "it does not answer in time"
    try:
        answer = ray.get(reference) if is_ready else None
    except ray.exceptions.RayTaskError as error:
        problem = reason_of(error.cause or error)[0]
    except ray.exceptions.RayError as error:
        problem = reason_of(error)[0]
    resources = described["Resources"]
    return Node(
        described["NodeManagerAddress"],
        resources.get("CPU", 0.0),
        resources.get("GPU", 0.0),
        resources.get("memory", 0.0) / 2**30,
        answer,
        problem,
    )
