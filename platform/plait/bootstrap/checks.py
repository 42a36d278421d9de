"""The checks of `plait doctor`: each looks at one thing that the settings speak of and says what it found.

A check writes nothing but a probe, which it removes, and may raise: an error of Plait's is a finding that failed.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from plait.design.errors import PlaitError
from plait.settings import SETTINGS_FILE, Settings, redacted
from plait.settings.scorers import SubprocessSettings

if TYPE_CHECKING:
    from plait.execution.nodes import Node

Status = Literal["ok", "warning", "failed"]

LEAST_ROOM, SCARCE_ROOM = 200 * 2**20, 2 * 2**30
"""Free bytes of a disk below which a check fails, or warns."""
LEAST_SHARED_MEMORY = 256 * 2**20
"""Bytes of /dev/shm that an embedded Ray wants."""
CLOCKS_APART_S = 30.0
SECONDS_TO_CONNECT = 5.0
SECONDS_OF_NODES = 45.0


@dataclass(frozen=True)
class Finding:
    """What a check found, and what to do about it ("" for nothing)."""

    status: Status
    found: str
    advice: str = ""


def packages(settings: Settings) -> list[Finding]:
    """Python and the packages that Plait, and what the settings ask for, need."""
    from packaging.requirements import Requirement

    is_asked = {"": True, "postgres": settings.database_url.startswith("postgresql")}
    is_asked["s3"] = settings.artifact_root.startswith("s3://")
    extras = [{"extra": name} for name, asked in is_asked.items() if asked]
    every = [Requirement(text) for text in requires("plait") or ()]
    needed = [r for r in every if r.marker is None or any(r.marker.evaluate(extra) for extra in extras)]
    if wrong := "; ".join(text for text in map(_wrong_version, needed) if text):
        return [Finding("failed", wrong, "install them: python -m pip install --upgrade plait")]
    return [Finding("ok", f"Plait {version('plait')}, Python {sys.version.split()[0]}, {len(needed)} packages")]


def _wrong_version(requirement: Any) -> str:
    """Why an installed package does not do, "" where it does."""
    try:
        there = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is not installed"
    is_right = requirement.specifier.contains(there, prereleases=True)
    return "" if is_right else f"{requirement.name} is {there}, {requirement.specifier} is needed"


def home(settings: Settings) -> list[Finding]:
    """The home's folder: it is there, may be written, and has room."""
    folder = settings.home
    if not folder.is_dir():
        return [Finding("failed", f"there is no home at {folder}", "run: plait init, or give --home")]
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return [Finding("failed", f"{folder} may not be read and written", "change its rights, or give another --home")]
    findings = [_room(folder)]
    if stat.S_IMODE(folder.stat().st_mode) & 0o022:
        findings.append(Finding("warning", f"others may write into {folder}", f"run: chmod go-w {folder}"))
    return findings


