"""Checkpoints: one file a worker, tensors as safetensors, the rest as JSON in its header, a SHA-256 in front.

Nothing is unpickled, so a file from elsewhere can carry numbers and text but no code; the sum finds what safetensors
alone would not (a flipped bit), and one file is replaced atomically where a pair of files could disagree. A checkpoint
is whole once every worker's file is there: their number is part of the name.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save

from plait.design.errors import CorruptArtifactError
from plait.execution.storage import Storage

CHECKPOINTS = "checkpoints"
NUM_KEPT = 2
_NAME = re.compile(r"^(\d{10})-(\d+)-of-(\d+)\.checkpoint$")
_SUM_BYTES = hashlib.sha256().digest_size

log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Checkpoint:
    """One checkpoint: updates done, and how many workers wrote it."""

    step: int
    size: int

    def name(self, rank: int) -> str:
        """The file of one of its workers."""
        return f"{CHECKPOINTS}/{self.step:010d}-{rank}-of-{self.size}.checkpoint"


def whole_checkpoints(storage: Storage) -> list[Checkpoint]:
    """Checkpoints of which every worker's file is there, newest first."""
    found = [match for name in storage.names(CHECKPOINTS) if (match := _NAME.match(name))]
    ranks: dict[Checkpoint, set[int]] = {}
    for match in found:
        step, rank, size = map(int, match.groups())
        ranks.setdefault(Checkpoint(step, size), set()).add(rank)
    return sorted((each for each, there in ranks.items() if len(there) == each.size), reverse=True)


def prune(storage: Storage) -> None:
    """Remove what is older than the newest two whole checkpoints."""
    kept = whole_checkpoints(storage)[:NUM_KEPT]
    for name in storage.names(CHECKPOINTS):
        match = _NAME.match(name)
        if len(kept) == NUM_KEPT and match and int(match[1]) < kept[-1].step:
            storage.remove(f"{CHECKPOINTS}/{name}")


def write_checkpoint(storage: Storage, name: str, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, text, None, and lists, tuples and dicts of them) so that it is whole or absent.

    Raises:
        TypeError: The state holds something else.
    """
    tensors: dict[str, torch.Tensor] = {}
    body = save(tensors, metadata={"state": json.dumps(_flatten(state, tensors))})
    storage.write(name, hashlib.sha256(body).digest() + body)


def read_checkpoint(storage: Storage, name: str) -> dict[str, Any]:
    """A checkpoint as it was written; dict keys keep their type, tensors are on the CPU.

    Raises:
        CorruptArtifactError: The file is missing, torn or changed.
    """
    where = f"checkpoint {storage.root}/{name}"
    try:
        content = storage.read(name)
    except OSError as error:
        raise CorruptArtifactError(f"{where} cannot be read: {error}") from error
    digest, body = content[:_SUM_BYTES], content[_SUM_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise CorruptArtifactError(f"{where} is torn or was changed")
    state = _build(_header(body), load(body))
    if not isinstance(state, dict):
        raise CorruptArtifactError(f"{where} holds no state")
    return state


def read_or_skip(storage: Storage, name: str) -> dict[str, Any] | None:
    """A checkpoint, or None for one that cannot be used, which is logged."""
    try:
        return read_checkpoint(storage, name)
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
