"""A campaign that leaves its leash open, in process and on Ray: small settings, real components."""

import json
import sqlite3
from dataclasses import replace

import numpy as np
import plait
import pytest
from plait.campaign.records import RoundState
from plait.design.errors import BadInputError, RunFailedError, WrongStateError
from plait.execution.local import LocalExecutor
from plait.lab.scenarios import find_scenario

TINY = {
    "dataset": "splice",
    "prior": {"settings": {"num_pretrain_steps": 30, "width": 16}},
    "reward": {"members": 2, "settings": {"steps": 30, "families": ["mlp"]}},
    "judge": {"settings": {"steps": 30, "members": 2, "families": ["mlp"]}},
    "batch": {"size": 8, "num_candidates": 64},
    "finetune": {"kl_weight": "auto", "settings": {"num_updates": 8, "batch_size": 8}},
    "sweep": {"num_trials": 4, "generation": 2, "num_samples": 64},
}


class InProcess(LocalExecutor):
    def close(self):
        """Nothing to stop."""


class Hears:
    """A tracker that only listens: MLflow's own store takes seconds to make."""

    def __init__(self):
        self.names = []

    def record(self, message, artifact):
        self.names.append(message.run_name)
        return ""


@pytest.fixture
def home(tmp_path):
    readings = find_scenario("splice").offline_readings(size=300, seed=0)
    rows = [f"{s},{v!r}" for s, v in zip(readings.sequences, readings.values.tolist(), strict=True)]
    (tmp_path / "t.csv").write_text("sequence,value\n" + "\n".join(rows) + "\n")
    with plait.open(tmp_path / "home", create=True) as opened:
        opened.__dict__["executor"] = InProcess(1)
        opened.data.import_(tmp_path / "t.csv", dataset="splice", alphabet="dna", unit="log10 PSI")
        opened.__dict__["ports"] = replace(opened.ports, tracker=Hears())
        yield opened


def told(home):
    with sqlite3.connect(home.path / "mlflow.db") as mlflow:
        return sorted(name for (name,) in mlflow.execute("select name from runs where name like '%trial%'"))


def test_the_judge_s_choice_is_the_round_s_policy_and_mlflow_hears_of_each_trial_once(home, tmp_path):
    del home.__dict__["ports"]
    home.campaign.create({"name": "c", **TINY})
    home.round.propose("c")
    found = home.sweep.show("c", figure=tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert [trial.number for trial in found.trials] == [0, 1, 2, 3]
    best = found.best
    assert best.score == max(trial.score for trial in found.trials if trial.state == "finished")
    assert best.is_on_front
    assert best.score < best.judged
    with home.registry.begin() as uow:
        stages = {stage.stage: stage.outputs for stage in uow.stages("c")}
        policy = uow.model("c-policy")
    assert stages["finetune"]["policy"] == best.policy == policy.artifact_sha256
    assert stages["sweep"]["settings"]["kl_weight"] == best.values["finetune.kl_weight"]
    assert len(stages["finetune"]["attempts"]) == 1
    assert told(home) == [f"c round 1 trial-{number}" for number in range(4)]
    page = home.report("c", tmp_path / "report.html")
    assert page.sweeps == (found,)
    text = (tmp_path / "report.html").read_text()
    assert "What the judge chose" in text
    assert 'id="figure-sweep-1"' in text
    with pytest.raises(BadInputError, match="cannot be written"):
        home.sweep.show("c", figure=tmp_path / "sweep.nonsense")


def test_pessimism_and_leash_are_swept_together_where_lower_is_better(home):
    document = {"name": "c", **TINY, "objective": {"goal": "minimize"}, "conservatism": {"scale": "auto"}}
    home.campaign.create(document)
    home.round.propose("c")
    found = home.sweep.show("c")
    assert found.finetuner == "braid"
    assert set(found.axes) == {"conservatism.scale", "finetune.kl_weight"}
    assert found.best.score == min(trial.score for trial in found.trials if trial.state == "finished")
    assert found.best.score > found.best.judged
    assert [name for name in home.ports.tracker.names if "trial" in name] == [f"c round 1 trial-{n}" for n in range(4)]
    with home.registry.begin() as uow:
        chosen = next(stage for stage in uow.stages("c") if stage.stage == "sweep").outputs
    assert chosen["scale"] == found.best.values["conservatism.scale"]


def test_a_floor_that_no_trial_meets_ends_the_round_with_what_to_do(home):
    home.campaign.create({"name": "c", **TINY, "sweep": {**TINY["sweep"], "min_unique": 1.0, "num_samples": 1_000}})
    with pytest.raises(RunFailedError, match="no trial of the sweep meets the floors: all miss unique fraction"):
        home.round.propose("c")
    with pytest.raises(WrongStateError, match="'c' has swept nothing"):
        home.sweep.show("c")


def test_nothing_is_swept_unless_asked_for(home):
    plain = {**TINY, "finetune": {"settings": TINY["finetune"]["settings"]}}
    del plain["sweep"]
    home.campaign.create({"name": "c", **plain})
    assert home.round.propose("c").state is RoundState.PROPOSED
    with home.registry.begin() as uow:
        chosen = next(stage for stage in uow.stages("c") if stage.stage == "sweep").outputs
    assert set(chosen) == {"kind", "scale", "reason", "finetuner", "settings", "is_leash_free"}
    assert not [name for name in home.ports.tracker.names if "trial" in name]
    assert json.dumps(chosen["settings"])
    assert np.isfinite(chosen["settings"]["kl_weight"])
