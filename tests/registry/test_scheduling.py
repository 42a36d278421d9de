import signal
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from plait.campaign import stopping
from plait.campaign.records import NewResult, RoundState
from plait.campaign.schedules import RESULTS_COMPLETE, Retrying, Schedule, Standing
from plait.campaign.scheduling import note_failure, note_success, survey
from plait.design.errors import NotFoundError, StoppedError, WrongStateError
from plait.registry import upgrades
from plait.registry.claims import LeaseBoard
from plait.registry.store import Registry
from plait.registry.tables import audit_event, lease
from sqlalchemy import select, update

SOON = datetime(2026, 12, 1, 9, tzinfo=UTC)


def actions(registry):
    with registry.begin() as uow:
        return [(e.action, e.details) for e in uow.rows(select(audit_event).order_by(audit_event.c.number))]


def pretend(registry, name, **values):
    """Make the owner of a lease somebody else."""
    with registry._engine.begin() as connection:
        connection.execute(update(lease).where(lease.c.name == name).values(**values))


def test_a_campaign_of_which_nothing_was_said_is_active(registry, campaign):
    with registry.read() as uow:
        assert uow.schedules() == {"c1": Schedule("c1")}
        assert uow.max_running() is None
        with pytest.raises(NotFoundError, match="no campaign 'c9'"):
            uow.schedule("c9")


def test_a_schedule_comes_back_as_it_was_given_and_is_on_record(registry, campaign):
    wanted = Schedule("c1", priority=3, every="monday 09:00", when=RESULTS_COMPLETE, not_before=SOON)
    with registry.begin() as uow:
        uow.put_schedule(wanted, "campaign.queued", "ada")
    with registry.begin() as uow:
        kept = uow.schedule("c1")
        assert kept == replace(wanted, by="ada", since=kept.since, queued_at=kept.queued_at)
        assert abs(kept.queued_at - uow.clock()) < timedelta(seconds=30)
        paused = uow.put_schedule(replace(kept, standing=Standing.PAUSED, reason="why"), "campaign.paused", "eve")
    assert (paused.by, paused.reason, paused.queued_at, paused.priority) == ("eve", "why", kept.queued_at, 3)
    assert actions(registry)[-2:] == [
        (
            "campaign.queued",
            {"priority": 3, "every": "monday 09:00", "when": "results-complete", "not_before": str(SOON)},
        ),
        ("campaign.paused", {"standing": "paused", "reason": "why"}),
    ]
    assert registry.verify_audit() == len(actions(registry))


def test_failures_are_counted_waited_out_and_end(registry, campaign):
    retrying = Retrying(max_failures=2, first_pause=600)
    with registry.begin() as uow:
        first = note_failure(uow, "c1", "the disk is full", retrying, may_pass=True)
        assert abs(first.retry_at - uow.clock() - timedelta(seconds=600)) < timedelta(seconds=2)
        (seen,) = survey(uow)
    assert (first.standing, first.num_failures, seen.is_due) == (Standing.ACTIVE, 1, False)
    assert seen.why_not.startswith("tried again at ")
    with registry.begin() as uow:
        second = note_failure(uow, "c1", "still full", retrying, may_pass=True)
        (seen,) = survey(uow)
    assert (second.standing, second.by, second.reason) == (Standing.FAILED, "scheduler", "still full")
    assert seen.why_not.endswith("still full")
    with registry.begin() as uow:
        note_success(uow, "c1")
        assert uow.schedule("c1") == replace(
            second, standing=Standing.ACTIVE, reason="", num_failures=0, failure="", since=uow.schedule("c1").since
        )
        assert survey(uow)[0].is_due


def test_a_failure_counts_once_though_the_answer_was_lost(registry, campaign):
    for _ in range(2):
        with registry.begin() as uow:
            counted = note_failure(uow, "c1", "killed", Retrying(), may_pass=True, known=0)
    assert counted.num_failures == 1
    with registry.begin() as uow:
        assert note_failure(uow, "c1", "killed", Retrying(), may_pass=True, known=1).num_failures == 2


def test_what_cannot_pass_is_given_up_at_once_and_a_pause_outlives_it(registry, campaign):
    with registry.begin() as uow:
        assert note_failure(uow, "c1", "bad", Retrying(), may_pass=False).standing is Standing.FAILED
        uow.put_schedule(Schedule("c1", standing=Standing.PAUSED, reason="mine"), "campaign.paused", "ada")
        after = note_failure(uow, "c1", "worse", Retrying(), may_pass=False)
    assert (after.standing, after.reason, after.failure) == (Standing.PAUSED, "mine", "worse")


def test_campaigns_come_by_priority_then_age(registry, campaign, version):
    with registry.begin() as uow:
        for name in ("c2", "c3", "c4"):
            uow.add_campaign(name, dataset_version_id=version.id, config={}, space={}, notes=[], actor="ada")
        uow.put_schedule(Schedule("c3", priority=1), "campaign.queued", "ada")
        uow.put_schedule(Schedule("c1", priority=-1), "campaign.queued", "ada")
        assert [o.campaign for o in survey(uow)] == ["c3", "c2", "c4", "c1"]


def test_a_rhythm_counts_from_the_close_of_the_round_before(registry, ordered):
    with registry.begin() as uow:
        uow.put_schedule(Schedule(ordered, every="1 hours"), "campaign.queued", "ada")
        results = [NewResult(f"c1-r1-{rank}", 1.0) for rank in (1, 2, 3)]
        uow.add_results(ordered, 1, results, "lab", None)
        uow.move_round(ordered, 1, RoundState.MEASURED, "lab")
        new = uow.close_round_into_version(ordered, 1, content_hash="f" * 64, dataset="brca2", actor="ada")
        (seen,) = survey(uow)
    latest = max(new.created_at, seen.schedule.queued_at)
    assert (seen.is_due, seen.due_at) == (False, latest + timedelta(hours=1))


