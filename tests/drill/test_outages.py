"""PostgreSQL behind a running campaign is stopped as in a power cut, and comes back a little later."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest
from disturbing import Watch
from drilling import Drilled


class Cuts:
    """Stops a server at seeded random times, each time for a second or two, from a thread of its own."""

    def __init__(self, unsteady, between: tuple[float, float], most: int) -> None:
        self.num = 0
        self._unsteady, self._between, self._most, self._rng = unsteady, between, most, random.Random(11)
        self._is_over, self._thread = Event(), Thread(target=self._run)

    def _run(self) -> None:
        while self.num < self._most and not self._is_over.wait(self._rng.uniform(*self._between)):
            self._unsteady.stop()
            time.sleep(self._rng.uniform(0.5, 2))
            self._unsteady.start()
            self.num += 1

    def __enter__(self) -> "Cuts":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join()


@pytest.fixture
def new_home(unsteady, fill: Callable[..., None], tmp_path: Path) -> Callable[[int], Drilled]:
    """Homes with the campaign on the server that stops."""

    def make(number: int) -> Drilled:
        folder, url = tmp_path / str(number), unsteady.database()
        folder.mkdir()
        fill(folder / "home", folder, database_url=url, mlflow_tracking_uri=url)
        return Drilled(folder / "home", url, url)

    return make


def test_a_campaign_outlasts_a_database_that_stops_and_comes_back(new_home, unsteady, whole, size, tell):
    started, seconds, lost, doubled, num_cuts, num_again, differences = time.monotonic(), 0.0, 0, 0, 0, 0, []
    while not num_cuts or seconds < size(0, 300):
        home = new_home(num_cuts)
        watch, process = Watch(home), home.start()
        watch.wait(process, 1)
        watch.close()
        begun = time.monotonic()
        with Cuts(unsteady, (0.2, 2) if size(1, 0) else (5, 40), size(3, 1000)) as cuts:
            out, err = process.communicate(timeout=900)
        assert process.returncode == 0, (process.returncode, out, err)
        seconds, num_cuts = seconds + time.monotonic() - begun, num_cuts + cuts.num
        facts = home.facts()
        num_again += err.count("trying again")
        lost, doubled = lost + facts.lost(whole), doubled + facts.doubled(whole)
        differences.append(facts.difference(whole))
    seen = f"over {seconds:.0f} s; said {num_again} times that it tries again, ended by none"
    tell("PostgreSQL stops", "-m immediate", num_cuts, lost, doubled, time.monotonic() - started, seen)
    assert not any(differences), differences
