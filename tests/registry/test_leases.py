import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from plait.design.errors import WrongStateError
from plait.registry.leases import hold, process_started
from plait.registry.tables import audit_event, lease
from sqlalchemy import select, update

OWNER = """
import sys, time
from plait.registry.store import Registry
with Registry.open(sys.argv[1]).lease("campaign/c1", print):
    print("held", flush=True)
    time.sleep(600)
"""
SHORT = {"time_to_live": 0.5, "poll": 0.02}


def row(registry):
    with registry._engine.begin() as connection:
        return connection.execute(select(lease)).one()


def pretend(registry, **values):
    """Make the owner somebody else."""
    with registry._engine.begin() as connection:
        connection.execute(update(lease).values(**values))


def no_wait(text):
    raise AssertionError(text)


def test_a_lease_is_held_for_the_block_and_its_token_grows(registry):
    for token in (1, 2, 3):
        with registry.lease("campaign/c1", no_wait) as held:
            held.check()
            assert (held.token, row(registry).pid) == (token, os.getpid())
        assert row(registry).owner is None


def test_it_is_given_back_when_the_block_fails(registry):
    with pytest.raises(ZeroDivisionError), registry.lease("campaign/c1", no_wait):
        1 / 0  # noqa: B018
    with registry.lease("campaign/c1", no_wait) as held:
        held.check()


def test_it_can_be_checked_inside_a_transaction(registry):
    with registry.lease("campaign/c1", no_wait) as held, registry.begin() as uow:
        uow.audit("ada", "test", "test")
        held.check()


def test_a_late_write_is_refused_in_its_own_transaction(registry):
    with registry.lease("campaign/c1", no_wait) as late:
        with registry.begin() as uow:
            uow.fence(late)
            uow.audit("ada", "test", "in time")
        with registry._engine.begin() as connection:
            connection.execute(update(lease).values(token=late.token + 1, owner="another"))

        def write(uow):
            uow.audit("ada", "test", "too late")
            uow.fence(late)

        with pytest.raises(WrongStateError, match="'campaign/c1' was lost"):
            registry.transact(write)
    with registry._engine.begin() as connection:
        subjects = list(
            connection.execute(select(audit_event.c.subject).where(audit_event.c.action == "test")).scalars()
        )
    assert subjects == ["in time"]


def test_nobody_takes_a_lease_over_before_a_fenced_transaction_has_ended(registry):
    with registry.lease("campaign/c1", no_wait) as held:
        order = []

        def take():
            with registry._engine.begin() as connection:
                connection.execute(update(lease).values(token=held.token + 1, owner="another"))
            order.append("taken")

        with registry.begin() as uow:
            uow.fence(held)
            thief = threading.Thread(target=take)
            thief.start()
            time.sleep(0.3)
            order.append("written")
        thief.join()
    assert order == ["written", "taken"]


def test_the_heartbeat_counts_up(registry):
    with hold(registry._engine, "campaign/c1", no_wait, **SHORT):
        time.sleep(0.6)
        assert row(registry).heartbeat >= 1


def test_a_contender_waits_for_a_living_owner_and_says_so_once(registry):
    said, order = [], []

    def contend():
        with hold(registry._engine, "campaign/c1", said.append, **SHORT) as held:
            order.append(("second", held.token))

    with hold(registry._engine, "campaign/c1", no_wait, **SHORT) as held:
        thread = threading.Thread(target=contend)
        thread.start()
        time.sleep(1.5)  # three times the time to live: the heartbeat keeps it
        held.check()
        order.append(("first", held.token))
    thread.join()
    assert order == [("first", 1), ("second", 2)]
    assert len(said) == 1
    assert said[0].startswith(f"campaign/c1 is held by process {os.getpid()} on ")


def test_different_names_do_not_wait_for_each_other(registry):
    with registry.lease("campaign/c1", no_wait), registry.lease("campaign/c2", no_wait) as other:
        other.check()


def test_a_silent_stranger_loses_it_after_its_time_and_not_before(registry):
    with hold(registry._engine, "campaign/c1", no_wait, time_to_live=600, poll=0.02) as stale:
        pretend(registry, host="elsewhere/boot/pid")
        started, said = time.monotonic(), []
        with hold(registry._engine, "campaign/c1", said.append, **SHORT) as held:
            assert time.monotonic() - started >= 0.5
            assert (held.token, len(said)) == (2, 1)
            with pytest.raises(WrongStateError, match="was lost"):
                stale.check()
            assert not stale.beat()
            stale.release()
            held.check()


def test_a_stranger_whose_heart_beats_keeps_it(registry):
    taken = threading.Event()

    def contend():
        with hold(registry._engine, "campaign/c1", said.append, **SHORT):
            taken.set()

    said = []
    with hold(registry._engine, "campaign/c1", no_wait, time_to_live=0.6, poll=0.02) as held:
        pretend(registry, host="elsewhere/boot/pid")
        thread = threading.Thread(target=contend)
        thread.start()
        assert not taken.wait(1.5)
        held.check()
    thread.join()
    assert taken.is_set()


def test_a_killed_owner_is_followed_at_once(registry, url):
    child = subprocess.Popen([sys.executable, "-c", OWNER, url], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    child.send_signal(signal.SIGKILL)
    child.stdout.read()  # it is gone, though nobody has asked for its exit code yet
    started = time.monotonic()
    with registry.lease("campaign/c1", no_wait) as held:
        assert held.token == 2
    assert time.monotonic() - started < 5  # not the 30 s of a stranger
    child.wait()
    child.stdout.close()


def test_a_process_number_used_again_is_not_the_owner(registry):
    with registry.lease("campaign/c1", no_wait) as stale:
        pretend(registry, process_started="another time")
        with registry.lease("campaign/c1", no_wait), pytest.raises(WrongStateError):
            stale.check()


def test_processes_are_told_apart_by_when_they_started():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process_started(os.getpid()) == process_started(os.getpid()) is not None
    assert process_started(child.pid) not in (None, process_started(os.getpid()))
    child.communicate(b"\n")
    assert process_started(child.pid) is None


def test_one_of_many_contenders_wins_each_time(registry):
    inside, most, tokens = [], [], []

    def work():
        for _ in range(5):
            with hold(registry._engine, "campaign/c1", lambda text: None, time_to_live=30, poll=0.01) as held:
                inside.append(1)
                most.append(len(inside))
                tokens.append(held.token)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert sorted(tokens) == tokens == list(range(1, 21))
