"""The tables of the registry. What changes here needs a migration; a test compares the two."""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, Index, Integer, Table, Text, UniqueConstraint

from plait.campaign.records import RoundState
from plait.registry._columns import (
    Id,
    by,
    count,
    document,
    is_finite,
    is_one_of,
    key,
    metadata,
    moment,
    nth_of,
    number,
    of,
    sha,
    where,
    words,
)
from plait.registry._schedule_tables import schedule as schedule

APPEND_ONLY = ("measurement", "audit_event", "dataset_version", "dataset_version_measurement")
"""Tables whose rows triggers keep as they were written."""

# who ------------------------------------------------------------------------------------------------------------------
project = Table(
    "project",
    metadata,
    key(),
    words(),
    Column("audit_number", Id, nullable=False),
    sha("audit_hash"),
    Column("max_running", Integer, nullable=True),
    moment(),
    UniqueConstraint("name"),
)
actor = Table("actor", metadata, key(), words(), moment(), UniqueConstraint("name"))
audit_event = Table(
    "audit_event",
    metadata,
    key(),
    of("project"),
    Column("number", Id, nullable=False),
    of("actor"),
    words("action"),
    words("subject"),
    document("details"),
    moment(),
    sha("prev_hash"),
    sha("hash"),
    UniqueConstraint("project_id", "number"),
)

# data -----------------------------------------------------------------------------------------------------------------
design_space = Table(
    "design_space",
    metadata,
    key(),
    of("project"),
    sha("sha256"),
    document("document"),
    moment(),
    UniqueConstraint("project_id", "sha256"),
)
assay = Table(
    "assay",
    metadata,
    key(),
    of("project"),
    words(),
    words("unit"),
    words("goal"),
    *by(),
    UniqueConstraint("project_id", "name", "unit", "goal"),
    is_one_of("goal", ("maximize", "minimize")),
)
upload = Table(
    "upload",
    metadata,
    key(),
    of("project"),
    words("filename"),
    sha("sha256"),
    Column("num_bytes", Id, nullable=False),
    *by(),
    UniqueConstraint("project_id", "sha256", "filename"),
)
dataset = Table("dataset", metadata, key(), of("project"), words(), *by(), UniqueConstraint("project_id", "name"))
dataset_version = Table(
    "dataset_version",
    metadata,
    key(),
    of("dataset"),
    count("number"),
    sha("content_hash"),
    of("dataset_version", "parent_id", optional=True),
    of("assay"),
    words("alphabet"),
    count("length"),
    count("num_measurements"),
    count("num_sequences"),
    of("upload", optional=True),
    *by(),
    UniqueConstraint("dataset_id", "number"),
    UniqueConstraint("dataset_id", "content_hash"),
    CheckConstraint("number >= 1 AND length >= 1", name="counts"),
)
sequence = Table(
    "sequence", metadata, key(), words("alphabet"), words("letters"), UniqueConstraint("alphabet", "letters")
)
measurement = Table(
    "measurement",
    metadata,
    key(),
    of("assay"),
    of("sequence"),
    number("value", optional=True),
    words("status"),
    words("replicate"),
    number("std", optional=True),
    words("batch", optional=True),
    of("upload", optional=True),
    of("design", optional=True),
    of("round", optional=True),
    of("measurement", "supersedes_id", optional=True),
    *by(),
    is_one_of("status", ("ok", "failed")),
    is_finite("value"),
    is_finite("std"),
    CheckConstraint("(status = 'failed') = (value IS NULL)", name="value_unless_failed"),
    where("ix_measurement_round_id", "round_id", condition="round_id IS NOT NULL"),
    where("ix_measurement_supersedes_id", "supersedes_id", condition="supersedes_id IS NOT NULL"),
    where(
        "uq_measurement_design_id_assay_id_replicate",
        *("design_id", "assay_id", "replicate"),
        condition="design_id IS NOT NULL AND supersedes_id IS NULL",
        unique=True,
    ),
)
dataset_version_measurement = Table(
    "dataset_version_measurement", metadata, *nth_of("dataset_version", "version_id"), of("measurement")
)

