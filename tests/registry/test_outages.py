"""PostgreSQL stops in the middle of things, as in a power cut, and comes back: what was begun goes on."""

import threading
import time

import pytest
from plait.design.errors import NotFoundError, UnreachableError, WrongStateError
from plait.registry import outages
from plait.registry.leases import hold
from plait.registry.store import Registry
from plait.registry.tables import sequence

AWAY = 0.5
ABOUT = {"kind": "prior", "algorithm": "a", "details": {}, "actor": "ada"}


@pytest.fixture
def said():
    return []


@pytest.fixture
def registry(unsteady, said):
    url = unsteady.database()
    Registry.create(url).close()
    opened = Registry.open(url, said.append)
    yield opened
    opened.close()


@pytest.fixture
def interrupt(unsteady):
    """Stops the server now and starts it again a little later."""
    threads = []

    def stop_and_start(seconds=AWAY):
        unsteady.stop()
        threads.append(threading.Timer(seconds, unsteady.start))
        threads[-1].start()

    yield stop_and_start
    for thread in threads:
        thread.join()


def audited(registry):
    return registry.transact(
        lambda uow: uow.connection.exec_driver_sql("SELECT action FROM audit_event ORDER BY number").scalars().all()
    )


def test_a_transaction_is_done_again_when_the_database_is_back(registry, said, interrupt):
    tries = []

    def write(uow):
        uow.audit("ada", "test.written", "test")
        tries.append(1)
        if len(tries) == 1:
            interrupt()
        uow.audit("ada", "test.rest", "test")
        return len(tries)

    assert registry.transact(write) == len(tries) == 2
    assert set(said) == {"the database cannot be reached, trying again"}
    assert audited(registry) == ["test.written", "test.rest"]
    assert registry.verify_audit() == 2


def test_a_bulk_copy_that_breaks_off_is_done_again(registry, said, interrupt):
    tries = []

    def rows():
        for number in range(20):
            if number == 10 and len(tries) == 1:
                interrupt()
            yield {"alphabet": "dna", "letters": f"A{number}"}

    def write(uow):
        tries.append(1)
        many = list(rows())
        return uow.insert_many(sequence, many)

    assert len(registry.transact(write)) == 20
    assert len(tries) == 2
    assert registry.transact(lambda uow: len(uow.rows(sequence.select()))) == 20


def test_a_commit_whose_answer_was_lost_is_found_done(registry, unsteady, said, monkeypatch):
    """The server commits and dies before it can say so: the second run finds the first one's work."""
    engine, lost = registry._engine, []
    commit = engine.dialect.do_commit

    def commit_and_die(connection):
        commit(connection)
        if not lost:
            lost.append(1)
            unsteady.stop()
            unsteady.start()
            connection.execute("SELECT 1")  # the driver finds out

    monkeypatch.setattr(engine.dialect, "do_commit", commit_and_die)
    made = registry.transact(lambda uow: uow.add_model("p", artifact_sha256="a" * 64, **ABOUT))
    assert (made.version, len(said)) == (1, 1)
    assert [m.id for m in registry.transact(lambda uow: uow.models())] == [made.id]
    assert audited(registry) == ["model.registered"]


def test_a_lease_outlives_an_outage(registry, said, interrupt):
    with hold(registry._engine, "campaign/c1", said.append, time_to_live=3, poll=0.02) as held:
        interrupt()
        held.check()
        assert set(said) == {"the database cannot be reached, trying again"}
        time.sleep(1)  # its heart beats again
        held.check()
    with hold(registry._engine, "campaign/c1", said.append, poll=0.02) as again:
        assert again.token == held.token + 1


def test_a_lease_that_was_taken_without_an_answer_is_found_taken(registry, said, unsteady, monkeypatch):
    engine, lost = registry._engine, []
    commit = engine.dialect.do_commit

    def commit_and_die(connection):
        commit(connection)
        lost.append(1)
        if len(lost) == 2:  # it looks, then takes
            unsteady.stop()
            unsteady.start()
            connection.execute("SELECT 1")

    with hold(engine, "campaign/c1", said.append, poll=0.02):
        pass
    monkeypatch.setattr(engine.dialect, "do_commit", commit_and_die)
    started = time.monotonic()
    with hold(engine, "campaign/c1", said.append, poll=0.02) as held:
        assert held.token == 2
        held.check()
    assert time.monotonic() - started < 10  # not the 30 s of a stranger


def test_giving_a_lease_back_hides_no_error(registry, unsteady, said, monkeypatch):
    monkeypatch.setattr("plait.registry.leases.RELEASE_PATIENCE", 0.1)

    def stop_and_fail():
        unsteady.stop()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), registry.lease("campaign/c1", said.append):
        stop_and_fail()
    unsteady.start()


def test_patience_ends(registry, unsteady, said):
    url = registry.url
    unsteady.stop()
    with pytest.raises(UnreachableError, match="cannot be reached") as caught:
        outages.outlast(url, registry.check_version, said.append, patience=1)
    unsteady.start()
    assert 2 <= len(said) <= 5
    assert isinstance(caught.value, NotFoundError)
    assert caught.value.exit_code == 4


def test_a_lock_that_stays_is_not_waited_for_for_ever(registry):
    def wait(uow):
        assert uow.connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "1min"
        uow.connection.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")
        uow.lock()

    with registry.begin() as uow:
        uow.lock()
        with pytest.raises(WrongStateError, match="is busy"):
            registry.transact(wait)
