import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from plait.interfaces.cli.main import main

PLAIT = Path(sys.executable).with_name("plait")
TINY: dict[str, Any] = {
    "rounds": 2,
    "prior": {"settings": {"num_pretrain_steps": 20, "num_steps": 6, "width": 16}},
    "reward": {"members": 2, "settings": {"steps": 20}},
    "judge": {"settings": {"steps": 20}},
    "finetune": {"settings": {"num_updates": 4, "batch_size": 8}},
    "batch": {"size": 8, "num_candidates": 64},
    "workers": 0,
}


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Cli:
    """The command line on one home: in this process, or as a process of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: object, code: int = 0) -> Answer:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            returned = main(["--home", str(self.home), *map(str, arguments)])
        assert returned == code, (returned, out.getvalue(), err.getvalue())
        return Answer(returned, out.getvalue(), err.getvalue())

    def json(self, *arguments: object, code: int = 0) -> Any:
        return self(*arguments, "--json", code=code).json

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        line = [str(PLAIT), "--home", str(self.home), *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.home.parent,
            env=environment,
            preexec_fn=_hear_interrupts,
        )


def _hear_interrupts() -> None:
    """A suite that runs in the background ignores Ctrl-C, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def some_readings(num: int, seed: int) -> list[dict[str, Any]]:
    """8-mers that begin with A, each G worth 1 and a T at the third letter worth 2, with a little noise."""
    rng = np.random.default_rng(seed)
    sequences = list(dict.fromkeys("A" + "".join(rng.choice(list("ACGT"), 7)) for _ in range(num)))
    return [{"sequence": s, "value": f"{s.count('G') + 2 * (s[2] == 'T') + rng.normal(0, 0.1):.3f}"} for s in sequences]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def nowhere(tmp_path: Path) -> Cli:
    """The command line without a home."""
    return Cli(tmp_path / "home")


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with nothing in it."""
    made = Cli(tmp_path_factory.mktemp("empty") / "home")
    made("init")
    return made.home


@pytest.fixture
def cli(tmp_path: Path, empty: Path) -> Cli:
    """A copy of `empty`."""
    return Cli(Path(shutil.copytree(empty, tmp_path / "home")))


@pytest.fixture(scope="session")
def readings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of some 200 measured 8-mers."""
    return write_table(tmp_path_factory.mktemp("tables") / "readings.csv", some_readings(200, seed=0))


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory, empty: Path, readings: Path) -> Path:
    """A home with a dataset and a tiny campaign "c", nothing proposed."""
    folder = tmp_path_factory.mktemp("started")
    made = Cli(Path(shutil.copytree(empty, folder / "home")))
    made("data", "import", readings, "--dataset", "d", "--alphabet", "dna", "--unit", "au")
    config = folder / "c.yaml"
    config.write_text(yaml.safe_dump({"name": "c", "dataset": "d", **TINY}))
    made("campaign", "create", config)
    return made.home


@pytest.fixture(scope="session")
def proposed(tmp_path_factory: pytest.TempPathFactory, started: Path) -> Path:
    """The same home with round 1 proposed."""
    home = tmp_path_factory.mktemp("proposed") / "home"
    shutil.copytree(started, home)
    Cli(home)("round", "propose", "c")
    return home


@pytest.fixture
def campaign(tmp_path: Path, started: Path) -> Cli:
    """A copy of `started`."""
    return Cli(Path(shutil.copytree(started, tmp_path / "home")))


@pytest.fixture
def batch(tmp_path: Path, proposed: Path) -> Cli:
    """A copy of `proposed`."""
    return Cli(Path(shutil.copytree(proposed, tmp_path / "home")))
