from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from plait.campaign.records import Campaign, Round, RoundState
from plait.campaign.schedules import (
    RESULTS_COMPLETE,
    Retrying,
    Schedule,
    Standing,
    check_every,
    next_time,
    refuse_cancelled,
    refuse_stopped,
)
from plait.campaign.scheduling import STAGE_NAMES, outlook
from plait.campaign.sections import ScheduleConfig
from plait.campaign.stages import STAGES
from plait.design.errors import StoppedError
from pydantic import ValidationError

NOW = datetime(2026, 11, 18, 10, 30, tzinfo=UTC)  # a Wednesday
HOUR = timedelta(hours=1)
CAMPAIGN = Campaign(1, "c", "d", "0", {"name": "c", "dataset": "d", "rounds": 2}, {}, "new", NOW - HOUR, "ada")
PLAIN = Schedule("c")


def rounds(*states):
    return [Round(i, "c", i, state, "0", None, NOW - HOUR) for i, state in enumerate(states, start=1)]


def look(*states, schedule=PLAIN, ready_at=NOW - HOUR, now=NOW):
    return outlook(CAMPAIGN, rounds(*states), schedule, ready_at, now)


@pytest.mark.parametrize(
    ("every", "after", "time"),
    [
        ("monday", NOW, "2026-11-23 00:00"),
        ("monday 09:00", datetime(2026, 11, 23, 8, 59, tzinfo=UTC), "2026-11-23 09:00"),
        ("monday 09:00", datetime(2026, 11, 23, 9, 0, tzinfo=UTC), "2026-11-30 09:00"),
        ("wednesday 10:31", NOW, "2026-11-18 10:31"),
        ("wednesday", NOW, "2026-11-25 00:00"),
        ("day", NOW, "2026-11-19 00:00"),
        ("day 23:59", NOW, "2026-11-18 23:59"),
        ("sunday 7:05", datetime(2026, 12, 31, 0, 0, tzinfo=UTC), "2027-01-03 07:05"),
        ("hour", NOW, "2026-11-18 11:30"),
        ("36 hours", NOW, "2026-11-19 22:30"),
    ],
)
def test_a_rhythm_tells_its_next_time(every, after, time):
    assert f"{next_time(check_every(every), after):%Y-%m-%d %H:%M}" == time


def test_rhythms_are_kept_in_one_form():
    assert check_every("  Monday   09:00 ") == "monday 09:00"
    assert ScheduleConfig(every="DAY").every == "day"


@pytest.mark.parametrize("every", ["", "mondays", "monday 24:00", "day 9:60", "0 hours", "9999 hours", "day 9"])
def test_what_is_no_rhythm_is_refused(every):
    with pytest.raises(ValueError, match="must be a weekday or day"):
        check_every(every)
    with pytest.raises(ValidationError, match="must be a weekday or day"):
        ScheduleConfig(every=every)


@pytest.mark.parametrize(
    ("states", "action", "why_not"),
    [
        ((), "propose", ""),
        ((RoundState.RUNNING,), "propose", ""),
        ((RoundState.CLOSED,), "propose", ""),
        ((RoundState.REJECTED,), "propose", ""),
        ((RoundState.PROPOSED,), None, "waits for you: plait round approve c (or reject)"),
        ((RoundState.ORDERED,), None, "waits for you: plait results import c FILE"),
        ((RoundState.MEASURED,), None, "waits for you: plait round close c"),
        ((RoundState.CLOSED, RoundState.CLOSED), None, "all 2 rounds are closed"),
        ((RoundState.CLOSED, RoundState.REJECTED, RoundState.CLOSED), None, "all 2 rounds are closed"),
    ],
)
def test_schedulers_compute_and_people_decide(states, action, why_not):
    found = look(*states)
    assert (found.action, found.why_not, found.is_due) == (action, why_not, action is not None)


def test_a_measured_round_is_closed_when_results_are_complete():
    schedule = replace(PLAIN, when=RESULTS_COMPLETE)
    assert look(RoundState.MEASURED, schedule=schedule).action == "close"
    assert look(RoundState.MEASURING, schedule=schedule).action is None


def test_a_day_is_waited_for_from_when_the_round_could_begin():
    schedule = replace(PLAIN, every="monday 09:00", queued_at=NOW - 100 * HOUR)
    found = look(RoundState.CLOSED, schedule=schedule)
    assert (found.is_due, found.why_not) == (False, "due at 2026-11-23 09:00 UTC")
    on_monday = found.due_at
    assert look(RoundState.CLOSED, schedule=schedule, now=on_monday).is_due
    assert not look(RoundState.CLOSED, schedule=schedule, ready_at=on_monday, now=on_monday + HOUR).is_due
    assert look(RoundState.RUNNING, schedule=schedule).is_due  # it began already


def test_a_rhythm_begins_when_it_was_said():
    schedule = replace(PLAIN, every="day 10:00", queued_at=NOW)
    assert look(schedule=schedule, ready_at=NOW - 48 * HOUR).due_at == NOW.replace(hour=10, minute=0) + 24 * HOUR


def test_a_time_is_waited_for_once():
    schedule = replace(PLAIN, not_before=NOW + HOUR)
    assert look(schedule=schedule).why_not == "due at 2026-11-18 11:30 UTC"
    assert look(schedule=schedule, now=NOW + HOUR).is_due
    assert look(RoundState.RUNNING, schedule=schedule).is_due


def test_a_failure_is_waited_out_even_by_a_round_that_began():
    schedule = replace(PLAIN, num_failures=2, retry_at=NOW + timedelta(seconds=60))
    assert look(RoundState.RUNNING, schedule=schedule).why_not == "tried again at 2026-11-18 10:31:00 UTC"
    assert look(RoundState.RUNNING, schedule=schedule, now=NOW + timedelta(seconds=60)).is_due


@pytest.mark.parametrize("standing", [Standing.PAUSED, Standing.CANCELLED, Standing.FAILED])
def test_what_is_stopped_is_not_due_and_says_why(standing):
    found = look(schedule=replace(PLAIN, standing=standing, by="ada", since=NOW, reason="freezer down"))
    assert not found.is_due
    assert found.why_not == f"{standing} by ada at 2026-11-18 10:30 UTC: freezer down"


def test_a_person_may_run_what_schedulers_gave_up_and_nobody_what_is_cancelled():
    stopped = replace(PLAIN, by="ada", since=NOW)
    refuse_stopped(replace(stopped, standing=Standing.FAILED))
    refuse_cancelled(replace(stopped, standing=Standing.PAUSED))
    with pytest.raises(StoppedError, match="'c' is paused by ada") as caught:
        refuse_stopped(replace(stopped, standing=Standing.PAUSED))
    assert caught.value.hint == "run: plait campaign resume c"
    for refuse in (refuse_stopped, refuse_cancelled):
        with pytest.raises(StoppedError, match="'c' is cancelled by ada"):
            refuse(replace(stopped, standing=Standing.CANCELLED))


def test_pauses_double_up_to_a_cap_and_then_it_is_given_up():
    pauses = [Retrying(max_failures=6, first_pause=30, longest_pause=200).pause(n) for n in range(1, 7)]
    assert [p and p.total_seconds() for p in pauses] == [30, 60, 120, 200, 200, None]
    assert Retrying().pause(3) is None


def test_stages_have_the_names_that_status_shows():
    assert tuple(STAGES) == STAGE_NAMES
