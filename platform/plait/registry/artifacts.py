"""Artifacts on disk, by content: ROOT/kept/<sha256>/ for model bundles, <sha256>.json for documents.

Everything is written beside its place and renamed into it, so that a crash leaves no half-written artifact.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from typing import Any

from plait.campaign.ports import Kept, Unfinished
from plait.design.bundles import DESCRIPTION, MANIFEST, TENSORS, bundle_hash, load_bundle
from plait.design.errors import CorruptArtifactError

FILES = (TENSORS, DESCRIPTION, MANIFEST)
"""Of a bundle; the manifest last."""

_HASH = re.compile(r"^[0-9a-f]{64}$")


class LocalArtifacts:
    """An ArtifactStore in one folder of this machine (or of a shared file system)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._kept, self._scratch = root / "kept", root / "scratch"

    def put(self, directory: Path) -> str:
        """Keep a copy of a bundle folder whose sums match; returns its content hash.

        Raises:
            CorruptArtifactError: The bundle does not match its manifest.
        """
        load_bundle(directory)
        sha = bundle_hash(directory)
        target = self._kept / sha
        if not target.exists():
            beside = self._kept / f".{uuid.uuid4().hex}"
            beside.mkdir(parents=True, mode=0o700)
            try:
                for name in FILES:
                    _write(beside / name, (directory / name).read_bytes())
                _sync(beside)
                beside.rename(target)
            except OSError:
                shutil.rmtree(beside)
                if not target.exists():  # else another process kept the same content first
                    raise
        self._renew(target)
        return sha

    def path(self, sha256: str) -> Path:
        """The folder of a kept bundle.

        Raises:
            CorruptArtifactError: It is not there, or is another one.
        """
        directory = self._kept / checked(sha256)
        if bundle_hash(directory) != sha256:
            raise CorruptArtifactError(
                f"{directory} differs from its recorded SHA-256", hint="restore it from a backup"
            )
        return directory

    def put_json(self, document: Any) -> str:
        """Keep a JSON document; returns the SHA-256 of its canonical form."""
        content = canonical(document)
        sha = hashlib.sha256(content).hexdigest()
        target = self._kept / f"{sha}.json"
        if not target.exists():
            self._kept.mkdir(parents=True, exist_ok=True)
            beside = self._kept / f".{uuid.uuid4().hex}"
            try:
                _write(beside, content)
                beside.replace(target)
            except OSError:
                beside.unlink(missing_ok=True)
                raise
        self._renew(target)
        return sha

    def get_json(self, sha256: str) -> Any:
        """A kept document.

        Raises:
            CorruptArtifactError: It is not there, or differs from its hash.
        """
        target = self._kept / f"{checked(sha256)}.json"
        try:
            content = target.read_bytes()
        except OSError as error:
            raise CorruptArtifactError(f"{target} is missing", hint="restore it from a backup") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise CorruptArtifactError(f"{target} differs from its recorded SHA-256", hint="restore it from a backup")
        return json.loads(content)

    def kept(self) -> Iterator[Kept]:
        """Every kept bundle and document, in no order."""
        for entry in self._kept.iterdir() if self._kept.is_dir() else ():
            sha = entry.name.removesuffix(".json")
            if _HASH.match(sha) and (facts := _facts(entry)):
                size = sum(fact.st_size for fact in facts if S_ISREG(fact.st_mode))
                yield Kept(sha, size, datetime.fromtimestamp(facts[0].st_mtime, UTC))

    def drop(self, sha256: str) -> None:
        """Remove a bundle or document that nothing refers to; one that is not there is no error."""
        (self._kept / f"{checked(sha256)}.json").unlink(missing_ok=True)
        bundle, beside = self._kept / sha256, self._kept / f".{uuid.uuid4().hex}"
        if bundle.is_dir():
            bundle.rename(beside)  # gone at once: whoever reads it finds all of it or nothing
            shutil.rmtree(beside)

    def _renew(self, target: Path) -> None:
        """What is kept again is new for whoever removes what is old, and it is on the disk when this returns."""
        os.utime(target)
        _sync(self._kept)

    def scratch(self, key: str) -> Path:
        """A folder for the unfinished work of `key`; kept until drop_scratch, so that work resumes."""
        directory = self._scratch / folder_name(key)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def shared(self, key: str) -> str:
        """The same folder: whoever works on `key` must see this disk."""
        return str(self.scratch(key))

    def drop_scratch(self, key: str) -> None:
        """Remove the unfinished work of `key`."""
        shutil.rmtree(self._scratch / folder_name(key), ignore_errors=True)

    def unfinished(self) -> Iterator[Unfinished]:
        """Unfinished work of every key, in no order."""
        for folder in self._scratch.iterdir() if self._scratch.is_dir() else ():
            if facts := _facts(folder):
                changed = max(fact.st_mtime for fact in facts)
                size = sum(fact.st_size for fact in facts if S_ISREG(fact.st_mode))
                yield Unfinished(folder.name, size, datetime.fromtimestamp(changed, UTC))


def canonical(document: Any) -> bytes:
    """A JSON document as the bytes that its hash is of."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def checked(sha256: str) -> str:
    """A hash that names no other file.

    Raises:
        CorruptArtifactError: It is no SHA-256.
    """
    if not _HASH.match(sha256):
        raise CorruptArtifactError(f"'{sha256[:80]}' is not a SHA-256")
    return sha256


def folder_name(key: str) -> str:
    """A key of unfinished work as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", key)


def _facts(path: Path) -> list[os.stat_result]:
    """Of a file, or a folder and all that is in it; nothing of what vanishes meanwhile."""
    inside = (Path(place, name) for place, folders, files in os.walk(path) for name in (*folders, *files))
    facts = []
    for found in (path, *inside):
        with suppress(FileNotFoundError):
            facts.append(found.stat())
    return facts


def _sync(folder: Path) -> None:
    """The names in a folder are on the disk when this returns."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes) -> None:
    """Write a file that is on the disk when this returns: the registry will say that it is there."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
