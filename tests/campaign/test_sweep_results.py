"""Which trial is chosen, which ones no other beats, and what is said of it."""

from dataclasses import asdict

import pytest
from plait.campaign.sweep_results import SweepResult, TrialResult, choose, explain, read_sweep, with_front
from plait.design.errors import RunFailedError

FINISHED, STOPPED, BELOW, FAILED = "finished", "stopped", "below a floor", "failed"


def trial(number, score, kl, state=FINISHED, proxy=None, missed=()):
    proxy = score if proxy is None else proxy
    return TrialResult(
        number, {"finetune.kl_weight": 0.1}, state, 10, score, score, 0.1, proxy, kl, 0.9, -1.0, 1.0, missed=missed
    )


TRIALS = (
    trial(0, 1.0, 1.0),
    trial(1, 3.0, 5.0),
    trial(2, 2.0, 6.0),
    trial(3, 9.0, 9.0, BELOW, missed=("unique fraction",)),
    trial(4, 5.0, 2.0, STOPPED),
    trial(5, 3.0, 5.0),
    TrialResult(6, {"finetune.kl_weight": 1.0}, FAILED, reason="diverged"),
)


def sweep(trials, chosen, goal="maximize"):
    found = SweepResult(
        "c", 1, "drakes", {"finetune.kl_weight": (0.1, 1)}, "SD", goal, 1, 0.5, -1.2, trials, chosen, ""
    )
    return found, explain(found)


def test_the_best_finished_trial_is_chosen_whatever_others_score():
    assert choose(TRIALS, 1.0).number == 1
    assert choose(TRIALS, -1.0).number == 0


def test_the_front_has_no_trial_that_another_beats():
    assert [t.number for t in with_front(TRIALS, 1.0) if t.is_on_front] == [0, 1, 5]
    assert [t.number for t in with_front(TRIALS, -1.0) if t.is_on_front] == [0]


def test_without_a_trial_within_the_floors_there_is_no_policy():
    with pytest.raises(RunFailedError, match="all miss unique fraction") as caught:
        choose(TRIALS[3:4] + TRIALS[6:], 1.0)
    assert "kl_weight" in caught.value.hint
    with pytest.raises(RunFailedError, match="all 1 trials of the sweep failed: diverged"):
        choose(TRIALS[6:], 1.0)


def test_the_reason_names_the_trial_that_promised_most():
    _, said = sweep(TRIALS, 1)
    assert said.startswith("Trial 1 (kl_weight 0.1) was chosen")
    assert "expects 3 SD" in said
    assert "Trial 3 promises most by the climbed model (9), but it misses a floor (unique fraction)." in said
    _, said = sweep((*TRIALS[:3], trial(3, 0.5, 9.0, proxy=20.0)), 1)
    assert "Trial 3 promises most by the climbed model (20), but the judge expects only 0.5 of it" in said
    _, said = sweep(TRIALS[:2], 1)
    assert "promises most" not in said


def test_a_sweep_survives_being_stored():
    found, _ = sweep(with_front(TRIALS, 1.0), 1)
    assert read_sweep(asdict(found)) == found
