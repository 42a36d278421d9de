"""Runs the checks of `plait doctor`, each in a process of its own that is ended when its time is up."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plait.bootstrap.checks import CHECKS, Finding, Status
from plait.design.errors import ConfigError, PlaitError
from plait.design.records import Progress, no_progress
from plait.settings import Settings, load_settings, redacted

AT_A_TIME = 3
"""Checks that run side by side: most wait for something."""
SECONDS_BETWEEN_LOOKS = 0.05
CHILD = "from plait.bootstrap.doctor import answer; answer()"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What: a key of CHECKS, or "settings" where they cannot be read.
        status: "ok", "warning" (works, but something is better changed) or "failed".
        found: What there is, in one line.
        advice: What to do, "" for nothing.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


def diagnose(
    home: Path,
    *,
    only: Sequence[str] = (),
    seconds: float = 60.0,
    progress: Progress = no_progress,
    **options: Any,
) -> list[Check]:
    """Look at everything that a home's settings speak of; nothing is raised for what is wrong with it.

    Args:
        home: The folder, which need not exist.
        only: Names of checks; all by default.
        seconds: That one check may take.
        progress: Is told which checks run.
        options: Settings that win over file and environment.
    """
    try:
        settings = load_settings(home, **options)
    except ConfigError as error:
        return [Check("settings", "failed", error.message, error.hint or "correct them and run plait doctor again")]
    waiting, running = [name for name in CHECKS if not only or name in only], dict[str, _Running]()
    done, num = dict[str, list[Finding]](), len(waiting)
    try:
        while len(done) < num:
            while waiting and len(running) < AT_A_TIME:
                name = waiting.pop(0)
                running[name] = _Running(name, settings, seconds)
            for name in [name for name, check in running.items() if check.is_over()]:
                done[name] = running.pop(name).findings()
            progress("looking", len(done), num, ", ".join(running))
            time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        for check in running.values():
            check.end()
    return [Check(name, **asdict(finding)) for name in CHECKS for finding in done.get(name, ())]


class _Running:
    """A check in a process of its own, which takes its settings from stdin: they may hold a password."""

    def __init__(self, name: str, settings: Settings, seconds: float) -> None:
        self._name, self._seconds = name, seconds
        self._ends_at = time.monotonic() + seconds
        self._process = subprocess.Popen(  # noqa: S603 our own code
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        stream, self._process.stdin = self._process.stdin, None  # communicate() is to read only
        if stream is not None:
            with suppress(BrokenPipeError), stream:
                stream.write(pickle.dumps((name, settings)))

    def is_over(self) -> bool:
        """Whether it has ended, or its time is up."""
        return self._process.poll() is not None or time.monotonic() >= self._ends_at

    def findings(self) -> list[Finding]:
        """What it said."""
        if self._process.poll() is None:
            self.end()
            found = f"no answer within {self._seconds:g} s"
            return [Finding("failed", found, "see that what it asks is up and reachable, or raise --seconds")]
        said, _ = self._process.communicate()
        try:
            return [Finding(**finding) for finding in json.loads(said)]
        except ValueError:
            found = f"the check ended without a word (status {self._process.returncode})"
            return [Finding("failed", found, f"run it again: plait doctor --only {self._name}")]

    def end(self) -> None:
        """End the process and whatever it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


def answer() -> None:
    """What the process of a check runs: settings in by stdin, findings out by stdout, whatever libraries print."""
    stdout = os.dup(1)
    os.dup2(2, 1)
    name, settings = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 from our own parent
    try:
        findings = CHECKS[name](settings)
    except PlaitError as error:
        findings = [Finding("failed", error.message, error.hint)]
    except Exception as error:
        reason = redacted(" ".join(str(error).split()))
        findings = [Finding("failed", f"{type(error).__name__}: {reason}", "correct it and run plait doctor again")]
    os.write(stdout, json.dumps([asdict(finding) for finding in findings]).encode())
    os._exit(0)  # threads of libraries are not waited for
