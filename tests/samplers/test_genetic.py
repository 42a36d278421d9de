"""The evolutionary samplers: legal moves, a search that climbs, the archive's own, and a drift that stays neutral."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from plait.design.alphabets import DNA, find_alphabet
from plait.design.constraints import GcWindow
from plait.design.errors import ConfigError, RunFailedError
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.rewards.base import Prediction
from plait.rewards.conservatism import ConservativeReward, ObjectiveValue
from plait.samplers import genetic, neutral_drift
from plait.samplers._evolution import EvolutionConfig, Measured, Moves, _pick, evolve, value_of

LETTERS = find_alphabet("custom:ABCDEFGH")
LONG = DesignSpace(alphabet=LETTERS, allowed=(LETTERS.letters,) * 20)
SEARCH = {"generations": 15, "num_islands": 4, "population_size": 30, "num_children": 100}


def as_dataset(space, tokens, values):
    n = len(tokens)
    return Dataset(space, tokens, values, np.ones(n, dtype=np.int64), np.full(n, np.nan))


def motif(tokens):
    """Letters of the best site of AB.D anywhere, from 0 to 3; all else is of no consequence."""
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(tokens), 4, axis=1)
    return (windows[..., [0, 1, 3]] == [0, 1, 3]).sum(-1).max(1).astype(float)


class Truth:
    """An objective that knows."""

    scale, assay_std, has_uncertainty, is_differentiable = 0.0, 1.0, False, False

    def __init__(self, function=motif, std=0.0):
        self.function, self.std, self.calls = function, std, 0

    def __call__(self, x):
        self.calls += 1
        value = torch.from_numpy(self.function(x.numpy()))
        return ObjectiveValue(value, value, torch.full_like(value, self.std))


@pytest.fixture(scope="module", name="poor")
def _poor():
    """Items with at most two letters of the motif, C never followed by D."""
    tokens = np.random.default_rng(0).integers(0, 8, (1500, 20))
    keep = (motif(tokens) < 3) & ~((tokens[:, :-1] == 2) & (tokens[:, 1:] == 3)).any(1)
    return as_dataset(LONG, tokens[keep], motif(tokens[keep]))


@pytest.fixture(name="designs")
def _designs(make_prior, prepare, generator):
    def designs(sampler, dataset, n=24, objective=None, seed=0, **settings):
        prior = make_prior(dataset.space)
        state = prepare(sampler, prior, objective, dataset, **{**SEARCH, **settings})
        return sampler.sample(state, n, generator(seed)).tokens.numpy()

    return designs


@pytest.mark.parametrize("sampler", [genetic, neutral_drift])
def test_the_search_finds_what_no_item_shows_by_pieces_that_items_show(sampler, poor, designs):
    found = designs(sampler, poor, objective=Truth())
    assert (motif(found) == 3).mean() > 0.8
    assert len(np.unique(found, axis=0)) == len(found)
    assert not ((found[:, :-1] == 2) & (found[:, 1:] == 3)).any()
    assert not {row.tobytes() for row in found} & {row.tobytes() for row in poor.tokens}


def test_without_the_limit_unseen_pieces_are_used(poor, designs):
    free = designs(neutral_drift, poor, n=60, objective=Truth(), observed=0)
    assert ((free[:, :-1] == 2) & (free[:, 1:] == 3)).any()


def test_the_archive_breeds_from_the_best_and_asks_no_reward(poor, designs):
    objective = Truth()
    bred = designs(genetic, poor, n=80, objective=objective, generations=0, num_parents=10)
    assert objective.calls == 0
    assert np.array_equal(bred, designs(genetic, poor, n=80, generations=0, num_parents=10))
    parents = poor.tokens[np.argsort(-poor.values, kind="stable")[:10]]
    in_place = designs(genetic, poor, n=80, generations=0, num_parents=10, transposed=0, mutations=0)
    assert (in_place[:, None] == parents).any(1).all()
    assert not {row.tobytes() for row in bred} & {row.tobytes() for row in poor.tokens}


def test_drift_keeps_what_matters_and_scatters_the_rest(poor, designs):
    settings = {"objective": Truth(), "n": 60, "num_islands": 1, "founders": 5}
    still = designs(neutral_drift, poor, drifted=0.0, **settings)
    drifted = designs(neutral_drift, poor, drifted=1.0, tolerance=0.0, **settings)
    assert motif(drifted).min() >= motif(still).min()

    def agreement(tokens):
        return np.mean([(tokens == np.roll(tokens, shift, axis=0)).mean() for shift in range(1, len(tokens))])

    assert agreement(still) > 0.3
    assert agreement(drifted) < 0.25
    sites = (np.lib.stride_tricks.sliding_window_view(drifted, 4, axis=1)[..., [0, 1, 3]] == [0, 1, 3]).all(-1)
    assert len(np.unique(sites.argmax(1))) > 3


def test_the_tolerance_is_a_share_of_the_gain_in_any_unit(poor, designs):
    def stretched(tokens):
        return 1000 + 7 * motif(tokens)

    plain, other = Truth(), Truth(stretched)
    other.assay_std = 7.0
    same = as_dataset(LONG, poor.tokens, 1000 + 7 * poor.values)
    one, two = (designs(neutral_drift, data, objective=o) for data, o in ((poor, plain), (same, other)))
    assert np.array_equal(one, two)


@pytest.mark.parametrize(("readings", "values"), [(100, 0), (-100, 0), (0, 100), (0, -100), (-100, -100)])
def test_drift_compares_values_with_values_wherever_readings_begin(poor, designs, readings, values):
    moved = as_dataset(LONG, poor.tokens, poor.values + readings)
    found = designs(neutral_drift, moved, objective=Truth(lambda x: motif(x) + values))
    assert np.array_equal(found, designs(neutral_drift, poor, objective=Truth()))


def test_what_can_never_be_a_design_has_no_gain_to_lose(poor, designs):
    found = designs(neutral_drift, poor, n=4, objective=Truth(lambda x: np.full(len(x), -np.inf)), generations=2)
    assert LONG.is_feasible(found).all()


def few_free(num_fixed=25):
    """Items of a template with 5 free positions of 3 letters each, in the middle of fixed ones."""
    space = DesignSpace.from_template(
        LETTERS, "A" * (num_fixed // 2) + "[BCD]" * 5 + "A" * (num_fixed - num_fixed // 2)
    )
    tokens = np.concatenate(list(space.enumerate()))[::5]
    return as_dataset(space, tokens, tokens.sum(1).astype(float))


def test_mutations_are_other_letters_at_free_positions_as_many_as_asked_for():
    data = few_free()
    moves, start = Moves.of(data, 0), np.repeat(data.tokens, 200, axis=0)
    mutated = moves.mutate(start, 1.5, np.random.default_rng(0))
    changes = (mutated != start).sum(1)
    assert data.space.is_feasible(mutated).all()
    assert changes.mean() == pytest.approx(1.5, abs=0.05)
    moved = np.unique((mutated - start)[mutated != start], return_counts=True)[1]
    assert moved / moved.sum() == pytest.approx([1 / 6, 1 / 3, 1 / 3, 1 / 6], abs=0.02)


def test_fixed_positions_cost_the_drift_nothing(make_prior, prepare, generator):
    calls, free = [], few_free()
    for data in (few_free(0), free):
        objective = Truth(lambda x: np.zeros(len(x)))
        state = prepare(neutral_drift, make_prior(data.space), objective, data, **SEARCH, steps=3, drifted=1.0)
        before = objective.calls
        neutral_drift.sample(state, 8, generator())
        calls.append(objective.calls - before)
    assert calls[0] == calls[1]
    scattered = neutral_drift._scatter(state, free.tokens, np.random.default_rng(0))
    changes = (scattered != free.tokens).sum(1)
    assert free.space.is_feasible(scattered).all()
    assert changes.mean() > 0.8
    assert changes.max() == 3


def test_an_island_without_legal_children_returns_its_founders_best_first(poor):
    measured = Measured.of(poor, EvolutionConfig(), "genetic")
    barren = replace(measured, moves=replace(measured.moves, k=1, seen=np.zeros(8, dtype=bool)))

    def worth(tokens):
        return -tokens.sum(1).astype(float)

    for generations in (1, 3):
        found = evolve(worth, barren, EvolutionConfig(generations=generations), np.random.default_rng(0))
        assert len(found) == 25
        assert (np.diff(worth(found)) <= 0).all()


@pytest.mark.parametrize(("sampler", "generations"), [(genetic, 0), (genetic, 2), (neutral_drift, 2)])
def test_measured_items_outside_the_constraints_breed_but_are_no_designs(sampler, generations, designs):
    space = DesignSpace.from_template(DNA, "NNNN", constraints=(GcWindow(minimum=0.0, maximum=0.5),))
    every = np.concatenate(list(DesignSpace.from_template(DNA, "NNNN").enumerate()))

    def worth(tokens):
        return np.isin(tokens, [1, 2]).sum(1).astype(float)

    settings = {"objective": Truth(worth), "n": 60, "generations": generations, "num_parents": 60, "observed": 0}
    found = designs(sampler, as_dataset(space, every, worth(every)), **settings)
    assert space.is_feasible(found).all()
    outside = every[worth(every) == 4]
    with pytest.raises(RunFailedError, match="constraints"):
        designs(sampler, as_dataset(space, outside, worth(outside)), **settings, mutations=0, transposed=0)


def test_templates_constraints_and_strands_are_kept(designs):
    space = DesignSpace.from_template(
        DNA, "NNGYNNNNRCNN", constraints=(GcWindow(minimum=0.3, maximum=0.7),), strand_symmetric=True
    )
    tokens = Moves.of(as_dataset(space, np.zeros((1, 12), dtype=np.int64), np.zeros(1)), 0).draw(
        400, np.random.default_rng(0)
    )
    tokens = np.unique(space.canonical(tokens[space.is_feasible(tokens)]), axis=0)
    data = as_dataset(space, tokens, (tokens == 2).sum(1).astype(float))
    for sampler in (genetic, neutral_drift):
        found = designs(sampler, data, objective=Truth(lambda x: (x == 2).sum(1).astype(float), std=0.5))
        assert space.is_feasible(found).all()
        assert np.array_equal(space.canonical(found), found)


def test_too_few_new_designs_are_filled_up():
    population = np.arange(12).reshape(4, 3)
    known = {population[1].tobytes()}
    assert _pick(population, known, 2, 1).tolist() == population[[0, 2]].tolist()
    assert _pick(population, known, 6, 1).tolist() == population[[0, 2, 3, 1, 0, 2]].tolist()
    near = np.array([[0, 0, 0], [0, 0, 1], [5, 5, 5]])
    assert _pick(near, set(), 2, 2).tolist() == near[[0, 2]].tolist()


@pytest.mark.parametrize("sampler", [genetic, neutral_drift])
def test_what_cannot_be_bred_is_refused(sampler, poor, make_prior, prepare, generator):
    prior = make_prior(LONG)
    with pytest.raises(ConfigError, match="measured"):
        prepare(sampler, prior, Truth(), poor.take(np.arange(0)))
    with pytest.raises(ConfigError, match="reward"):
        prepare(sampler, prior, None, poor)
    with pytest.raises(RunFailedError, match="NaN"):
        sampler.sample(
            prepare(sampler, prior, Truth(lambda x: np.full(len(x), np.nan)), poor, **SEARCH), 4, generator()
        )
    fixed = DesignSpace.from_template(LETTERS, "ABCD")
    with pytest.raises(ConfigError, match="nothing to change"):
        prepare(sampler, prior, Truth(), as_dataset(fixed, np.array([[0, 1, 2, 3]]), np.ones(1)))


class TwoMembers:
    """A reward model that is of two minds."""

    space, unit, scale, is_differentiable = LONG, "", 1.0, False

    def predict(self, x):
        first = x.sum(1).float()
        return Prediction(torch.stack([first, -first]), torch.tensor([0.75, 0.25]))


def test_an_opinion_is_a_members_view_in_proportion_to_its_weight(poor):
    objective, some = ConservativeReward(TwoMembers(), None, 0.0, 1.0), poor.tokens[:6]
    total = some.sum(1).astype(float)
    for opinion, expected in ((0.1, total), (0.74, total), (0.76, -total), (0.999, -total)):
        assert value_of(objective, np.array([opinion]), 1.0)(some) == pytest.approx(expected)
    mixed = value_of(objective, np.array([0.1, 0.9] * 3), 1.0)(some)
    assert mixed == pytest.approx(total * [1, -1, 1, -1, 1, -1])
    assert value_of(objective, np.array([0.9]), 0.0)(some) == pytest.approx(total / 2)
    none = value_of(Truth(std=2.0), np.array([0.5, 0.975, 0.025] * 2), 1.0)(some) - motif(some)
    assert none == pytest.approx([0.0, 3.92, -3.92] * 2, abs=0.01)
