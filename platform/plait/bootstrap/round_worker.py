"""The process in which a scheduler takes one step of a campaign: `python -m plait.bootstrap.round_worker`.

It reads its request as one line of JSON on stdin and answers with one on stdout; whatever else is said goes to stderr.
When stdin ends its scheduler is gone, and it stops as on Ctrl-C: another scheduler goes on from there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from plait.bootstrap.home import open_home
from plait.design.errors import PlaitError
from plait.settings import redacted

GRACE = 20.0
"""Seconds for stopping in good order."""
INTERRUPTED, INTERNAL = "interrupted", "internal"
SECONDS_BETWEEN_LINES = 5.0


def main() -> None:
    """Answer one request."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    request = json.loads(_read_line())
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_follow, daemon=True).start()
    answer = work(request)
    with suppress(BrokenPipeError):  # the scheduler is gone
        os.write(answers, json.dumps(answer).encode() + b"\n")
    if answer.get("code") == INTERRUPTED:  # Ray aborts a process that ends in good order while its threads still run
        os._exit(1)


def work(request: dict[str, Any]) -> dict[str, Any]:
    """Take the step; {"round", "state"} of what came of it, or {"code", "message"} of what went wrong."""
    name, step = request["campaign"], request["action"]
    try:
        with open_home(request["home"], progress=Log(), **request["options"]) as home:
            of = home.round.propose(name) if step == "propose" else home.round.close(name)[0]
        return {"round": of.number, "state": str(of.state)}
    except PlaitError as error:
        answer: dict[str, Any] = error.to_json()["error"]
    except (KeyboardInterrupt, SystemExit):  # Ray turns SIGTERM into the latter
        answer = {"code": INTERRUPTED, "message": "interrupted"}
    except Exception as error:
        print(redacted(traceback.format_exc()), file=sys.stderr, flush=True)  # noqa: T201 - into the log
        words = redacted(" ".join(str(error).split()))
        answer = {"code": INTERNAL, "message": f"internal error: {type(error).__name__}: {words}"}
    Log()(answer["code"], 0, 0, answer["message"])
    return answer


class Log:
    """A Progress of lines with their time (UTC), one when a task begins, ends, or was silent for a while."""

    def __init__(self) -> None:
        self._task, self._at = "", 0.0

    def __call__(self, task: str, done: int, total: int, message: str) -> None:
        """Write it, if it is time to."""
        now, is_done = time.monotonic(), 0 < total <= done
        if task == self._task and not is_done and now - self._at < SECONDS_BETWEEN_LINES:
            return
        self._task, self._at = task, now
        count = f" {done}/{total}" if total else ""
        print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {task}{count} {message}".rstrip(), file=sys.stderr, flush=True)  # noqa: T201


def _read_line() -> bytes:
    """A line of stdin, without Python's buffer: a thread that waits in it cannot be left behind at the end."""
    line = b""
    while not line.endswith(b"\n") and (read := os.read(0, 1)):
        line += read
    return line


def _follow() -> None:
    """Stop when the scheduler is gone, and, if that takes too long, at once with all that was started."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
