"""The first tables.

The triggers that keep measurements and audit events append-only are made by env.py after every run.
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Time = sa.DateTime(timezone=True)
TABLES = (
    "dataset_version_measurement",
    "alias_history",
    "screening",
    "measurement",
    "alias",
    "order_file",
    "model",
    "design",
    "approval",
    "stage_run",
    "round",
    "campaign",
    "dataset_version",
    "upload",
    "outbox",
    "design_space",
    "dataset",
    "audit_event",
    "assay",
    "artifact",
    "sequence",
    "project",
    "lease",
    "actor",
)


def finite(column: str) -> str:
    return f"{column} = {column} AND {column} BETWEEN -1.7976931348623157e308 AND 1.7976931348623157e308"


def upgrade() -> None:
    op.create_table(
        "actor",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_actor"),
        sa.UniqueConstraint("name", name="uq_actor_name"),
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token", Id, nullable=False),
        sa.Column("heartbeat", Id, nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("host", sa.Text(), nullable=True),
        sa.Column("pid", Id, nullable=True),
        sa.Column("process_started", sa.Text(), nullable=True),
        sa.Column("taken_at", Time, nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_lease"),
    )
    op.create_table(
        "project",
        sa.Column("id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("audit_number", Id, nullable=False),
        sa.Column("audit_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_project"),
        sa.UniqueConstraint("name", name="uq_project_name"),
    )
    op.create_table(
        "sequence",
        sa.Column("id", Id, nullable=False),
        sa.Column("alphabet", sa.Text(), nullable=False),
        sa.Column("letters", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sequence"),
        sa.UniqueConstraint("alphabet", "letters", name="uq_sequence_alphabet_letters"),
    )
    op.create_table(
        "artifact",
        sa.Column("id", Id, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["actor.id"], name="fk_artifact_created_by"),
        sa.PrimaryKeyConstraint("id", name="pk_artifact"),
        sa.UniqueConstraint("sha256", name="uq_artifact_sha256"),
    )
    op.create_table(
        "assay",
        sa.Column("id", Id, nullable=False),
        sa.Column("project_id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("goal", sa.Text(), nullable=False),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.CheckConstraint("goal IN ('maximize', 'minimize')", name=op.f("ck_assay_goal")),
        sa.ForeignKeyConstraint(["created_by"], ["actor.id"], name="fk_assay_created_by"),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name="fk_assay_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_assay"),
        sa.UniqueConstraint("project_id", "name", "unit", "goal", name="uq_assay_project_id_name_unit_goal"),
    )
    op.create_table(
        "audit_event",
        sa.Column("id", Id, nullable=False),
        sa.Column("project_id", Id, nullable=False),
        sa.Column("number", Id, nullable=False),
        sa.Column("actor_id", Id, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("prev_hash", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["actor_id"], ["actor.id"], name="fk_audit_event_actor_id"),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name="fk_audit_event_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_audit_event"),
        sa.UniqueConstraint("project_id", "number", name="uq_audit_event_project_id_number"),
    )
    op.create_table(
        "dataset",
        sa.Column("id", Id, nullable=False),
        sa.Column("project_id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["actor.id"], name="fk_dataset_created_by"),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name="fk_dataset_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_dataset"),
        sa.UniqueConstraint("project_id", "name", name="uq_dataset_project_id_name"),
    )
    op.create_table(
        "design_space",
        sa.Column("id", Id, nullable=False),
        sa.Column("project_id", Id, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name="fk_design_space_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_design_space"),
        sa.UniqueConstraint("project_id", "sha256", name="uq_design_space_project_id_sha256"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", Id, nullable=False),
        sa.Column("project_id", Id, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("message", sa.JSON(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("sent_at", Time, nullable=True),
        sa.Column("mlflow_run_id", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name="fk_outbox_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("key", name="uq_outbox_key"),
    )
    op.create_table(
        "upload",
        sa.Column("id", Id, nullable=False),
        sa.Column("project_id", Id, nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("num_bytes", Id, nullable=False),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["actor.id"], name="fk_upload_created_by"),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name="fk_upload_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_upload"),
        sa.UniqueConstraint("project_id", "sha256", "filename", name="uq_upload_project_id_sha256_filename"),
    )
    op.create_table(
        "dataset_version",
        sa.Column("id", Id, nullable=False),
        sa.Column("dataset_id", Id, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("parent_id", Id, nullable=True),
        sa.Column("assay_id", Id, nullable=False),
        sa.Column("alphabet", sa.Text(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("num_measurements", sa.Integer(), nullable=False),
        sa.Column("num_sequences", sa.Integer(), nullable=False),
        sa.Column("upload_id", Id, nullable=True),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.CheckConstraint("number >= 1 AND length >= 1", name=op.f("ck_dataset_version_counts")),
        sa.ForeignKeyConstraint(["assay_id"], ["assay.id"], name="fk_dataset_version_assay_id"),
        sa.ForeignKeyConstraint(["created_by"], ["actor.id"], name="fk_dataset_version_created_by"),
        sa.ForeignKeyConstraint(["dataset_id"], ["dataset.id"], name="fk_dataset_version_dataset_id"),
        sa.ForeignKeyConstraint(["parent_id"], ["dataset_version.id"], name="fk_dataset_version_parent_id"),
        sa.ForeignKeyConstraint(["upload_id"], ["upload.id"], name="fk_dataset_version_upload_id"),
        sa.PrimaryKeyConstraint("id", name="pk_dataset_version"),
        sa.UniqueConstraint("dataset_id", "content_hash", name="uq_dataset_version_dataset_id_content_hash"),
        sa.UniqueConstraint("dataset_id", "number", name="uq_dataset_version_dataset_id_number"),
    )
    op.create_table(
        "campaign",
        sa.Column("id", Id, nullable=False),
        sa.Column("project_id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("dataset_version_id", Id, nullable=False),
        sa.Column("design_space_id", Id, nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["actor.id"], name="fk_campaign_created_by"),
        sa.ForeignKeyConstraint(["dataset_version_id"], ["dataset_version.id"], name="fk_campaign_dataset_version_id"),
        sa.ForeignKeyConstraint(["design_space_id"], ["design_space.id"], name="fk_campaign_design_space_id"),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name="fk_campaign_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_campaign"),
        sa.UniqueConstraint("project_id", "name", name="uq_campaign_project_id_name"),
    )
    op.create_table(
        "round",
        sa.Column("id", Id, nullable=False),
        sa.Column("campaign_id", Id, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("dataset_version_id", Id, nullable=False),
        sa.Column("next_version_id", Id, nullable=True),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.CheckConstraint(
            "state IN ('running', 'proposed', 'approved', 'rejected', 'ordered', 'measuring', 'measured', 'closed')",
            name=op.f("ck_round_state"),
        ),
        sa.CheckConstraint("number >= 1", name=op.f("ck_round_number")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name="fk_round_campaign_id"),
        sa.ForeignKeyConstraint(["created_by"], ["actor.id"], name="fk_round_created_by"),
        sa.ForeignKeyConstraint(["dataset_version_id"], ["dataset_version.id"], name="fk_round_dataset_version_id"),
        sa.ForeignKeyConstraint(["next_version_id"], ["dataset_version.id"], name="fk_round_next_version_id"),
        sa.PrimaryKeyConstraint("id", name="pk_round"),
        sa.UniqueConstraint("campaign_id", "number", name="uq_round_campaign_id_number"),
    )
    op.create_table(
        "stage_run",
        sa.Column("id", Id, nullable=False),
        sa.Column("campaign_id", Id, nullable=False),
        sa.Column("round_number", sa.Integer(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("input_hash", sa.String(length=64), nullable=False),
        sa.Column("outputs", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("mlflow_run_id", sa.Text(), nullable=True),
        sa.Column("finished_at", Time, nullable=False),
        sa.CheckConstraint("round_number >= 0", name=op.f("ck_stage_run_round_number")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name="fk_stage_run_campaign_id"),
        sa.PrimaryKeyConstraint("id", name="pk_stage_run"),
        sa.UniqueConstraint(
            "campaign_id",
            "round_number",
            "stage",
            "input_hash",
            name="uq_stage_run_campaign_id_round_number_stage_input_hash",
        ),
    )
    op.create_table(
        "approval",
        sa.Column("id", Id, nullable=False),
        sa.Column("round_id", Id, nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.CheckConstraint("decision IN ('approved', 'rejected')", name=op.f("ck_approval_decision")),
        sa.ForeignKeyConstraint(["created_by"], ["actor.id"], name="fk_approval_created_by"),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name="fk_approval_round_id"),
        sa.PrimaryKeyConstraint("id", name="pk_approval"),
        sa.UniqueConstraint("round_id", name="uq_approval_round_id"),
    )
    op.create_table(
        "design",
        sa.Column("id", Id, nullable=False),
        sa.Column("round_id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("sequence_id", Id, nullable=False),
        sa.Column("predicted_mean", sa.Double(), nullable=False),
        sa.Column("predicted_std", sa.Double(), nullable=False),
        sa.Column("conservative", sa.Double(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.CheckConstraint(finite("conservative"), name=op.f("ck_design_conservative_finite")),
        sa.CheckConstraint(finite("predicted_mean"), name=op.f("ck_design_predicted_mean_finite")),
        sa.CheckConstraint(finite("predicted_std"), name=op.f("ck_design_predicted_std_finite")),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name="fk_design_round_id"),
        sa.ForeignKeyConstraint(["sequence_id"], ["sequence.id"], name="fk_design_sequence_id"),
        sa.PrimaryKeyConstraint("id", name="pk_design"),
        sa.UniqueConstraint("round_id", "name", name="uq_design_round_id_name"),
        sa.UniqueConstraint("round_id", "rank", name="uq_design_round_id_rank"),
        sa.UniqueConstraint("round_id", "sequence_id", name="uq_design_round_id_sequence_id"),
    )
    op.create_table(
        "model",
        sa.Column("id", Id, nullable=False),
        sa.Column("project_id", Id, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.Column("artifact_id", Id, nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("dataset_version_id", Id, nullable=True),
        sa.Column("stage_run_id", Id, nullable=True),
        sa.Column("mlflow_run_id", sa.Text(), nullable=True),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.CheckConstraint("kind IN ('prior', 'reward', 'policy')", name=op.f("ck_model_kind")),
        sa.ForeignKeyConstraint(["artifact_id"], ["artifact.id"], name="fk_model_artifact_id"),
        sa.ForeignKeyConstraint(["created_by"], ["actor.id"], name="fk_model_created_by"),
        sa.ForeignKeyConstraint(["dataset_version_id"], ["dataset_version.id"], name="fk_model_dataset_version_id"),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name="fk_model_project_id"),
        sa.ForeignKeyConstraint(["stage_run_id"], ["stage_run.id"], name="fk_model_stage_run_id"),
        sa.PrimaryKeyConstraint("id", name="pk_model"),
        sa.UniqueConstraint("project_id", "name", "artifact_id", name="uq_model_project_id_name_artifact_id"),
        sa.UniqueConstraint("project_id", "name", "version", name="uq_model_project_id_name_version"),
    )
    op.create_table(
        "order_file",
        sa.Column("id", Id, nullable=False),
        sa.Column("round_id", Id, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["actor.id"], name="fk_order_file_created_by"),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name="fk_order_file_round_id"),
        sa.PrimaryKeyConstraint("id", name="pk_order_file"),
        sa.UniqueConstraint("round_id", "sha256", name="uq_order_file_round_id_sha256"),
    )
    op.create_table(
        "alias",
        sa.Column("id", Id, nullable=False),
        sa.Column("project_id", Id, nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("model_id", Id, nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name="fk_alias_model_id"),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name="fk_alias_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_alias"),
        sa.UniqueConstraint("project_id", "model_name", "alias", name="uq_alias_project_id_model_name_alias"),
    )
    op.create_table(
        "measurement",
        sa.Column("id", Id, nullable=False),
        sa.Column("assay_id", Id, nullable=False),
        sa.Column("sequence_id", Id, nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("replicate", sa.Text(), nullable=False),
        sa.Column("std", sa.Double(), nullable=True),
        sa.Column("batch", sa.Text(), nullable=True),
        sa.Column("upload_id", Id, nullable=True),
        sa.Column("design_id", Id, nullable=True),
        sa.Column("round_id", Id, nullable=True),
        sa.Column("supersedes_id", Id, nullable=True),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.CheckConstraint("(status = 'failed') = (value IS NULL)", name=op.f("ck_measurement_value_unless_failed")),
        sa.CheckConstraint("status IN ('ok', 'failed')", name=op.f("ck_measurement_status")),
        sa.CheckConstraint(finite("std"), name=op.f("ck_measurement_std_finite")),
        sa.CheckConstraint(finite("value"), name=op.f("ck_measurement_value_finite")),
        sa.ForeignKeyConstraint(["assay_id"], ["assay.id"], name="fk_measurement_assay_id"),
        sa.ForeignKeyConstraint(["created_by"], ["actor.id"], name="fk_measurement_created_by"),
        sa.ForeignKeyConstraint(["design_id"], ["design.id"], name="fk_measurement_design_id"),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name="fk_measurement_round_id"),
        sa.ForeignKeyConstraint(["sequence_id"], ["sequence.id"], name="fk_measurement_sequence_id"),
        sa.ForeignKeyConstraint(["supersedes_id"], ["measurement.id"], name="fk_measurement_supersedes_id"),
        sa.ForeignKeyConstraint(["upload_id"], ["upload.id"], name="fk_measurement_upload_id"),
        sa.PrimaryKeyConstraint("id", name="pk_measurement"),
    )
    for name, columns, condition in (
        ("ix_measurement_round_id", ["round_id"], "round_id IS NOT NULL"),
        ("ix_measurement_supersedes_id", ["supersedes_id"], "supersedes_id IS NOT NULL"),
        (
            "uq_measurement_design_id_replicate",
            ["design_id", "replicate"],
            "design_id IS NOT NULL AND supersedes_id IS NULL",
        ),
    ):
        where = sa.text(condition)
        is_unique = name.startswith("uq")
        op.create_index(name, "measurement", columns, unique=is_unique, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "screening",
        sa.Column("id", Id, nullable=False),
        sa.Column("design_id", Id, nullable=False),
        sa.Column("tool", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("is_cleared", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.ForeignKeyConstraint(["design_id"], ["design.id"], name="fk_screening_design_id"),
        sa.PrimaryKeyConstraint("id", name="pk_screening"),
    )
    op.create_index("ix_screening_design_id", "screening", ["design_id"], unique=False)
    op.create_table(
        "alias_history",
        sa.Column("id", Id, nullable=False),
        sa.Column("alias_id", Id, nullable=False),
        sa.Column("model_id", Id, nullable=False),
        sa.Column("previous_model_id", Id, nullable=True),
        sa.Column("created_by", Id, nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.ForeignKeyConstraint(["alias_id"], ["alias.id"], name="fk_alias_history_alias_id"),
        sa.ForeignKeyConstraint(["created_by"], ["actor.id"], name="fk_alias_history_created_by"),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name="fk_alias_history_model_id"),
        sa.ForeignKeyConstraint(["previous_model_id"], ["model.id"], name="fk_alias_history_previous_model_id"),
        sa.PrimaryKeyConstraint("id", name="pk_alias_history"),
    )
    op.create_table(
        "dataset_version_measurement",
        sa.Column("version_id", Id, autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("measurement_id", Id, nullable=False),
        sa.ForeignKeyConstraint(
            ["measurement_id"], ["measurement.id"], name="fk_dataset_version_measurement_measurement_id"
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["dataset_version.id"], name="fk_dataset_version_measurement_version_id"
        ),
        sa.PrimaryKeyConstraint("version_id", "position", name="pk_dataset_version_measurement"),
    )
    project = sa.table(
        "project", sa.column("name"), sa.column("audit_number"), sa.column("audit_hash"), sa.column("created_at", Time)
    )
    first = {"name": "default", "audit_number": 0, "audit_hash": "0" * 64, "created_at": datetime.now(UTC)}
    op.bulk_insert(project, [first])


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
