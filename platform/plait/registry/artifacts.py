"""Artifacts on disk, by content: HOME/artifacts/<sha256>/ for model bundles, <sha256>.json for documents.

Everything is written beside its place and renamed into it, so that a crash leaves no half-written artifact.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

from plait.design.bundles import DESCRIPTION, MANIFEST, TENSORS, bundle_hash, load_bundle
from plait.design.errors import CorruptArtifactError

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
            for name in (TENSORS, DESCRIPTION, MANIFEST):
                shutil.copyfile(directory / name, beside / name)
            try:
                beside.rename(target)
            except OSError:  # another process kept the same content first
                shutil.rmtree(beside)
        return sha

    def path(self, sha256: str) -> Path:
        """The folder of a kept bundle.

        Raises:
            CorruptArtifactError: It is not there, or is another one.
        """
        directory = self._kept / self._checked(sha256)
        if bundle_hash(directory) != sha256:
            raise CorruptArtifactError(
                f"{directory} differs from its recorded SHA-256", hint="restore it from a backup"
            )
        return directory

    def put_json(self, document: Any) -> str:
        """Keep a JSON document; returns the SHA-256 of its canonical form."""
        content = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        sha = hashlib.sha256(content).hexdigest()
        target = self._kept / f"{sha}.json"
        if not target.exists():
            self._kept.mkdir(parents=True, exist_ok=True)
            beside = self._kept / f".{uuid.uuid4().hex}"
            beside.write_bytes(content)
            os.replace(beside, target)  # noqa: PTH105 - one call, atomic
        return sha

    def get_json(self, sha256: str) -> Any:
        """A kept document.

        Raises:
            CorruptArtifactError: It is not there, or differs from its hash.
        """
        target = self._kept / f"{self._checked(sha256)}.json"
        try:
            content = target.read_bytes()
        except OSError as error:
            raise CorruptArtifactError(f"{target} is missing", hint="restore it from a backup") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise CorruptArtifactError(f"{target} differs from its recorded SHA-256", hint="restore it from a backup")
        return json.loads(content)

    def scratch(self, key: str) -> Path:
        """A folder for the unfinished work of `key`; kept until drop_scratch, so that work resumes."""
        directory = self._scratch / re.sub(r"[^A-Za-z0-9_.-]", "_", key)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def drop_scratch(self, key: str) -> None:
        """Remove the unfinished work of `key`."""
        shutil.rmtree(self._scratch / re.sub(r"[^A-Za-z0-9_.-]", "_", key), ignore_errors=True)

    @staticmethod
    def _checked(sha256: str) -> str:
        if not _HASH.match(sha256):
            raise CorruptArtifactError(f"'{sha256[:80]}' is not a SHA-256")
        return sha256
