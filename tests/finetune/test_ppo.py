"""PPO: the exact gradient of its objective, reuse of rollouts, the baseline, the target law."""

import math

import pytest
import torch
from plait.benchmarks.exact import ExactChain, tabular_policy
from plait.design.alphabets import find_alphabet
from plait.design.errors import RunFailedError
from plait.design.space import DesignSpace
from plait.finetune import ppo
from plait.priors import masked_diffusion
from torch import Generator


def generator(seed=0):
    return Generator().manual_seed(seed)


def gradients(state):
    """What every optimiser update of the next step() follows: one flat gradient each."""
    recorded = []
    ppo.step(state, lambda ps: recorded.append(torch.cat([p.grad.flatten() for p in ps])))
    return recorded


def test_a_tabular_policy_meets_the_target(make_exact):
    problem = make_exact()
    policy = problem.tune(ppo, num_updates=60, batch_size=1024, learning_rate=5e-2)
    start, end = problem.distance(problem.prior), problem.distance(policy)
    assert start > 0.5
    assert end < 0.03


def binary_problem():
    """Two positions of two letters, a policy away from its prior, worths that ask for something else again."""
    space = DesignSpace(alphabet=find_alphabet("custom:01"), allowed=("01", "01"))
    config = masked_diffusion.Config(width=4, unmasking="one_by_one")
    prior = tabular_policy(masked_diffusion.init(config, space, generator()))
    policy = prior.clone(is_trainable=True)
    with torch.no_grad():
        prior.network.backbone.leave.weight.normal_(generator=generator(1))
        policy.network.backbone.leave.weight.normal_(generator=generator(2))
    return prior, policy, torch.tensor([0.5, -1.0, 1.5, 0.0])


def exact_gradient(prior, policy, worth, kl_weight):
    """Of J = E[worth - kl_weight * log(policy / prior) of the path], over all eight paths."""
    total = 0.0
    for first in range(2):
        for design in torch.cartesian_prod(torch.arange(2), torch.arange(2)):
            states = [policy.init_state(1), policy.init_state(1), design[None]]
            states[1][0, first] = design[first]
            mine, theirs = (
                sum(m.transition(states[t], t).log_prob(states[t + 1])[0] for t in range(2)) for m in (policy, prior)
            )
            gain = worth[2 * design[0] + design[1]] - kl_weight * (mine - theirs)
            total = total + mine.exp() * gain
    (gradient,) = torch.autograd.grad(total, policy.network.parameters())
    return gradient.flatten()


def test_the_gradient_has_both_parts_of_the_kl(make_exact):
    prior, policy, worth = binary_problem()
    exact = exact_gradient(prior, policy, worth, kl_weight=1.0)
    problem = make_exact(2)
    state = problem.begin(ppo, num_epochs=1, batch_size=40_000)
    state.policy, state.prior, state.kl_weight = policy, prior, 1.0
    rollout = ppo._rollouts.roll_out(policy, prior, 40_000, generator(3))
    value = worth[2 * rollout.designs[:, 0] + rollout.designs[:, 1]]

    def error(gains):
        policy.network.zero_grad()
        ppo._accumulate(state, rollout, gains, torch.arange(40_000), 1.0)
        (parameter,) = policy.network.parameters()
        return float((parameter.grad.flatten() + exact).norm() / exact.norm())

    assert error(ppo.advantages(value, rollout.kl, 1.0)) < 0.03
    without_later_kl = ppo.advantages(value, torch.zeros_like(rollout.kl), 1.0)
    assert error(without_later_kl) > 0.1


def test_the_kl_of_hard_states_is_the_path_kl():
    prior, policy, _ = binary_problem()
    rollout = ppo._rollouts.roll_out(policy, prior, 20_000, generator())
    exact = ExactChain(policy).path_kl(ExactChain(prior))
    assert exact > 0.2
    assert float(rollout.kl.sum(0).mean()) == pytest.approx(exact, rel=0.03)
    assert float(rollout.log_ratio.sum(0).mean()) == pytest.approx(exact, rel=0.06)


def test_later_epochs_see_ratios_that_are_not_one_and_are_clipped(make_exact):
    problem = make_exact(2)
    tight, loose = (
        gradients(problem.begin(ppo, num_epochs=2, learning_rate=0.5, ratio_clip=clip)) for clip in (1e-6, 0.999)
    )
    assert len(tight) == len(loose) == 2
    assert torch.equal(tight[0], loose[0])
    assert not torch.allclose(tight[1], loose[1], rtol=0.1)


def test_each_minibatch_is_an_update_of_the_one_optimiser(make_exact):
    state = make_exact(2).begin(ppo, num_epochs=3, num_minibatches=4, batch_size=16)
    optimiser = state.optimiser
    assert len(gradients(state)) == 12
    ppo.step(state)
    assert state.optimiser is optimiser
    assert all(float(entry["step"]) == 24 for entry in optimiser.state.values())


def test_the_baseline_is_the_mean_of_the_other_chains():
    value, kl = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([[1.0, 0.0, 2.0], [3.0, 1.0, 2.0]])
    to_go = torch.stack([value - 0.5 * kl[1], value])
    expected = torch.stack([to_go[:, i] - to_go[:, [j for j in range(3) if j != i]].mean(1) for i in range(3)], 1)
    assert torch.allclose(ppo.advantages(value, kl, 0.5), expected)


def test_a_constant_added_to_the_reward_changes_nothing(make_exact):
    plain, shifted = (make_exact(2).begin(ppo, num_epochs=1, batch_size=64) for _ in range(2))
    shifted.objective.reward.single.add_(50.0)
    for a, b in zip(gradients(plain), gradients(shifted), strict=True):
        assert float(a.norm()) > 1e-2
        assert torch.allclose(a, b, atol=1e-4)


def test_a_reward_that_is_no_number_is_a_failure(make_exact):
    state = make_exact(2).begin(ppo)
    state.objective.reward.single.fill_(math.nan)
    with pytest.raises(RunFailedError, match="diverged"):
        ppo.step(state)
