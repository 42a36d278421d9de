import contextlib
import json
import os
import signal
import sqlite3
import stat
import time
from pathlib import Path

import plait
import pytest
import yaml
from plait.campaign.records import Design, NewResult, RoundState


def create(cli, name, num_pretrain_steps=20, **more):
    """A campaign as "c" is, but for this."""
    config = cli.json("campaign", "show", "c")["config"]
    config["prior"]["settings"]["num_pretrain_steps"] = num_pretrain_steps
    config["prior"].pop("corpus", None)
    file = cli.home.parent / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config | {"name": name} | more))
    cli("campaign", "create", file)


def wait_for(look, seconds=60.0):
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)
    return found


def told(cli, name):
    return next(c for c in cli.json("status")["campaigns"] if c["campaign"] == name)


def holder(cli, lease):
    return next((h["pid"] for h in cli.json("status")["leases"] if h["name"] == lease and h["is_living"]), None)


def is_gone(pid):
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return True


def running_in_mlflow(cli):
    with contextlib.closing(sqlite3.connect(cli.home / "mlflow.db")) as database:
        return database.execute("select count(*) from runs where status != 'FINISHED'").fetchone()[0]


def measured(cli, names):
    """Campaigns of one round, which is measured; their results make it complete for schedulers."""
    with plait.open(cli.home) as home, home.registry.begin() as uow:
        version = uow.dataset_version("d")
        for name in names:
            config = {"name": name, "dataset": "d", "rounds": 1}
            uow.add_campaign(name, dataset_version_id=version.id, config=config, space={}, notes=[], actor="ada")
            uow.add_round(name, 1, version.id, "ada")
            uow.add_designs(name, 1, [Design(f"{name}-r1-1", name, 1, 1, "ACGTACGT", 1.0, 0.5, 0.5, "policy")])
            for state in (RoundState.PROPOSED, RoundState.APPROVED, RoundState.ORDERED):
                uow.move_round(name, 1, state, "ada")
            uow.add_results(name, 1, [NewResult(f"{name}-r1-1", 1.0)], "lab", None)
            uow.move_round(name, 1, RoundState.MEASURED, "lab")
    for name in names:
        cli("campaign", "queue", name, "--when", "results-complete")


@pytest.fixture
def slow(batch):
    """A home with a campaign "s" whose prior trains for ever; MLflow's store is there."""
    create(batch, "s", num_pretrain_steps=100_000)
    return batch


def test_a_scheduler_goes_up_to_the_human_gate(batch):
    create(batch, "t")
    create(batch, "later", schedule={"at": "2999-01-01T00:00:00Z"})
    (step,) = batch.json("scheduler", "run", "--once")
    assert (step["campaign"], step["outcome"], step["round"], step["reason"]) == ("t", "proposed", 1, "")
    sequences = [[d["sequence"] for d in batch.json("round", "show", name)["designs"]] for name in ("t", "c")]
    assert sequences[0] == sequences[1]  # as by hand, on the same seed
    assert running_in_mlflow(batch) == 0
    log = batch.home / "logs" / "t.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert "fitting rewards" in log.read_text()
    assert batch.json("scheduler", "run", "--once") == []
    queue = batch.json("status")["queue"]
    assert [(q["campaign"], q["why_not"]) for q in queue] == [("later", "due at 2999-01-01 00:00 UTC")]


@pytest.fixture(params=["sqlite", "postgresql"])
def imported(request, nowhere, readings):
    """A home, on either database, with the dataset "d"."""
    postgresql = request.param == "postgresql"
    database = ["--database-url", request.getfixturevalue("new_database")("template0")] if postgresql else []
    nowhere("init", *database)
    nowhere("data", "import", readings, "--dataset", "d", "--alphabet", "dna", "--unit", "au")
    return nowhere


def test_two_schedulers_do_each_thing_once(imported):
    names = [f"m{i}" for i in range(4)]
    measured(imported, names)
    both = [imported.start("scheduler", "run", "--once", "--max-campaigns", "2", "--json") for _ in range(2)]
    answers = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    steps = [step for out, _ in answers for step in json.loads(out)]
    assert sorted((s["campaign"], s["outcome"]) for s in steps) == [(name, "closed") for name in names]
    versions = imported.json("data", "show", "d")["versions"]
    assert [(v["number"], v["created_by"]) for v in versions[1:]] == [(n, "scheduler") for n in range(2, 6)]
    assert all(told(imported, name)["why_not"] == "all 1 rounds are closed" for name in names)


def test_pausing_stops_who_runs_it_and_cancelling_is_for_ever(slow):
    process = slow.start("round", "propose", "s")
    wait_for(lambda: told(slow, "s")["stage"] == "prior")
    began = time.monotonic()
    paused = slow.json("campaign", "pause", "s", "--reason", "freezer down", "--actor", "grace")
    assert (paused["standing"], paused["still_running"]) == ("paused", None)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < 15
    assert process.returncode == 4
    assert "'s' is paused by grace" in said
    assert "hint: run: plait campaign resume s" in said
    assert slow.json("status")["leases"] == []
    assert (told(slow, "s")["standing"], told(slow, "s")["reason"]) == ("paused", "freezer down")
    assert slow.json("round", "propose", "s", code=4)["error"]["code"] == "stopped"
    assert slow.json("scheduler", "run", "--once") == []
    scratch = [p for p in (slow.home / "artifacts").rglob("s-*") if p.is_dir()]
    assert len(scratch) == 1  # what it would go on from
    cancelled = slow.json("campaign", "cancel", "s", "--reason", "target dropped")
    assert cancelled["standing"] == "cancelled"
    assert not scratch[0].exists()
    for verb in ("resume", "pause"):
        assert slow.json("campaign", verb, "s", code=4)["error"]["code"] == "stopped"
    assert slow.json("campaign", "show", "s")["next"] == "plait report s --output report.html"
    assert running_in_mlflow(slow) == 0


