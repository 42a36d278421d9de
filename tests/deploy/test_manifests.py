import json
import re
import shutil
import subprocess

import pytest
from jsonschema import Draft202012Validator
from plait.settings import Settings, load_settings

from .conftest import DEPLOY, manifests, read

DEFINITIONS = json.loads((DEPLOY.parent / "tests/deploy/schemas/kubernetes.json").read_text())
KUBERNETES = DEPLOY / "kubernetes"
OBJECTS = list(manifests())
SECRET_KEYS = {"plait-database": {"url", "mlflow-url"}, "plait-ray": {"auth_token"}}
"""What deploy/README.md tells to create."""


def names(kind):
    return {o["metadata"]["name"] for o in OBJECTS if o["kind"] == kind}


def pods():
    """Every pod: a name, its specification, whether Ray's operator starts it."""
    for item in OBJECTS:
        spec = item.get("spec", {})
        if item["kind"] in ("Deployment", "Job"):
            yield item["metadata"]["name"], spec["template"]["spec"], False
        if item["kind"] == "RayCluster":
            yield "head", spec["headGroupSpec"]["template"]["spec"], True
            for group in spec["workerGroupSpecs"]:
                yield group["groupName"], group["template"]["spec"], True


def errors(item):
    kind = DEFINITIONS["x-kinds"][f"{item['apiVersion']}/{item['kind']}"]
    schema = {"$ref": f"#/$defs/{kind}", "$defs": DEFINITIONS["$defs"]}
    return [f"{e.json_path}: {e.message}" for e in Draft202012Validator(schema).iter_errors(item)]


@pytest.mark.parametrize("item", OBJECTS, ids=lambda o: f"{o['kind']}-{o['metadata']['name']}")
def test_an_object_is_what_kubernetes_reads(item):
    assert errors(item) == []
    assert "namespace" in item["metadata"] or item["kind"] == "Namespace"


@pytest.mark.parametrize("path", ["spec", "spec.headGroupSpec", "spec.headGroupSpec.template.spec", "spec.authOptions"])
def test_an_unknown_key_is_refused_at_every_depth(path):
    (cluster,) = [json.loads(json.dumps(o)) for o in OBJECTS if o["kind"] == "RayCluster"]
    inside = cluster
    for key in path.split("."):
        inside = inside[key]
    inside["replicsa"] = 1
    assert len(errors(cluster)) == 1


def test_the_kustomization_holds_every_file():
    (kustomization,) = read(KUBERNETES / "kustomization.yaml")
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == files
    images = {c["image"] for _, pod, _ in pods() for c in pod["containers"]}
    assert images == {image["name"] for image in kustomization["images"]}
    assert all(re.match(r"\d+\.\d+\.\d+", image["newTag"]) for image in kustomization["images"])


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
def test_kubectl_builds_it_and_every_image_gets_its_tag():
    built = subprocess.run(["kubectl", "kustomize", KUBERNETES], capture_output=True, text=True, check=True).stdout
    assert built.count("kind: RayCluster") == 1
    assert len(re.findall(r"image: registry\.example\.org/plait:\d", built)) == len(list(pods()))


@pytest.mark.parametrize(("name", "pod", "is_ray"), list(pods()), ids=lambda v: v if isinstance(v, str) else "")
def test_a_pod_is_confined(name, pod, is_ray):
    assert pod["securityContext"]["runAsNonRoot"] is True
    if name != "head":  # its autoscaler speaks to Kubernetes, by the account that the operator makes
        assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("plait", False)
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
        assert {mount["name"] for mount in container["volumeMounts"]} <= {v["name"] for v in pod["volumes"]}
    assert "hostPath" not in json.dumps(pod["volumes"])


def test_the_cluster_is_authenticated_and_scales():
    (spec,) = [o["spec"] for o in OBJECTS if o["kind"] == "RayCluster"]
    assert spec["authOptions"] == {"mode": "token", "secretName": "plait-ray"}
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert all(g["minReplicas"] < g["maxReplicas"] for g in spec["workerGroupSpecs"])
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert {f"--{name}" for name in group["rayStartParams"]} <= known


def test_what_is_referred_to_exists():
    for _, pod, _ in pods():
        for volume in pod["volumes"]:
            claim = volume.get("persistentVolumeClaim")
            assert claim is None or claim["claimName"] in names("PersistentVolumeClaim")
        for container in pod["containers"]:
            for source in container.get("envFrom", ()):
                assert source["configMapRef"]["name"] in names("ConfigMap")
            for variable in container.get("env", ()):
                if key := variable.get("valueFrom", {}).get("secretKeyRef"):
                    assert key["key"] in SECRET_KEYS[key["name"]]
    readme = (DEPLOY / "README.md").read_text()
    assert all(f"{key}=" in readme for keys in SECRET_KEYS.values() for key in keys)
    assert all(name in readme for name in SECRET_KEYS)


def test_no_secret_is_in_a_manifest():
    assert names("Secret") == set()
    for _, pod, _ in pods():
        for container in pod["containers"]:
            for variable in container.get("env", ()):
                assert "valueFrom" in variable or not re.search(r"PASSWORD|TOKEN|SECRET|_URL$", variable["name"])


def test_settings_load(monkeypatch):
    (data,) = [o["data"] for o in OBJECTS if o["kind"] == "ConfigMap"]
    assert {name.removeprefix("PLAIT_").lower() for name in data} <= Settings.model_fields.keys()
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    (cluster,) = names("RayCluster")
    assert settings.ray_address == f"{cluster}-head-svc:6379"  # the operator's name for the head's service
    assert settings.mlflow_tracking_uri.removeprefix("http://").partition(":")[0] in names("Service")
    for _, pod, _ in pods():
        for variable in (v["name"] for c in pod["containers"] for v in c.get("env", ())):
            assert not variable.startswith("PLAIT_") or variable[6:].lower() in Settings.model_fields


def test_command_lines_are_understood(is_understood):
    lines = []
    for _, pod, _ in pods():
        for container in pod["containers"]:
            probes = (container.get(f"{kind}Probe", {}).get("exec", {}) for kind in ("liveness", "startup"))
            lines += [line for line in (container.get("command"), *(p.get("command") for p in probes)) if line]
    lines = [line[line.index("plait") :] for line in lines if "plait" in line]
    assert ["plait", "scheduler", "run"] in lines
    assert [line for line in lines if not is_understood(line)] == []
