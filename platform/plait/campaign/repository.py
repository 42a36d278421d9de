"""What use cases need of the registry: transactions, and leases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol, TypeVar

from plait.campaign.records import (
    Approval,
    Campaign,
    DatasetVersion,
    Design,
    Model,
    NewResult,
    OutboxMessage,
    Result,
    Round,
    RoundState,
    StageRun,
    Upload,
)
from plait.campaign.schedules import Holding, Schedule
from plait.design.records import Goal, Readings

T = TypeVar("T")


class UnitOfWork(Protocol):
    """One transaction over the registry: all of it or none. Every change writes an audit event by itself.

    Getters raise NotFoundError that lists what exists; changes raise WrongStateError.
    """

    # datasets -----------------------------------------------------------------------------------------------------
    def add_dataset_version(
        self,
        dataset: str,
        readings: Readings,
        *,
        content_hash: str,
        alphabet: str,
        unit: str,
        goal: Goal,
        actor: str,
        parent_id: str | None = None,
        upload: Upload | None = None,
        round_id: int | None = None,
    ) -> DatasetVersion:
        """A new version; measurements of the parent that are in `readings` unchanged are shared, not copied.

        A version with this content hash in this dataset is returned as it is.
        """
        ...

    def datasets(self) -> list[DatasetVersion]:
        """Latest version of every dataset, by name."""
        ...

    def dataset_version(self, dataset: str, number: int | None = None) -> DatasetVersion:
        """The latest, or a numbered, version."""
        ...

    def dataset_version_by_id(self, version_id: str, dataset: str | None = None) -> DatasetVersion:
        """The version with this content hash, of this dataset where two hold the same content."""
        ...

    def dataset_versions(self, dataset: str) -> list[DatasetVersion]:
        """All versions, oldest first."""
        ...

    def readings(self, version_id: str) -> Readings:
        """The rows of a version, in the order in which they were registered."""
        ...

    def close_round_into_version(
        self,
        campaign: str,
        number: int,
        *,
        content_hash: str,
        dataset: str,
        actor: str,
        further: Sequence[tuple[str, str]] = (),
        bases: Mapping[str, str] | None = None,
    ) -> DatasetVersion:
        """New dataset version = a base version + the round's ok results as measurements, in each assay.

        `bases` are version ids by dataset; by default the versions that the round learned from.

        `further` are (dataset, content hash) of the further assays, in the campaign's order. The round's measurement
        rows already exist (add_results wrote them); they are linked, never copied. Moves the round to CLOSED and sets
        its next_version_id, and that of each further assay. Returns the version of the campaign's own dataset.
        """
        ...

    # campaigns and rounds -----------------------------------------------------------------------------------------
    def add_campaign(
        self,
        name: str,
        *,
        dataset_version_id: str,
        config: dict[str, Any],
        space: dict[str, Any],
        notes: Sequence[str],
        actor: str,
        further: Sequence[tuple[str, str]] = (),
    ) -> Campaign:
        """A campaign; `further` are (dataset, version id) of the assays beside its own dataset.

        Raises WrongStateError when the name is taken, or two assays share a dataset.
        """
        ...

    def campaigns(self) -> list[Campaign]:
        """All, oldest first."""
        ...

    def campaign(self, name: str) -> Campaign:
        """One by name."""
        ...

    def add_round(
        self,
        campaign: str,
        number: int,
        dataset_version_id: str,
        actor: str,
        further: Sequence[tuple[str, str]] = (),
    ) -> Round:
        """A new round in state RUNNING; the existing one if (campaign, number) is there already.

        `further` are (dataset, version id) of the campaign's further assays, in its order.
        """
        ...

    def rounds(self, campaign: str) -> list[Round]:
        """All rounds, in order."""
        ...

    def move_round(self, campaign: str, number: int, state: RoundState, actor: str, reason: str = "") -> Round:
        """A move that ALLOWED_MOVES allows, else WrongStateError; APPROVED and REJECTED write an approval."""
        ...

    def approvals(self, campaign: str) -> list[Approval]:
        """All decisions, oldest first."""
        ...

    # schedulers ---------------------------------------------------------------------------------------------------
    def clock(self) -> datetime:
        """The time by the database's clock, one for all hosts."""
        ...

    def schedules(self) -> dict[str, Schedule]:
        """Every campaign's, by name, oldest campaign first."""
        ...

    def schedule(self, campaign: str, *, is_locking: bool = False) -> Schedule:
        """One campaign's; under the project's lock, where it is about to be changed."""
        ...

    def put_schedule(self, new: Schedule, action: str, actor: str) -> Schedule:
        """Keep a schedule that was read under the lock and changed."""
        ...

    def max_running(self) -> int | None:
        """Rounds that all schedulers together run at a time; None for no limit."""
        ...

    def set_max_running(self, number: int | None, actor: str) -> None:
        """Set or lift it."""
        ...

    # stages -------------------------------------------------------------------------------------------------------
    def fence(self, lease: Lease) -> None:
        """Lets this transaction commit only while the lease is held: nobody takes it over before.

        Raises WrongStateError if it was lost.
        """
        ...

    def stage(self, campaign: str, number: int, stage: str, input_hash: str) -> StageRun | None:
        """The finished stage of this key, if any."""
        ...

    def stages(self, campaign: str, number: int | None = None) -> list[StageRun]:
        """Finished stages, oldest first."""
        ...

    def stage_seconds(self) -> dict[str, tuple[int, float]]:
        """How many stages of each name were finished, and the seconds they took together."""
        ...

    def finish_stage(
        self, campaign: str, number: int, stage: str, input_hash: str, outputs: dict[str, Any], seconds: float
    ) -> StageRun:
        """Records a finished stage; the existing row if the key is there already."""
        ...

    # models and artifacts -----------------------------------------------------------------------------------------
    def add_model(
        self,
        name: str,
        *,
        kind: str,
        algorithm: str,
        artifact_sha256: str,
        details: dict[str, Any],
        actor: str,
        dataset_version_id: str | None = None,
        stage_run_id: int | None = None,
    ) -> Model:
        """The next version of `name`; the existing one if this name already has this artifact."""
        ...

    def models(self) -> list[Model]:
        """All versions, by name and number."""
        ...

    def model(self, reference: str) -> Model:
        """By NAME (latest), NAME@ALIAS or NAME@VERSION (a number)."""
        ...

    def promote(self, reference: str, alias: str, actor: str) -> Model:
        """Point NAME@alias at this version (history is kept)."""
        ...

    # designs and results ------------------------------------------------------------------------------------------
    def add_designs(self, campaign: str, number: int, designs: Sequence[Design]) -> None:
        """The batch of a round, once."""
        ...

    def designs(self, campaign: str, number: int | None = None) -> list[Design]:
        """By round and rank."""
        ...

    def add_screening(
        self, campaign: str, number: int, tool: str, version: str, verdicts: Sequence[tuple[str, bool, str]]
    ) -> None:
        """(design_id, is_cleared, reason) of a screening run."""
        ...

    def screenings(self, campaign: str, number: int) -> list[tuple[str, str, str, bool, str]]:
        """(tool, version, design_id, is_cleared, reason), oldest first."""
        ...

    def add_results(
        self, campaign: str, number: int, results: Sequence[NewResult], actor: str, upload: Upload | None
    ) -> int:
        """Registers readings; the number that were new (an equal one again is not an error, another value is).

        An ok reading is a measurement row (with design_id, round) of its assay; a failed well is kept with status
        failed. Readings are told apart by design, assay and replicate.
        """
        ...

    def results(self, campaign: str, number: int | None = None) -> list[Result]:
        """All results, oldest first."""
        ...

    def add_order(self, campaign: str, number: int, sha256: str, actor: str) -> None:
        """An exported order file."""
        ...

    # audit and MLflow ---------------------------------------------------------------------------------------------
    def audit(self, actor: str, action: str, subject: str, details: dict[str, Any] | None = None) -> None:
        """An event for what no other method records."""
        ...

    def referred(self) -> set[str]:
        """Every SHA-256 that any row names, as an artifact or as anything else."""
        ...

    def push_outbox(self, message: OutboxMessage) -> None:
        """MLflow is to be told, after this transaction commits."""
        ...

    def outbox(self) -> list[OutboxMessage]:
        """What MLflow has not been told yet, oldest first."""
        ...

    def mark_sent(self, key: str, mlflow_run_id: str) -> None:
        """MLflow knows; ties the run to its stage run and model."""
        ...


