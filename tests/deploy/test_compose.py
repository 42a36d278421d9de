import json
import re

import pytest
from jsonschema import Draft202012Validator
from plait.settings import Settings, load_settings

from .conftest import DEPLOY, SECRETS, interpolate, read

FILES = ["compose.yaml", "compose.gpu.yaml", "compose.monitoring.yaml"]
SCHEMA = json.loads((DEPLOY.parent / "tests/deploy/schemas/compose-spec.json").read_text())


def plait_lines(compose):
    """Every command line that begins with plait, health checks and what follows with-ray-node included."""
    for service in compose["services"].values():
        for line in (service.get("command"), service.get("entrypoint"), service.get("healthcheck", {}).get("test")):
            if line and "plait" in line:
                yield line[line.index("plait") :]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_what_compose_reads(name):
    (document,) = read(DEPLOY / name)
    Draft202012Validator(SCHEMA).validate(interpolate(document, SECRETS))


def test_the_schema_refuses_what_compose_does_not_know(compose):
    compose = {**compose, "services": {"x": {"image": "x:1", "comand": ["ls"]}}}
    assert not Draft202012Validator(SCHEMA).is_valid(compose)


@pytest.mark.parametrize("name", ["compose.yaml", "compose.monitoring.yaml"])
def test_nothing_starts_without_its_secrets(name):
    (document,) = read(DEPLOY / name)
    needed = {"compose.yaml": {"POSTGRES_PASSWORD", "RAY_AUTH_TOKEN"}, "compose.monitoring.yaml": {"GRAFANA_PASSWORD"}}
    for secret in needed[name]:
        with pytest.raises(KeyError, match=secret):
            interpolate(document, {k: v for k, v in SECRETS.items() if k != secret})


def test_no_password_has_a_default():
    for name in FILES:
        text = (DEPLOY / name).read_text()
        assert re.findall(r"\$\{\w*(?:PASSWORD|TOKEN|SECRET)\w*(?!\w*:\?)[^}]*:-", text) == []
        assert re.findall(r"(?i)(?:password|token)\w*: (?!\$\{\w+:\?|token$)\S+", text, re.MULTILINE) == []


@pytest.mark.parametrize("name", ["compose.yaml", "compose.monitoring.yaml"])
def test_services_are_confined(name):
    (document,) = read(DEPLOY / name)
    for service_name, service in interpolate(document, SECRETS)["services"].items():
        assert service["read_only"] is True, service_name
        assert service["cap_drop"] == ["ALL"], service_name
        assert "no-new-privileges:true" in service["security_opt"], service_name
        assert service["user"].partition(":")[0] not in ("", "0", "root"), service_name
        assert not {"privileged", "network_mode", "pid", "cap_add"} & service.keys(), service_name
        assert {"cpus", "memory"} <= service["deploy"]["resources"]["limits"].keys(), service_name
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ())), service_name
        assert re.search(r":v?\d+\.\d+", service["image"]), service_name


def test_the_cluster_asks_for_its_token(compose):
    for name in ("ray-head", "ray-worker", "scheduler"):
        environment = compose["services"][name]["environment"]
        assert (environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN"]) == ("token", SECRETS["RAY_AUTH_TOKEN"])


def test_command_lines_are_understood(compose, is_understood):
    lines = list(plait_lines(compose))
    assert ["plait", "scheduler", "run"] in lines
    assert ["plait", "db", "upgrade"] in lines
    assert [line for line in lines if not is_understood(line)] == []


def test_environments_are_settings(compose, monkeypatch):
    (gpu,) = read(DEPLOY / "compose.gpu.yaml")
    for service in (*compose["services"].values(), *gpu["services"].values()):
        names = {n.removeprefix("PLAIT_").lower() for n in service.get("environment", {}) if n.startswith("PLAIT_")}
        assert names <= Settings.model_fields.keys()
    for name, value in compose["services"]["scheduler"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.database_url == "postgresql://plait@postgres/plait"  # PGPASSWORD has the password
    assert settings.ray_address == "ray-head:6379"
    assert str(settings.home) == "/srv/plait"


def test_what_a_service_waits_for_exists(compose):
    services, volumes = compose["services"], compose["volumes"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= services.keys()
        for name, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "test" in services[name]["healthcheck"]
        assert {v.partition(":")[0] for v in service.get("volumes", ()) if ":" in v} <= volumes.keys()
        for config in service.get("configs", ()):  # a file is mounted; content is copied, which read_only refuses
            assert (DEPLOY / compose["configs"][config["source"]]["file"]).is_file()
