from dataclasses import replace

import numpy as np
import pytest
from plait.design.alphabets import DNA
from plait.design.errors import BadInputError
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.rewards.splits import folds, hold_out, judge_split, linkage_groups, position_groups, split_groups


def as_dataset(tokens):
    n = len(tokens)
    space = DesignSpace.from_template(DNA, "N" * tokens.shape[1])
    return Dataset(space, tokens, np.arange(n, dtype=float), np.ones(n, dtype=np.int64), np.full(n, np.nan))


@pytest.fixture
def families():
    """40 parents of 30 letters, far apart, 5 items each: the parent and four single mutants."""
    rng = np.random.default_rng(0)
    items = np.repeat(rng.integers(0, 4, (40, 30)), 5, axis=0)
    for item in range(200):
        if item % 5:
            items[item, item % 5 + 7] = (items[item, item % 5 + 7] + 1) % 4
    return items


def short_space(n=600):
    every = np.stack(np.unravel_index(np.arange(4**6), (4,) * 6), 1).astype(np.int64)
    return np.random.default_rng(1).permutation(every)[:n]


def test_single_linkage_by_hand():
    tokens = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 1], [3, 3, 3]])
    assert linkage_groups(tokens, 1).tolist() == [0, 0, 0, 1]
    assert len(set(linkage_groups(tokens, 0))) == 4


def test_linkage_agrees_with_every_pair_looked_at():
    tokens = np.random.default_rng(3).integers(0, 3, (120, 5))
    groups = linkage_groups(tokens, 1)
    near = (tokens[:, None] != tokens[None]).sum(-1) <= 1
    reached = np.linalg.matrix_power(near.astype(float), 64) > 0
    assert np.array_equal(groups[:, None] == groups[None], reached)


def test_relatives_share_a_group(families):
    groups = split_groups(families, 0).reshape(40, 5)
    assert (groups == groups[:, :1]).all()
    assert len(set(groups[:, 0])) == 40


@pytest.mark.parametrize("seed", range(5))
def test_no_group_straddles(families, seed):
    kept, out = hold_out(as_dataset(families), seed, 0.3)
    assert sorted([*kept, *out]) == list(range(200))
    assert not set(kept // 5) & set(out // 5)
    assert abs(len(out) - 60) <= 5


@pytest.mark.parametrize("seed", range(3))
def test_relatives_on_the_other_strand_share_a_group_where_both_are_one_item(families, seed):
    space = DesignSpace.from_template(DNA, "N" * 30, strand_symmetric=True)
    for item in range(0, 200, 5):
        families[item, 0] = 3 - families[item, -1]  # both ends alike: a mutant of the first letter turns over
        families[item + 1 : item + 5] = families[item]
    families[:, 0] = (families[:, 0] + np.arange(200) % 5) % 4
    families[4::5, 1] = (families[4::5, 1] + 1) % 4
    tokens = space.canonical(families)
    assert len(np.unique(tokens, axis=0)) == 200
    data = replace(as_dataset(tokens), space=space)
    kept, out = hold_out(data, seed, 0.3)
    assert not set(kept // 5) & set(out // 5)
    assert abs(len(out) - 60) <= 5
    for number in range(5):
        fold = folds(data, seed, 5) == number
        assert not set(np.flatnonzero(fold) // 5) & set(np.flatnonzero(~fold) // 5)


@pytest.mark.parametrize("seed", range(5))
def test_short_spaces_fall_back_to_positions_and_stay_balanced(seed):
    tokens = short_space()
    assert len(set(linkage_groups(tokens, 1))) < 60
    groups = split_groups(tokens, seed)
    assert np.array_equal(groups, position_groups(tokens, seed))
    assert len(set(groups)) >= 20
    optimiser, judge = judge_split(as_dataset(tokens), seed)
    assert 0.4 < len(judge) / 600 < 0.6
    assert not {row.tobytes() for row in optimiser.tokens} & {row.tobytes() for row in judge.tokens}
    assert len(optimiser) + len(judge) == 600


def test_splits_are_decided_by_the_seed():
    dataset = as_dataset(short_space())
    first, again, other = (judge_split(dataset, seed)[1].values for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_folds_are_even_and_keep_groups_whole(families):
    fold = folds(as_dataset(families), 0, 4)
    assert np.bincount(fold).tolist() == [50, 50, 50, 50]
    assert (fold.reshape(40, 5) == fold.reshape(40, 5)[:, :1]).all()


def test_few_or_alike_items_can_still_be_split():
    kept, out = hold_out(as_dataset(np.array([[0, 0, 0], [0, 0, 1]])), 0, 0.5)
    assert len(kept) == len(out) == 1
    with pytest.raises(BadInputError, match="cannot be split"):
        hold_out(as_dataset(np.zeros((1, 3), dtype=np.int64)), 0, 0.5)


def test_the_halves_keep_every_field(families):
    dataset = replace(as_dataset(families), unit="E-score")
    optimiser, judge = judge_split(dataset, 0)
    for half in (optimiser, judge):
        assert half.unit == "E-score"
        assert np.array_equal(half.tokens, dataset.tokens[half.values.astype(int)])
