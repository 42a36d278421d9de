"""The processes of compose.yaml, started on this machine by its own command lines: no container engine is needed.

What differs from Compose, and nothing else: host names and ports, folders, sizes of memory, PostgreSQL from a wheel.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from sqlalchemy.engine import make_url

from .conftest import DEPLOY, interpolate, read

TOKEN = "0123456789abcdef" * 4
CAMPAIGN: dict[str, Any] = {
    "name": "brca2",
    "dataset": "splice",
    "space": {"template": "NNNGYNNNN"},
    "prior": {"settings": {"num_pretrain_steps": 20, "num_steps": 6, "width": 16}},
    "reward": {"algorithm": "ensemble", "members": 2, "settings": {"steps": 20}},
    "judge": {"settings": {"steps": 20}},
    "conservatism": {"kind": "none"},
    "finetune": {"algorithm": "drakes", "settings": {"num_updates": 4, "batch_size": 8}},
    "batch": {"size": 8, "num_candidates": 64, "exhaustive_limit": 0},
    "workers": 1,
}
NUM_READINGS = 200
STOPPED = 130


def free_ports(number: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Machine:
    """The services of compose.yaml, on loopback and in folders of their own.

    Attributes:
        home: What is /srv/plait there.
        tmp: What is /tmp there.
    """

    def __init__(self, home: Path, tmp: Path, database: str) -> None:
        ray, mlflow, dashboard, client, *pairs = free_ports(9)
        agents, self._metrics = pairs[:2], dict(zip(("ray-head", "ray-worker", "scheduler"), pairs[2:], strict=True))
        (document,) = read(DEPLOY / "compose.yaml")
        secrets = {"POSTGRES_PASSWORD": "unused-on-a-socket", "RAY_AUTH_TOKEN": TOKEN, "RAY_WORKER_CPUS": "2"}
        self.services, self.configs = (interpolate(document, secrets)[part] for part in ("services", "configs"))
        self.home, self.tmp, self.mlflow = home, tmp, f"http://127.0.0.1:{mlflow}"
        host = make_url(database).query["host"]
        self._stands_for = {
            "ray-head:6379": f"127.0.0.1:{ray}",
            "--port=6379": f"--port={ray}",
            "mlflow:5000": f"127.0.0.1:{mlflow}",
            "127.0.0.1:5000": f"127.0.0.1:{mlflow}",
            "--port=5000": f"--port={mlflow}",
            "0.0.0.0": "127.0.0.1",  # noqa: S104
            "@postgres/": "@/",
            "/srv/plait": str(home),
        }
        self._database = f"?host={host}"
        self._more = {
            "ray-head": [
                "--node-ip-address=127.0.0.1",
                f"--temp-dir={tmp}/ray",
                f"--dashboard-port={dashboard}",
                f"--ray-client-server-port={client}",
                f"--dashboard-agent-listen-port={agents[0]}",
            ],
            "ray-worker": [
                "--node-ip-address=127.0.0.1",
                f"--dashboard-agent-listen-port={agents[1]}",
            ],
        }
        self.metrics = f"http://127.0.0.1:{pairs[2]}/metrics"

    def line(self, words: list[str]) -> list[str]:
        """A command line with names, ports and folders of this machine."""
        for old, new in self._stands_for.items():
            words = [word.replace(old, new) for word in words]
        words = [re.sub(r"^(--object-store-memory)=.*", r"\1=80000000", word) for word in words]
        return [str(DEPLOY / word) if word == "with-ray-node" else word for word in words]

    def environment(self, service: str) -> dict[str, str]:
        said = self.services[service].get("environment", {})
        said = {name: self.line([value])[0] for name, value in said.items()}
        said = {n: v + self._database if v.startswith("postgresql") else v for n, v in said.items()}
        ours = {n: v for n, v in os.environ.items() if not n.startswith(("PLAIT_", "RAY_", "MLFLOW_", "PG"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        here = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1"}
        return {**ours, "PATH": path, "TMPDIR": str(self.tmp), "HOME": str(self.tmp), **said, **here}

    def start(self, service: str, *more: str) -> subprocess.Popen[str]:
        """The service's own command, in a process group of its own; what it says goes to a file."""
        words = self.line(self.services[service]["command"]) + self._more.get(service, []) + list(more)
        words = [re.sub(r"^(--metrics-export-port)=.*", rf"\1={self._metrics.get(service)}", word) for word in words]
        where: dict[str, Any] = {"cwd": self.home, "env": self.environment(service), "process_group": 0}
        with (self.tmp / f"{service}.log").open("w") as log:
            return subprocess.Popen(words, text=True, stdout=log, stderr=log, **where)

    @contextmanager
    def running(self, service: str, *more: str) -> Iterator[subprocess.Popen[str]]:
        """The service until the end of the block, when it stops as Compose stops it."""
        process = self.start(service, *more)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def wait(self, service: str, process: subprocess.Popen[str], seconds: float = 240) -> None:
        """Until the service's own health check passes."""
        kind, *test = self.services[service]["healthcheck"]["test"]
        assert kind == "CMD"
        until = time.monotonic() + seconds
        environment = self.environment(service)
        while subprocess.run(self.line(test), env=environment, capture_output=True, check=False).returncode:
            assert process.poll() is None, self.said(service)
            assert time.monotonic() < until, self.said(service)
            time.sleep(0.3)

    def said(self, service: str) -> str:
        return f"{service}: {(self.tmp / f'{service}.log').read_text()[-3000:]}"

    def plait(self, *words: object) -> Any:
        """`docker compose run plait ... --json`."""
        line = [*self.services["plait"]["entrypoint"], *map(str, words), "--json"]
        done = subprocess.run(
            line, env=self.environment("plait"), cwd=self.home, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        return json.loads(done.stdout)


@pytest.fixture
def machine(postgres: str, tmp_path: Path) -> Iterator[Machine]:
    import psycopg

    tmp = Path(tempfile.mkdtemp(prefix="plait-"))  # short: sockets have names of at most 107 letters
    home = tmp_path / "srv"
    home.mkdir()
    made = Machine(home, tmp, postgres)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE ROLE plait SUPERUSER LOGIN")
        connection.execute("CREATE DATABASE plait OWNER plait")
        connection.execute((DEPLOY / made.configs["mlflow_database"]["file"]).read_text())
    yield made
    with psycopg.connect(postgres, autocommit=True) as connection:
        for statement in ("DATABASE plait WITH (FORCE)", "DATABASE mlflow WITH (FORCE)", "ROLE plait"):
            connection.execute(f"DROP {statement}")
    shutil.rmtree(tmp)


def left_over(machine: Machine) -> list[str]:
    return [" ".join(p.info["cmdline"]) for p in psutil.process_iter(["cmdline"]) if mentions(p, str(machine.tmp))]


def mentions(process: psutil.Process, folder: str) -> bool:
    return any(folder in word for word in process.info["cmdline"] or ())


@pytest.mark.skipif(os.environ.get("PLAIT_DRILL") != "long", reason="minutes of a whole cluster: make drill")
@pytest.mark.timeout(900)  # all limits here are for a machine that is busy ten times over
def test_the_processes_of_compose_take_a_campaign_to_the_human_gate(machine):
    with machine.running("mlflow") as mlflow:
        assert machine.start("migrations").wait(240) == 0, machine.said("migrations")
        lines = (DEPLOY.parent / "notebooks/splice_sites.csv").read_text().splitlines()[: NUM_READINGS + 1]
        (machine.home / "splice.csv").write_text("\n".join(lines))
        machine.plait("data", "import", "splice.csv", "--dataset", "splice", "--alphabet", "dna", "--unit", "log10 PSI")
        (machine.home / "brca2.yaml").write_text(yaml.safe_dump(CAMPAIGN))
        machine.plait("campaign", "create", "brca2.yaml")
        machine.wait("mlflow", mlflow)
        with ExitStack() as cluster:
            for service in ("ray-head", "ray-worker"):
                machine.wait(service, cluster.enter_context(machine.running(service)))
            codes = [machine.start("scheduler", "--once").wait(500)]
            if codes == [STOPPED]:  # its Ray node ended: Compose starts both again
                codes.append(machine.start("scheduler", "--once").wait(500))
            assert codes[-1] == 0, machine.said("scheduler")
            figures = _get(machine.metrics).decode()
        runs = _search(machine.mlflow, "runs/search", experiment_ids=_experiments(machine.mlflow))["runs"]
        shown = machine.plait("round", "show", "brca2")
    assert shown["round"]["state"] == "proposed"
    assert len(shown["designs"]) == CAMPAIGN["batch"]["size"]
    assert {run["info"]["status"] for run in runs} == {"FINISHED"}
    assert len(runs) >= 3  # prior, rewards, policy
    assert "ray_node_mem_used" in figures
    assert left_over(machine) == []


def _experiments(mlflow: str) -> list[str]:
    return [e["experiment_id"] for e in _search(mlflow, "experiments/search", max_results=10)["experiments"]]


def _search(mlflow: str, what: str, **document: Any) -> Any:
    request = urllib.request.Request(  # noqa: S310
        f"{mlflow}/api/2.0/mlflow/{what}", json.dumps(document).encode(), {"Content-Type": "application/json"}
    )
    return json.loads(_get(request))


def _get(what: str | urllib.request.Request) -> bytes:
    with urllib.request.urlopen(what, timeout=30) as answer:  # noqa: S310
        return bytes(answer.read())


def test_a_command_ends_with_its_ray_node(machine):
    """What restarts the container joins the cluster anew."""
    with machine.running("ray-head") as head:
        machine.wait("ray-head", head)
        words = machine.line(["with-ray-node", "ray-head:6379", "--node-ip-address=127.0.0.1", "--", "sleep", "600"])
        both = subprocess.Popen(words, env=machine.environment("scheduler"), process_group=0, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 240
        while not any(child.name() == "sleep" for child in psutil.Process(both.pid).children()):
            assert time.monotonic() < until
            time.sleep(0.2)
        (node,) = [c for c in psutil.Process(both.pid).children() if c.name() != "sleep"]
        node.send_signal(signal.SIGKILL)
        assert both.wait(60) != 0
    assert left_over(machine) == []
