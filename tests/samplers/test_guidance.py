"""Gradients of the reward at states of the chain, and guidance along them."""

import pytest
import torch
from plait.benchmarks.exact import ExactChain, sampling_floor, total_variation
from plait.design.alphabets import DNA
from plait.design.errors import ConfigError, RunFailedError
from plait.design.space import DesignSpace
from plait.rewards.conservatism import ObjectiveValue
from plait.samplers import classifier_guidance
from plait.samplers._gradients import slopes
from scipy.stats import chisquare
from torch import nn

SPACE = DesignSpace.from_template(DNA, "NNYN")


class Curved:
    """An Objective in closed form, not linear in the letters; one unit is 1 / 0.7 assay standard deviations."""

    scale, assay_std, has_uncertainty = 0.0, 0.7, False

    def __init__(self, is_differentiable=True):
        self.worth = torch.randn((4, 4), generator=torch.Generator().manual_seed(0))
        self.is_differentiable, self.num_rows = is_differentiable, 0

    def __call__(self, x):
        self.num_rows += len(x)
        letters = x if x.is_floating_point() else nn.functional.one_hot(x, 4).float()
        linear = (letters * self.worth).sum((1, 2))
        value = linear + linear**2 / 4
        return ObjectiveValue(value, value, torch.zeros_like(value))


@pytest.fixture(name="make_prior")
def _make_prior(make_prior):
    def make(space, **settings):
        prior = make_prior(space, **settings)
        with torch.no_grad():
            prior.network.backbone.leave.weight.mul_(0.3)  # no letter so sure that guidance could not move it
        return prior

    return make


def states_of(prior, generator, n=6):
    tokens = prior.draw(n, generator(1))
    is_masked = torch.rand(tokens.shape, generator=generator(2)) < 0.5
    return tokens.masked_fill(is_masked, prior.mask_token)


def test_gradients_are_those_of_the_value_at_the_predicted_design(generator, make_prior):
    prior, goal = make_prior(SPACE), Curved()
    states = states_of(prior, generator)
    found = slopes(prior, goal, states, 0)

    def value(relaxed):
        with torch.no_grad():
            return goal(prior.predict_clean(relaxed, 0)).conservative / 0.7

    relaxed, step = prior.relax(states), 1e-2
    assert torch.allclose(found.values.float(), value(relaxed))
    for position, letter in [(0, 0), (1, 4), (2, 1), (3, 4)]:
        move = torch.zeros_like(relaxed)
        move[:, position, letter] = step
        slope = (value(relaxed + move) - value(relaxed - move)) / (2 * step)
        assert torch.allclose(found.gradients[:, position, letter], slope, atol=3e-2, rtol=3e-2)
    assert float(found.gradients.abs().max()) > 0.3


def test_distinct_states_are_looked_at_once_and_unchanged_ones_never_again(generator, make_prior):
    prior, goal = make_prior(SPACE), Curved()
    states = states_of(prior, generator)
    distinct, before = len(torch.unique(states, dim=0)), prior.rows_forwarded
    seen = slopes(prior, goal, torch.cat([states, states]), 0)
    assert prior.rows_forwarded - before == goal.num_rows == distinct
    assert torch.equal(seen.gradients[: len(states)], seen.gradients[len(states) :])
    assert slopes(prior, goal, torch.cat([states, states]), 0, seen) is seen
    moved = torch.cat([states, states])
    moved[3] = prior.init_state(1)[0]
    again = slopes(prior, goal, moved, 0, seen)
    assert prior.rows_forwarded - before == distinct + 1
    fresh = slopes(prior, goal, moved, 0)
    assert torch.allclose(again.gradients, fresh.gradients, atol=1e-6)
    assert torch.allclose(again.values, fresh.values, atol=1e-6)


def test_nothing_of_the_callers_is_touched(generator, make_prior, prepare):
    prior = make_prior(SPACE)
    prior.network.requires_grad_(True)
    prior.network.backbone.leave.weight.requires_grad_(False)
    before = [parameter.requires_grad for parameter in prior.network.parameters()]
    classifier_guidance.sample(prepare(classifier_guidance, prior, Curved()), 10, generator())
    assert [parameter.requires_grad for parameter in prior.network.parameters()] == before
    assert all(parameter.grad is None for parameter in prior.network.parameters())
    assert torch.is_grad_enabled()


