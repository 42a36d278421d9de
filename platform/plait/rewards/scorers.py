"""Scorers outside this process: a program, or a server. Any callable of the same form is a scorer as well."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from plait.design.errors import ConfigError, RunFailedError
from plait.settings.scorers import AnyScorer, HttpSettings, SubprocessSettings

Scorer = Callable[[Sequence[str]], Sequence[float]]
"""Sequences in, one finite number each out, in their order."""

LONGEST_ANSWER = 64 * 2**20
"""Bytes of a server's answer."""
LONGEST_WAIT_S = 60.0
_BUSY = (429, 503)


@dataclass(eq=False)
class Remembered:
    """A scorer with the memory that all black-box rewards of a process share, latest used last; picklable if it is."""

    function: Scorer
    memory: OrderedDict[str, float] = field(default_factory=OrderedDict)

    def __call__(self, sequences: Sequence[str]) -> Sequence[float]:
        """The scorer's answer."""
        return self.function(sequences)

    def problem(self) -> str:
        """Why the scorer cannot be used, "" as far as can be told without asking it."""
        if not isinstance(self.function, SubprocessScorer):
            return ""
        program = self.function.settings.command[0]
        return "" if shutil.which(program) else f"there is no program {program}"


def make_scorers(settings: Mapping[str, AnyScorer], given: Mapping[str, Scorer]) -> dict[str, Scorer]:
    """The scorers that a home's settings describe and those given as callables, by name; the latter win."""
    described = {name: _make_scorer(chosen) for name, chosen in settings.items()}
    return {name: Remembered(scorer) for name, scorer in (described | dict(given)).items()}


def _make_scorer(chosen: AnyScorer) -> Scorer:
    return SubprocessScorer(chosen) if isinstance(chosen, SubprocessSettings) else HttpScorer(chosen)


