"""plait sweep show, where there is nothing to show and where there is."""

from dataclasses import asdict, replace

import plait
import pytest
from plait.campaign.sweep_results import SweepResult, TrialResult, explain, with_front


def trial(number, score, state="finished"):
    values = {"finetune.kl_weight": 0.01 * (1 + number)}
    return TrialResult(number, values, state, 8, score, score + 0.2, 0.01, score + 0.5, 1.0 + number, 0.9, -1.3, 0.8)


TRIALS = with_front([trial(0, 1.0), trial(1, 1.5), trial(2, 0.5, "stopped")], 1.0)
FOUND = SweepResult(
    "c", 1, "drakes", {"finetune.kl_weight": (0.01, 0.03)}, "au", "maximize", 1, 0.5, None, TRIALS, 1, ""
)


@pytest.fixture
def swept(cli, readings):
    """A campaign whose first round has a sweep on record."""
    cli("data", "import", readings, "--dataset", "d", "--alphabet", "dna", "--unit", "au")
    with plait.open(cli.home) as home:
        home.campaign.create({"name": "c", "dataset": "d", "finetune": {"kl_weight": "auto"}})
        sha = home.artifacts.put_json(asdict(replace(FOUND, reason=explain(FOUND))))
        with home.registry.begin() as uow:
            uow.add_round("c", 1, uow.campaign("c").dataset_version_id, "ada")
            uow.finish_stage("c", 1, "sweep", "0" * 64, {"sweep": sha}, 1.0)
    return cli


def test_the_chosen_trial_comes_first_and_the_reason_last(swept, tmp_path):
    said = swept("sweep", "show", "c", "--figure", tmp_path / "sweep.svg").out
    rows = [line.split() for line in said.splitlines() if line[:1].isdigit()]
    assert [row[:2] for row in rows][:2] == [["1", "chosen"], ["0", "front"]]
    assert "ended after 8" in said
    assert said.strip().splitlines()[-1].startswith("Trial 1 (kl_weight 0.02) was chosen")
    assert (tmp_path / "sweep.svg").exists()
    document = swept.json("sweep", "show", "c", "--round", "1")
    assert document["sweep"]["chosen"] == 1
    assert document["figure"] is None


def test_what_is_not_there_ends_with_4_and_a_bad_picture_with_3(swept, tmp_path):
    assert swept("--json", "sweep", "show", "nobody", code=4).json["error"]["code"] == "not_found"
    assert swept("--json", "sweep", "show", "c", "--round", "2", code=4).json["error"]["code"] == "wrong_state"
    assert "sweep.png" in swept("sweep", "show", "c", "--figure", tmp_path / "no" / "f.png", code=3).err