def test_a_gradient_that_is_not_finite_is_refused(generator, make_prior, prepare):
    class Cusp(Curved):
        def __call__(self, x):
            value = super().__call__(x).conservative * 0
            return ObjectiveValue(value.sqrt(), value, value)

    with pytest.raises(RunFailedError, match="gradient"):
        classifier_guidance.sample(prepare(classifier_guidance, make_prior(SPACE), Cusp()), 10, generator())


def test_scale_zero_is_the_priors_chain(generator, make_prior, prepare):
    prior = make_prior(SPACE, num_steps=3)
    chain = ExactChain(prior)
    state = prepare(classifier_guidance, prior, Curved(), scale=0.0, batch_size=7000)
    drawn = classifier_guidance.sample(state, 20_000, generator(3))
    expected = chain.law().numpy() * 20_000
    observed = chain.empirical(drawn.tokens).numpy() * 20_000
    is_rare = expected < 5
    pooled = [[*each[~is_rare], each[is_rare].sum()] for each in (observed, expected)]
    assert chisquare(*pooled).pvalue > 1e-3
    assert not drawn.log_weights.any()
    assert drawn.log_evidence is None


def test_one_step_follows_the_guided_law(generator, make_prior, prepare):
    prior, goal = make_prior(SPACE, num_steps=1), Curved()
    start = prior.init_state(1)
    gradient = slopes(prior, goal, start, 0).gradients[0].double()
    with torch.no_grad():
        logits = prior.log_letters(start)[0].double() + 0.7 / 0.5 * (gradient[:, :-1] - gradient[:, -1:])
    letters, chain = logits.log_softmax(-1), ExactChain(prior)
    law = letters[torch.arange(4), chain.designs].sum(1).exp()
    assert float(law.sum()) == pytest.approx(1)
    state = prepare(classifier_guidance, prior, goal, scale=0.7, temperature=0.5)
    drawn = classifier_guidance.sample(state, 20_000, generator(4))
    assert total_variation(chain.empirical(drawn.tokens), law) < 1.3 * sampling_floor(law, 20_000)
    assert total_variation(chain.law(), law) > 0.2


@pytest.mark.parametrize("unmasking", ["independent", "one_by_one"])
def test_guidance_raises_the_reward(unmasking, generator, make_prior, prepare):
    prior, goal = make_prior(SPACE, unmasking=unmasking), Curved()
    chain = ExactChain(prior)
    value = goal(chain.designs).conservative.double() / 0.7
    means = [float(chain.law() @ value)]
    for scale in (0.5, 1.0):
        state = prepare(classifier_guidance, prior, goal, scale=scale, temperature=0.5)
        law = chain.empirical(classifier_guidance.sample(state, 3000, generator(5)).tokens)
        means.append(float(law @ value))
        distance = total_variation(law, chain.target(value, 0.5))
        print(f"{unmasking}, scale {scale}: mean {means[-1]:.2f}, total variation to the target {distance:.3f}")  # noqa: T201
    assert means[0] + 0.2 < means[1] < means[2] - 0.1


def test_rows_are_counted_and_unchanged_ones_cost_nothing(generator, make_prior, prepare):
    prior = make_prior(SPACE, num_steps=90)
    drawn = classifier_guidance.sample(prepare(classifier_guidance, prior, Curved()), 50, generator())
    assert 50 < drawn.num_forwards <= 2 * (1 + 4 * 50)
    assert drawn.num_forwards == prior.rows_forwarded


def test_seeds_progress_and_no_designs_at_all(generator, make_prior, prepare):
    state, told = prepare(classifier_guidance, make_prior(SPACE, num_steps=2), Curved(), batch_size=30), []
    one = classifier_guidance.sample(state, 50, generator(4), lambda *args: told.append(args[1:3]))
    assert torch.equal(one.tokens, classifier_guidance.sample(state, 50, generator(4)).tokens)
    assert not torch.equal(one.tokens, classifier_guidance.sample(state, 50, generator(5)).tokens)
    assert told == [(0, 100), (30, 100), (60, 100), (80, 100)]
    assert classifier_guidance.sample(state, 0, generator()).tokens.shape == (0, 4)


def test_a_black_box_is_refused(make_prior, prepare):
    with pytest.raises(ConfigError, match="not differentiable") as refusal:
        prepare(classifier_guidance, make_prior(SPACE), Curved(is_differentiable=False))
    assert "smc" in refusal.value.hint
    with pytest.raises(ConfigError, match="reward"):
        prepare(classifier_guidance, make_prior(SPACE), None)
