"""Artifacts behind a URL that fsspec opens (s3://, gs://, ...), with this machine's copies of what was used here.

Objects are laid out as on a disk. An object store has no rename: a bundle's manifest goes last, so that a bundle
without one is not there. Every use checks the SHA-256 of the local copy; a bad copy is fetched again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from plait.campaign.ports import Kept, Unfinished
from plait.design.bundles import MANIFEST, bundle_hash, check_bundle
from plait.design.errors import CorruptArtifactError, NotFoundError, PlaitError, StoreError
from plait.registry.artifacts import FILES, LocalArtifacts, canonical, checked, folder_name
from plait.settings import redacted

log = logging.getLogger(__name__)


class RemoteArtifacts:
    """An ArtifactStore behind a URL. Credentials come from the environment of each machine (AWS_* for s3://).

    Unfinished work of this process lies on this machine (`scratch`), that of several nodes behind the URL (`shared`).

    Args:
        root: The URL, without a slash at its end.
        copies: This machine's folder for copies and unfinished work; one of the process itself where it cannot be made.
    """

    def __init__(self, root: str, copies: Path) -> None:
        self.root, self._copies = root, copies

    def put(self, directory: Path) -> str:
        """Keep a copy of a bundle folder whose sums match; returns its content hash.

        Raises:
            CorruptArtifactError: The bundle does not match its manifest.
            NotFoundError: The root does not exist.
            StoreError: The root cannot be reached.
        """
        sha = self._local.put(directory)
        with self._writing():
            for name in FILES:  # those that are there too: they are new again for whoever removes what is old
                self._files.put_file(str(directory / name), f"{self.root}/kept/{sha}/{name}")
        return sha

    def path(self, sha256: str) -> Path:
        """The folder of a kept bundle on this machine, fetched if it is not there yet.

        Raises:
            CorruptArtifactError: It is missing, or is another one.
            StoreError: The root cannot be reached.
        """
        if not _has_bundle(local := self._local, sha256):
            self._fetch(checked(sha256), local)
        return local.path(sha256)

    def put_json(self, document: Any) -> str:
        """Keep a JSON document; returns the SHA-256 of its canonical form.

        Raises:
            NotFoundError: The root does not exist.
            StoreError: The root cannot be reached.
        """
        sha, content = self._local.put_json(document), canonical(document)
        with self._writing():
            self._files.pipe_file(f"{self.root}/kept/{sha}.json", content)
        return sha

    def get_json(self, sha256: str) -> Any:
        """A kept document.

        Raises:
            CorruptArtifactError: It is missing, or differs from its hash.
            StoreError: The root cannot be reached.
        """
        if _has_document(local := self._local, sha256):
            return local.get_json(sha256)
        url = f"{self.root}/kept/{checked(sha256)}.json"
        with self._reading(url):
            content = self._files.cat_file(url)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise _changed(url)
        if not _has_document(local, sha256):  # by another process meanwhile
            local.drop(sha256)
        local.put_json(document := json.loads(content))
        return document

    def kept(self) -> Iterator[Kept]:
        """Every whole bundle and every document behind the URL, in no order.

        Raises:
            StoreError: The root cannot be reached.
        """
        with self._reaching():
            found = self._files.find(f"{self.root}/kept", detail=True)
            for path, info in found.items():
                folder, _, name = path.rpartition("/")
                if name == MANIFEST:
                    parts = [found[of] for of in (f"{folder}/{part}" for part in FILES) if of in found]
                    sha = folder.rpartition("/")[2]
                elif folder.endswith("/kept"):
                    parts, sha = [info], name.removesuffix(".json")
                else:
                    continue
                kept_at = info.get("LastModified") or self._files.modified(path)
                yield Kept(sha, sum(part["size"] for part in parts), kept_at)

    def drop(self, sha256: str) -> None:
        """Remove a bundle or document that nothing refers to, here too; one that is not there is no error.

        Raises:
            StoreError: The root cannot be reached.
        """
        self._local.drop(sha256)
        bundle = f"{self.root}/kept/{checked(sha256)}"
        with self._reaching():
            for url in (f"{bundle}.json", *(f"{bundle}/{name}" for name in reversed(FILES))):
                if self._files.exists(url):
                    self._files.rm_file(url)

    def scratch(self, key: str) -> Path:
        """This machine's folder for the unfinished work of `key`; kept until drop_scratch."""
        return self._local.scratch(key)

    def shared(self, key: str) -> str:
        """The URL of the unfinished work of `key` that every node can reach."""
        return f"{self.root}/scratch/{folder_name(key)}"

    def drop_scratch(self, key: str) -> None:
        """Remove the unfinished work of `key`, here and behind the URL.

        Raises:
            StoreError: The root cannot be reached.
        """
        self._local.drop_scratch(key)
        url = self.shared(key)
        with self._reaching():
            if self._files.exists(url):
                self._files.rm(url, recursive=True)

    def unfinished(self) -> Iterator[Unfinished]:
        """Unfinished work of every key, on this machine and behind the URL, in no order.

        Raises:
            StoreError: The root cannot be reached.
        """
        yield from self._local.unfinished()
        works: dict[str, list[tuple[int, datetime]]] = {}
        with self._reaching():
            found = self._files.find(folder := f"{self.root}/scratch", detail=True)
            for path, info in found.items():
                key = path.removeprefix(f"{self._files._strip_protocol(folder)}/").partition("/")[0]
                works.setdefault(key, []).append((info["size"], info.get("LastModified") or self._files.modified(path)))
        for key, files in works.items():
            yield Unfinished(key, sum(size for size, _ in files), max(changed for _, changed in files))

    def _fetch(self, sha256: str, local: LocalArtifacts) -> None:
        """Take a bundle from behind the URL into the copies of this machine."""
        url = f"{self.root}/kept/{sha256}"
        with tempfile.TemporaryDirectory(prefix="plait-fetch-") as folder:
            with self._reading(url):
                for name in FILES:
                    self._files.get_file(f"{url}/{name}", str(Path(folder) / name))
            try:
                check_bundle(Path(folder))
            except CorruptArtifactError as error:
                raise _changed(url) from error
            if bundle_hash(Path(folder)) != sha256:
                raise _changed(url)
            if not _has_bundle(local, sha256):  # by another process meanwhile, which may be reading it
                local.drop(sha256)
            local.put(Path(folder))

    @property
    def _local(self) -> LocalArtifacts:
        return LocalArtifacts(_usable(self._copies))

    @property
    def _files(self) -> Any:
        """The file system, without a memory of what it has seen: other machines write too."""
        from fsspec.core import url_to_fs

        return url_to_fs(self.root, use_listings_cache=False)[0]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._reaching():
                yield
        except FileNotFoundError as error:
            raise NotFoundError(
                f"the artifact root {self.root} does not exist", hint="make the bucket, or correct artifact_root"
            ) from error

    @contextmanager
    def _reading(self, url: str) -> Iterator[None]:
        try:
            with self._reaching():
                yield
        except FileNotFoundError as error:
            raise CorruptArtifactError(
                f"{url} is missing", hint="restore it from a backup, or correct artifact_root"
            ) from error

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turn what a driver raises into an error of ours; FileNotFoundError has a meaning and stays."""
        try:
            yield
        except (PlaitError, FileNotFoundError):
            raise
        except Exception as error:
            reason = redacted(" ".join(str(error).split())) or type(error).__name__
            raise StoreError(
                f"the artifact root {self.root} cannot be used: {reason}",
                hint="see that it is up and that the credentials are in the environment, and run again",
            ) from error


def open_artifacts(root: str, cache: Path) -> LocalArtifacts | RemoteArtifacts:
    """The store of a root: a folder, or a URL whose objects are copied to a folder of their own in `cache`."""
    if "://" not in root:
        return LocalArtifacts(Path(root))
    return RemoteArtifacts(root, cache / "artifacts" / hashlib.sha256(root.encode()).hexdigest()[:16])


def _has_bundle(local: LocalArtifacts, sha256: str) -> bool:
    """Whether a whole copy is on this machine."""
    try:
        return bool(check_bundle(local.path(sha256)))
    except CorruptArtifactError:
        return False


def _has_document(local: LocalArtifacts, sha256: str) -> bool:
    """Whether a whole copy is on this machine."""
    try:
        local.get_json(sha256)
    except CorruptArtifactError:
        return False
    return True


def _changed(url: str) -> CorruptArtifactError:
    return CorruptArtifactError(f"{url} differs from its recorded SHA-256", hint="restore it from a backup")


@cache
def _usable(folder: Path) -> Path:
    """The folder, made if need be; one that lives as long as this process where a machine does not allow it."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    log.warning("%s cannot be written: copies of artifacts are kept for this process only", folder)
    return _of_this_process()


@cache
def _of_this_process() -> Path:
    import atexit

    folder = Path(tempfile.mkdtemp(prefix="plait-artifacts-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