class Repository(Protocol):
    """The registry."""

    def begin(self) -> AbstractContextManager[UnitOfWork]:
        """A transaction: commits at the end of the block, rolls back on any exception."""
        ...

    def transact(self, function: Callable[[UnitOfWork], T]) -> T:
        """What `function` returns, run in a transaction: again from its beginning while the database is away.

        It may run twice after a commit whose answer was lost: a second run must find its own work done, or be
        refused. Raises UnreachableError when the database did not come back.
        """
        ...

    def read(self) -> AbstractContextManager[UnitOfWork]:
        """A transaction that only reads."""
        ...

    def lease_board(self) -> LeaseBoard:
        """A view of all leases, which claims campaigns for a scheduler."""
        ...

    def lease(self, name: str, on_wait: Callable[[str], None]) -> AbstractContextManager[Lease]:
        """Holds the lease `name`; waits (saying so once) while a living owner holds it."""
        ...


class Lease(Protocol):
    """A fenced lease; its token grows with every owner."""

    name: str
    token: int

    def check(self) -> None:
        """Raises WrongStateError if the lease was lost."""
        ...


class LeaseBoard(Protocol):
    """All leases, as one process has seen them over time."""

    def look(self) -> list[Holding]:
        """Every lease that is held, by name."""
        ...

    def claim(self, campaign: str) -> AbstractContextManager[Lease | None]:
        """The right to run a campaign's rounds; None where another has it, or as many run as the project allows."""
        ...

    def enlist(self) -> AbstractContextManager[str]:
        """Holds a place among the schedulers; its name."""
        ...
