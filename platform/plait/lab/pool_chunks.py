"""The work folder of a pool that is being scored: chunks of clean rows, and what was made of each.

A folder is an absolute path or an fsspec URL that every worker reaches. Files are Arrow, without metadata, written
whole or not at all: what is there is finished.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from fsspec.core import url_to_fs

MANIFEST, REJECTED = "pool.json", "rejected.csv"
CHUNK, SCORES = "chunk", "scores"


@dataclass(frozen=True)
class Pool:
    """A pool that was parsed.

    Attributes:
        chunk_rows: Rows of each chunk, in the order of the file.
        num_rejected: Rows that were left out.
        notes: What is worth knowing of the others.
    """

    chunk_rows: tuple[int, ...]
    num_rejected: int = 0
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, document: dict[str, Any]) -> Pool:
        """The pool that `asdict` made a document of."""
        return cls(tuple(document["chunk_rows"]), int(document["num_rejected"]), tuple(document["notes"]))

    @property
    def num_rows(self) -> int:
        """Rows that can be scored."""
        return sum(self.chunk_rows)


class WorkFolder:
    """One work folder; picklable.

    Args:
        root: Absolute path or fsspec URL.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def pool(self) -> Pool | None:
        """The parsed pool; None where parsing has not come to its end."""
        fs, root = url_to_fs(self.root)
        fs.invalidate_cache()
        if not fs.exists(f"{root}/{MANIFEST}"):
            return None
        return Pool.of(json.loads(fs.cat_file(f"{root}/{MANIFEST}")))

    def save_pool(self, pool: Pool) -> None:
        """Say that parsing has come to its end."""
        self._write(MANIFEST, json.dumps(asdict(pool)).encode())

    def finished(self) -> set[int]:
        """The chunks that have scores."""
        fs, root = url_to_fs(self.root)
        fs.invalidate_cache()
        names = [Path(name).name for name in fs.ls(root, detail=False)] if fs.exists(root) else []
        return {int(name[len(SCORES) + 1 :].split(".")[0]) for name in names if name.startswith(f"{SCORES}-")}

    def write(self, kind: str, number: int, table: pa.Table) -> None:
        """Write the CHUNK or the SCORES of a number."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        self._write(_name(kind, number), sink.getvalue())

    def read(self, kind: str, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """The CHUNK or the SCORES of a number, or some of their columns."""
        fs, root = url_to_fs(self.root)
        path = f"{root}/{_name(kind, number)}"
        is_local = "file" in fs.protocol
        source = pa.memory_map(path) if is_local else pa.BufferReader(fs.cat_file(path))
        with source:
            schema = pa.ipc.open_file(source).schema
            chosen = None if columns is None else [schema.get_field_index(name) for name in columns]
            return pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=chosen)).read_all()

    def open_rejected(self, mode: str) -> Any:
        """The CSV file of rows that were left out."""
        fs, root = url_to_fs(self.root)
        fs.makedirs(root, exist_ok=True)
        return fs.open(f"{root}/{REJECTED}", mode)

    def _write(self, name: str, content: bytes | pa.Buffer) -> None:
        fs, root = url_to_fs(self.root)
        if "file" not in fs.protocol:
            fs.pipe_file(f"{root}/{name}", bytes(content))
            return
        folder = Path(root)
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{name}.{os.getpid()}"
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(folder / name)


def _name(kind: str, number: int) -> str:
    return f"{kind}-{number:06d}.arrow"
