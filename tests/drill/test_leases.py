import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

TIME_TO_LIVE = 1.0
HOUR = 3600.0
SHIFTED_CLOCK = """
import datetime, os, time

SHIFT = float(os.environ["CLOCK_SHIFT"])
_time = time.time
time.time = lambda: _time() + SHIFT


class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=SHIFT)


datetime.datetime = Shifted
"""
"""sitecustomize of a process whose wall clock, as Python reads it, is wrong."""


class Contender:
    """A process that claims leases when it is told to."""

    def __init__(self, url: str, clock_shift: float, folder: Path) -> None:
        (folder / "sitecustomize.py").write_text(SHIFTED_CLOCK)
        shifted = (
            {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])} if clock_shift else {}
        )
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("contender.py")), url, str(TIME_TO_LIVE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **shifted, "CLOCK_SHIFT": str(clock_shift)},
        )
        self.clock = datetime.fromisoformat(self.hear().removeprefix("ready at ")).replace(tzinfo=UTC)

    def tell(self, line: str) -> None:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        return self.process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.hear()

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


@pytest.fixture
def contend(url: str, tmp_path: Path) -> Iterator[object]:
    """Starts contenders for the leases of one registry."""
    with ExitStack() as stack:

        def start(clock_shift: float = 0.0) -> Contender:
            contender = Contender(url, clock_shift, tmp_path)
            stack.callback(contender.close)
            return contender

        yield start


def database_of(url: str) -> str:
    return url.partition(":")[0]


def writes(url: str) -> int:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        query = text("select count(*) from audit_event where action = 'drill.write'")
        number = int(connection.execute(query).scalar_one())
    engine.dispose()
    return number


def test_each_race_for_a_lease_has_one_winner(url, contend, size, tell):
    num_races, started = size(40, 200), time.monotonic()
    both, wins, num_none, num_two = [contend(), contend()], [0, 0], 0, 0
    for race in range(num_races):
        for contender in both if race % 2 else both[::-1]:
            contender.tell(f"race-{race}")
        answers = [contender.hear() for contender in both]
        num_none, num_two = num_none + (answers == ["lost"] * 2), num_two + (answers == ["won"] * 2)
        for index, contender in enumerate(both):
            if answers[index] == "won":
                wins[index] += 1
                assert contender.ask("write") == "written"
            contender.tell("release")
    seen = f"winners {wins[0]} and {wins[1]}"
    seconds = time.monotonic() - started
    tell("two contenders", f"races on {database_of(url)}", num_races, num_none, num_two, seconds, seen)
    assert (num_none, num_two, sum(wins), writes(url)) == (0, 0, num_races, num_races)


def test_who_was_paused_past_its_lease_writes_nothing(url, contend, size, tell):
    num, started, refused, after = size(2, 10), time.monotonic(), 0, []
    paused, other = contend(), contend()
    for turn in range(num):
        name = f"paused-{turn}"
        assert paused.ask(name) == "won"
        paused.process.send_signal(signal.SIGSTOP)
        since = time.monotonic()
        while other.ask(name) == "lost" and time.monotonic() - since < 60:
            other.tell("release")
            time.sleep(0.05)
        after.append(time.monotonic() - since)
        paused.process.send_signal(signal.SIGCONT)
        refused += paused.ask("write").startswith("refused: the lease")
        assert other.ask("write") == "written"
        paused.tell("release")
        other.tell("release")
    seen = (
        f"late writes refused {refused}, lease taken after {min(after):.1f} to {max(after):.1f} s of {TIME_TO_LIVE:g}"
    )
    what = f"SIGSTOP past the lease on {database_of(url)}"
    tell("a holder paused", what, num, num - refused, num - writes(url), time.monotonic() - started, seen)
    assert (refused, writes(url)) == (num, num)
    assert min(after) >= TIME_TO_LIVE


def test_a_clock_an_hour_off_steals_nothing(url, contend, tell):
    started, thefts, tries = time.monotonic(), 0, 0
    right, ahead, behind = contend(), contend(HOUR), contend(-HOUR)
    assert (ahead.clock - right.clock).total_seconds() == pytest.approx(HOUR, abs=120)
    assert (behind.clock - right.clock).total_seconds() == pytest.approx(-HOUR, abs=120)
    for turn, (holder, others) in enumerate([(right, [ahead, behind]), (ahead, [right]), (behind, [right])]):
        name = f"clocks-{turn}"
        assert holder.ask(name) == "won"
        since = time.monotonic()
        while time.monotonic() - since < 2.5 * TIME_TO_LIVE:
            for other in others:
                thefts, tries = thefts + (other.ask(name) == "won"), tries + 1
                other.tell("release")
            time.sleep(0.1)
        assert holder.ask("write") == "written"
        holder.tell("release")
        for other in others:
            until = time.monotonic() + 20
            while other.ask(name) == "lost" and time.monotonic() < until:  # the one before is just letting go
                other.tell("release")
                time.sleep(0.05)
            assert other.ask("write") == "written"
            other.tell("release")
    what = f"host an hour ahead, and behind, on {database_of(url)}"
    tell("a clock an hour off", what, tries, 0, thefts, time.monotonic() - started, f"early thefts: {thefts}")
    assert thefts == 0