def test_one_of_many_schedulers_wins_each_claim(registry, url, campaign):
    winners, inside = [], []
    barrier = threading.Barrier(4)

    def contend():
        own = Registry.open(url)
        board = own.lease_board()
        for _ in range(5):
            barrier.wait()
            with board.claim("c1") as held:
                if held is not None:
                    inside.append(1)
                    winners.append((held.token, len(inside)))
                barrier.wait()  # nobody lets go before all have tried
                if held is not None:
                    inside.pop()
        own.close()

    threads = [threading.Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert winners == [(token, 1) for token in range(1, 6)]


def test_no_more_campaigns_run_than_the_project_allows(registry, url):
    with registry.begin() as uow:
        uow.set_max_running(2, "ada")
    other = Registry.open(url)
    mine, theirs = registry.lease_board(), other.lease_board()
    with mine.claim("a") as first, registry.lease("campaign/b", print):  # the latter a person's
        assert first is not None
        with theirs.claim("c") as third, theirs.claim("b") as second:
            assert third is None
            assert second is not None  # it counts once
    with mine.claim("a"), theirs.claim("b") as second, mine.claim("c") as third:
        assert second is not None
        assert third is None
    with registry.begin() as uow:
        uow.set_max_running(None, "ada")
    assert actions(registry)[-2:] == [("project.limited", {"max_running": n}) for n in (2, None)]
    other.close()


def test_a_silent_stranger_loses_its_claim_to_who_watched_it_whatever_its_clock_says(registry, campaign):
    with ExitStack() as stack:
        board = LeaseBoard(registry._engine, time_to_live=0.6)
        held = stack.enter_context(LeaseBoard(registry._engine, time_to_live=600).claim("c1"))
        an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
        pretend(registry, "claim/c1", host="elsewhere/boot/pid", taken_at=an_hour_ago, beat_at=an_hour_ago)
        (seen,) = board.look()
        assert (seen.name, seen.host, seen.is_living) == ("claim/c1", "elsewhere", True)
        assert stack.enter_context(board.claim("c1")) is None  # an hour of silence by the clock is none by the watch
        threading.Event().wait(0.7)
        assert [h.is_living for h in board.look()] == [False]
        new = stack.enter_context(board.claim("c1"))
        assert new is not None
        with pytest.raises(WrongStateError, match="was lost"):
            held.check()


def test_a_stranger_whose_heart_beats_keeps_its_claim(registry, campaign):
    board = LeaseBoard(registry._engine, time_to_live=0.4)
    with LeaseBoard(registry._engine, time_to_live=0.6).claim("c1"):
        pretend(registry, "claim/c1", host="elsewhere/boot/pid")
        for _ in range(6):
            assert [h.is_living for h in board.look()] == [True]
            threading.Event().wait(0.2)
        with board.claim("c1") as second:
            assert second is None


def test_schedulers_take_places(registry):
    board = registry.lease_board()
    with board.enlist() as first, board.enlist() as second:
        assert (first, second) == ("scheduler/1", "scheduler/2")
    with board.enlist() as again:
        assert again == "scheduler/1"
        pretend(registry, again, process_started="another time")
        assert not board.look()[0].is_living  # a process of this host that is gone


def test_going_back_to_0002_is_refused_where_it_would_forget(registry, campaign):
    with registry.begin() as uow:
        uow.set_max_running(1, "ada")
    with pytest.raises(WrongStateError, match="a limit of rounds"):
        upgrades.migrate(registry.url, "0002")
    with registry.begin() as uow:
        uow.set_max_running(None, "ada")
    upgrades.migrate(registry.url, "0002")
    registry.upgrade()
    with registry.begin() as uow:
        uow.put_schedule(Schedule("c1", standing=Standing.PAUSED), "campaign.paused", "ada")
    with pytest.raises(WrongStateError, match="1 campaigns were paused"):
        upgrades.migrate(registry.url, "0002")
    registry.check_version()


def pause(registry):
    with registry.begin() as uow:
        uow.put_schedule(Schedule("c1", standing=Standing.PAUSED, reason="why"), "campaign.paused", "eve")


def test_a_pause_wakes_the_main_thread_and_tells_who(registry, campaign):
    timer = threading.Timer(0.3, pause, [registry])
    timer.start()
    started, before = time.monotonic(), signal.getsignal(stopping.SIGNAL)
    with pytest.raises(StoppedError, match=r"'c1' is paused by eve at .*: why"), stopping.stoppable(registry, "c1"):
        time.sleep(60)
    assert time.monotonic() - started < 30
    assert signal.getsignal(stopping.SIGNAL) is before
    timer.join()


def test_another_thread_stops_when_it_asks(registry, campaign):
    said = []

    def work():
        try:
            with stopping.stoppable(registry, "c1") as check:
                check()  # not yet
                pause(registry)
                for _ in range(400):
                    time.sleep(0.05)
                    check()
        except StoppedError as error:
            said.append(error.message)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(said) == 1


def test_a_block_that_ends_by_itself_is_left_alone(registry, campaign):
    with stopping.stoppable(registry, "c1") as check:
        check()
    with pytest.raises(ZeroDivisionError), stopping.stoppable(registry, "c1"):
        1 / 0  # noqa: B018
