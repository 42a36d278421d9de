"""A process that contends for leases as a scheduler does, told what to do line by line: URL TIME-TO-LIVE [CLOCK-SHIFT].

A line is the name of what to claim; it answers won or lost and keeps what it won until the next line, which is either
`release` or `write`: a change of the registry under the lease, as a stage makes one.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from plait.design.errors import PlaitError
from plait.registry.claims import LeaseBoard
from plait.registry.store import Registry


def main(url: str, time_to_live: float) -> None:
    registry = Registry.open(url)
    board = LeaseBoard(registry._engine, time_to_live)
    _say(f"ready at {datetime.now(UTC):%Y-%m-%dT%H:%M:%S}")
    for line in sys.stdin:
        board.look()
        with board.claim(line.strip()) as held:
            _say("won" if held else "lost")
            while (told := sys.stdin.readline().strip()) == "write" and held is not None:
                try:
                    with registry.begin() as uow:
                        uow.fence(held)
                        uow.audit("contender", "drill.write", line.strip())
                    _say("written")
                except PlaitError as error:
                    _say(f"refused: {error.message}")
            assert told in ("release", ""), told


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


main(sys.argv[1], float(sys.argv[2]))
