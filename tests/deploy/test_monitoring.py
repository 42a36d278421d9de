import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from plait.campaign.exposition import exposition

from .conftest import DEPLOY, read

MONITORING = DEPLOY / "monitoring"
SCHEMAS = DEPLOY.parent / "tests/deploy/schemas"
DASHBOARD = json.loads((MONITORING / "grafana/plait.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("prometheus.yaml", "prometheus"),
        ("kubernetes.yaml", "prometheus"),
        ("grafana/source.yaml", "grafana-source"),
        ("grafana/dashboards.yaml", "grafana-dashboards"),
        ("grafana/plait.json", "grafana-dashboard"),
        ("../kubernetes/kustomization.yaml", "kustomization"),
    ],
)
def test_a_file_has_no_key_that_its_program_does_not_know(name, schema):
    (document,) = read(MONITORING / name)
    validator = Draft202012Validator(json.loads((SCHEMAS / f"{schema}.json").read_text()))
    assert [f"{e.json_path}: {e.message}" for e in validator.iter_errors(document)] == []
    assert not validator.is_valid({**document, "unknown": 1})


def test_services_are_scraped_where_compose_has_them(compose):
    (document,) = read(MONITORING / "prometheus.yaml")
    plait, ray = document["scrape_configs"]
    (target,) = plait["static_configs"][0]["targets"]
    service, _, port = target.partition(":")
    assert compose["services"][service]["command"][-1].endswith(f":{port}")
    for config in ray["dns_sd_configs"]:
        for name in config["names"]:
            assert f"--metrics-export-port={config['port']}" in compose["services"][name]["command"]


def test_what_grafana_is_given_lies_where_it_looks():
    (document,) = read(DEPLOY / "compose.monitoring.yaml")
    targets = {c["source"]: c["target"] for c in document["services"]["grafana"]["configs"]}
    (provider,) = read(MONITORING / "grafana/dashboards.yaml")[0]["providers"]
    assert str(Path(targets["grafana_dashboard"]).parent) == provider["options"]["path"]
    assert all((DEPLOY / config["file"]).is_file() for config in document["configs"].values())


def test_every_figure_on_the_dashboard_exists():
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", exposition([], [], {}), re.MULTILINE))
    ours = {
        f"{name}{end}" for name, kind in kinds.items() for end in (("_sum", "_count") if kind == "summary" else ("",))
    }
    ray = Path(find_spec("ray").submodule_search_locations[0]) / "dashboard/modules"
    panels = (ray / "metrics/dashboards/default_dashboard_panels.py").read_text()
    gauges = (ray / "reporter/reporter_agent.py").read_text()
    theirs = set(re.findall(r"\bray_\w+", panels)) | {
        f"ray_{name}" for name in re.findall(r'^    "(\w+)": ', gauges, re.M)
    }
    used = {name for query in QUERIES for name in re.findall(r"\b(?:ray|plait)_\w+", query)}
    assert used - theirs == {name for name in used if name.startswith("plait_")}
    assert {name for name in used if name.startswith("plait_")} <= ours
    assert len(used) > 10


def test_panels_do_not_overlap():
    taken = set()
    for panel in DASHBOARD["panels"]:
        x, y, w, h = (panel["gridPos"][key] for key in "xywh")
        cells = {(column, line) for column in range(x, x + w) for line in range(y, y + h)}
        assert x + w <= 24
        assert not taken & cells
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
