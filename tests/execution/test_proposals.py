"""What a sweep tries does not depend on what runs at a time, what ends first, or how often it is interrupted."""

import pytest
from climb import LOOKS, ClimbJob, ClimbPlan
from plait.design.errors import RunFailedError, StoreError
from plait.design.records import no_progress
from plait.execution.local import LocalExecutor
from plait.execution.proposals import Generations, Proposals
from plait.execution.trials import run_trial


def sweep(plan, storage):
    return LocalExecutor(1).sweep(plan, run_id="s", storage=str(storage), task="sweeping", progress=no_progress)


def run_in(order, plan, storage):
    """Run a generation's trials in another order than they were handed out."""
    search = Generations(plan, str(storage))
    while not search.is_over():
        handed_out = []
        while (trial := search.hand_out()) is not None:
            handed_out.append(trial)
        for trial in order(handed_out):
            run_trial(plan, trial, str(storage), 1)
            search.end(trial)
    return search.outcomes


def test_the_order_in_which_trials_end_changes_nothing(tmp_path):
    in_order = sweep(ClimbPlan(), tmp_path / "a")
    assert run_in(lambda trials: trials[::-1], ClimbPlan(), tmp_path / "b") == in_order
    assert [outcome.trial.number for outcome in in_order] == list(range(12))
    assert {type(outcome.trial.values["n"]) for outcome in in_order} == {int}


def test_what_is_told_guides_what_is_tried(tmp_path):
    miss = []
    for seed in range(4):
        outcomes = sweep(ClimbPlan(num_trials=24, seed=seed), tmp_path / str(seed))
        miss += [abs(outcome.trial.values["x"] - 0.3) for outcome in outcomes[12:]]
    at_random = 0.29
    assert sum(miss) / len(miss) < 0.75 * at_random


def test_the_worse_half_of_what_was_seen_before_ends_early(tmp_path):
    outcomes = sweep(ClimbPlan(), tmp_path)
    first, later = outcomes[:4], outcomes[4:]
    assert not any(outcome.is_stopped or outcome.trial.cutoffs for outcome in first)
    assert any(outcome.is_stopped for outcome in later)
    for outcome in later[:4]:
        scores = sorted((o.looks[0]["score"] for o in first), reverse=True)
        assert outcome.trial.cutoffs[0] == (LOOKS[0], scores[1])
        assert outcome.is_stopped == any(
            look["score"] < dict(outcome.trial.cutoffs)[look["update"]] for look in outcome.looks[:2]
        )
        assert len(outcome.curves["at"]) == outcome.looks[-1]["update"]


def test_a_trial_below_a_floor_sets_no_cutoff(tmp_path):
    outcomes = sweep(ClimbPlan(num_trials=32, floor=0.6, reduction=4), tmp_path)
    cutoffs = [score for outcome in outcomes for _, score in outcome.trial.cutoffs]
    assert cutoffs
    assert all(score <= 0.7 * LOOKS[-1] for score in cutoffs)


def test_a_trial_that_fails_is_a_failed_trial(tmp_path):
    outcomes = sweep(ClimbPlan(breaks_above=0.5), tmp_path)
    failed = [outcome for outcome in outcomes if outcome.error]
    assert 0 < len(failed) < 12
    assert all(outcome.trial.values["x"] > 0.5 and not outcome.looks for outcome in failed)
    assert failed[0].error.startswith("ValueError: nothing holds at 0.")


def test_a_sweep_may_lie_behind_a_url(tmp_path):
    plan = ClimbPlan(num_trials=4, log=tmp_path / "log")
    whole = sweep(plan, tmp_path / "s")
    assert sweep(plan, "memory://bucket/sweep") == whole
    assert sweep(plan, "memory://bucket/sweep") == whole
    assert len((tmp_path / "log").read_text().split()) == 8


def test_a_storage_that_cannot_be_written_is_no_failed_trial(tmp_path):
    (tmp_path / "s").write_text("a file where a folder should be")
    with pytest.raises(RunFailedError, match="sweeping failed: NotADirectoryError"):
        sweep(ClimbPlan(), tmp_path / "s")


def test_a_store_that_is_away_is_no_failed_trial(tmp_path):
    class Away(ClimbPlan):
        def start(self, trial):
            raise StoreError("the artifact root is away")

    with pytest.raises(StoreError, match="away"):
        sweep(Away(), tmp_path / "s")
    assert sweep(ClimbPlan(), tmp_path / "s") == sweep(ClimbPlan(), tmp_path / "t")


def test_finished_trials_are_found_again(tmp_path):
    log = tmp_path / "log"
    plan = ClimbPlan(log=log)
    whole = sweep(plan, tmp_path / "s")
    assert log.read_text().split() == [str(number) for number in range(12)]
    for number in (2, 7):
        (tmp_path / f"s/trial-000{number}/outcome.json").unlink()
    (tmp_path / "s/trial-0011/outcome.json").unlink()
    for file in (tmp_path / "s/trial-0011/result").iterdir():
        file.unlink()
    (tmp_path / "s/trial-0011/result").rmdir()
    assert sweep(plan, tmp_path / "s") == whole
    assert log.read_text().split()[12:] == ["11"]


def test_another_sweep_in_the_same_place_finds_nothing_of_the_first(tmp_path):
    sweep(ClimbPlan(seed=1), tmp_path / "s")
    assert sweep(ClimbPlan(seed=2), tmp_path / "s") == sweep(ClimbPlan(seed=2), tmp_path / "t")


def test_there_are_as_many_trials_as_asked_for(tmp_path):
    proposals = Proposals(ClimbPlan(num_trials=6))
    first = proposals.ask()
    assert [trial.number for trial in first] == [0, 1, 2, 3]
    proposals.tell([run_trial(ClimbPlan(), trial, str(tmp_path), 1) for trial in first])
    assert [trial.number for trial in proposals.ask()] == [4, 5]


def test_a_trial_goes_on_from_its_checkpoint(tmp_path):
    plan = ClimbPlan(num_trials=4)
    whole = sweep(plan, tmp_path / "whole")
    search = Generations(plan, str(tmp_path / "s"))
    trial = search.hand_out()

    class Broken(ClimbJob):
        def start(self, rank, world_size, generator):
            run = super().start(rank, world_size, generator)
            step = run.step

            def breaking(average_gradients):
                if run.done == 5:
                    raise KeyboardInterrupt
                return step(average_gradients)

            run.step = breaking
            return run

    class BrokenPlan(ClimbPlan):
        def start(self, trial):
            return Broken(self, trial)

    with pytest.raises(KeyboardInterrupt):
        run_trial(BrokenPlan(num_trials=4), trial, str(tmp_path / "s"), 1, seconds_between_checkpoints=0.0)
    assert list((tmp_path / "s/trial-0000/checkpoints").iterdir())
    assert run_trial(plan, trial, str(tmp_path / "s"), 1) == whole[0]
    assert not (tmp_path / "s/trial-0000/checkpoints").exists()
