"""A home in one file, taken while campaigns run: its registry, what the rows speak of, and MLflow's local store."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

from plait.bootstrap.home import DENY_LIST
from plait.design.bundles import MANIFEST, check_bundle
from plait.design.errors import BadInputError, CorruptArtifactError, NotFoundError

if TYPE_CHECKING:
    from plait.bootstrap.home import Home
    from plait.campaign.ports import ArtifactStore
    from plait.registry.exchange import Contents

ABOUT, ARTIFACTS, MLFLOW, MLFLOW_FILES = "backup.json", "artifacts", "mlflow.db", "mlflow-artifacts"
"""Members of a backup beside those of an export; a backup may be imported as one."""
ENCRYPTED, METHODS = 0x1, (ZIP_STORED, ZIP_DEFLATED)
"""A bit of a member's flags; how members may be packed."""
LEVEL = 1
"""Of compression: tensors hardly become smaller."""


@dataclass(frozen=True)
class Backup:
    """What a backup holds.

    Attributes:
        contents: The registry's rows.
        artifacts: Hashes of the bundles and documents.
        has_mlflow: Whether MLflow's store is in it: where that is a SQLite file.
    """

    contents: Contents
    artifacts: tuple[str, ...]
    has_mlflow: bool


@contextmanager
def new_zip(file: Path) -> Iterator[ZipFile]:
    """A zip that appears under its name when it is whole; its owner alone may read it.

    Raises:
        BadInputError: It cannot be written there.
    """
    if file.exists() and not file.is_file():
        raise BadInputError(f"{file} cannot be written: it is no ordinary file", hint="choose another file")
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}-", delete=False) as stream:
            beside = Path(stream.name)  # made for its owner alone
            try:
                with ZipFile(stream, "w", ZIP_DEFLATED, compresslevel=LEVEL, strict_timestamps=False) as archive:
                    yield archive
                beside.replace(file)
            finally:
                beside.unlink(missing_ok=True)
    except OSError as error:
        raise BadInputError(f"{file} cannot be written: {error.strerror}", hint="choose another file") from error


@contextmanager
def opened_zip(file: Path) -> Iterator[ZipFile]:
    """A zip to read from.

    Raises:
        NotFoundError: There is no such file.
        BadInputError: It is no zip, or cannot be read.
        CorruptArtifactError: A member of it, once it is read, differs from its own sum.
    """
    try:
        archive = ZipFile(file)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {file}") from error
    except (BadZipFile, OSError) as error:
        raise BadInputError(f"{file} is no file that Plait has written: {error}") from error
    with archive:
        if any(member.flag_bits & ENCRYPTED or member.compress_type not in METHODS for member in archive.infolist()):
            raise BadInputError(f"{file} is no file that Plait has written: it is packed in another way")
        try:
            yield archive
        except (BadZipFile, zlib.error, EOFError) as error:
            raise CorruptArtifactError(f"{file} is damaged: {error}", hint="take another copy of it") from error


def back_up(home: Home, file: Path) -> Backup:
    """Write a home's registry, every artifact that its rows name, and MLflow's store if that is a SQLite file.

    The rows are those of one moment; artifacts are there before the rows that name them, and MLflow hears of them
    after, so that what is copied later can only be more. Settings are left out: they hold passwords.

    Raises:
        CorruptArtifactError: An artifact is missing or changed.
        BadInputError: The file cannot be written.
    """
    from plait.campaign.garbage import reached_from
    from plait.registry.exchange import snapshot, write_tables
    from plait.registry.references import artifacts_of_models, referred_by

    with new_zip(file) as archive:
        with snapshot(home.settings.database_url) as connection:
            contents = write_tables(connection, archive)
            named, models = referred_by(connection), artifacts_of_models(connection)
        shas = sorted(reached_from(home.artifacts, named) | models)
        for index, sha in enumerate(shas):
            home.progress("backing up artifacts", index, len(shas), sha[:12])
            _add(archive, home.artifacts, sha)
        home.progress("backing up artifacts", len(shas), len(shas), "")
        has_mlflow = _add_mlflow(archive, home)
        if (deny_list := home.path / DENY_LIST).exists():
            archive.write(deny_list, DENY_LIST)
        about = {"artifacts": shas, "mlflow_artifacts": home.settings.mlflow_artifacts}
        archive.writestr(ABOUT, json.dumps(about))
    return Backup(contents, tuple(shas), has_mlflow)