# campaigns ------------------------------------------------------------------------------------------------------------
campaign = Table(
    "campaign",
    metadata,
    key(),
    of("project"),
    words(),
    of("dataset_version"),
    of("design_space"),
    document("config"),
    document("notes"),
    *by(),
    UniqueConstraint("project_id", "name"),
)
campaign_assay = Table(
    "campaign_assay",
    metadata,
    *nth_of("campaign"),
    of("dataset_version"),
    CheckConstraint("position >= 1", name="position"),
)
"""Assays beside a campaign's first."""
round_ = Table(
    "round",
    metadata,
    key(),
    of("campaign"),
    count("number"),
    words("state"),
    of("dataset_version"),
    of("dataset_version", "next_version_id", optional=True),
    *by(),
    UniqueConstraint("campaign_id", "number"),
    is_one_of("state", RoundState),
    CheckConstraint("number >= 1", name="number"),
)
round_assay = Table(
    "round_assay",
    metadata,
    *nth_of("round"),
    of("dataset_version"),
    of("dataset_version", "next_version_id", optional=True),
    CheckConstraint("position >= 1", name="position"),
)
"""What a round learns from, and leaves behind, in each of them."""
approval = Table(
    "approval",
    metadata,
    key(),
    of("round"),
    words("decision"),
    words("reason"),
    *by(),
    UniqueConstraint("round_id"),
    is_one_of("decision", (RoundState.APPROVED, RoundState.REJECTED)),
)
stage_run = Table(
    "stage_run",
    metadata,
    key(),
    of("campaign"),
    count("round_number"),
    words("stage"),
    sha("input_hash"),
    document("outputs"),
    number("seconds"),
    words("mlflow_run_id", optional=True),
    moment("finished_at"),
    UniqueConstraint("campaign_id", "round_number", "stage", "input_hash"),
    CheckConstraint("round_number >= 0", name="round_number"),
)
design = Table(
    "design",
    metadata,
    key(),
    of("round"),
    words(),
    count("rank"),
    of("sequence"),
    *(number(column) for column in ("predicted_mean", "predicted_std", "conservative")),
    words("source"),
    document("details"),
    moment(),
    UniqueConstraint("round_id", "name"),
    UniqueConstraint("round_id", "rank"),
    UniqueConstraint("round_id", "sequence_id"),
    *(is_finite(column) for column in ("predicted_mean", "predicted_std", "conservative")),
)
screening = Table(
    "screening",
    metadata,
    key(),
    of("design"),
    words("tool"),
    words("version"),
    Column("is_cleared", Boolean, nullable=False),
    words("reason"),
    moment(),
    Index("ix_screening_design_id", "design_id"),
)
order_file = Table(
    "order_file", metadata, key(), of("round"), sha("sha256"), *by(), UniqueConstraint("round_id", "sha256")
)

# models ---------------------------------------------------------------------------------------------------------------
artifact = Table("artifact", metadata, key(), sha("sha256"), *by(), UniqueConstraint("sha256"))
model = Table(
    "model",
    metadata,
    key(),
    of("project"),
    words(),
    count("version"),
    words("kind"),
    words("algorithm"),
    of("artifact"),
    document("details"),
    of("dataset_version", optional=True),
    of("stage_run", optional=True),
    words("mlflow_run_id", optional=True),
    *by(),
    UniqueConstraint("project_id", "name", "version"),
    UniqueConstraint("project_id", "name", "artifact_id"),
    is_one_of("kind", ("prior", "reward", "policy")),
)
alias = Table(
    "alias",
    metadata,
    key(),
    of("project"),
    words("model_name"),
    words("alias"),
    of("model"),
    UniqueConstraint("project_id", "model_name", "alias"),
)
alias_history = Table(
    "alias_history", metadata, key(), of("alias"), of("model"), of("model", "previous_model_id", optional=True), *by()
)

# running --------------------------------------------------------------------------------------------------------------
lease = Table(
    "lease",
    metadata,
    Column("name", Text, primary_key=True),
    Column("token", Id, nullable=False),
    Column("heartbeat", Id, nullable=False),
    words("owner", optional=True),
    words("host", optional=True),
    Column("pid", Id, nullable=True),
    words("process_started", optional=True),
    moment("taken_at", optional=True),
    moment("beat_at", optional=True),
)
outbox = Table(
    "outbox",
    metadata,
    key(),
    of("project"),
    words("key"),
    document("message"),
    moment(),
    moment("sent_at", optional=True),
    words("mlflow_run_id", optional=True),
    UniqueConstraint("key"),
)
