"""Identity by content: hashes of readings and of stage inputs, and the seeds derived from them."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from plait.design.records import Goal, Readings

_HASH = re.compile(r"(?=([0-9a-f]{64}))")


def digest(document: Any) -> str:
    """Hex SHA-256 of a JSON document in canonical form."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def content_hash(readings: Readings, *, alphabet: str, unit: str, goal: Goal) -> str:
    """The identity of a dataset version: independent of row order and file format."""
    stds = [None] * len(readings) if readings.stds is None else [float(v).hex() for v in readings.stds]
    batches = readings.batches or ("",) * len(readings)
    rows = sorted(
        zip(
            readings.sequences,
            readings.replicates,
            [float(v).hex() for v in readings.values],
            ["" if s is None else s for s in stds],
            batches,
            strict=True,
        )
    )
    return digest({"alphabet": alphabet, "unit": unit, "goal": goal, "rows": rows})


def derive_seed(seed: int, round_number: int, stage: str) -> int:
    """The seed of a stage's generators: 63 bits of SHA-256 over (campaign seed, round, stage)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{round_number}/{stage}".encode()).digest()[:8], "big") >> 1


def hashes_in(text: str) -> set[str]:
    """Everything in a text that may be a SHA-256: 64 hex digits, wherever they begin."""
    return set(_HASH.findall(text))
