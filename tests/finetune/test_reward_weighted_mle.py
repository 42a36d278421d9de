"""Reward-weighted maximum likelihood: the target law, weights over a whole pool, the denoising likelihood."""

import math

import pytest
import torch
from plait.benchmarks.exact import total_variation
from plait.design.errors import RunFailedError
from plait.finetune import reward_weighted_mle
from plait.finetune._rollouts import roll_out
from plait.finetune.reward_weighted_mle import effective_weights
from torch import Generator


def generator(seed=0):
    return Generator().manual_seed(seed)


def drawn_apart(problem, seed=3):
    """A policy that is neither prior nor target, and whose letters depend on the order of filling."""
    policy = problem.prior.clone(is_trainable=False)
    weight = policy.network.backbone.leave.weight
    weight.add_(torch.randn(weight.shape, generator=generator(seed)))
    return policy


@pytest.mark.parametrize("source", ["policy", "prior"])
def test_a_tabular_policy_meets_the_target(source, make_exact):
    problem = make_exact()
    sizes = {"pool_size": 16_384, "batch_size": 1024, "fit_size": 512, "num_fits": 6}
    policy = problem.tune(reward_weighted_mle, num_updates=60, source=source, learning_rate=3e-2, **sizes)
    start, end = problem.distance(problem.prior), problem.distance(policy)
    assert start > 0.5
    assert end < 0.03


def test_small_minibatches_do_not_bias_the_weights(make_exact):
    """Weights normalised within minibatches of 4 would pull the law towards the prior's."""
    problem = make_exact(2)
    sizes = {"pool_size": 8192, "batch_size": 64, "fit_size": 4, "num_fits": 40, "source": "prior"}
    policy = problem.tune(reward_weighted_mle, num_updates=24, learning_rate=2e-2, **sizes)
    end = problem.distance(policy)
    assert end < 0.1


def test_the_ratio_of_paths_corrects_for_who_drew_them(make_exact):
    problem = make_exact()
    rollout = roll_out(drawn_apart(problem), problem.prior, 40_000, generator(2))
    value = problem.value[problem.chain.index(rollout.designs)]
    weighted = problem.chain.empirical(rollout.designs, value / 0.5 - rollout.log_ratio.sum(0))
    unweighted = problem.chain.empirical(rollout.designs, value / 0.5)
    assert total_variation(weighted, problem.target) < 0.05
    assert total_variation(unweighted, problem.target) > 0.15


def test_renewed_designs_replace_the_oldest(make_exact):
    state = make_exact(2).begin(reward_weighted_mle, pool_size=20, batch_size=8, num_fits=1)
    before = state.designs.clone()
    reward_weighted_mle.step(state)
    assert torch.equal(state.designs[:12], before[8:])
    assert len(state.designs) == len(state.log_weights) == 20


def test_a_pool_of_the_prior_is_drawn_once(make_exact):
    state = make_exact(2).begin(reward_weighted_mle, pool_size=20, batch_size=8, num_fits=1, source="prior")
    before = state.designs.clone()
    reward_weighted_mle.step(state)
    assert torch.equal(state.designs, before)


def test_weights_are_flattened_only_as_far_as_the_pool_needs():
    log_weights = 3 * torch.randn(1000, generator=generator())
    plain = effective_weights(log_weights, 0.0)
    assert torch.equal(plain, log_weights.softmax(0))
    assert 1 / (1000 * float(plain.square().sum())) < 0.1
    flat = effective_weights(log_weights, 0.25)
    assert 1 / (1000 * float(flat.square().sum())) == pytest.approx(0.25, rel=1e-3)
    assert torch.equal(flat.argsort(), log_weights.argsort())
    assert torch.equal(effective_weights(torch.zeros(10), 0.9), torch.full((10,), 0.1))


def test_the_denoising_likelihood_is_the_bound_item_by_item(make_exact):
    model = drawn_apart(make_exact())
    designs = torch.tensor([[0, 1, 2], [3, 3, 0]])
    together = designs.repeat_interleave(4000, 0)  # in this order: who stands where must not decide how much is masked
    draws = model.denoising_log_likelihood(together, generator(7)).view(2, 4000).T
    bound, error = model.elbo(designs, generator(), num_draws=0)
    assert float(error.max()) == 0
    standard_error = draws.std(0) / math.sqrt(len(draws))
    assert bool(((draws.mean(0) - bound).abs() < 4 * standard_error).all())
    assert float((bound[0] - bound[1]).abs()) > 10 * float(standard_error.max())


def test_a_reward_that_is_no_number_is_a_failure(make_exact):
    problem = make_exact(2)
    problem.objective.reward.single.fill_(math.nan)
    with pytest.raises(RunFailedError, match="diverged"):
        reward_weighted_mle.step(problem.begin(reward_weighted_mle, pool_size=16))
