"""Schedulers: how campaigns stand with them, how many rounds may run, and when a lease was last heard of.

No table is rebuilt: two columns and one table are added, and rows stay as they are.
"""

import sqlalchemy as sa
from alembic import op
from plait.design.errors import WrongStateError

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("project", sa.Column("max_running", sa.Integer(), nullable=True))
    op.add_column("lease", sa.Column("beat_at", Moment, nullable=True))
    op.create_table(
        "schedule",
        sa.Column("campaign_id", Id, autoincrement=False, nullable=False),
        sa.Column("standing", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("standing_by", Id, nullable=False),
        sa.Column("standing_at", Moment, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("every", sa.Text(), nullable=True),
        sa.Column("event", sa.Text(), nullable=True),
        sa.Column("not_before", Moment, nullable=True),
        sa.Column("queued_at", Moment, nullable=True),
        sa.Column("num_failures", sa.Integer(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=False),
        sa.Column("retry_at", Moment, nullable=True),
        sa.CheckConstraint(
            "standing IN ('active', 'paused', 'cancelled', 'failed')", name=op.f("ck_schedule_standing")
        ),
        sa.CheckConstraint("event IN ('results-complete')", name=op.f("ck_schedule_event")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name="fk_schedule_campaign_id"),
        sa.ForeignKeyConstraint(["standing_by"], ["actor.id"], name="fk_schedule_standing_by"),
        sa.PrimaryKeyConstraint("campaign_id", name="pk_schedule"),
    )


def downgrade() -> None:
    number = op.get_bind().execute(sa.text("SELECT count(*) FROM schedule")).scalar_one()
    if number:
        raise WrongStateError(f"{number} campaigns were paused, queued or retried, which version 0002 cannot hold")
    if op.get_bind().execute(sa.text("SELECT count(*) FROM project WHERE max_running IS NOT NULL")).scalar_one():
        raise WrongStateError(
            "a limit of rounds that run at a time is set, which version 0002 cannot hold",
            hint="lift it first: plait scheduler limit none",
        )
    op.drop_table("schedule")
    op.drop_column("lease", "beat_at")
    op.drop_column("project", "max_running")
