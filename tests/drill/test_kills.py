import time
from statistics import median

import pytest
from disturbing import kill_again_and_again, moments
from drilling import databases


@pytest.mark.parametrize("home", databases("postgresql"), indirect=True)
def test_killed_again_and_again_a_campaign_loses_and_doubles_nothing(home, whole, size, tell):
    started = time.monotonic()
    num_kills, resumes = kill_again_and_again(home, moments(whole, size(3, 21), seed=len(home.database_url)))
    facts = home.facts()
    database = home.database_url.partition(":")[0]
    seen = f"first new work after {median(resumes):.1f} s in the median, {max(resumes):.1f} s at worst"
    tell(
        "kill -9 of the driver",
        f"three rounds on {database}",
        num_kills,
        facts.lost(whole),
        facts.doubled(whole),
        time.monotonic() - started,
        seen,
    )
    assert not facts.difference(whole)
    assert num_kills >= size(2, 20)
    assert size(1, 0) or median(resumes) < 10
