"""Checkpoints on disk: one file each, tensors as safetensors, the rest as JSON in its header, a SHA-256 in front.

Nothing is unpickled, so a file from elsewhere can carry numbers and text but no code; the sum finds what safetensors
alone would not (a flipped bit), and one file is replaced atomically where a pair of files could disagree.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from plait.design.errors import CorruptArtifactError
from plait.execution.files import write_atomically

SUFFIX = ".checkpoint"
_SUM_BYTES = hashlib.sha256().digest_size

log = logging.getLogger(__name__)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, text, None, and lists, tuples and dicts of them) so that it is whole or absent.

    Raises:
        TypeError: The state holds something else.
    """
    tensors: dict[str, torch.Tensor] = {}
    body = save(tensors, metadata={"state": json.dumps(_flatten(state, tensors))})
    write_atomically(path, hashlib.sha256(body).digest() + body)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint as it was written; dict keys keep their type, tensors are on the CPU.

    Raises:
        CorruptArtifactError: The file is missing, torn or changed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorruptArtifactError(f"checkpoint {path} cannot be read: {error}") from error
    digest, body = content[:_SUM_BYTES], content[_SUM_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise CorruptArtifactError(f"checkpoint {path} is torn or was changed")
    state = _build(_header(body), load(body))
    if not isinstance(state, dict):
        raise CorruptArtifactError(f"checkpoint {path} holds no state")
    return state


def newest_readable(candidates: Sequence[Sequence[Path]]) -> list[dict[str, Any]] | None:
    """The states of the first candidate (a group of files that belong together) of which every file can be read."""
    for files in candidates:
        try:
            return [read_checkpoint(file) for file in files]
        except CorruptArtifactError as error:
            log.warning("%s; going on from the one before", error)
    return None


def _header(body: bytes) -> Any:
    """The JSON that `save` put into the safetensors header: 8 bytes of length, then the header itself."""
    size = int.from_bytes(body[:8], "little")
    return json.loads(json.loads(body[8 : 8 + size])["__metadata__"]["state"])


def _flatten(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` as JSON, its tensors moved out; a container becomes {kind: content}, so that every type comes back."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_flatten(key, tensors), _flatten(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"tuple" if isinstance(value, tuple) else "list": [_flatten(item, tensors) for item in value]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"a checkpoint holds tensors, numbers and text, not {type(value).__name__}")


def _build(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    [(kind, content)] = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_build(key, tensors): _build(item, tensors) for key, item in content}
    items = [_build(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
