"""A scheduler: takes due campaigns a step further, each in a process of its own, under a claim in the registry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.bootstrap.round_worker import GRACE
from plait.campaign.schedules import Retrying, Standing
from plait.campaign.scheduling import SCHEDULER, Action, note_failure, note_success, survey
from plait.campaign.stage_runs import tell_if_possible
from plait.design.errors import PlaitError, UnreachableError, WrongStateError

if TYPE_CHECKING:
    from plait.bootstrap.home import Home
    from plait.campaign.repository import Lease, LeaseBoard, UnitOfWork
    from plait.campaign.schedules import Schedule

LOGS = "logs"
SECONDS_BETWEEN_SURVEYS = 2.0
SECONDS_BETWEEN_LOOKS = 0.2
FINAL = ("usage", "bad_input", "bad_config", "corrupt_artifact")
"""Errors that trying again does not mend."""


@dataclass(frozen=True)
class Step:
    """One step that a scheduler took.

    Attributes:
        campaign: Whose.
        action: propose or close.
        outcome: proposed, closed, stopped (paused or cancelled meanwhile) or failed.
        round: Its number, None where it came to none.
        reason: Why it did not succeed.
        standing: How the campaign stands afterwards.
        seconds: It took.
    """

    campaign: str
    action: Action
    outcome: str
    round: int | None
    reason: str
    standing: Standing
    seconds: float


@dataclass
class _Child:
    """A step under way."""

    name: str
    action: Action
    process: subprocess.Popen[bytes]
    claim: Lease
    holding: ExitStack
    began: float
    num_failures: int
    answer: dict[str, Any] | None = None


class Scheduler:
    """Runs what is due in one home until it is stopped, or (once) until nothing more is due.

    Args:
        home: The home; its settings go to every step.
        options: Settings given explicitly, which go to every step as well.
        max_campaigns: Steps at a time.
        retrying: How failures are answered.
    """

    def __init__(self, home: Home, options: dict[str, Any], max_campaigns: int, retrying: Retrying) -> None:
        self._home, self._max, self._retrying = home, max_campaigns, retrying
        self._options = {"actor": SCHEDULER} | options
        self._board: LeaseBoard = home.registry.lease_board()
        self._children: list[_Child] = []
        self._surveyed = -SECONDS_BETWEEN_SURVEYS

    def run(self, *, is_once: bool) -> list[Step]:
        """Go on until interrupted; with is_once until nothing is due and nothing runs. What was done, if once.

        An interruption stops the steps under way and gives their claims back.
        """
        done: list[Step] = []
        with self._board.enlist() as place:
            self._home.progress(place, 0, 0, f"at most {self._max} at a time")
            try:
                while True:
                    try:
                        ended = self._turn()
                    except (UnreachableError, WrongStateError) as error:  # away, or locked for long
                        if is_once:
                            raise
                        self._home.progress("registry", 0, 0, error.message)
                        ended = []
                    if is_once:
                        done += ended
                        if not self._children:
                            return done
                    time.sleep(SECONDS_BETWEEN_LOOKS)
            finally:
                self._stop()

    def _turn(self) -> list[Step]:
        """Gather what has ended and, now and then, begin what is due; the steps that have ended."""
        ended = self._reap()
        if ended or time.monotonic() - self._surveyed >= SECONDS_BETWEEN_SURVEYS:
            self._surveyed = time.monotonic()
            self._start_due()
            if not self._children:
                self._tell_what_is_left()
        return ended

    def _tell_what_is_left(self) -> None:
        """What a process that was killed at the end of its round had not told MLflow."""
        with self._home.registry.read() as uow:
            is_left = bool(uow.outbox())
        if is_left:
            tell_if_possible(self._home.ports)

    def _start_due(self) -> None:
        held = {h.name for h in self._board.look() if h.is_living}
        with self._home.registry.read() as uow:
            due = [outlook.campaign for outlook in survey(uow) if outlook.is_due]
        for name in due:
            if len(self._children) < self._max and not {f"campaign/{name}", f"claim/{name}"} & held:
                self._start(name)

    def _start(self, name: str) -> None:
        """Begin a campaign's next step, unless another scheduler was quicker."""
        with ExitStack() as holding:
            claim = holding.enter_context(self._board.claim(name))
            if claim is None:
                return
            with self._home.registry.read() as uow:
                outlook = next(o for o in survey(uow) if o.campaign == name)
            if not outlook.is_due or outlook.action is None:
                return
            process, known = self._spawn(name, outlook.action), outlook.schedule.num_failures
            self._children.append(
                _Child(name, outlook.action, process, claim, holding.pop_all(), time.monotonic(), known)
            )
        self._home.progress(name, 0, 1, f"{outlook.action} begins")

    def _spawn(self, name: str, action: Action) -> subprocess.Popen[bytes]:
        request = {"home": str(self._home.path), "options": self._options, "campaign": name, "action": action}
        with os.fdopen(_open_log(self._home.path, name), "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "plait.bootstrap.round_worker"],
                stdin=subprocess.PIPE,  # open for as long as this process lives
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        with suppress(BrokenPipeError):  # it is gone already: reaping tells
            assert process.stdin is not None  # noqa: S101 - for the type checker
            process.stdin.write(json.dumps(request, default=str).encode() + b"\n")
            process.stdin.flush()
        return process

    def _reap(self) -> list[Step]:
        """The steps that have ended since the last time."""
        ended = [child for child in self._children if child.process.poll() is not None]
        steps = []
        for child in ended:
            child.answer = child.answer or _answer_of(child.process)
            step = self._record(child, child.answer)
            self._children.remove(child)
            child.holding.close()
            steps.append(step)
            what = f"round {step.round} is {step.outcome}" if not step.reason else f"{step.outcome}: {step.reason}"
            self._home.progress(step.campaign, 1, 1, what)
        return steps

    def _record(self, child: _Child, answer: dict[str, Any]) -> Step:
        """What came of a step, on record unless another scheduler has taken the campaign over."""
        name, code, reason = child.name, answer.get("code"), str(answer.get("message", ""))
        outcome = {None: answer.get("state"), "stopped": "stopped"}.get(code, "failed")

        def write(uow: UnitOfWork) -> Schedule:
            if outcome == "failed":
                may_pass, known = code not in FINAL, child.num_failures
                return note_failure(uow, name, reason, self._retrying, may_pass=may_pass, known=known)
            if code is None:
                note_success(uow, name)
            return uow.schedule(name)

        is_ours = _is_held(child.claim)
        schedule = self._home.registry.transact(write if is_ours else lambda uow: uow.schedule(name))
        seconds = time.monotonic() - child.began
        return Step(name, child.action, str(outcome), answer.get("round"), reason, schedule.standing, seconds)

    def _stop(self) -> None:
        """End the steps under way, in good order if they can, and give their claims back."""
        for child in self._children:
            child.process.terminate()
        until = time.monotonic() + GRACE
        try:
            for child in self._children:
                with suppress(subprocess.TimeoutExpired):
                    child.process.wait(max(until - time.monotonic(), 0.0))
        finally:
            for child in self._children:
                with suppress(ProcessLookupError):
                    os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()
                child.holding.close()
            self._children.clear()


def _is_held(claim: Lease) -> bool:
    try:
        claim.check()
    except PlaitError:
        return False
    return True


def _open_log(home: Path, name: str) -> int:
    folder = home / LOGS
    folder.mkdir(mode=0o700, exist_ok=True)
    return os.open(folder / f"{name}.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)


def _answer_of(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What a step said at its end, or how it died."""
    out, _ = process.communicate()
    with suppress(ValueError):
        answer: dict[str, Any] = json.loads(out)
        return answer
    code = process.returncode
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return {"code": "killed", "message": f"the process of the round {how}"}
