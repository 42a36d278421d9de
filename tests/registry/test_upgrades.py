import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from plait.campaign.records import NewResult
from plait.design.errors import NotFoundError, WrongStateError
from plait.registry import upgrades
from plait.registry.engine import make_engine, parse_url
from plait.registry.store import Registry
from plait.registry.tables import APPEND_ONLY, metadata
from sqlalchemy import CheckConstraint, inspect, text
from sqlalchemy.exc import IntegrityError

LATEST = upgrades.known_revisions()[-1]
LATER = f"{int(LATEST) + 1:04}"
WIDER = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{latest}"


def upgrade():
    with op.batch_alter_table("measurement", recreate="{recreate}") as batch:
        batch.add_column(sa.Column("note", sa.Text()))


def downgrade():
    with op.batch_alter_table("measurement", recreate="{recreate}") as batch:
        batch.drop_column("note")
"""


@pytest.fixture
def next_migrations(tmp_path, monkeypatch, url):
    """As a later Plait would find them: one more migration, which rebuilds the measurements on SQLite."""
    copied = tmp_path / "migrations"
    shutil.copytree(upgrades.directory(), copied, ignore=shutil.ignore_patterns("__pycache__"))
    recreate = "always" if url.startswith("sqlite") else "never"
    text_ = WIDER.format(recreate=recreate, revision=LATER, latest=LATEST)
    (copied / "versions" / f"{LATER}_wider.py").write_text(text_)
    monkeypatch.setattr(upgrades, "directory", lambda: copied)
    return monkeypatch


def refuses(registry, statement):
    with pytest.raises(IntegrityError, match="is append-only"), registry.begin() as uow:
        uow.connection.execute(text(statement))


def test_models_and_migrations_agree(empty_url):
    Registry.create(empty_url).close()
    engine = make_engine(parse_url(empty_url))
    options = {"version_table": upgrades.VERSION_TABLE, "compare_type": True, "compare_server_default": True}
    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        checks = {t: inspect(connection).get_check_constraints(t) for t in metadata.tables}
    engine.dispose()
    wanted = {(t.name, c.name) for t in metadata.sorted_tables for c in t.constraints if isinstance(c, CheckConstraint)}
    assert {(table, c["name"]) for table, found in checks.items() for c in found} == wanted
    if empty_url.startswith("sqlite"):  # PostgreSQL writes them in its own words
        texts = {
            str(c.sqltext) for t in metadata.sorted_tables for c in t.constraints if isinstance(c, CheckConstraint)
        }
        assert {c["sqltext"] for found in checks.values() for c in found} == texts


def test_file_names_tell_the_revisions():
    script = ScriptDirectory(str(upgrades.directory()))
    assert sorted(r.revision for r in script.walk_revisions()) == upgrades.known_revisions()
    assert script.get_current_head() == upgrades.known_revisions()[-1]


def test_a_populated_registry_goes_down_and_up_again(registry, ordered, url):
    upgrades.migrate(registry.url, "base")
    with pytest.raises(NotFoundError, match="no registry"):
        registry.check_version()
    with registry._engine.begin() as connection:
        assert set(inspect(connection).get_table_names()) <= {upgrades.VERSION_TABLE}
    registry.upgrade()
    registry.check_version()
    with registry.begin() as uow:
        assert uow.campaigns() == []


def test_append_only_tables_refuse_changes(registry, ordered):
    assert {"measurement", "audit_event"} <= set(APPEND_ONLY)
    for table in APPEND_ONLY:
        column = "position" if table == "dataset_version_measurement" else "id"
        refuses(registry, f"UPDATE {table} SET {column} = {column} + 1000")
        refuses(registry, f"DELETE FROM {table}")


def test_a_row_cannot_be_replaced_in_place(registry, version):
    with registry.begin() as uow:
        is_sqlite = uow.connection.dialect.name == "sqlite"
    refuses(
        registry,
        "INSERT OR REPLACE INTO measurement SELECT * FROM measurement" if is_sqlite else "TRUNCATE measurement CASCADE",
    )


def test_a_rebuilt_table_keeps_its_rows_and_is_still_append_only(registry, ordered, readings, version, next_migrations):
    with pytest.raises(WrongStateError, match=f"is at version {LATEST}, this Plait needs {LATER}") as caught:
        registry.check_version()
    assert "plait init" in caught.value.hint
    for target in ("head", LATEST, "head"):
        upgrades.migrate(registry.url, target)
        with registry.begin() as uow:
            assert uow.readings(version.id).sequences == readings.sequences
            columns = {c["name"] for c in inspect(uow.connection).get_columns("measurement")}
        assert ("note" in columns) == (target == "head")
        refuses(registry, "UPDATE measurement SET value = 0")
        refuses(registry, "DELETE FROM measurement")
    registry.check_version()


def copy_rows(source, target, tables):
    """Every row of `tables` as it is, with the counters of PostgreSQL behind the last key."""
    rows = rows_of(source, tables)
    with target.begin() as connection:
        connection.execute(metadata.tables["project"].delete())
        for table in tables:
            if rows[table.name]:
                connection.execute(table.insert(), [dict(row) for row in rows[table.name]])
            if "id" in table.c and target.dialect.name == "postgresql":
                last = f'(SELECT max(id) FROM "{table.name}")'
                connection.execute(text(f"SELECT setval(pg_get_serial_sequence('\"{table.name}\"', 'id'), {last})"))
    return rows


def rows_of(engine, tables):
    with engine.begin() as connection:
        return {table.name: connection.execute(sa.select(table)).mappings().all() for table in tables}


def indexes_of(engine):
    with engine.begin() as connection:
        return {index["name"] for index in inspect(connection).get_indexes("measurement")}


def test_a_home_made_at_0001_keeps_its_rows_and_goes_on(registry, ordered, version, other_url):
    with registry.begin() as uow:
        uow.add_results(ordered, 1, [NewResult("c1-r1-1", 1.0), NewResult("c1-r1-2", None)], "lab", None)
    old = parse_url(other_url)
    upgrades.migrate(old, "0001")
    engine = make_engine(old)
    old_tables = sa.MetaData()
    old_tables.reflect(engine)
    known = set(old_tables.tables)
    tables = [
        sa.table(t.name, *(sa.column(c.name, c.type) for c in t.c if c.name in old_tables.tables[t.name].c))
        for t in metadata.sorted_tables
        if t.name in known
    ]
    assert {t.name for t in metadata.sorted_tables} - known == {"campaign_assay", "round_assay", "schedule"}
    rows = copy_rows(registry._engine, engine, tables)
    assert len(rows["measurement"]) == 4 + 2
    assert "uq_measurement_design_id_replicate" in indexes_of(engine)
    upgraded = Registry.create(other_url)
    with upgraded.begin() as uow:
        assert uow.rounds(ordered)[0].further == ()
        assert [(r.design_id, r.value, r.assay) for r in uow.results(ordered)] == [
            ("c1-r1-1", 1.0, "brca2"),
            ("c1-r1-2", None, "brca2"),
        ]
    assert rows_of(engine, tables) == rows
    assert "uq_measurement_design_id_replicate" not in indexes_of(engine)
    upgraded.check_version()
    assert upgraded.verify_audit() == len(rows["audit_event"])
    for table in APPEND_ONLY:
        column = "position" if table == "dataset_version_measurement" else "id"
        refuses(upgraded, f"UPDATE {table} SET {column} = {column} + 1000")
        refuses(upgraded, f"DELETE FROM {table}")
    with upgraded.begin() as uow:
        assert uow.add_results(ordered, 1, [NewResult("c1-r1-1", 1.0), NewResult("c1-r1-3", 2.0)], "lab", None) == 1
    with pytest.raises(WrongStateError, match="registered as 1 in brca2, not 5"), upgraded.begin() as uow:
        uow.add_results(ordered, 1, [NewResult("c1-r1-1", 5.0)], "lab", None)
    upgraded.close()
    engine.dispose()


def test_going_back_to_0001_is_refused_only_with_several_assays(registry, ordered, request):
    upgrades.migrate(registry.url, "0001")
    assert "uq_measurement_design_id_replicate" in indexes_of(registry._engine)
    registry.upgrade()
    paired = request.getfixturevalue("paired")
    with pytest.raises(WrongStateError, match="1 campaigns have several assays"):
        upgrades.migrate(registry.url, "0001")
    registry.check_version()
    with registry.begin() as uow:
        assert uow.campaign(paired).assays == ("brca2", "kd")


def test_a_newer_registry_is_refused(registry, url, next_migrations):
    registry.upgrade()
    next_migrations.undo()
    for step in (registry.check_version, registry.upgrade, lambda: Registry.create(url)):
        with pytest.raises(WrongStateError, match="written by a newer Plait") as caught:
            step()
        assert "upgrade Plait" in caught.value.hint


def test_a_failed_migration_changes_nothing(registry, version, next_migrations):
    broken = upgrades.directory() / "versions" / f"{LATER}_wider.py"
    broken.write_text(
        broken.read_text().replace("\n\ndef downgrade", "    op.execute('SELECT 1/0 FROM nowhere')\n\ndef downgrade")
    )
    with pytest.raises(Exception, match="nowhere"):
        registry.upgrade()
    with registry.begin() as uow:
        assert upgrades.current_revision(uow.connection) == LATEST
        assert "note" not in {c["name"] for c in inspect(uow.connection).get_columns("measurement")}
    refuses(registry, "DELETE FROM measurement")


def test_migrations_are_found_in_this_checkout_and_shipped_in_the_wheel():
    import tomllib

    top = Path(__file__).parents[2]
    project = tomllib.loads((top / "pyproject.toml").read_text())
    shipped = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert upgrades.directory() == top / "migrations"
    assert shipped["migrations"] == "plait/registry/migrations"
