"""When a running campaign is disturbed: at seeded moments spread over its stages."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from drilling import Drilled, Facts, kill, with_driver
from sqlalchemy import create_engine, text

SECONDS_AFTER_THE_LAST_STAGE = 0.3


class Watch:
    """Looks at the stages that are on record, over a connection that may break."""

    def __init__(self, home: Drilled) -> None:
        self._engine = create_engine(with_driver(home.database_url), pool_pre_ping=True)

    def num_stages(self) -> int:
        """Stages on record."""
        with self._engine.connect() as connection:
            return int(connection.execute(text("select count(*) from stage_run")).scalar_one())

    def last_seconds(self) -> float:
        """How long the stage that was recorded last took."""
        with self._engine.connect() as connection:
            query = text("select seconds from stage_run order by id desc limit 1")
            return float(connection.execute(query).scalar_one())

    def wait(self, process: subprocess.Popen[str], num: int) -> float | None:
        """Until `num` stages are on record; the time, or None if the process ended before."""
        while self.num_stages() < num:
            if process.poll() is not None:
                return None
            time.sleep(0.005)
        return time.monotonic()

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()


@dataclass(frozen=True)
class Moment:
    """When to disturb: `seconds` after stage `after` (0: the start) is on record."""

    after: int
    seconds: float


def moments(whole: Facts, num: int, seed: int) -> list[Moment]:
    """`num` seeded moments, spread over all stages: one in each of as many gaps between two recorded stages.

    The last gap is what follows the last stage: its batch, MLflow, the lab and the closing of the round.
    """
    rng, gaps = random.Random(seed), [*whole.seconds, SECONDS_AFTER_THE_LAST_STAGE]
    return [Moment(after, rng.uniform(0, gaps[after])) for after in sorted(rng.sample(range(len(gaps)), num))]


def kill_again_and_again(home: Drilled, plan: Sequence[Moment]) -> tuple[int, list[float]]:
    """Run the campaign, killing it at each moment and starting it again; kills, and seconds to each first new work."""
    watch, resumes, num_kills = Watch(home), [], 0
    for moment in [*plan, None]:
        before, started = watch.num_stages(), time.monotonic()
        process = home.start()
        goal = before + 1 if moment is None else moment.after
        seen = watch.wait(process, before + 1) if goal > before else None
        if seen is not None and num_kills:
            resumes.append(seen - watch.last_seconds() - started)
        if moment is None:
            out, err = process.communicate(timeout=600)
            assert process.returncode == 0, (process.returncode, out, err)
            break
        watch.wait(process, goal)
        time.sleep(moment.seconds)
        num_kills += process.poll() is None
        kill(process)
    watch.close()
    return num_kills, resumes
