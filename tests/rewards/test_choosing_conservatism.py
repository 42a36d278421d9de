from dataclasses import replace

import numpy as np
import pytest
import torch
from plait.design.alphabets import DNA
from plait.design.errors import BadInputError
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.metrics.ranks import partial_spearman
from plait.rewards import choosing_conservatism, ensemble
from plait.rewards.choosing_conservatism import SCALE, choose, choose_for
from plait.rewards.splits import judge_split

SPACE = DesignSpace.from_template(DNA, "N" * 8)


def library(share, seed=0, size=1500):
    """Noisy readings that a pair of letters decides, of the lowest `share` of a uniform library."""
    rng = np.random.default_rng(seed)
    tokens = np.unique(rng.integers(0, 4, (round(size / share * 1.2), 8)), axis=0)
    rng.shuffle(tokens)
    pairs = (tokens[:, :-1] == 2) & (tokens[:, 1:] == 0)
    values = pairs.sum(1) + 0.5 * (tokens == 2).mean(1) + 0.5 * rng.standard_normal(len(tokens))
    low = np.flatnonzero(values <= np.quantile(values, share))[:size]
    return Dataset(SPACE, tokens[low], values[low], np.ones(len(low), dtype=np.int64), np.full(len(low), np.nan))


def test_partial_correlation_by_hand():
    rng = np.random.default_rng(0)
    given = rng.standard_normal(4000)
    a, b = given + rng.standard_normal(4000), given + rng.standard_normal(4000)
    assert abs(partial_spearman(a, b, given)) < 0.06
    assert partial_spearman(a, a - given, given) > 0.8
    ranks = [np.argsort(np.argsort(column)).astype(float) for column in (a, b, given)]
    line = [column - np.polyval(np.polyfit(ranks[2], column, 1), ranks[2]) for column in ranks[:2]]
    assert partial_spearman(a, b, given) == pytest.approx(np.corrcoef(*line)[0, 1], abs=1e-9)
    assert partial_spearman(given, b, given) == 0.0


def test_what_was_cut_away_is_sought():
    data = library(0.6)
    chosen = choose_for(data, np.full(len(data), data.values.mean()))
    assert (chosen.kind, chosen.scale) == ("rarity", -SCALE)
    assert chosen.t > 3


def test_what_mutants_of_one_sequence_lack_is_not_sought():
    rng = np.random.default_rng(0)
    mutated = rng.random((6000, 8)) < 0.2
    tokens = np.unique(np.where(mutated, rng.integers(0, 4, (6000, 8)), np.zeros(8, dtype=np.int64)), axis=0)
    values = (tokens != 0).sum(1) + 0.1 * rng.standard_normal(len(tokens))
    low = np.flatnonzero(values <= np.quantile(values, 0.6))
    data = Dataset(SPACE, tokens[low], values[low], np.ones(len(low), dtype=np.int64), np.full(len(low), np.nan))
    chosen = choose_for(data, np.zeros(len(data)))
    assert chosen.t > 3
    assert chosen.kind == "none"
    assert "does not cover the space" in chosen.reason


def test_a_whole_library_says_nothing():
    choices = []
    for seed in range(8):
        data = library(1.0, seed=seed)
        choices.append(choose_for(data, np.full(len(data), data.values.mean())))
    assert [c.kind for c in choices].count("none") >= 7
    assert abs(np.mean([c.t for c in choices])) < 1.5
    few = data.take(np.arange(40))
    assert (choose_for(few, few.values).kind, choose_for(few, few.values).t) == ("none", 0.0)


def test_letters_that_are_not_equally_common_say_nothing_by_themselves():
    for seed in range(12):
        rng = np.random.default_rng(seed)
        tokens = np.unique(rng.choice(4, (1500, 8), p=[0.15, 0.35, 0.35, 0.15]), axis=0)
        count, noise = len(tokens), rng.standard_normal(len(tokens))
        data = Dataset(SPACE, tokens, noise, np.ones(count, dtype=np.int64), np.full(count, np.nan))
        assert choose_for(data, np.zeros(count)).kind == "none"


def test_rare_that_reads_low_is_penalised():
    data = library(0.6)
    chosen = choose_for(replace(data, values=-data.values), np.zeros(len(data)))
    assert (chosen.kind, chosen.scale) == ("rarity", SCALE)
    assert "penalised" in chosen.reason


def test_choose_predicts_each_half_by_the_other(dataset):
    halves = judge_split(dataset, 0, 1 / 3)
    config = ensemble.Config(members=1, families=("mlp",), steps=20, hidden=8)
    models = tuple(ensemble.fit(config, half, torch.Generator().manual_seed(0)) for half in halves)
    chosen = choose(halves, models)
    held_out = [
        models[other].predict(torch.as_tensor(halves[own].tokens)).mean.double().numpy()
        for own, other in ((0, 1), (1, 0))
    ]
    whole = choosing_conservatism.join(*halves)
    assert chosen == choose_for(whole, np.concatenate(held_out))
    with pytest.raises(BadInputError, match="one half"):
        choose((halves[0], halves[1].take(np.arange(0))), models)
