"""What a look at a registry finds, and which artifacts its rows speak of."""

import pytest
from plait.campaign.fingerprints import hashes_in
from plait.registry.checks import check_registry
from plait.registry.references import artifacts_of_models, referred_by
from plait.registry.store import Registry


def broken(url):
    return [finding.check for finding in check_registry(url) if not finding.is_sound]


def test_a_sound_registry_has_nothing_broken(registry, ordered, url):
    assert broken(url) == []
    names = {finding.check for finding in check_registry(url)}
    assert {"revision", "tables", "triggers", "audit trail"} <= names
    assert ("file" in names) == url.startswith("sqlite")


def test_a_database_without_a_registry_is_one_finding(empty_url):
    if empty_url.startswith("sqlite"):
        Registry.create(empty_url).close()
        registry = Registry.open(empty_url)
        with registry.begin() as uow:
            uow.connection.exec_driver_sql("DROP TABLE plait_alembic_version")
        registry.close()
    assert broken(empty_url) == ["revision"]


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        ("ALTER TABLE campaign ADD COLUMN colour TEXT", "tables"),
        ("DROP INDEX ix_measurement_round_id", "tables"),
        ("UPDATE project SET audit_number = audit_number + 1", "audit trail"),
    ],
)
def test_drift_and_forgery_are_found(registry, ordered, url, damage, check):
    with registry.begin() as uow:
        uow.connection.exec_driver_sql(damage)
    assert broken(url) == [check]


def test_a_trigger_that_is_switched_off_is_found(registry, ordered, url):
    with registry.begin() as uow:
        sqlite = "DROP TRIGGER audit_event_no_delete"
        postgresql = "ALTER TABLE audit_event DISABLE TRIGGER audit_event_no_delete"
        uow.connection.exec_driver_sql(sqlite if url.startswith("sqlite") else postgresql)
    assert broken(url) == ["triggers"]


def test_every_hash_in_a_row_is_a_reference_wherever_it_stands(registry, ordered):
    one, two, three, model = (f"{number:064x}" for number in (1, 2, 3, 4))
    with registry.begin() as uow:
        uow.finish_stage(ordered, 1, "prior", "f" * 64, {"deep": [{"in": one}], two: 1, "text": f"sha256:{three}"}, 1.0)
        uow.add_model("p", kind="prior", algorithm="a", artifact_sha256=model, details={}, actor="ada")
        assert {one, two, three, model} <= uow.referred() == referred_by(uow.connection)
        assert f"{5:064x}" not in uow.referred()
        assert artifacts_of_models(uow.connection) == {model}


def test_hashes_are_found_inside_longer_runs_of_digits():
    sha = "0123456789abcdef" * 4
    assert sha in hashes_in(f"ab{sha}cd")
    assert hashes_in(sha[:63]) == set()