@dataclass(frozen=True)
class SubprocessScorer:
    """Starts the program once a call; it and its children are killed at the timeout and on interrupt."""

    settings: SubprocessSettings

    def __call__(self, sequences: Sequence[str]) -> list[float]:
        """One number per sequence.

        Raises:
            RunFailedError: The program cannot be started, fails, takes too long or writes something else.
        """
        program, timeout_s = self.settings.command[0], self.settings.timeout_s
        with tempfile.TemporaryFile() as log, self._start(log) as process:
            try:
                answer, _ = process.communicate("".join(f"{s}\n" for s in sequences), timeout_s)
            except subprocess.TimeoutExpired as error:
                _kill_group(process)
                raise RunFailedError(
                    f"the scorer {program} took longer than {timeout_s:g} s for {len(sequences)} sequences"
                    f"{_last_lines(log)}",
                    hint="raise its timeout_s, or lower the reward's batch_size",
                ) from error
            except BaseException:
                _kill_group(process)
                raise
            if process.returncode != 0:
                raise RunFailedError(f"the scorer {program} ended with status {process.returncode}{_last_lines(log)}")
            return _numbers(program, sequences, answer, log)

    def _start(self, log: IO[bytes]) -> subprocess.Popen[str]:
        try:
            return subprocess.Popen(  # noqa: S603 no shell; the command is the owner's own setting
                self.settings.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise RunFailedError(
                f"the scorer {self.settings.command[0]} cannot be started: {error.strerror}",
                hint="its command must exist on every machine that runs Plait's workers",
            ) from error


def _kill_group(process: subprocess.Popen[str]) -> None:
    """End a program and everything that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _last_lines(log: IO[bytes]) -> str:
    """The end of what a program said on stderr, to be added to a message."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - 1_000))
    lines = log.read().decode(errors="replace").strip().splitlines()[-5:]
    return ": " + " | ".join(lines) if lines else ""


def _numbers(program: str, sequences: Sequence[str], answer: str, log: IO[bytes]) -> list[float]:
    lines = answer.strip().splitlines()
    if len(lines) != len(sequences):
        raise RunFailedError(
            f"the scorer {program} wrote {len(lines)} lines for {len(sequences)} sequences{_last_lines(log)}",
            hint="it must write one number a line, one line per sequence, to stdout",
        )
    numbers = []
    for sequence, line in zip(sequences, lines, strict=True):
        try:
            numbers.append(float(line))
        except ValueError as error:
            raise RunFailedError(f"the scorer {program} wrote {line[:80]!r} for {sequence}: not a number") from error
    return numbers


@dataclass(frozen=True)
class HttpScorer:
    """Asks a server; header values are read from the environment at each call and kept nowhere."""

    settings: HttpSettings

    def __call__(self, sequences: Sequence[str]) -> list[float]:
        """One number per sequence.

        Raises:
            ConfigError: An environment variable for a header is not set, or cannot be a header.
            RunFailedError: The server cannot be reached, stays busy, refuses, or answers something else.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json"} | self._secret_headers()
        body = json.dumps({"sequences": list(sequences)}).encode()
        attempt = 0
        while True:
            try:
                return self._scores(self._post(body, headers))
            except _TryAgainError as error:
                attempt += 1
                if attempt > self.settings.num_retries:
                    raise RunFailedError(
                        f"the scorer {self.settings.url} {error} ({attempt} times)",
                        hint="look after the server, or raise num_retries or backoff_s of this scorer",
                    ) from error
                time.sleep(min(max(error.wait_s, self.settings.backoff_s * 2 ** (attempt - 1)), LONGEST_WAIT_S))

    def _secret_headers(self) -> dict[str, str]:
        headers = {}
        for header, variable in self.settings.headers.items():
            value = os.environ.get(variable, "")
            if not value or not value.isascii() or not value.isprintable():
                raise ConfigError(
                    f"the scorer {self.settings.url} takes {header} from the environment variable {variable}, which "
                    f"{'cannot be a header' if value else 'is not set'}",
                    hint=f"set {variable} where Plait runs, workers included",
                )
            headers[header] = value
        return headers

    def _post(self, body: bytes, headers: dict[str, str]) -> bytes:
        request = urllib.request.Request(self.settings.url, body, headers)  # noqa: S310 settings allow http(s) only
        try:
            with _opener().open(request, timeout=self.settings.timeout_s) as response:
                answer: bytes = response.read(LONGEST_ANSWER + 1)
                return answer
        except urllib.error.HTTPError as error:
            with error:
                if error.code in _BUSY:
                    raise _TryAgainError(f"is busy (status {error.code})", error.headers.get("Retry-After")) from error
                said = " ".join(error.read(300).decode(errors="replace").split())
            raise RunFailedError(f"the scorer {self.settings.url} answered {error.code}: {said}") from error
        except TimeoutError as error:
            raise RunFailedError(
                f"the scorer {self.settings.url} was silent for {self.settings.timeout_s:g} s",
                hint="raise its timeout_s, or lower the reward's batch_size",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise _TryAgainError(f"cannot be reached: {reason}") from error

    def _scores(self, answer: bytes) -> list[float]:
        try:
            scores = json.loads(answer)["scores"] if len(answer) <= LONGEST_ANSWER else None
        except (ValueError, KeyError, TypeError, RecursionError):
            scores = None
        if not isinstance(scores, list):
            raise RunFailedError(
                f"the scorer {self.settings.url} gave no list of scores but {answer[:80]!r}",
                hint='it must answer {"scores": [...]}, one number per sequence',
            )
        return scores


class _TryAgainError(Exception):
    """The server may answer later."""

    def __init__(self, message: str, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.wait_s = float(retry_after) if retry_after is not None and retry_after.isdigit() else 0.0


class _StayHere(urllib.request.HTTPRedirectHandler):
    """No redirect is followed: it would carry the headers to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Leave the redirect as the error that it then is."""
        return


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_StayHere)
