"""Where artifacts may lie: a folder, or a URL of a file system that fsspec knows and whose driver is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

EXTRAS = {"s3fs": "plait[s3]"}
"""Driver -> what installs it; every other driver is installed by its own name."""


def artifact_root(root: str) -> str:
    """The root as it is used: an absolute path, or a URL without a slash at its end.

    Raises:
        ValueError: It is relative, of an unknown kind, lacks its driver, or holds credentials.
    """
    scheme, _, rest = root.partition("://")
    if scheme == "file":
        root = rest
    if "://" not in root:
        if not Path(root).expanduser().is_absolute():
            raise ValueError("is relative; give an absolute path or a URL such as s3://bucket/folder")
        return str(Path(root).expanduser())
    if "@" in rest or "?" in rest:
        raise ValueError("may not hold credentials or options; give them in the environment (AWS_*)")
    if not rest.strip("/"):
        raise ValueError("names no bucket; give a URL such as s3://bucket/folder")
    _check_driver(scheme)
    return root.rstrip("/")


def mlflow_root(root: str) -> str:
    """The place of MLflow's artifacts as it is used: as an artifact root, or mlflow-artifacts:/folder.

    Raises:
        ValueError: As for an artifact root, or MLflow's own driver is missing.
    """
    if root.startswith("mlflow-artifacts:/"):
        return root.rstrip("/")
    if root.startswith("s3://") and find_spec("boto3") is None:
        raise ValueError("needs a driver that is not installed; run: pip install boto3")
    return artifact_root(root)


def _check_driver(scheme: str) -> None:
    from fsspec.registry import available_protocols, known_implementations

    if scheme not in available_protocols():
        raise ValueError(f"is of a kind that fsspec does not know ({scheme}); give a path, s3://... or gs://...")
    driver = known_implementations.get(scheme, {}).get("class", "fsspec").partition(".")[0]
    if find_spec(driver) is None:
        raise ValueError(f"needs a driver that is not installed; run: pip install '{EXTRAS.get(driver, driver)}'")
