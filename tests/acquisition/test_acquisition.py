import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plait.acquisition import top_q
from plait.acquisition.base import Pool
from plait.campaign.catalog import algorithms
from plait.design.alphabets import DNA
from plait.design.space import DesignSpace

ACQUISITIONS = algorithms("acquisition")


def make_pool(n, length, seed, symmetric=False):
    space = DesignSpace.from_template(DNA, "N" * length, strand_symmetric=symmetric)
    rng = np.random.default_rng(seed)
    tokens = rng.permutation(np.unique(space.canonical(rng.integers(0, 4, (n, length))), axis=0))
    values = rng.standard_normal((3, len(tokens)))
    return Pool(space, tokens, values[0], np.abs(values[1]), values[2])


def distance(space, a, b):
    strands = [b, space.alphabet.complement_tokens()[b[::-1]]] if space.strand_symmetric else [b]
    return min(int((a != strand).sum()) for strand in strands)


@pytest.mark.parametrize("name", ACQUISITIONS)
@pytest.mark.parametrize("symmetric", [False, True])
@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 80), length=st.integers(3, 8), seed=st.integers(0, 999), q=st.integers(1, 20),
    min_distance=st.integers(1, 4), num_taken=st.integers(0, 40),
)  # fmt: skip
def test_every_acquisition_keeps_the_contract(name, symmetric, n, length, seed, q, min_distance, num_taken):
    algorithm = ACQUISITIONS[name]
    pool = make_pool(n, length, seed, symmetric)
    taken = pool.tokens[:num_taken]
    if symmetric:
        taken = 3 - taken[:, ::-1]
    chosen = algorithm.select(algorithm.Config(), pool, q, min_distance, taken, np.random.default_rng(0))
    again = algorithm.select(algorithm.Config(), pool, q, min_distance, taken, np.random.default_rng(0))
    assert np.array_equal(chosen, again)
    assert chosen.dtype == np.int64
    assert len(chosen) <= q
    assert len(set(chosen.tolist())) == len(chosen)
    assert (chosen >= min(num_taken, len(pool.tokens))).all()
    for i, a in enumerate(chosen):
        for b in chosen[:i]:
            assert distance(pool.space, pool.tokens[a], pool.tokens[b]) >= min_distance


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_config_is_frozen_documented_and_closed(name):
    config = ACQUISITIONS[name].Config()
    for key, field in type(config).model_fields.items():
        assert field.description
        with pytest.raises(ValueError, match="frozen"):
            setattr(config, key, getattr(config, key))
    with pytest.raises(ValueError, match="extra"):
        type(config)(unknown=1)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 60), seed=st.integers(0, 999), q=st.integers(1, 10), min_distance=st.integers(0, 3))
def test_top_q_is_the_greedy_choice(n, seed, q, min_distance):
    pool = make_pool(n, 5, seed)
    expected = []
    for candidate in np.argsort(-pool.conservative, kind="stable"):
        far = all((pool.tokens[candidate] != pool.tokens[other]).sum() >= min_distance for other in expected)
        if far and len(expected) < q:
            expected.append(int(candidate))
    none = np.zeros((0, 5), dtype=np.int64)
    found = top_q.select(top_q.Config(), pool, q, min_distance, none, np.random.default_rng(0))
    assert found.tolist() == expected


def test_the_two_strands_of_one_item_are_chosen_once():
    space = DesignSpace.from_template(DNA, "NNNN", strand_symmetric=True)
    tokens = space.encode(["AAAC", "GTTT", "CCAA"])
    pool = Pool(space, tokens, np.zeros(3), np.zeros(3), np.array([3.0, 2.0, 1.0]))
    none = np.zeros((0, 4), dtype=np.int64)
    assert top_q.select(top_q.Config(), pool, 3, 1, none, np.random.default_rng(0)).tolist() == [0, 2]


def test_values_that_are_no_number_are_never_chosen():
    pool = make_pool(5, 6, 0)
    bad = Pool(pool.space, pool.tokens, pool.mean, pool.std, np.array([np.nan, 1.0, np.nan, 2.0, np.inf]))
    none = np.zeros((0, 6), dtype=np.int64)
    assert top_q.select(top_q.Config(), bad, 5, 1, none, np.random.default_rng(0)).tolist() == [3, 1]


def test_a_large_pool_is_quick():
    pool = make_pool(150_000, 20, 0)
    chosen = top_q.select(top_q.Config(), pool, 96, 8, pool.tokens[:2000], np.random.default_rng(0))
    assert len(chosen) == 96
