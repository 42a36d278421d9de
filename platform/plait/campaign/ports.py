"""What use cases need from the outside world. Adapters fulfil these; tests give plain fakes or the real thing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from plait.campaign.records import (
    OutboxMessage,
)
from plait.campaign.repository import Repository
from plait.design.alphabets import Alphabet
from plait.design.records import Progress
from plait.design.space import DesignSpace

if TYPE_CHECKING:  # registering data loads no torch
    from torch import Generator

    from plait.campaign.sweep_ports import SweepPlan, TrialOutcome
    from plait.priors.base import AverageGradients

Scorers = Mapping[str, Callable[[Sequence[str]], Sequence[float]]]
"""Black-box scorers by name: sequences in, one number each out."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Kept:
    """A kept bundle or document: its hash, its size in bytes, and when it was kept (UTC)."""

    sha256: str
    num_bytes: int
    kept_at: datetime


@dataclass(frozen=True)
class Unfinished:
    """Unfinished work: its key, its size in bytes, and when a file of it was last written (UTC)."""

    key: str
    num_bytes: int
    changed_at: datetime


class ArtifactStore(Protocol):
    """Bundles by content hash. Picklable: a worker on another machine opens the same store."""

    def put(self, directory: Path) -> str:
        """Keep a bundle folder (moved or copied in atomically); returns its hash."""
        ...

    def path(self, sha256: str) -> Path:
        """The folder of a kept bundle on this machine. Raises CorruptArtifactError if it is not there."""
        ...

    def put_json(self, document: Any) -> str:
        """Keep a JSON document; returns its hash."""
        ...

    def get_json(self, sha256: str) -> Any:
        """A kept document, checked against its hash."""
        ...

    def kept(self) -> Iterator[Kept]:
        """Every kept bundle and document, in no order."""
        ...

    def drop(self, sha256: str) -> None:
        """Remove a bundle or document that nothing refers to; one that is not there is no error."""
        ...

    def scratch(self, key: str) -> Path:
        """This machine's folder for unfinished work of this key; the same key gives the same folder (resuming)."""
        ...

    def shared(self, key: str) -> str:
        """The place for unfinished work of this key that every node can reach: an absolute path or an fsspec URL."""
        ...

    def drop_scratch(self, key: str) -> None:
        """Remove both."""
        ...

    def unfinished(self) -> Iterator[Unfinished]:
        """Unfinished work of every key, here and where every node can reach it, in no order."""
        ...


@dataclass(frozen=True)
class Artifact:
    """A kept bundle as it travels to workers; its files come to the machine that asks for them."""

    store: ArtifactStore
    sha256: str

    def path(self) -> Path:
        """Its folder on this machine.

        Raises:
            CorruptArtifactError: It is missing or changed.
            RunFailedError: The store cannot be reached.
        """
        return self.store.path(self.sha256)


class Tracker(Protocol):
    """MLflow."""

    def record(self, message: OutboxMessage, artifact: Path | None) -> str:
        """Writes a finished run (once per message.key) and returns its run id."""
        ...


class TrainingRun(Protocol):
    """A training under way in one worker."""

    def step(self, average_gradients: AverageGradients) -> dict[str, float]:
        """One update; named figures for the curves."""
        ...

    def is_done(self) -> bool:
        """Early stopping: True ends the loop; rank 0's word counts for all workers."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints: tensors, numbers, text and containers of them."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        ...

    def save(self, directory: Path) -> None:
        """Write the finished bundle."""
        ...


class TrainingJob(Protocol):
    """A picklable description of a training; runs equally in this process and in a Ray worker."""

    @property
    def num_steps(self) -> int:
        """Updates at most."""
        ...

    def start(self, rank: int, world_size: int, generator: Generator) -> TrainingRun:
        """The run of one worker, on the generator's device; the effective batch is the same at any world_size.

        Everything random is drawn from `generator`, which the loop re-seeds where a run goes on with other workers.
        """
        ...


class Executor(Protocol):
    """Where work runs: this process or Ray."""

    def sweep(self, plan: SweepPlan, *, run_id: str, storage: str, task: str, progress: Progress) -> list[TrialOutcome]:
        """Run the trials of a sweep, in order of their number; those finished in `storage` are not run again.

        A trial that fails is a failed trial. The outcomes depend on the plan alone, not on how many run at a time.
        Raises RunFailedError where Ray does.
        """
        ...

    def train(
        self,
        job: TrainingJob,
        *,
        run_id: str,
        directory: Path,
        num_workers: int,
        seed: int,
        task: str,
        progress: Progress,
        storage: str | None = None,
        min_workers: int | None = None,
    ) -> dict[str, list[tuple[int, float]]]:
        """Train, resuming from checkpoints in `storage` if interrupted; the bundle goes to directory/"result".

        `storage` is a path or URL that every worker reaches, `directory` by default. num_workers 0 = in this process;
        with min_workers a training goes on with fewer workers where some are lost for good. Returns the curves.
        Raises RunFailedError.
        """
        ...

    def require(self, num_workers: int) -> None:
        """Raises ConfigError where a training may not have so many workers."""
        ...

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Function of each item, in order; Ray tasks where Ray is up."""
        ...


class Screener(Protocol):
    """Biosecurity screening; whatever cannot be judged is not cleared."""

    name: str
    version: str

    def screen(self, sequences: Sequence[str], alphabet: str) -> list[tuple[bool, str]]:
        """(is_cleared, reason) for each."""
        ...


class Laboratory(Protocol):
    """A lab that answers at once: a simulated scenario."""

    @property
    def name(self) -> str:
        """What it is known by in approvals."""
        ...

    def measure(self, sequences: Sequence[str]) -> list[float | None]:
        """A reading for each sequence, None where the well failed."""
        ...

    def covers(self, space: DesignSpace) -> bool:
        """Whether it measures sequences of this space at all."""
        ...

    def truth(self) -> dict[str, float]:
        """Every sequence whose value is known, with it, {} where nobody can list them: never for learning."""
        ...


class Clock(Protocol):
    """Time, UTC."""

    def now(self) -> datetime:
        """The time, timezone-aware."""
        ...


@dataclass(frozen=True)
class Ports:
    """Everything a use case may reach, built once in bootstrap."""

    repository: Repository
    artifacts: ArtifactStore
    executor: Executor
    tracker: Tracker
    screener: Screener
    read_corpus: Callable[[Path, Alphabet, int], list[str]]
    clock: Clock
    actor: str
    progress: Progress
    scorers: Scorers = field(default_factory=dict)
