"""The kernel: gradients with and without recomputation, accumulation, the KL of hard steps, the leash."""

import pytest
import torch
from plait.finetune import _direct_backprop, drakes, strl
from plait.rewards.conservatism import default_kl_weight


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


def test_kl_of_fully_hard_steps_counts(begin):
    state = tuned(begin, 6, num_soft_steps=1)
    _, kl, reported = _direct_backprop.rollout(state)
    assert float(reported.sum()) == 0
    _, first = _direct_backprop._hard_step(state, state.policy.init_state(16), 0)
    assert first.requires_grad
    assert 0 < float(first.detach().mean()) < float(kl.detach().mean())


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


def test_one_policy_forward_per_step(begin):
    state = begin(strl)
    strl.step(state)
    assert state.policy.rows_forwarded == 16 * state.policy.num_steps


def test_default_leash_is_shorter_for_short_designs():
    assert default_kl_weight(9) == default_kl_weight(16) > default_kl_weight(17) > default_kl_weight(60) > 0
