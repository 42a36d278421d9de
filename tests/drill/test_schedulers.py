"""Two schedulers share several campaigns while one or the other, or what it started, is killed."""

import json
import os
import random
import signal
import time

import plait
import psutil
import pytest
from drilling import NAME, databases, write_inputs


@pytest.mark.parametrize("home", databases("postgresql"), indirect=True)
def test_killed_schedulers_run_each_round_once(home, whole, size, tell):
    num_campaigns, num_kills, started, rng = size(2, 6), size(2, 20), time.monotonic(), random.Random(3)
    names = [NAME, *(f"{NAME}-{number}" for number in range(2, num_campaigns + 1))]
    _, config = write_inputs(home.path.parent)
    with plait.open(home.path, database_url=home.database_url) as opened:
        for name in names[1:]:
            opened.campaign.create({**config, "name": name})
    line = ("scheduler", "run", "--backoff", "0", "--max-failures", "100")
    schedulers, killed = [home.start(*line) for _ in range(2)], 0
    while (standing := outlooks(home)) != dict.fromkeys(names, "proposed"):
        assert time.monotonic() - started < size(240, 1800), standing
        if killed < num_kills:
            time.sleep(rng.uniform(1, 8))
            index = rng.randrange(2)
            victims = [schedulers[index], *psutil.Process(schedulers[index].pid).children()]
            os.kill(rng.choice(victims).pid, signal.SIGKILL)
            killed += 1
        for index, scheduler in enumerate(schedulers):
            if scheduler.poll() is not None:
                scheduler.communicate()
                schedulers[index] = home.start(*line)
        time.sleep(0.5)
    for scheduler in schedulers:
        scheduler.terminate()
        scheduler.communicate(timeout=60)
    assert {scheduler.returncode for scheduler in schedulers} <= {130, -signal.SIGKILL}
    code, out, err = home.run("round", "propose", NAME)  # tells MLflow what a scheduler was stopped from telling
    assert code == 0, (out, err)
    left = [lease for lease in json.loads(home.run("status", "--json")[1])["leases"] if lease["is_living"]]
    facts, made = home.facts(), [home.designed(name) for name in names]
    running = [run for run in facts.bags["MLflow runs"] if "FINISHED" not in run]
    more = sum(num - 1 for num in facts.bags["MLflow runs"].values())
    lost = sum(found != whole.first_batch for found in made) + facts.bags["untold"].total()
    seen = f"{num_campaigns} campaigns, {len(left)} living leases left, {len(running)} runs left RUNNING"
    what = f"kill -9 on {home.database_url.partition(':')[0]}"
    tell("two schedulers", what, killed, lost, more, time.monotonic() - started, seen)
    assert made == [whole.first_batch] * num_campaigns
    assert (running, more, left, facts.bags["untold"].total()) == ([], 0, [], 0)


def outlooks(home):
    code, out, err = home.run("status", "--json")
    assert code == 0, (out, err)
    return {campaign["campaign"]: campaign["state"] for campaign in json.loads(out)["campaigns"]}
