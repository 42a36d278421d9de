import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plait.acquisition import pareto, top_q
from plait.acquisition.base import Pool
from plait.design.alphabets import DNA
from plait.design.space import DesignSpace
from plait.metrics.hypervolume import hypervolume_gains, pareto_ranks, reference_point


def make_pool(values, seed=0, front=None, feasibility=None, length=6):
    values = np.asarray(values, dtype=float)
    space = DesignSpace.from_template(DNA, "N" * length)
    rng = np.random.default_rng(seed)
    codes = rng.choice(4**length, len(values), replace=False)
    tokens = codes[:, None] // 4 ** np.arange(length) % 4
    mean = values.mean(1)
    return Pool(space, tokens, mean, np.ones(len(values)), mean, values, feasibility, front)


def choose(algorithm, pool, q, min_distance=1, taken=None, **config):
    taken = pool.tokens[:0] if taken is None else taken
    rng = np.random.default_rng(0)
    return algorithm.select(algorithm.Config(**config), pool, q, min_distance, taken, rng).tolist()


def plainly(pool, q, min_distance):
    """Every gain computed again for every choice; the Pareto rank where nothing is gained."""
    front = np.zeros((0, pool.values.shape[1])) if pool.front is None else pool.front
    reference = reference_point(np.concatenate([front, pool.values]))
    ranks, chosen = pareto_ranks(pool.values), []
    while len(chosen) < q:
        far = [
            i
            for i in range(len(pool.tokens))
            if i not in chosen and all((pool.tokens[i] != pool.tokens[j]).sum() >= min_distance for j in chosen)
        ]
        if not far:
            break
        gains = hypervolume_gains(pool.values[far], np.concatenate([front, pool.values[chosen]]), reference)
        if gains.max() > 0:
            chosen.append(max(zip(far, gains, strict=True), key=lambda pair: (pair[1], pool.conservative[pair[0]]))[0])
        else:
            chosen.append(min(far, key=lambda i: (ranks[i], -pool.conservative[i])))
    return chosen


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 60),
    k=st.integers(1, 4),
    m=st.integers(0, 8),
    seed=st.integers(0, 9_999),
    q=st.integers(1, 15),
    d=st.integers(1, 4),
)
def test_lazy_greedy_is_plain_greedy(n, k, m, seed, q, d):
    rng = np.random.default_rng(seed)
    pool = make_pool(rng.normal(size=(n, k)), seed, rng.normal(size=(m, k)) if m else None)
    assert choose(pareto, pool, q, d) == plainly(pool, q, d)


def test_the_batch_by_hand():
    """Of a front of three, two beside each other and a dominated design, the middle goes first, then the ends."""
    pool = make_pool([(4.0, 0.0), (0.0, 4.0), (3.0, 3.0), (2.9, 3.0), (1.0, 1.0)])
    assert choose(pareto, pool, 2)[0] == 2
    assert choose(pareto, pool, 5) == [2, 0, 1, 3, 4]  # then nothing is gained: rank 1, rank 2


def test_measured_items_hold_their_part_of_the_front():
    pool = make_pool([(3.0, 3.0), (0.5, 4.0)], front=np.array([[3.5, 3.5]]))
    assert choose(pareto, pool, 2) == [1, 0]
    assert choose(pareto, replace(pool, front=None), 2) == [0, 1]


def test_a_pool_of_one_assay_is_chosen_as_top_q_does():
    rng = np.random.default_rng(1)
    pool = make_pool(rng.normal(size=(50, 1)))
    expected = choose(top_q, pool, 9, 3)
    assert choose(pareto, pool, 9, 3) == expected
    assert choose(pareto, replace(pool, values=None), 9, 3) == expected


@pytest.mark.parametrize("algorithm", [pareto, top_q])
def test_infeasible_designs_come_last_and_the_likeliest_first(algorithm):
    values = [(9.0, 9.0), (8.0, 8.0), (1.0, 2.0), (2.0, 1.0), (7.0, 7.0)]
    pool = make_pool(values, feasibility=np.array([0.1, 0.4, 0.5, 0.9, np.nan]))
    assert set(choose(algorithm, pool, 2)) == {2, 3}
    assert choose(algorithm, pool, 5)[2:] == [1, 0]  # a feasibility that is no number is never chosen
    assert choose(algorithm, pool, 1, min_feasibility=0.0) == [0]
    assert set(choose(algorithm, pool, 5, taken=pool.tokens[[2]])) == {0, 1, 3}


def test_infeasible_designs_do_not_move_the_reference_point():
    values = [(3.0, 1.0), (1.0, 3.0), (2.1, 2.1), (-100.0, 100.0)]
    pool = make_pool(values, feasibility=np.array([1.0, 1.0, 1.0, 0.0]))
    without = make_pool(values[:3])
    assert choose(pareto, pool, 3) == choose(pareto, without, 3)


def test_values_that_are_no_number_are_never_chosen():
    pool = make_pool([(np.nan, 1.0), (1.0, 1.0), (0.0, np.inf)])
    pool = replace(pool, conservative=np.array([3.0, 2.0, 1.0]))
    assert choose(pareto, pool, 3) == [1]


@pytest.mark.parametrize("k", [2, 4])
def test_a_plate_of_5000_is_quick(k):
    rng = np.random.default_rng(0)
    sphere = rng.normal(size=(5000, k))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)  # the hard case: a front of hundreds
    pool = make_pool(sphere, front=0.5 * sphere[:1000], length=10)
    start = time.perf_counter()
    assert len(choose(pareto, pool, 96, 3)) == 96
    assert time.perf_counter() - start < 10
