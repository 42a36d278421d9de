import re
from pathlib import Path

import pytest

from .conftest import DEPLOY

ROOT = DEPLOY.parent


def instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


@pytest.fixture(scope="module")
def lines() -> list[tuple[str, str]]:
    return instructions(DEPLOY / "Dockerfile")


def of(lines: list[tuple[str, str]], name: str) -> list[str]:
    return [rest for found, rest in lines if found == name]


def test_base_images_are_pinned(lines):
    stages = [rest.split(" AS ") for rest in of(lines, "FROM")]
    assert len(stages) == 2
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-\w+", image) for image, *_ in stages)


def test_it_runs_as_nobody_in_particular(lines):
    after_base = lines[max(i for i, (name, _) in enumerate(lines) if name == "FROM") :]
    assert of(after_base, "USER") == ["10001:10001"]
    assert "--uid 10001" in " ".join(of(after_base, "RUN"))


def test_nothing_is_fetched_past_pip_and_apt_and_nothing_secret_is_baked_in(lines):
    assert of(lines, "ADD") == []
    assert not re.search(r"curl|wget\s+\S*http|git clone", " ".join(of(lines, "RUN")))
    assert not re.search(r"(?i)password|secret|token|\w_key", " ".join([*of(lines, "ENV"), *of(lines, "ARG")]))


def test_every_install_is_pinned_by_the_constraints(lines):
    installs = [step for run in of(lines, "RUN") for step in run.split("&&") if "pip install" in step]
    assert len(installs) == 2
    torch, plait = installs
    assert "--no-deps" in torch
    assert any("grep '^torch==' constraints.txt" in run for run in of(lines, "RUN"))
    assert "-c constraints.txt '.[postgres,s3]'" in plait
    assert re.search(r"^torch==\d", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_what_is_copied_exists_and_reaches_the_builder(lines):
    allowed = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]
    copied = [
        word for rest in of(lines, "COPY") if "--from" not in rest for word in rest.split()[:-1] if word[:2] != "--"
    ]
    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / word).exists() for word in copied)
    assert (DEPLOY / "with-ray-node").stat().st_mode & 0o111


def test_its_commands_are_understood(lines, is_understood):
    for rest in [*of(lines, "CMD"), *(r.partition(" CMD ")[2] for r in of(lines, "HEALTHCHECK"))]:
        assert is_understood([word.strip('" ') for word in rest.strip("[]").split(",")])
    assert of(lines, "HEALTHCHECK")


def test_ray_and_python_are_the_versions_that_are_tested(lines):
    assert re.search(r"ray==2\.60\.0$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert "rayVersion: 2.60.0" in (DEPLOY / "kubernetes/ray.yaml").read_text()
