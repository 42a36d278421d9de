import numpy as np
import pytest
from plait.benchmarks.scoring import Batch, design_rows, score, top_threshold, unique_of
from plait.benchmarks.tasks import find_task
from plait.campaign.records import Design

TASK = find_task("splice6")
TOKENS, TRUTH = TASK.everything()
BEST_FIRST = TOKENS[np.argsort(-TRUTH, kind="stable")]


def batch(tokens, number=1, promise=0.5, unique_fraction=0.9):
    """A batch whose predictions are its truth and `promise`."""
    truth = np.nan_to_num(TASK.truth(tokens))
    designs = [
        Design(f"c-r{number}-{rank:03d}", "c", number, rank, sequence, value + promise, 0.1, value, "policy",
               {"judged": value, "elbo_per_token": -1.25})
        for rank, (sequence, value) in enumerate(zip(TASK.space.decode(tokens), truth.tolist(), strict=True), start=1)
    ]  # fmt: skip
    readings = TASK.measure([d.sequence for d in designs], 0)
    return Batch(number, tuple(designs), tuple(readings), unique_fraction, 0.75, 2.0)


def test_the_best_items_are_the_top_one_per_cent():
    num_top = round(len(TOKENS) / 100)
    assert (top_threshold(TASK) <= TRUTH).sum() == num_top
    scores = score(TASK, 0, [batch(BEST_FIRST[: 2 * num_top])], plate=2 * num_top)
    assert scores.top_share == pytest.approx(0.5)
    assert (scores.wells_to_first, scores.wells_to_50) == (1, None)
    assert scores.best == scores.best_so_far == pytest.approx(TRUTH.max())
    assert scores.gap == pytest.approx(0.5)
    assert scores.proxy == pytest.approx(scores.median + 0.5)
    assert scores.elbo_per_token == pytest.approx(-1.25)


def test_wells_are_counted_over_rounds_and_the_best_is_kept():
    rounds = [batch(BEST_FIRST[-20:]), batch(BEST_FIRST[:10][::-1], 2), batch(BEST_FIRST[500:510], 3, promise=-0.1)]
    scores = score(TASK, 0, rounds, plate=20)
    assert (scores.rounds, scores.wells) == (3, 40)
    assert scores.wells_to_first == 21
    assert scores.top_share_by_round == (0.0, 0.5, 0.0)
    assert scores.best_by_round[1] == scores.best_by_round[2] == scores.best_so_far == pytest.approx(TRUTH.max())
    assert scores.best < scores.best_so_far
    assert scores.gap_by_round == pytest.approx((0.5, 0.5, -0.1))
    assert scores.seconds == pytest.approx(6.0)


def test_distinct_draws_are_counted_on_a_plate():
    assert unique_of(["A"] * 1_000) == pytest.approx(1 / 96)
    assert unique_of([*"ACGT", "A"]) == pytest.approx(4 / 5)
    assert unique_of([str(i % 500) for i in range(2_000)]) > 0.8


def test_empty_wells_are_misses():
    assert score(TASK, 0, [batch(BEST_FIRST[:1])]).top_share == pytest.approx(1 / TASK.batch_size)


def test_a_method_that_repeats_itself_has_collapsed():
    assert score(TASK, 0, [batch(BEST_FIRST[:10], unique_fraction=0.49)]).is_collapsed
    assert not score(TASK, 0, [batch(BEST_FIRST[:10], unique_fraction=0.5)]).is_collapsed


def test_designs_of_unknown_truth_count_as_wells_but_not_as_finds():
    unknown = [t for t in np.concatenate(list(TASK.space.enumerate())) if np.isnan(TASK.truth(t[None])[0])]
    tokens = np.concatenate([BEST_FIRST[:1], np.array(unknown[:1])])
    scores = score(TASK, 0, [batch(tokens)], plate=2)
    assert scores.top_share == pytest.approx(0.5)
    assert scores.median == pytest.approx(TRUTH.max())
    assert [row["truth"] is None for row in design_rows(TASK, [batch(tokens)])] == [False, True]


def test_designs_like_the_offline_items_are_near_and_those_far_away_are_new():
    offline = TASK.space.encode(TASK.offline(0).sequences)
    near, far = (score(TASK, 0, [batch(tokens)]) for tokens in (offline[:30], BEST_FIRST[:30]))
    assert near.novelty == 0 < far.novelty
    assert near.diversity > 0
    assert near.offline_best == pytest.approx(np.nanmax(TASK.truth(offline)))


def test_what_cannot_be_listed_is_scored_by_its_best():
    task = find_task("ehrlich-s4-l50")
    tokens = task.space.encode(task.offline(0).sequences)[:12]
    truth = task.truth(tokens)
    designs = tuple(
        Design(f"c-r1-{i}", "c", 1, i, s, float(v), 0.1, float(v), "policy", {"elbo_per_token": -1.0})
        for i, (s, v) in enumerate(zip(task.space.decode(tokens), truth, strict=True), start=1)
    )
    scores = score(task, 0, [Batch(1, designs, tuple(truth.tolist()), 1.0, 1.0, 1.0)])
    assert scores.top_share is None
    assert (scores.wells_to_first, scores.top_share_by_round) == (None, (None,))
    assert scores.best_so_far == pytest.approx(truth.max())
    assert scores.gap == pytest.approx(0.0)
