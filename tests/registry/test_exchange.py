"""The whole registry as one file: between the databases, back, and never half."""

import json
import shutil
import zipfile
from datetime import UTC, datetime
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import sqlalchemy as sa
from plait.campaign.records import NewResult
from plait.design.errors import BadInputError, CorruptArtifactError, WrongStateError
from plait.registry import exchange, upgrades
from plait.registry._columns import metadata
from plait.registry.engine import make_engine, parse_url
from plait.registry.store import Registry

AWKWARD = {"tiny": 5e-324, "third": 1 / 3, "negative zero": -0.0, "z": 1, "a": ["\u00e9\u2028\U0001f9ec", None, True]}


@pytest.fixture
def filled(registry, paired, ordered):
    """Two campaigns with readings, failed wells, models, screenings and words for MLflow."""
    with registry.begin() as uow:
        uow.add_results(ordered, 1, [NewResult("c1-r1-1", 1 / 3), NewResult("c1-r1-2", None)], "lab", None)
        uow.add_screening(ordered, 1, "deny-list", "1", [("c1-r1-1", True, "")])
        done = uow.finish_stage(ordered, 1, "prior", "ab" * 32, AWKWARD, 0.1 + 0.2)
        about = {"kind": "prior", "algorithm": "a", "details": AWKWARD, "stage_run_id": done.id}
        uow.add_model("p", artifact_sha256="cd" * 32, actor="ada", **about)
        uow.promote("p", "champion", "ada")
    return registry


def export(registry, file):
    with ZipFile(file, "w", ZIP_DEFLATED) as archive, exchange.snapshot(text_of(registry)) as connection:
        return exchange.write_tables(connection, archive)


def load(url, file):
    with ZipFile(file) as archive:
        return exchange.read_tables(url, archive)


def text_of(registry):
    return registry.url.render_as_string(hide_password=False)


def rows_of(url):
    engine = make_engine(parse_url(url))
    with engine.begin() as connection:
        found = {
            table.name: [
                tuple(map(repr, row)) for row in connection.execute(sa.select(table).order_by(*table.primary_key))
            ]
            for table in metadata.sorted_tables
            if table.name != "lease"
        }
    engine.dispose()
    return found


@pytest.fixture
def elsewhere(request, url, tmp_path):
    """A database of the other kind, without a registry."""
    if url.startswith("sqlite"):
        return request.getfixturevalue("new_database")("template0")
    return f"sqlite:///{tmp_path / 'elsewhere.db'}"


def test_to_the_other_database_and_back_without_loss(filled, elsewhere, other_url, url, tmp_path):
    there, back = tmp_path / "there.zip", tmp_path / "back.zip"
    contents = export(filled, there)
    assert load(elsewhere, there) == contents
    assert rows_of(elsewhere) == rows_of(url)
    moved = Registry.open(elsewhere)
    moved.check_version()
    assert moved.verify_audit() == filled.verify_audit()
    assert export(moved, back) == contents  # the same hashes
    moved.close()
    load(other_url, back)
    assert rows_of(other_url) == rows_of(url)
    assert dict(contents.tables[0].columns)["created_at"] == "time"
    assert {t.name: t.num_rows for t in contents.tables}["measurement"] == 4 + 2 + 2


def test_a_moved_registry_goes_on(filled, elsewhere, tmp_path):
    export(filled, tmp_path / "r.zip")
    load(elsewhere, tmp_path / "r.zip")
    moved = Registry.open(elsewhere)
    with moved.begin() as uow:
        assert uow.add_results("c1", 1, [NewResult("c1-r1-1", 1 / 3), NewResult("c1-r1-3", 2.0)], "lab", None) == 1
        assert (
            uow.add_model("p", artifact_sha256="ef" * 32, kind="prior", algorithm="a", details={}, actor="eve").version
            == 2
        )
        assert uow.model("p@champion").details == AWKWARD
    for statement in ("UPDATE measurement SET value = 0", "DELETE FROM audit_event"):
        with pytest.raises(sa.exc.IntegrityError, match="is append-only"), moved.begin() as uow:
            uow.connection.execute(sa.text(statement))
    with moved.lease("campaign/c1", print) as lease:
        lease.check()
    assert moved.verify_audit() > filled.verify_audit()
    moved.close()


