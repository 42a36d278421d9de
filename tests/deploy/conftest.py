"""The files of deploy/, read strictly."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from plait.interfaces.cli.main import main

DEPLOY = Path(__file__).parents[2] / "deploy"
MERGE = "tag:yaml.org,2002:merge"


class StrictLoader(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML readers silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value if key.tag != MERGE]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise ValueError(f"given twice: {twice}, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def read(path: Path) -> list[Any]:
    """All documents of a YAML file."""
    return list(yaml.load_all(path.read_text(), StrictLoader))


def interpolate(value: Any, environment: dict[str, str]) -> Any:
    """What Compose makes of ${NAME:-default} and ${NAME:?message}."""

    def replace(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if environment.get(name):
            return environment[name]
        if operator == ":-":
            return rest
        raise KeyError(f"{name}: {rest}")

    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", replace, value)
    if isinstance(value, list):
        return [interpolate(item, environment) for item in value]
    return {key: interpolate(item, environment) for key, item in value.items()} if isinstance(value, dict) else value


SECRETS = {name: f"secret-{name}" for name in ("POSTGRES_PASSWORD", "RAY_AUTH_TOKEN", "GRAFANA_PASSWORD")}


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    """compose.yaml with the secrets given."""
    (document,) = read(DEPLOY / "compose.yaml")
    return interpolate(document, SECRETS)


def manifests() -> Iterator[dict[str, Any]]:
    """Every object of deploy/kubernetes, the kustomization aside."""
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from read(path)


@pytest.fixture
def is_understood(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], bool]:
    """Whether the command line has the subcommand and every option of a line that begins with plait."""

    def understood(line: list[str]) -> bool:
        assert line[0] == "plait"
        options = [word for word in line[1:] if word.startswith("--")]
        values = {line[i + 1] for i, word in enumerate(line[:-1]) if word == "--listen"}
        words = [word for word in line[1:] if not word.startswith("--") and word not in values]
        code = main([*words, "--help"])
        told = capsys.readouterr().out
        return code == 0 and all(option in told for option in options)

    return understood
