"""cfg and ddom: the guided step by hand, the weights by hand, designs that carry what the best bin has."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from plait.design.alphabets import DNA
from plait.design.errors import ConfigError
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.samplers import cfg, ddom

BOTH = [cfg, ddom]
SPACE = DesignSpace.from_template(DNA, "NNNNN")
QUICK = {"num_bins": 4, "num_train_steps": 200, "train_batch_size": 64, "learning_rate": 3e-3}


def measured(space=SPACE, n=300, noise=0.1):
    """Random items; the value is whether position 2 holds T (or, on the twin strand, A), and noise."""
    rng = np.random.default_rng(0)
    tokens = np.unique(space.canonical(rng.integers(0, 4, (2 * n, 5))), axis=0)
    tokens = rng.permutation(tokens)[:n]
    has = (tokens[:, 2] == 3) | (space.strand_symmetric & (tokens[:, 2] == 0))
    values = has + noise * rng.standard_normal(len(tokens))
    return Dataset(space, tokens, values, np.ones(len(tokens), dtype=np.int64), np.full(len(tokens), np.nan))


@pytest.fixture(name="prior")
def _prior(make_prior):
    prior = make_prior(SPACE)
    with torch.no_grad():
        prior.network.backbone.leave.weight.mul_(0.2)
    return prior


@pytest.fixture(name="teach")
def _teach(prior, generator):
    def teach(sampler, noise=0.1, **settings):
        config = sampler.Config(**{**QUICK, **settings})
        return sampler.prepare(config, prior, None, measured(noise=noise), generator())

    return teach


def carries(tokens):
    return float((tokens[:, 2] == 3).float().mean())


def test_a_guided_step_is_the_formula(teach, generator):
    state = teach(cfg, num_train_steps=60)
    start = torch.tensor([[4, 4, 4, 4, 4], [0, 4, 4, 1, 2]])
    none, best = (m.transition(start, 0).log_letters.double() for m in (state.none, state.best))
    for gamma in (0.0, 1.5):
        guided = state.none.transition(start, 0).blend(state.best.transition(start, 0), 1 + gamma)
        by_hand = none.exp() * (best.exp() / none.exp()) ** (1 + gamma)
        by_hand = by_hand / by_hand.sum(-1, keepdim=True)
        assert torch.allclose(guided.log_letters.double().exp(), by_hand, atol=1e-5)
    # The last step fills every position: the letters that sample() draws follow the formula at its own guidance.
    one_step = replace(state, config=cfg.Config(guidance=1.5, batch_size=3000))
    for model in (one_step.none, one_step.best):
        model.num_steps = 1
    shares = torch.nn.functional.one_hot(cfg.sample(one_step, 20_000, generator()).tokens, 4).double().mean(0)
    assert torch.allclose(shares, by_hand[0], atol=0.015)


@pytest.mark.parametrize("sampler", BOTH)
def test_designs_carry_what_the_best_bin_has_and_more_so_with_guidance(sampler, prior, teach, generator):
    state = teach(sampler, noise=0.4)
    plain = carries(prior.draw(1000, generator()))
    shares = [
        carries(sampler.sample(replace(state, config=sampler.Config(guidance=g)), 1000, generator(1)).tokens)
        for g in (0.0, 1.0, 4.0)
    ]
    print(f"{sampler.__name__}: prior {plain:.2f}, guided {shares}, held out {state.bounds}")  # noqa: T201
    assert shares[1] > plain + 0.25
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] > 0.9
    assert state.bounds[2] > max(state.bounds[:2])


@pytest.mark.parametrize("sampler", BOTH)
def test_one_seed_gives_the_same_designs_and_none_can_be_asked_for(sampler, teach, generator):
    tokens = [
        sampler.sample(teach(sampler, num_train_steps=20, batch_size=7), 20, generator(3)).tokens for _ in range(2)
    ]
    assert torch.equal(*tokens)
    state = teach(sampler, num_train_steps=20)
    nothing = sampler.sample(state, 0, generator())
    assert nothing.tokens.shape == (0, 5)
    assert nothing.log_weights.shape == (0,)
    assert nothing.num_forwards == 0
    some = sampler.sample(state, 64, generator())
    assert 0 < some.num_forwards <= 2 * 64 * state.none.num_steps


def test_values_that_the_designs_do_not_explain_leave_the_prior_alone(prior, generator):
    """A prior that fits the data, and values of noise: nothing held out gets better by much, and nothing is learnt."""
    tokens = prior.draw(4000, generator(8)).unique(dim=0)
    tokens = tokens[torch.randperm(len(tokens), generator=generator(1))][:200].numpy()
    values = np.random.default_rng(1).standard_normal(len(tokens))
    noise = Dataset(SPACE, tokens, values, np.ones(len(tokens), dtype=np.int64), np.full(len(tokens), np.nan))
    state = cfg.prepare(cfg.Config(num_bins=4), prior, None, noise, generator())
    start = state.none.init_state(1)
    shift = state.best.transition(start, 0).kl(state.none.transition(start, 0))
    print(f"values of noise: held out {state.bounds}, best bin off by {float(shift):.4f} nats")  # noqa: T201
    assert state.bounds[2] >= state.bounds[0]
    assert float(shift) < 0.05


@pytest.mark.parametrize("sampler", BOTH)
def test_missing_or_strange_data_are_refused(sampler, prior, generator):
    with pytest.raises(ConfigError, match="none are given"):
        sampler.prepare(sampler.Config(), prior, None, None, generator())
    narrow = prior.restrict(DesignSpace.from_template(DNA, "NNYNN"))
    with pytest.raises(ConfigError, match="outside"):
        sampler.prepare(sampler.Config(), narrow, None, measured(), generator())


def test_the_prior_is_left_as_it_was(prior, teach):
    before = {name: tensor.clone() for name, tensor in prior.network.state_dict().items()}
    teach(cfg, num_train_steps=20)
    assert all(torch.equal(tensor, before[name]) for name, tensor in prior.network.state_dict().items())


def test_both_strands_are_learnt_where_they_are_one_item(make_prior, generator):
    space = DesignSpace.from_template(DNA, "NNNNN", strand_symmetric=True)
    prior = make_prior(space)
    with torch.no_grad():
        prior.network.backbone.leave.weight.zero_()
    data = measured(space)
    state = cfg.prepare(cfg.Config(**{**QUICK, "num_bins": 2}), prior, None, data, generator())
    tokens = cfg.sample(state, 1000, generator()).tokens
    share = [float((tokens[:, 2] == letter).float().mean()) for letter in range(4)]
    assert min(share[0], share[3]) > 0.3


def test_ddom_weights_by_hand():
    values = np.array([0.0, 0.1, 0.2, 0.3, 1.0, 1.2, 1.9, 2.0])
    # Four bins of width .5: shares 4/8, 0, 2/8, 2/8, upper ends .5, 1, 1.5, 2.
    temp = 2.0 - (1.9 * 0.7 + 2.0 * 0.3)  # the 90% quantile lies at index 6.3
    assert temp == pytest.approx(0.07)
    smoothing = 0.25
    mass = np.exp((np.array([0.5, 1.5, 2.0]) - 2.0) / temp) * np.array([0.5 / 0.75, 0.5, 0.5])
    mass = mass / mass.sum()
    by_hand = [mass[0] / 0.5] * 4 + [mass[1] / 0.25] * 2 + [mass[2] / 0.25] * 2
    assert ddom.value_weights(values, 4, smoothing) == pytest.approx(np.array(by_hand))
    assert by_hand[-1] == pytest.approx(4.0, abs=0.01)
    assert np.mean(by_hand) == pytest.approx(1)
    # 99 low and one high, temp 1: the high one would weigh 69, and is cut to 5.
    low, high = np.exp(-0.9) * 0.99 / 0.991, 0.01 / 0.011
    cut = ddom.value_weights(np.array([0.0] * 99 + [1.0]), 10, 1e-3)
    assert cut == pytest.approx(np.array([low / (low + high) / 0.99] * 99 + [5.0]))


def test_ddom_weights_bear_values_that_share_the_maximum():
    weights = ddom.value_weights(np.array([0.0] * 50 + [1.0] * 50), 20, 1e-3)
    assert weights == pytest.approx(np.array([0.0] * 50 + [2.0] * 50))


def test_ddom_weights_rise_with_the_value_and_know_no_unit():
    values = np.random.default_rng(0).random(500)
    weights = ddom.value_weights(values, 10, 1e-3)
    assert 0.5 < weights.mean() <= 1 + 1e-9
    assert weights[values > 0.9].mean() > 3 * weights[values < 0.5].mean()
    shifted = ddom.value_weights(7 * values - 3, 10, 1e-3)
    assert shifted == pytest.approx(weights, rel=1e-6)


def test_ddom_is_judged_even_where_no_held_out_item_bears_weight(prior, generator):
    tokens = measured(n=60).tokens
    values = np.random.default_rng(3).uniform(0, 1, 60)
    values[values > 0.8] = 1.0  # the ceiling of an assay: all that is lower weighs nothing beside it
    data = Dataset(SPACE, tokens, values, np.ones(60, dtype=np.int64), np.full(60, np.nan))
    config = ddom.Config(**{**QUICK, "num_train_steps": 30, "validation_interval": 5})
    for seed in range(6):
        state = ddom.prepare(config, prior, None, data, generator(seed))
        assert np.isfinite(state.bounds).all()