def test_what_is_killed_is_tried_again_and_leaves_nothing_behind(slow):
    scheduler = slow.start("scheduler", "run", "--backoff", "0")
    first = wait_for(lambda: holder(slow, "campaign/s"))
    assert (holder(slow, "claim/s"), holder(slow, "scheduler/1")) == (scheduler.pid, scheduler.pid)
    os.kill(first, signal.SIGKILL)
    second = wait_for(lambda: (pid := holder(slow, "campaign/s")) and pid != first and pid)
    failed = told(slow, "s")
    assert (failed["num_failures"], failed["failure"]) == (1, "the process of the round was killed by signal 9")
    scheduler.kill()
    scheduler.communicate()
    wait_for(lambda: is_gone(second), 30)
    assert [h for h in slow.json("status")["leases"] if h["is_living"]] == []
    assert "no scheduler runs" in slow("status").out
    assert "Traceback" not in (slow.home / "logs" / "s.log").read_text()
    another = slow.start("scheduler", "run")
    third = wait_for(lambda: holder(slow, "campaign/s"))
    another.terminate()
    another.communicate(timeout=30)
    assert another.returncode == 130
    assert is_gone(third)
    assert holder(slow, "campaign/s") is None
    assert slow.json("status")["schedulers"] == []
    assert told(slow, "s")["num_failures"] == 1  # being stopped is no failure


def test_what_cannot_pass_fails_at_once_in_words(slow):
    (slow.home / "deny_list.json").write_text("{")
    (step,) = slow.json("scheduler", "run", "--once", code=5)
    assert (step["outcome"], step["standing"]) == ("failed", "failed")
    assert "deny_list.json" in step["reason"]
    assert told(slow, "s")["reason"] == step["reason"]
    assert slow.json("scheduler", "run", "--once") == []
    assert slow.json("campaign", "show", "s")["next"] == "plait campaign resume s"
    assert step["reason"] in slow("campaign", "show", "s").out
    assert slow.json("campaign", "resume", "s")["standing"] == "active"
    assert [q["why_not"] for q in slow.json("status")["queue"]] == [""]


def test_a_cancelled_batch_is_not_approved(batch):
    batch("campaign", "cancel", "c")
    assert batch.json("round", "approve", "c", code=4)["error"]["code"] == "stopped"
    assert batch.json("round", "reject", "c")["round"]["state"] == "rejected"


def test_results_of_a_cancelled_campaign_still_come_in(batch):
    batch("round", "approve", "c")
    batch("round", "export", "c", "--output", batch.home / "order.csv")
    cancelled = batch.json("campaign", "cancel", "c")
    assert cancelled["standing"] == "cancelled"
    assert batch.json("campaign", "show", "c")["next"] == "plait results import c FILE"
    rows = [f"{d['design_id']},1.0" for d in batch.json("round", "show", "c")["designs"]]
    table = batch.home / "plate.csv"
    table.write_text("\n".join(["design_id,value", *rows]) + "\n")
    assert batch.json("results", "import", "c", table)["round"]["state"] == "measured"
    assert batch.json("round", "close", "c")["round"]["state"] == "closed"
    assert batch.json("round", "propose", "c", code=4)["error"]["code"] == "stopped"


def test_queueing_changes_what_is_said_and_keeps_the_rest(campaign):
    campaign("campaign", "queue", "c", "--every", "Monday 9:00", "--priority", "3")
    said = campaign.json("campaign", "queue", "c", "--at", "2999-01-01T09:00", "--when", "results-complete")
    assert [said[key] for key in ("every", "priority", "not_before", "when")] == [
        "monday 9:00",
        3,
        "2999-01-01T09:00:00+00:00",
        "results-complete",
    ]
    shown = campaign.json("campaign", "show", "c")["schedule"]
    assert shown == said
    cleared = campaign.json("campaign", "queue", "c", "--every", "none", "--when", "none", "--at", "none")
    assert [cleared[key] for key in ("every", "priority", "not_before", "when")] == [None, 3, None, None]
    assert [q["why_not"] for q in campaign.json("status")["queue"]] == [""]


def test_a_limit_is_set_and_lifted(campaign):
    assert campaign.json("scheduler", "limit", "2") == {"max_running": 2}
    assert campaign.json("status")["max_running"] == 2
    assert "at most 2 at a time" in campaign("status").out
    campaign("scheduler", "limit", "none")
    assert campaign.json("status")["max_running"] is None


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("campaign queue c --every mondays", 3),
        ("campaign queue c --at soon", 2),
        ("campaign queue c --when never", 2),
        ("campaign pause nobody", 4),
        ("campaign queue c --at 0001-01-01T00:00+14:00", 3),
        ("scheduler limit 0", 2),
        ("scheduler limit 99999999999", 2),
        ("scheduler limit few", 2),
        ("scheduler run --max-campaigns 0", 2),
    ],
)
def test_mistakes_end_with_their_code(campaign, line, code):
    assert campaign.json(*line.split(), code=code)["error"]["message"]


def test_a_rhythm_in_the_configuration_is_checked(campaign, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump({"name": "x", "dataset": "d", "schedule": {"every": "mondays"}}))
    assert "schedule.every" in campaign.json("campaign", "create", file, code=3)["error"]["message"]