def _room(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    status: Status = "failed" if free < LEAST_ROOM else "warning" if free < SCARCE_ROOM else "ok"
    return Finding(status, f"{folder}, {free / 2**30:.1f} GiB free", "" if status == "ok" else "make room on this disk")


def settings_file(settings: Settings) -> list[Finding]:
    """The settings file, which may hold a password, and what the environment overrules."""
    file = settings.home / SETTINGS_FILE
    variables = sorted(name for name in os.environ if name.upper().startswith("PLAIT_") and name != "PLAIT_HOME")
    said = f"; from the environment: {', '.join(variables)}" if variables else ""
    if not file.exists():
        return [Finding("ok", f"no {SETTINGS_FILE}, all by default{said}")]
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        found = f"{file} may be read by others (mode {mode:o}) and may hold a password"
        return [Finding("warning", found, f"run: chmod 600 {file}")]
    return [Finding("ok", f"{file}{said}")]


def database(settings: Settings) -> list[Finding]:
    """The registry's database."""
    from plait.registry.health import examine

    health = examine(settings.database_url)
    where = redacted(settings.database_url)
    findings = [Finding("ok", f"{health.kind} {health.version}, tables {health.revision}, {where}")]
    if health.network:
        found = f"the SQLite file lies on a network file system ({health.network}), whose locks may fail"
        findings.append(Finding("warning", found, "move the home to a local disk, or use PostgreSQL"))
    if health.journal_mode not in ("", "wal"):
        found = f"SQLite's journal mode is {health.journal_mode}, not wal: readers wait for writers"
        findings.append(Finding("warning", found, "move the home to a disk that supports write-ahead logs"))
    if health.kind == "SQLite" and settings.ray_address != "local":
        found = "a cluster is used, but the registry is a file of this machine"
        findings.append(Finding("warning", found, "for schedulers on several machines set database_url to PostgreSQL"))
    if abs(health.clock_ahead_s) > CLOCKS_APART_S:
        found = f"the database's clock is {health.clock_ahead_s:+.0f} s from this machine's: times in the trail differ"
        findings.append(Finding("warning", found, "let both keep their clocks by NTP"))
    return findings


def mlflow(settings: Settings) -> list[Finding]:
    """MLflow's store and the place of its artifacts."""
    from plait.tracking.health import examine

    told = f"{examine(settings.mlflow_tracking_uri)}, {redacted(settings.mlflow_tracking_uri)}"
    findings = [Finding("ok", told)]
    folder = Path(settings.mlflow_artifacts)
    if folder.is_absolute() and (problem := _not_writable(folder)):
        findings.append(Finding("failed", problem, "change its rights, or correct mlflow_artifacts"))
    return findings


def artifacts(settings: Settings) -> list[Finding]:
    """The artifact root: written, read back, deleted."""
    root = settings.artifact_root
    if "://" not in root and not (Path(root) / "kept").is_dir():
        problem = _not_writable(Path(root))
        if problem:
            return [Finding("failed", problem, "change its rights, or correct artifact_root")]
        return [Finding("ok", f"{root}, made when the first artifact is kept")]
    started = time.monotonic()
    with _probe(root) as sha:
        problem = look_around(root, sha)
    if problem:
        return [Finding("failed", f"what was written cannot be read back: {problem}", "correct artifact_root")]
    told = Finding("ok", f"{root}, written, read and removed in {time.monotonic() - started:.2f} s")
    room = told if "://" in root else _room(Path(root))
    return [told] if room.status == "ok" else [told, room]


def _not_writable(folder: Path) -> str:
    """Why a folder, which need not exist yet, cannot be written, "" where it can."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return "" if there.is_dir() and os.access(there, os.W_OK) else f"{there} may not be written"


@contextmanager
def _probe(root: str) -> Iterator[str]:
    """The hash of a document that is kept for the length of the block."""
    from plait.registry.remote_artifacts import open_artifacts

    with TemporaryDirectory() as folder:
        store = open_artifacts(root, Path(folder))
        sha = store.put_json({"probe": uuid.uuid4().hex})
        try:
            yield sha
        finally:
            store.drop(sha)


def look_around(root: str, sha256: str) -> str:
    """What is in the way of reading a probe on this machine, "" for nothing; runs on every node."""
    from plait.registry.remote_artifacts import open_artifacts

    with TemporaryDirectory() as folder:  # without a copy of what was written
        try:
            open_artifacts(root, Path(folder)).get_json(sha256)
        except PlaitError as error:
            return error.message
    return ""


def ray(settings: Settings) -> list[Finding]:
    """The embedded Ray's machine, or the cluster: every node must run this Plait and see the artifact root."""
    if settings.ray_address == "local":
        return _embedded(settings)
    from plait.execution.nodes import ask_each_node, sends_token

    with _probe(settings.artifact_root) as sha:
        nodes = ask_each_node(settings, partial(look_around, settings.artifact_root, sha), SECONDS_OF_NODES)
    findings = [_node(node, settings) for node in nodes]
    if not all(node.is_on_loopback for node in nodes) and not sends_token():
        found = "the cluster can be reached from other machines and takes work without a token: anybody may run code"
        advice = "start it with RAY_AUTH_MODE=token, and set that and RAY_AUTH_TOKEN where Plait runs"
        findings.append(Finding("warning", found, advice))
    cpus = sum(node.cpus for node in nodes)
    if settings.max_workers is not None and settings.max_workers * settings.worker_cpus > cpus:
        found = f"max_workers {settings.max_workers} need {settings.max_workers * settings.worker_cpus:g} CPUs, "
        findings.append(Finding("warning", f"{found}the cluster has {cpus:g}", "lower max_workers, or add nodes"))
    return findings


def _embedded(settings: Settings) -> list[Finding]:
    cpus = settings.ray_num_cpus or os.cpu_count() or 1
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    found = f"Ray {version('ray')}, started here by trainings with workers: {cpus} CPUs, {memory:.0f} GiB memory"
    findings = [Finding("ok", found)]
    shared = Path("/dev/shm")  # noqa: S108 Ray's, not ours
    if shared.is_dir() and shutil.disk_usage(shared).total < LEAST_SHARED_MEMORY:
        found = f"{shared} holds {shutil.disk_usage(shared).total / 2**20:.0f} MiB only: Ray is slow"
        findings.append(Finding("warning", found, "give the container more: docker run --shm-size=1g"))
    return findings


def _node(node: Node[str], settings: Settings) -> Finding:
    found = f"node {node.address}: {node.cpus:g} CPUs, {node.gpus:g} GPUs, {node.memory_gib:.1f} GiB memory"
    if node.problem:
        advice = "install the same Plait there, and look at the node with: ray status"
        return Finding("failed", f"{found}; cannot run Plait: {node.problem}", advice)
    if node.answer:
        advice = "set artifact_root to a folder that all nodes mount, or to s3://bucket/folder with credentials there"
        if "://" in settings.artifact_root:
            advice = "give the node the credentials (AWS_*) and a way to the store"
        return Finding("failed", f"{found}; does not see the artifact root: {node.answer}", advice)
    return Finding("ok", found)


def torch(settings: Settings) -> list[Finding]:
    """Torch, and the GPUs of this machine."""
    import torch as library

    num = library.cuda.device_count() if library.cuda.is_available() else 0
    devices = ", ".join(library.cuda.get_device_name(i) for i in range(num)) or "no GPU here"
    found = f"torch {library.__version__}, {settings.torch_threads} threads, {devices}"
    if settings.worker_gpus > 0 and settings.ray_address == "local" and num == 0:
        advice = "set worker_gpus to 0, or install a torch built for CUDA"
        return [Finding("failed", f"{found}, but worker_gpus is {settings.worker_gpus:g}", advice)]
    return [Finding("ok", found)]


def screening(settings: Settings) -> list[Finding]:
    """The lists of what must not be made."""
    from plait.bootstrap.home import DENY_LIST
    from plait.lab.screening import DenyListScreener

    own = settings.home / DENY_LIST
    screener = DenyListScreener(own if own.exists() else None)
    if screener.num_entries == 0:
        advice = f"put your list into {own}, and order from a provider that screens"
        return [Finding("warning", "no sequence is listed: every design is cleared", advice)]
    return [Finding("ok", f"{screener.num_entries} entries, {screener.version}")]


def scorers(settings: Settings) -> list[Finding]:
    """Programs and servers of black-box scorers; none is asked for a score."""
    findings = []
    for name, scorer in settings.scorers.items():
        if isinstance(scorer, SubprocessSettings):
            program = scorer.command[0]
            problem = "" if shutil.which(program) else f"there is no program {program}"
        else:
            problem = _unreachable(scorer.url, tuple(scorer.headers.values()))
        advice = f"correct `scorers` in {settings.home / SETTINGS_FILE}, or start it" if problem else ""
        findings.append(Finding("failed" if problem else "ok", f"{name}: {problem or 'is there'}", advice))
    return findings or [Finding("ok", "none")]


def _unreachable(url: str, variables: tuple[str, ...]) -> str:
    """Why a server cannot be asked, "" where it can."""
    missing = [name for name in variables if not os.environ.get(name)]
    if missing:
        return f"the environment lacks {', '.join(missing)}"
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((str(parts.hostname), port), SECONDS_TO_CONNECT).close()
    except (OSError, ValueError) as error:
        return f"{parts.hostname} cannot be reached: {error}"
    return ""


CHECKS: dict[str, Callable[[Settings], list[Finding]]] = {
    "packages": packages,
    "home": home,
    "settings": settings_file,
    "database": database,
    "mlflow": mlflow,
    "artifacts": artifacts,
    "ray": ray,
    "torch": torch,
    "screening": screening,
    "scorers": scorers,
}
"""Name -> check, in the order in which they are told."""
