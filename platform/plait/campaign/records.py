"""Records that use cases read and write: frozen, plain, JSON-able by `dataclasses.asdict`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from plait.design.records import Goal


class RoundState(StrEnum):
    """Where a round stands."""

    RUNNING = "running"  # stages before PROPOSED
    PROPOSED = "proposed"
    APPROVED = "approved"
    REJECTED = "rejected"
    ORDERED = "ordered"
    MEASURING = "measuring"
    MEASURED = "measured"
    CLOSED = "closed"


ALLOWED_MOVES: dict[RoundState, frozenset[RoundState]] = {
    RoundState.RUNNING: frozenset({RoundState.PROPOSED}),
    RoundState.PROPOSED: frozenset({RoundState.APPROVED, RoundState.REJECTED}),
    RoundState.APPROVED: frozenset({RoundState.ORDERED}),
    RoundState.REJECTED: frozenset(),
    RoundState.ORDERED: frozenset({RoundState.MEASURING, RoundState.MEASURED, RoundState.CLOSED}),
    RoundState.MEASURING: frozenset({RoundState.MEASURING, RoundState.MEASURED, RoundState.CLOSED}),
    RoundState.MEASURED: frozenset({RoundState.CLOSED}),
    RoundState.CLOSED: frozenset(),
}


@dataclass(frozen=True)
class DatasetVersion:
    """An immutable set of readings. id is its content hash (64 hex digits)."""

    id: str
    dataset: str
    number: int
    alphabet: str
    length: int
    unit: str
    goal: Goal
    num_measurements: int
    num_sequences: int
    created_at: datetime
    created_by: str
    parent_id: str | None = None
    upload_sha256: str | None = None


@dataclass(frozen=True)
class Upload:
    """A file that came in: name, hex SHA-256, size in bytes."""

    filename: str
    sha256: str
    num_bytes: int


@dataclass(frozen=True)
class AssayVersion:
    """The version of a dataset that a further assay stands at; next_version_id is what a closed round left behind."""

    dataset: str
    version_id: str
    next_version_id: str | None = None


@dataclass(frozen=True)
class Campaign:
    """A campaign: its configuration, design space and offline data as fixed at creation (JSON documents).

    An assay goes by the name of its dataset: `dataset` is the campaign's own, `further` are those beside it.
    """

    id: int
    name: str
    dataset: str
    dataset_version_id: str
    config: dict[str, Any]
    space: dict[str, Any]
    state: str
    created_at: datetime
    created_by: str
    notes: tuple[str, ...] = ()
    further: tuple[AssayVersion, ...] = ()

    @property
    def assays(self) -> tuple[str, ...]:
        """Every assay by its dataset's name, the campaign's own first."""
        return self.dataset, *(assay.dataset for assay in self.further)


@dataclass(frozen=True)
class Round:
    """One turn of the loop. dataset_version_id is what it learns from; next_version_id what it left behind.

    `further` says the same of the campaign's further assays, in their order.
    """

    id: int
    campaign: str
    number: int
    state: RoundState
    dataset_version_id: str
    next_version_id: str | None
    created_at: datetime
    further: tuple[AssayVersion, ...] = ()


@dataclass(frozen=True)
class StageRun:
    """A finished stage, keyed by (campaign, round, stage, input_hash). round 0 belongs to the campaign as a whole.

    outputs is a JSON document: artifact hashes and small values. curves: name -> [(step, value), ...].
    """

    id: int
    campaign: str
    round: int
    stage: str
    input_hash: str
    outputs: dict[str, Any]
    seconds: float
    finished_at: datetime
    mlflow_run_id: str | None = None


@dataclass(frozen=True)
class Model:
    """A registered model version. kind: prior, reward, policy. id counts up over the whole home."""

    id: int
    name: str
    version: int
    kind: str
    algorithm: str
    artifact_sha256: str
    details: dict[str, Any]
    aliases: tuple[str, ...]
    created_at: datetime
    created_by: str
    dataset_version_id: str | None = None
    stage_run_id: int | None = None
    mlflow_run_id: str | None = None


@dataclass(frozen=True)
class Design:
    """A design of a round. design_id is CAMPAIGN-rN-RANK; predictions in the assay's unit and direction."""

    design_id: str
    campaign: str
    round: int
    rank: int
    sequence: str
    predicted_mean: float
    predicted_std: float
    conservative: float
    source: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """One reading of a design in one assay (its dataset's name); value None means that the well failed."""

    design_id: str
    value: float | None
    replicate: str
    actor: str
    created_at: datetime
    assay: str


@dataclass(frozen=True)
class NewResult:
    """A reading about to be registered; assay None is the campaign's own."""

    design_id: str
    value: float | None
    replicate: str = "1"
    assay: str | None = None


@dataclass(frozen=True)
class Approval:
    """Who let a round go, or stopped it."""

    round: int
    decision: str
    actor: str
    reason: str
    created_at: datetime


@dataclass(frozen=True)
class OutboxMessage:
    """A run that MLflow is still to be told about.

    Attributes:
        key: Unique for ever; the tracker finds a run it already wrote by it.
        experiment: MLflow experiment.
        run_name: Shown name.
        params: Flat parameters.
        metrics: Final values.
        curves: Name -> [(step, value), ...].
        dataset: {"name", "version", "id"} of the input data, for log_input, or None.
        model: {"registry_id", "name", "version", "kind", "artifact"} to register, or None.
        stage_run_id: The stage run that gets the MLflow run id.
    """

    key: str
    experiment: str
    run_name: str
    params: dict[str, Any]
    metrics: dict[str, float]
    curves: dict[str, list[tuple[int, float]]]
    dataset: dict[str, Any] | None
    model: dict[str, Any] | None
    stage_run_id: int | None = None
