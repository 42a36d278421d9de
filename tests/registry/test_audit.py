import pytest
from plait.campaign.records import NewResult
from plait.design.errors import RunFailedError
from plait.registry.audit import verify
from plait.registry.triggers import drop_triggers
from sqlalchemy import text


@pytest.fixture
def history(registry, ordered):
    with registry.begin() as uow:
        uow.add_results(ordered, 1, [NewResult("c1-r1-1", 1.5)], "lab", None)
        uow.audit("ada", "report.written", "campaign/c1", {"sha256": "a" * 64, "share": 1 / 3, "name": "Größe"})
    return registry


def test_every_change_leaves_an_event_that_says_who_did_what(history):
    with history.begin() as uow:
        events = uow.connection.execute(
            text("SELECT action, name FROM audit_event JOIN actor ON actor.id = actor_id ORDER BY number")
        ).all()
    assert events == [
        ("dataset.version_added", "ada"),
        ("campaign.created", "ada"),
        ("round.started", "ada"),
        ("designs.added", "plait"),
        ("round.proposed", "grace"),
        ("round.approved", "grace"),
        ("round.ordered", "grace"),
        ("results.added", "lab"),
        ("report.written", "ada"),
    ]
    assert history.verify_audit() == len(events)


def test_what_changes_nothing_leaves_no_event(history, version, readings, add, designs):
    number = history.verify_audit()
    add(readings)
    with history.begin() as uow:
        uow.add_designs("c1", 1, designs)
        uow.add_round("c1", 1, version.id, "ada")
        uow.add_results("c1", 1, [NewResult("c1-r1-1", 1.5)], "lab", None)
    assert history.verify_audit() == number


TAMPERINGS = {
    "UPDATE audit_event SET action = 'round.rejected' WHERE number = 6": 6,
    "UPDATE audit_event SET details = '{}' WHERE number = 9": 9,
    "UPDATE audit_event SET actor_id = 1 WHERE number = 5": 5,
    "UPDATE actor SET name = 'eve' WHERE name = 'grace'": 5,
    "UPDATE audit_event SET created_at = '2020-01-01 00:00:00' WHERE number = 2": 2,
    "DELETE FROM audit_event WHERE number = 3": 3,
    "DELETE FROM audit_event WHERE number = 9": 9,
    "DELETE FROM audit_event": 1,
}


def test_tampering_is_found_at_its_event(history):
    for statement, number in TAMPERINGS.items():
        with history._engine.connect() as connection, connection.begin() as attempt:
            drop_triggers(connection)
            connection.execute(text(statement))
            with pytest.raises(RunFailedError, match=f"event {number} "):
                verify(connection)
            attempt.rollback()
    assert history.verify_audit() == 9
