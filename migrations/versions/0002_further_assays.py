"""Several assays in one campaign.

A campaign and its rounds may have further dataset versions, and readings of a design are told apart by assay as well.
Rows stay as they are: a campaign made before has no further assay. No table is rebuilt (one index is replaced), and
env.py makes the triggers after this run as after every other.
"""

import sqlalchemy as sa
from alembic import op
from plait.design.errors import WrongStateError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OPEN = "design_id IS NOT NULL AND supersedes_id IS NULL"


def further(table: str, owner: str, *columns: sa.Column | sa.ForeignKeyConstraint) -> None:
    op.create_table(
        table,
        sa.Column(f"{owner}_id", Id, autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("dataset_version_id", Id, nullable=False),
        *columns,
        sa.CheckConstraint("position >= 1", name=op.f(f"ck_{table}_position")),
        sa.ForeignKeyConstraint([f"{owner}_id"], [f"{owner}.id"], name=f"fk_{table}_{owner}_id"),
        sa.ForeignKeyConstraint(["dataset_version_id"], ["dataset_version.id"], name=f"fk_{table}_dataset_version_id"),
        sa.PrimaryKeyConstraint(f"{owner}_id", "position", name=f"pk_{table}"),
    )


def readings_differ_by(*columns: str) -> None:
    where = sa.text(OPEN)
    name = f"uq_measurement_{'_'.join(columns)}"
    op.create_index(name, "measurement", list(columns), unique=True, sqlite_where=where, postgresql_where=where)


def upgrade() -> None:
    further("campaign_assay", "campaign")
    further(
        "round_assay",
        "round",
        sa.Column("next_version_id", Id, nullable=True),
        sa.ForeignKeyConstraint(["next_version_id"], ["dataset_version.id"], name="fk_round_assay_next_version_id"),
    )
    op.drop_index("uq_measurement_design_id_replicate", "measurement")
    readings_differ_by("design_id", "assay_id", "replicate")


def downgrade() -> None:
    number = op.get_bind().execute(sa.text("SELECT count(DISTINCT campaign_id) FROM campaign_assay")).scalar_one()
    if number:
        raise WrongStateError(f"{number} campaigns have several assays, which version 0001 cannot hold")
    op.drop_index("uq_measurement_design_id_assay_id_replicate", "measurement")
    readings_differ_by("design_id", "replicate")
    op.drop_table("round_assay")
    op.drop_table("campaign_assay")
