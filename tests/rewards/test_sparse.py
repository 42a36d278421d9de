"""The sparse surrogate: its features, its lasso, its scale, what it finds, and its bundle."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from plait.design.alphabets import DNA, find_alphabet
from plait.design.errors import BadInputError, CorruptArtifactError
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.metrics.ranks import pearson
from plait.rewards import sparse
from plait.rewards._gapped_pairs import has_pairs, letter_planes
from plait.rewards._links import choose_link
from plait.rewards.conservatism import ConservativeReward
from torch import Generator

LETTERS = find_alphabet("custom:ABCDEFGHIJKLMNOP")


def generator(seed=0):
    return Generator().manual_seed(seed)


def as_dataset(space, tokens, values):
    n = len(tokens)
    return Dataset(space, tokens, values, np.ones(n, dtype=np.int64), np.full(n, np.nan), "units")


def truth(tokens):
    """Three gapped pairs anywhere and one letter at its place, multiplied."""
    pairs = has_pairs(letter_planes(tokens, 16), np.array([[3, 1, 2], [7, 4, 5], [1, 8, 9]]))
    return 0.02 * 3.0 ** pairs.sum(0) * np.where(tokens[:, 5] == 7, 2.0, 1.0)


@pytest.fixture(scope="module", name="rare")
def _rare():
    rng = np.random.default_rng(0)
    space = DesignSpace(alphabet=LETTERS, allowed=(LETTERS.letters,) * 40)
    tokens = rng.integers(0, 16, (800, 40))
    return as_dataset(space, tokens, truth(tokens))


@pytest.fixture(scope="module", name="model")
def _model(rare):
    return sparse.fit(sparse.Config(max_gap=8, iterations=150), rare, generator())


@pytest.mark.parametrize("length", [5, 64, 70, 130])
def test_pairs_are_found_wherever_they_stand(length):
    rng = np.random.default_rng(length)
    tokens = rng.integers(0, 4, (50, length))
    pairs = np.stack([rng.integers(1, length, 60), rng.integers(0, 4, 60), rng.integers(0, 4, 60)], 1)
    found = has_pairs(letter_planes(tokens, 4), pairs)
    for row, (gap, first, second) in zip(found, pairs.tolist(), strict=True):
        assert np.array_equal(row, ((tokens[:, :-gap] == first) & (tokens[:, gap:] == second)).any(1))


def test_the_solver_meets_the_optimality_conditions_of_the_lasso():
    rng = np.random.default_rng(0)
    values = (rng.random((12, 300)) < 0.4).astype(np.float32)
    target = (values[0] - 0.5 * values[3] + 0.05 * rng.standard_normal(300)).astype(np.float32)
    weights = rng.random(300).astype(np.float32)
    weights /= weights.sum()
    beta, intercept = sparse._lasso(values, target, weights, np.zeros(300, dtype=bool), 3000)
    std = np.sqrt(weights @ (values - (values @ weights)[:, None]).T ** 2)
    slope = values @ (weights * (target - intercept - beta @ values)) / std
    centred = target - weights @ target
    largest = np.abs((values - (values @ weights)[:, None]) @ (weights * centred) / std).max()
    penalty = sparse._LAMBDAS[len(sparse._LAMBDAS) // 2] * largest
    assert np.abs(slope).max() <= penalty * 1.01
    assert slope[beta != 0] == pytest.approx(np.sign(beta[beta != 0]) * penalty, rel=0.01)
    assert 0 < (beta != 0).sum() < 12


def test_rare_elements_are_found_and_predicted_in_the_assays_unit(model):
    rng = np.random.default_rng(9)
    unseen = rng.integers(0, 16, (1000, 40))
    said = model.predict(torch.from_numpy(unseen))
    assert said.members.shape == (4, 1000)
    assert pearson(np.log(said.mean.double().numpy()), np.log(truth(unseen))) > 0.95
    assert np.median(np.abs(np.log(said.mean.numpy() / truth(unseen)))) < 0.3
    strongest = {tuple(row) for row in model.pairs[np.argsort(-model.pair_effects.mean(0))[:3]].tolist()}
    assert strongest == {(3, 1, 2), (7, 4, 5), (1, 8, 9)}
    assert model.letter_effects[:, 5, 7].min() > 0
    assert model.calibration.spearman > 0.7


def test_readings_are_fitted_on_the_scale_that_suits_them():
    skewed = np.exp(np.random.default_rng(0).standard_normal(500))
    assert choose_link("auto", skewed).floor is not None
    assert choose_link("auto", np.log(skewed)).floor is None
    assert choose_link("auto", np.log(skewed) - np.log(skewed).min()).floor is None
    assert choose_link("identity", skewed).floor is None
    with_zeros = np.where(skewed < 0.3, 0.0, skewed)
    link = choose_link("log", with_zeros)
    back = link.inverse(torch.from_numpy(link.forward(with_zeros)))
    assert back.numpy() == pytest.approx(with_zeros, abs=1e-12)
    assert choose_link("log", -skewed).floor is None


def test_far_above_all_readings_values_stay_finite_and_keep_their_order():
    link = choose_link("log", np.array([0.0, 1.0, 100.0]))
    high = torch.tensor([np.log(1000.5), 8.0, 20.0, 200.0], dtype=torch.float64, requires_grad=True)
    said = link.inverse(high)
    (gradient,) = torch.autograd.grad(said.sum(), high)
    said = said.detach()
    assert said[0].item() == pytest.approx(1000.0)
    assert (said.diff() > 0).all()
    assert said[-1] < 1e6
    assert (gradient > 0).all()


@pytest.mark.parametrize("slope", [1.0, 4.0])
def test_the_optimum_of_steep_products_has_a_finite_value(slope):
    space = DesignSpace.from_template(DNA, "N" * 30)
    tokens = np.random.default_rng(0).integers(0, 4, (200, 30))
    data = as_dataset(space, tokens, np.exp(slope * (tokens == 1).sum(1)))
    model = sparse.fit(sparse.Config(members=2, iterations=100, max_gap=1), data, generator())
    best = torch.ones((2, 30), dtype=torch.int64)
    best[1, :6] = 0
    value = ConservativeReward(model, None, 0.0, float(data.values.std()))(best)
    assert value.conservative.isfinite().all()
    assert value.std.isfinite().all()
    assert value.mean[0] > value.mean[1] > data.values.max()
    assert value.mean[0] < 1000 * data.values.max()


def test_one_seed_gives_one_model_and_another_gives_another(rare):
    config, some = sparse.Config(members=2, iterations=20, max_gap=2), torch.from_numpy(rare.tokens[:20])
    one, same, other = (sparse.fit(config, rare, generator(seed)).predict(some).members for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_both_strands_count_where_they_are_one_item():
    rng = np.random.default_rng(1)
    space = DesignSpace.from_template(DNA, "N" * 12, strand_symmetric=True)
    tokens = np.unique(space.canonical(rng.integers(0, 4, (300, 12))), axis=0)
    data = as_dataset(space, tokens, rng.standard_normal(len(tokens)))
    model = sparse.fit(sparse.Config(members=2, iterations=50), data, generator())
    assert len(model.pairs)
    forward = np.array([[3, 0, 1]])
    assert np.array_equal(
        sparse._pairs_of(space, tokens, forward), sparse._pairs_of(space, 3 - tokens[:, ::-1], forward)
    )


def test_a_bundle_comes_back_as_it_was(model, rare, tmp_path):
    model.save(tmp_path / "m")
    again = sparse.load(tmp_path / "m")
    some = torch.from_numpy(rare.tokens[:50])
    assert torch.equal(again.predict(some).members, model.predict(some).members)
    assert again.calibration == model.calibration
    assert (again.scale, again.link) == (model.scale, model.link)
    assert model.link.ceiling is not None
    assert model.predict(some[:0]).members.shape == (4, 0)


@pytest.mark.parametrize("change", [{"pairs": np.array([[99, 0, 0]])}, {"intercepts": np.zeros(9, dtype=np.float32)}])
def test_a_bundle_that_does_not_fit_is_refused(model, tmp_path, change):
    empty = np.zeros((4, 1), dtype=np.float32)
    replace(model, **{"pairs": np.array([[1, 0, 0]]), "pair_effects": empty, **change}).save(tmp_path / "m")
    with pytest.raises(CorruptArtifactError, match="sparse"):
        sparse.load(tmp_path / "m")


def test_readings_that_teach_nothing_are_refused(rare):
    flat = replace(rare, values=np.ones(len(rare)))
    for data in (flat, rare.take(np.arange(9))):
        with pytest.raises(BadInputError, match="fitted"):
            sparse.fit(sparse.Config(), data, generator())


def test_both_strands_of_an_item_get_one_value(symmetric):
    fitted = sparse.train(sparse.Config(members=2), symmetric, generator())
    assert (fitted.letter_effects != 0).any()
    x = torch.from_numpy(symmetric.tokens)
    twins = torch.from_numpy(symmetric.space.alphabet.complement_tokens())[x.flip(1)]
    assert torch.equal(fitted.predict(x).members, fitted.predict(twins).members)