def test_what_is_written_meanwhile_is_not_in_the_file(filled, url, other_url, tmp_path):
    file = tmp_path / "r.zip"
    before = rows_of(url)
    with ZipFile(file, "w") as archive, exchange.snapshot(url) as connection:
        upgrades.current_revision(connection)  # the transaction has seen the database
        with filled.begin() as uow:
            uow.finish_stage("c1", 1, "select", "ef" * 32, {}, 1.0)
        exchange.write_tables(connection, archive)
    load(other_url, file)
    assert rows_of(other_url) == before != rows_of(url)


def test_a_registry_with_rows_takes_nothing_in(filled, url, tmp_path):
    export(filled, tmp_path / "r.zip")
    before = rows_of(url)
    with pytest.raises(WrongStateError, match="not empty"):
        load(url, tmp_path / "r.zip")
    assert rows_of(url) == before


def test_an_empty_registry_takes_a_file_in(registry, url, elsewhere, tmp_path):
    Registry.create(elsewhere).close()
    contents = export(registry, tmp_path / "r.zip")
    assert (load(elsewhere, tmp_path / "r.zip"), contents.num_rows) == (contents, 1)
    assert rows_of(elsewhere) == rows_of(url)


def rewritten(file, member, change):
    """The same zip with one member changed."""
    with ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content[member] = change(content[member])
    with ZipFile(file, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


CHANGES = [
    ("measurement.jsonl", lambda b: b.replace(b"0.3333333333333333", b"0.3333333333333334"), CorruptArtifactError),
    ("measurement.jsonl", lambda b: b.partition(b"\n")[2], CorruptArtifactError),
    ("measurement.jsonl", lambda b: b"[1]\n" + b, CorruptArtifactError),
    ("manifest.json", lambda b: b.replace(b'"replicate": "text"', b'"nonsense": "text"'), CorruptArtifactError),
    ("manifest.json", lambda b: b.replace(b"registry 1", b"registry 9"), BadInputError),
    ("manifest.json", lambda b: b"[]", BadInputError),
    ("manifest.json", lambda b: b.replace(b'"revision": "0', b'"revision": "9'), WrongStateError),
]


def test_a_changed_file_is_refused_and_nothing_stays(filled, other_url, tmp_path):
    export(filled, tmp_path / "r.zip")
    for member, change, error in CHANGES:
        file = shutil.copy(tmp_path / "r.zip", tmp_path / "changed.zip")
        rewritten(file, member, change)
        with pytest.raises(error):
            load(other_url, file)
    engine = make_engine(parse_url(other_url))
    with engine.begin() as connection:
        assert sa.inspect(connection).get_table_names() == []
    engine.dispose()


def test_a_file_of_an_older_plait_is_brought_up_to_date(registry, ordered, url, other_url, tmp_path):
    file = tmp_path / "r.zip"
    upgrades.migrate(registry.url, "0001")
    engine = make_engine(registry.url)
    with engine.begin() as connection:
        known = set(sa.inspect(connection).get_table_names())
        tables = [t for t in metadata.sorted_tables if t.name in known - {"lease"}]
        with ZipFile(file, "w") as archive:
            parts = []
            for table in tables:
                columns = {c["name"] for c in sa.inspect(connection).get_columns(table.name)}
                old = sa.Table(table.name, sa.MetaData(), *(c._copy() for c in table.c if c.name in columns))
                parts.append(exchange._write(connection, old, archive))
            document = {"format": exchange.FORMAT, "revision": "0001", "tables": [vars(part) for part in parts]}
            archive.writestr("manifest.json", json.dumps(document))
    engine.dispose()
    load(other_url, file)
    registry.upgrade()
    assert rows_of(other_url) == rows_of(url)


def test_times_keep_their_microseconds(registry, url, elsewhere, tmp_path):
    moment = datetime(2026, 11, 21, 23, 59, 59, 999_999, tzinfo=UTC)
    with registry.begin() as uow:
        actor = metadata.tables["actor"]
        uow.connection.execute(actor.insert().values(name="ada", created_at=moment))
    export(registry, tmp_path / "r.zip")
    load(elsewhere, tmp_path / "r.zip")
    assert rows_of(elsewhere)["actor"][0][-1] == repr(moment)


def test_no_file_is_a_pickle(filled, tmp_path):
    export(filled, tmp_path / "r.zip")
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        for name in archive.namelist():
            text = archive.read(name).decode()
            assert [json.loads(line) for line in ([text] if name == "manifest.json" else text.splitlines())] or not text
