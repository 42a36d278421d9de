"""How a training says how far it is."""

from __future__ import annotations

import time

from plait.design.records import Progress

SECONDS_BETWEEN_WORDS = 0.2


class Teller:
    """Passes updates on to a Progress, at most five a second."""

    def __init__(self, progress: Progress, task: str, total: int) -> None:
        self._progress, self._task, self._total = progress, task, total
        self._told_at = -SECONDS_BETWEEN_WORDS
        self._message = ""

    def tell(self, done: int, figures: dict[str, float]) -> None:
        """`done` updates are made."""
        now = time.monotonic()
        if now - self._told_at >= SECONDS_BETWEEN_WORDS:
            self._told_at = now
            self._message = ", ".join(f"{name} {value:.3g}" for name, value in list(figures.items())[:3])
            self.say(done, self._message)

    def say(self, done: int, message: str) -> None:
        """A message of its own."""
        self._progress(self._task, done, self._total, message)

    def finish(self) -> None:
        """The training is over, early or not."""
        self.say(self._total, self._message)
