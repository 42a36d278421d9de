"""The kernel: gradients with and without recomputation, accumulation, the KL of hard steps, the leash."""

import pytest
import torch
from plait.benchmarks.exact import ExactChain
from plait.design.alphabets import DNA
from plait.design.space import DesignSpace
from plait.finetune import _direct_backprop, drakes, strl
from plait.priors import masked_diffusion
from plait.rewards.conservatism import default_kl_weight
from torch import Generator


def gradients(state):
    recorded = []
    drakes.step(state, lambda ps: recorded.extend(p.grad.clone() for p in ps))
    return recorded


def tuned(begin, steps=3, **settings):
    """A state some updates away from the prior, where the KL has a gradient."""
    state = begin(drakes, **settings)
    for _ in range(steps):
        drakes.step(state)
    return state


@pytest.mark.parametrize("backbone", ["mlp", "cnn"])
@pytest.mark.parametrize("num_soft", [2, 5])
def test_checkpointing_changes_memory_and_not_gradients(backbone, num_soft, make_prior, begin):
    prior = make_prior(backbone=backbone)
    plain, recomputed = (
        gradients(tuned(begin, prior=prior, num_soft_steps=num_soft, kl_weight=0.5, activation_checkpointing=flag))
        for flag in (False, True)
    )
    assert any(float(g.abs().max()) > 1e-3 for g in plain)
    for a, b in zip(plain, recomputed, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_accumulated_gradients_are_the_mean_of_their_rollouts(begin):
    both = begin(drakes, accumulation=2, clip=1e9)
    one = begin(drakes, clip=1e9)
    first = gradients(one)
    one.policy.network.load_state_dict(one.prior.network.state_dict())
    second = gradients(one)
    for mean, a, b in zip(gradients(both), first, second, strict=True):
        assert torch.allclose(mean, (a + b) / 2, atol=1e-6)


def test_gradients_of_visited_states_are_those_of_the_whole_path(begin, make_prior):
    state = tuned(begin, prior=make_prior(num_steps=12), num_soft_steps=2)
    policy, prior = state.policy, state.prior
    visits = list(policy.walk(16, 10, Generator().manual_seed(3)))
    by_visit = torch.zeros(16)
    for visit in visits:
        kl = visit.transition.kl(prior.transition(visit.transition.state, visit.step))
        by_visit = by_visit.index_add(0, visit.chains, visit.weight * kl)
    assert sum(len(visit.chains) for visit in visits) < 16 * 10
    path = torch.zeros(16)
    held = [[visit.transition.state[visit.chains == chain] for visit in visits] for chain in range(16)]
    stays = [
        [float(visit.weight[visit.chains == chain]) for visit in visits if chain in visit.chains] for chain in range(16)
    ]
    for chain in range(16):
        states = torch.cat(held[chain])
        releases = [w / (12 if i < len(states) - 1 else 2) for i, w in enumerate(stays[chain])]
        bounds = torch.tensor([0.0, *releases]).cumsum(0)
        released = torch.tensor([1 / (12 - step) for step in range(10)]).cumsum(0)
        which = torch.bucketize(released - 1e-4, bounds[1:])
        for step in range(10):
            now = states[which[step]][None]
            path[chain] = path[chain] + policy.transition(now, step).kl(prior.transition(now, step))[0]
    assert torch.allclose(by_visit, path, rtol=1e-3)
    parameters = list(policy.network.parameters())
    pairs = zip(
        torch.autograd.grad(by_visit.sum(), parameters), torch.autograd.grad(path.sum(), parameters), strict=True
    )
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in pairs)


def test_settling_the_hard_kl_at_once_changes_no_gradient(begin, make_prior):
    state = tuned(begin, prior=make_prior(num_steps=12), num_soft_steps=2)
    start, parameters = state.generator.get_state(), list(state.policy.network.parameters())
    soft, kl, _ = _direct_backprop.rollout(state)
    expected = torch.autograd.grad(kl.sum(), parameters)
    state.generator.set_state(start)
    state.policy.network.zero_grad()

    def settle(part):
        part.sum().backward()
        return part.detach()

    again, settled, _ = _direct_backprop.rollout(state, settle)
    assert torch.equal(again, soft)
    assert torch.allclose(settled, kl, atol=1e-6)
    settled.sum().backward()
    assert all(torch.allclose(p.grad, g, atol=1e-5) for p, g in zip(parameters, expected, strict=True))


def test_bfloat16_points_where_float32_points(begin, make_prior):
    prior = make_prior(backbone="cnn")
    fine, coarse = (
        torch.cat([g.flatten() for g in gradients(tuned(begin, 0, prior=prior, precision=precision))])
        for precision in ("float32", "bfloat16")
    )
    assert coarse.dtype == torch.float32
    assert not torch.equal(fine, coarse)
    assert float(torch.nn.functional.cosine_similarity(fine, coarse, dim=0)) > 0.98


def test_kl_of_hard_steps_can_be_reported_only(begin):
    state = tuned(begin, 6, num_soft_steps=1, is_hard_kl_in_loss=False)
    _, kl, reported = _direct_backprop.rollout(state)
    assert float(reported.mean()) > 0
    assert not reported.requires_grad
    assert kl.requires_grad


def test_a_shorter_leash_keeps_the_policy_nearer(begin):
    kls = []
    for weight in (0.02, 1.0):
        state = begin(drakes, kl_weight=weight, num_updates=60)
        while not state.is_finished:
            info = drakes.step(state)
        kls.append(info.kl)
    assert kls[1] < kls[0] / 2


def test_a_state_is_forwarded_once_by_policy_and_prior(begin, make_prior):
    state = begin(strl, prior=make_prior(num_steps=40), num_soft_steps=4)
    strl.step(state)
    free = len(state.prior.free)
    assert 16 * 4 < state.policy.rows_forwarded <= 16 * (free + 1 + 4)
    assert state.policy.rows_forwarded == state.prior.rows_forwarded


def test_positions_that_are_fixed_do_not_lengthen_the_default_leash(begin):
    space = DesignSpace.from_template(DNA, "A" * 27 + "NNNNNN" + "A" * 27)
    prior = masked_diffusion.init(masked_diffusion.Config(width=8), space, Generator().manual_seed(0))
    assert begin(drakes, prior=prior).kl_weight == default_kl_weight(6) == 0.2


def test_default_leash_is_shorter_for_short_designs():
    assert default_kl_weight(9) == default_kl_weight(16) > default_kl_weight(17) > default_kl_weight(60) > 0


def test_the_kl_that_is_reported_is_the_path_kl(make_prior, begin):
    state = tuned(begin, 30, prior=make_prior(num_steps=15), kl_weight=0.05, batch_size=1024)
    exact = ExactChain(state.policy).path_kl(ExactChain(state.prior))
    with torch.no_grad():
        _, kl, further = _direct_backprop.rollout(state)
    assert exact > 0.3
    assert float((kl + further).mean()) == pytest.approx(exact, rel=0.15)
