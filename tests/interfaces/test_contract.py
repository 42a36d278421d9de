import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

PLAIT = Path(sys.executable).with_name("plait")
COLUMNS = ["--alphabet", "--sequence-column", "--value-column", "--replicate-column", "--std-column", "--batch-column"]
GLOBALS = ["--home", "--json", "--quiet", "--actor", "--override"]
CONTRACT = {
    "init": ["--database-url"],
    "demo": ["--rounds", "--seed", "--report"],
    "doctor": ["--only", "--seconds"],
    "data check": ["FILE", *COLUMNS],
    "data import": ["FILE", "--dataset", "--unit", "--goal", "--append", "--replace", *COLUMNS],
    "data list": [],
    "data show": ["NAME"],
    "data benchmark": ["NAME"],
    "campaign create": ["CONFIG.yaml"],
    "campaign list": [],
    "campaign show": ["NAME"],
    "campaign run": ["NAME", "--rounds", "--lab"],
    "campaign pause": ["NAME", "--reason"],
    "campaign resume": ["NAME"],
    "campaign cancel": ["NAME", "--reason"],
    "campaign queue": ["NAME", "--every", "--when", "--at", "--priority"],
    "scheduler run": ["--once", "--max-campaigns", "--max-failures", "--backoff"],
    "scheduler limit": ["N"],
    "status": [],
    "round propose": ["CAMPAIGN"],
    "round show": ["CAMPAIGN", "--round"],
    "round approve": ["CAMPAIGN", "--round", "--reason"],
    "round reject": ["CAMPAIGN", "--round", "--reason"],
    "round export": ["CAMPAIGN", "--output"],
    "results import": ["CAMPAIGN", "FILE"],
    "round close": ["CAMPAIGN"],
    "report": ["CAMPAIGN", "--output"],
    "sweep show": ["CAMPAIGN", "--round", "--figure"],
    "model list": [],
    "model show": ["NAME"],
    "model promote": ["NAME", "--alias"],
    "model import": ["DIR"],
    "prior train": ["--dataset", "--corpus", "--name"],
    "benchmark run": ["--suite", "--tasks", "--methods", "--seeds", "--rounds", "--workers", "--output", "--keep"],
    "benchmark fetch": ["--from"],
    "metrics": ["--listen"],
    "db upgrade": [],
    "db downgrade": ["REVISION", "--yes"],
    "db check": [],
    "db export": ["FILE"],
    "db import": ["FILE", "--database-url"],
    "db backup": ["FILE"],
    "db restore": ["FILE", "--database-url"],
    "gc": ["--dry-run", "--days", "--alone"],
    "sample": ["--model", "--n", "--sampler", "--seed", "--output"],
    "score": ["--model", "--input", "--output", "--conservatism", "--members", "--workers", "--skip-bad-rows"],
}


@pytest.mark.parametrize("line", CONTRACT)
def test_a_command_understands_what_scripts_use(nowhere, line):
    answer = nowhere(*line.split(), "--help").out
    assert [word for word in [*CONTRACT[line], *GLOBALS] if word not in answer] == []
    assert f"Example: plait {line}" in " ".join(answer.split())


@pytest.mark.parametrize("arguments", [["data", "list"], ["campaign", "list"], ["model", "list"]])
def test_global_options_are_understood_anywhere(cli, arguments):
    group, verb = arguments
    assert cli("--json", group, verb).json == cli(group, "--json", verb).json == cli(group, verb, "--json").json == []


def test_the_home_nearest_to_the_end_wins(cli, tmp_path):
    error = cli("--json", "data", "list", "--home", tmp_path / "elsewhere", code=4).json["error"]
    assert error["code"] == "not_found"
    assert str(tmp_path / "elsewhere") in error["message"]


def test_home_and_actor_come_from_the_environment(cli, readings, monkeypatch):
    monkeypatch.setenv("PLAIT_ACTOR", "Ada")
    new = ["--alphabet", "dna", "--unit", "au"]
    by_ada = cli.json("data", "import", readings, "--dataset", "a", *new)
    by_eve = cli.json("data", "import", readings, "--dataset", "b", *new, "--actor", "Eve")
    assert [d["version"]["created_by"] for d in (by_ada, by_eve)] == ["Ada", "Eve"]
    monkeypatch.setenv("PLAIT_HOME", str(cli.home))
    listed = subprocess.run([PLAIT, "data", "list", "--json"], capture_output=True, text=True, check=True)
    assert [d["dataset"] for d in json.loads(listed.stdout)] == ["a", "b"]


@pytest.mark.parametrize(
    "line", ["nonsense", "data", "data check", "data check x --alphabet dna --nonsense", "sample --model m --n many"]
)
def test_usage_errors_end_with_2(nowhere, line):
    said = nowhere(*line.split(), code=2)
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert "--help" in said.err
    assert nowhere("--json", *line.split(), code=2).json["error"]["code"] == "usage"


def test_help_is_quick_and_light():
    heavy = "{'ray', 'torch', 'mlflow', 'pandas', 'sqlalchemy', 'numpy', 'pydantic'} & set(sys.modules)"
    script = (
        f"import sys, plait; from plait.interfaces.cli.main import main; main(['--help']); assert not {heavy}, {heavy}"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([PLAIT, "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.5


def test_the_version_is_the_package_s(nowhere):
    from importlib.metadata import version

    assert nowhere("--version").out == f"plait {version('plait')}\n"
