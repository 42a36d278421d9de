"""Models on disk: one folder with tensors (safetensors), a description (JSON) and a manifest of SHA-256 sums.

No pickle: what is loaded from outside can carry numbers and text, never code.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from plait.design.errors import CorruptArtifactError

TENSORS, DESCRIPTION, MANIFEST = "tensors.safetensors", "model.json", "manifest.json"


def save_bundle(directory: Path, kind: str, description: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> str:
    """Write a bundle of `kind` ("prior", "reward", "policy", ...) and return its content hash (hex SHA-256)."""
    directory.mkdir(parents=True, exist_ok=True)
    payload = {
        TENSORS: save({name: np.ascontiguousarray(tensor) for name, tensor in sorted(tensors.items())}),
        DESCRIPTION: json.dumps({**description, "kind": kind}, sort_keys=True, indent=1).encode(),
    }
    for name, content in payload.items():
        (directory / name).write_bytes(content)
    manifest = {name: hashlib.sha256(content).hexdigest() for name, content in payload.items()}
    (directory / MANIFEST).write_text(json.dumps(manifest, sort_keys=True, indent=1))
    return bundle_hash(directory)


def bundle_hash(directory: Path) -> str:
    """The content hash of a bundle: SHA-256 of its manifest.

    Raises:
        CorruptArtifactError: No manifest.
    """
    try:
        return hashlib.sha256((directory / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        raise CorruptArtifactError(f"{directory} is no model folder: {error}", hint=f"it needs a {MANIFEST}") from error


def check_bundle(directory: Path) -> dict[str, bytes]:
    """The files of a bundle by name, which match their recorded SHA-256; nothing is parsed but the manifest.

    Raises:
        CorruptArtifactError: A file is missing, unreadable or differs from its sum.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        content = {name: (directory / name).read_bytes() for name in (TENSORS, DESCRIPTION)}
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptArtifactError(
            f"{directory} cannot be read: {error}", hint="import or train the model again"
        ) from error
    for name, data in content.items():
        if not isinstance(manifest, dict) or hashlib.sha256(data).hexdigest() != manifest.get(name):
            raise CorruptArtifactError(
                f"{directory / name} differs from its recorded SHA-256",
                hint="restore the file or train the model again",
            )
    return content


def load_bundle(directory: Path, kind: str | None = None) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Description and tensors of a bundle whose files match their recorded SHA-256.

    Raises:
        CorruptArtifactError: A file is missing, unreadable, differs from its sum or holds numbers that are not finite,
            or the bundle is of another kind.
    """
    content = check_bundle(directory)
    try:
        description, tensors = json.loads(content[DESCRIPTION]), load(content[TENSORS])
    except Exception as error:
        raise CorruptArtifactError(f"{directory} cannot be parsed: {error}") from error
    if not isinstance(description, dict):
        raise CorruptArtifactError(f"{directory / DESCRIPTION} is no JSON object")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values() if tensor.dtype.kind == "f"):
        raise CorruptArtifactError(f"{directory / TENSORS} holds numbers that are not finite", hint="train it again")
    if kind is not None and description.get("kind") != kind:
        raise CorruptArtifactError(f"{directory} holds a {description.get('kind')}, not a {kind}")
    return description, tensors