def _add(archive: ZipFile, artifacts: ArtifactStore, sha: str) -> None:
    try:
        document = artifacts.get_json(sha)
    except CorruptArtifactError as error:
        try:
            folder = artifacts.path(sha)
        except CorruptArtifactError:
            raise error from None
        for name, content in check_bundle(folder).items():
            archive.writestr(f"{ARTIFACTS}/{sha}/{name}", content)
        archive.write(folder / MANIFEST, f"{ARTIFACTS}/{sha}/{MANIFEST}")
    else:
        archive.writestr(f"{ARTIFACTS}/{sha}.json", json.dumps(document))


def _add_mlflow(archive: ZipFile, home: Home) -> bool:
    from plait.tracking.local_store import copy_store, store_file

    store = store_file(home.settings.mlflow_tracking_uri)
    if store is None or not store.exists():
        return False
    with tempfile.TemporaryDirectory() as folder:
        copy_store(store, Path(folder) / MLFLOW)
        archive.write(Path(folder) / MLFLOW, MLFLOW)
    if (root := _folder(home.settings.mlflow_artifacts)) is not None:
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            archive.write(path, f"{MLFLOW_FILES}/{path.relative_to(root).as_posix()}")
    return True


def _folder(root: str) -> Path | None:
    """Where MLflow's artifacts are, if on this machine."""
    return Path(root) if Path(root).is_absolute() else None


def restore(home: Home, file: Path) -> Backup:
    """Fill a new or empty home from a backup; the registry comes last, so that a restore that broke off is repeated.

    A deny list and an MLflow store that the home has already are left as they are.

    Raises:
        NotFoundError: There is no such file.
        BadInputError: It is no backup.
        CorruptArtifactError: It was changed after it was written.
        WrongStateError: The home's registry has rows.
    """
    from plait.registry.exchange import read_tables, refuse_filled

    refuse_filled(home.settings.database_url)
    with opened_zip(file) as archive:
        about, members = _about(archive), _members(archive)
        for index, sha in enumerate(about["artifacts"]):
            home.progress("restoring artifacts", index, len(about["artifacts"]), sha[:12])
            _put(archive, home.artifacts, sha, members.get(sha, []))
        home.progress("restoring artifacts", len(about["artifacts"]), len(about["artifacts"]), "")
        has_mlflow = _put_mlflow(archive, home, _folder(about["mlflow_artifacts"]))
        if DENY_LIST in archive.namelist() and not (home.path / DENY_LIST).exists():
            _write(home.path / DENY_LIST, archive.read(DENY_LIST))
        contents = read_tables(home.settings.database_url, archive)
    return Backup(contents, tuple(about["artifacts"]), has_mlflow)


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.replace(file)


def _about(archive: ZipFile) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(archive.read(ABOUT))
        return {"artifacts": list(about["artifacts"]), "mlflow_artifacts": str(about["mlflow_artifacts"])}
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            f"{archive.filename} is no backup of a home", hint="make one with: plait db backup FILE"
        ) from error


def _members(archive: ZipFile) -> dict[str, list[str]]:
    """The members of each artifact."""
    found: dict[str, list[str]] = {}
    for name in archive.namelist():
        if name.startswith(f"{ARTIFACTS}/"):
            found.setdefault(name.split("/")[1].removesuffix(".json"), []).append(name)
    return found


def _put(archive: ZipFile, artifacts: ArtifactStore, sha: str, names: list[str]) -> None:
    if names == [f"{ARTIFACTS}/{sha}.json"]:
        kept = artifacts.put_json(json.loads(archive.read(names[0])))
    else:
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                (Path(folder) / Path(name).name).write_bytes(archive.read(name))
            kept = artifacts.put(Path(folder))
    if kept != sha:
        raise CorruptArtifactError(f"{archive.filename}: the artifact {sha} differs from its recorded SHA-256")


def _put_mlflow(archive: ZipFile, home: Home, old_root: Path | None) -> bool:
    """MLflow's store to where the settings want it, with its artifacts; one that is there already is left as it is."""
    from plait.tracking.local_store import move_artifacts, store_file

    store = store_file(home.settings.mlflow_tracking_uri)
    if store is None or store.exists() or MLFLOW not in archive.namelist():
        return False
    root = _folder(home.settings.mlflow_artifacts)
    store.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store.parent) as folder:
        members = [name for name in archive.namelist() if name == MLFLOW or name.startswith(f"{MLFLOW_FILES}/")]
        archive.extractall(folder, members)
        if root is not None and old_root is not None:
            (Path(folder) / MLFLOW_FILES).mkdir(exist_ok=True)
            shutil.copytree(Path(folder) / MLFLOW_FILES, root, dirs_exist_ok=True)
            move_artifacts(Path(folder) / MLFLOW, old_root, root)
        (Path(folder) / MLFLOW).replace(store)
    return True
