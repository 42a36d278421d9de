"""Where the unfinished work of a training lies: a folder, or any place that fsspec reaches."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from plait.design.errors import PlaitError, StoreError
from plait.execution.files import write_atomically
from plait.settings import redacted

COMPLETE = ".complete"
"""Ends the name of the file that is written after all files of a folder on an object store."""


class Storage(Protocol):
    """Files by relative names with slashes; picklable, so that every worker opens the same place.

    Behind a URL every method raises StoreError where the place cannot be reached: nothing is taken for absent then.
    """

    root: str

    def write(self, name: str, content: bytes) -> None:
        """Write a file that is whole or absent, whatever happens."""
        ...

    def read(self, name: str) -> bytes:
        """A file's content. Raises OSError where there is none."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is such a file, or a whole folder that put() wrote."""
        ...

    def names(self, folder: str) -> list[str]:
        """Names of the files right in a folder, sorted; none where there is no folder."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file or folder, if it is there."""
        ...

    def put(self, directory: Path, name: str) -> None:
        """Copy a flat folder here as `name`: whole or absent."""
        ...

    def fetch(self, name: str, directory: Path) -> None:
        """Copy a folder that put() wrote to `directory` on this machine: whole or absent."""
        ...


def open_storage(root: str) -> Storage:
    """The storage at an absolute path or fsspec URL."""
    return UrlStorage(root) if "://" in root else FolderStorage(root)


class FolderStorage:
    """A Storage on a disk of this machine, or one that several machines see."""

    def __init__(self, root: str) -> None:
        self.root = root

    def _path(self, name: str) -> Path:
        return Path(self.root, name)

    def write(self, name: str, content: bytes) -> None:
        """Write a file, on the disk when this returns."""
        write_atomically(self._path(name), content)

    def read(self, name: str) -> bytes:
        """A file's content."""
        return self._path(name).read_bytes()

    def exists(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        return self._path(name).exists()

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder; those under way begin with a dot and are left out."""
        if not self._path(folder).is_dir():
            return []
        return sorted(path.name for path in self._path(folder).iterdir() if not path.name.startswith("."))

    def remove(self, name: str) -> None:
        """Remove a file or folder."""
        path = self._path(name)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def put(self, directory: Path, name: str) -> None:
        """Copy a folder beside its place, then rename it."""
        _copy_folder(directory, self._path(name))

    def fetch(self, name: str, directory: Path) -> None:
        """Copy a folder; nothing to do where it lies there already."""
        if self._path(name) != directory:
            _copy_folder(self._path(name), directory)


class UrlStorage:
    """A Storage behind an fsspec URL; one put of an object is whole or absent there."""

    def __init__(self, root: str) -> None:
        self.root = root

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """The file system; what its driver raises becomes an error of ours. FileNotFoundError has a meaning and stays.

        Raises:
            StoreError: The place cannot be reached.
        """
        import fsspec

        try:
            yield fsspec.core.url_to_fs(self.root, use_listings_cache=False)[0]
        except (PlaitError, FileNotFoundError):
            raise
        except Exception as error:
            said = redacted(" ".join(str(error).split())) or type(error).__name__
            raise StoreError(f"{self.root} cannot be used: {said}", hint="see that it is up, and run again") from error

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def write(self, name: str, content: bytes) -> None:
        """Put one object."""
        with self._opened() as files:
            files.pipe_file(self._path(name), content)

    def read(self, name: str) -> bytes:
        """Get one object."""
        with self._opened() as files:
            content: bytes = files.cat_file(self._path(name))
        return content

    def exists(self, name: str) -> bool:
        """Whether there is such an object, or a folder of which everything was put."""
        return self._is_object(name) or self._is_object(name + COMPLETE)

    def _is_object(self, name: str) -> bool:
        """Unlike isfile() of a file system, this does not take an outage for a no."""
        with self._opened() as files:
            try:
                return bool(files.info(self._path(name))["type"] == "file")
            except FileNotFoundError:
                return False

    def names(self, folder: str) -> list[str]:
        """Names of the objects in a folder."""
        with self._opened() as files:
            try:
                found = files.ls(self._path(folder), detail=False)
            except FileNotFoundError:
                return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def remove(self, name: str) -> None:
        """Remove objects; the word that a folder is complete goes first."""
        with self._opened() as files:
            for found in (name + COMPLETE, name):
                if files.exists(self._path(found)):
                    files.rm(self._path(found), recursive=True)

    def put(self, directory: Path, name: str) -> None:
        """Put all files, then the word that they are complete."""
        files = sorted(path.name for path in directory.iterdir())
        for file in files:
            self.write(f"{name}/{file}", (directory / file).read_bytes())
        self.write(name + COMPLETE, json.dumps(files).encode())

    def fetch(self, name: str, directory: Path) -> None:
        """Get all files of a folder beside its place, then rename it."""
        beside = directory.with_name(f".{directory.name}.{os.getpid()}")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for file in json.loads(self.read(name + COMPLETE)):
            (beside / file).write_bytes(self.read(f"{name}/{file}"))
        _settle(beside, directory)


def _copy_folder(source: Path, target: Path) -> None:
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(source, beside)
    _settle(beside, target)


def _settle(beside: Path, target: Path) -> None:
    """Rename a folder into its place once its files are on the disk; one that is there already stays."""
    for file in sorted(beside.rglob("*")):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
    try:
        beside.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(beside, ignore_errors=True)
