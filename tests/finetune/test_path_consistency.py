"""Path consistency: zero where it should be, the gradient in two passes, replayed paths, the target law."""

import math

import pytest
import torch
from plait.design.errors import RunFailedError
from plait.finetune import path_consistency
from plait.finetune._rollouts import roll_out
from plait.finetune.path_consistency import imbalance
from torch import Generator, nn


def generator(seed=0):
    return Generator().manual_seed(seed)


class ExactValue(nn.Module):
    """The soft value of every state, by enumeration."""

    def __init__(self, problem):
        super().__init__()
        self.chain = problem.chain
        self.table = nn.Parameter(torch.stack(problem.chain.value(problem.value, problem.temperature)).float())

    def forward(self, relaxed, step):
        return self.table[step, self.chain.state_index(relaxed.argmax(-1))]


def remembered(state, actors, n=64):
    """A replay of n paths by each actor."""
    rollouts = [roll_out(actor, state.prior, n, generator(i)) for i, actor in enumerate(actors)]
    worth = state.objective(torch.cat([r.designs for r in rollouts])).conservative / state.objective.assay_std
    return state.replay.add(rollouts, worth, 10_000)


def test_a_tabular_policy_meets_the_target(make_exact):
    problem = make_exact()
    settings = {"batch_size": 64, "fit_size": 128, "prior_fraction": 0.5, "value_width": 16}
    policy = problem.tune(path_consistency, num_updates=90, learning_rate=0.1, value_learning_rate=2e-2, **settings)
    start, end = problem.distance(problem.prior), problem.distance(policy)
    assert start > 0.5
    assert end < 0.03


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_the_loss_is_zero_at_the_target_on_anybodys_paths(decay, make_exact, set_law):
    problem = make_exact()
    state = problem.begin(path_consistency, subtrajectory_decay=decay)
    state.value = ExactValue(problem)
    everybody = torch.arange(128)
    other = problem.prior.clone(is_trainable=False)
    set_law(other, torch.rand(64, generator=generator(3), dtype=torch.float64))
    before = path_consistency._accumulate(state, remembered(state, [problem.prior, other]), everybody, 1.0)
    set_law(state.policy, problem.target)
    after = path_consistency._accumulate(state, remembered(state, [problem.prior, other]), everybody, 1.0)
    assert before > 0.1
    assert after < 1e-6


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_two_passes_give_the_gradient_of_the_loss(decay, make_exact, set_law):
    problem = make_exact()
    state = problem.begin(path_consistency, subtrajectory_decay=decay)
    set_law(state.policy, torch.rand(64, generator=generator(3), dtype=torch.float64))
    replay, rows = remembered(state, [problem.prior]), torch.arange(10)
    parameters = [*state.policy.network.parameters(), *state.value.parameters()]
    loss = path_consistency._accumulate(state, replay, rows, 1.0)
    found = [p.grad.clone() for p in parameters]

    levels, gained = [], 0.0
    for t in range(3):
        here, there = replay.states[t, rows], replay.states[t + 1, rows]
        levels.append(state.value(state.prior.relax(here), t) / 0.5 - gained)
        mine, theirs = state.policy.transition(here, t), state.prior.transition(here, t)
        gained = gained + mine.log_prob(there) - theirs.log_prob(there)
    levels.append(replay.worth[rows] / 0.5 - gained)
    pairs = [(i, j, decay ** (j - i - 1)) for i in range(4) for j in range(i + 1, 4)]
    each = sum(w * (levels[i] - levels[j]) ** 2 for i, j, w in pairs) / sum(w for *_, w in pairs)
    expected = torch.autograd.grad(each.mean(), parameters)
    assert loss == pytest.approx(float(each.mean().detach()), rel=1e-5)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-4)


def test_weights_of_stretches():
    levels = torch.tensor([[0.0], [1.0], [3.0]])
    assert float(imbalance(levels, 0.0)) == pytest.approx((1 + 4) / 2)
    assert float(imbalance(levels, 1.0)) == pytest.approx((1 + 4 + 9) / 3)
    assert float(imbalance(levels, 0.5)) == pytest.approx((1 + 4 + 0.5 * 9) / 2.5)


def test_the_newest_paths_are_kept_and_used_again(make_exact):
    state = make_exact(2).begin(path_consistency, batch_size=8, replay_size=20, prior_fraction=0.25)
    seen = []
    for _ in range(3):
        path_consistency.step(state)
        seen.append(state.replay)
    assert [len(replay.worth) for replay in seen] == [8, 16, 20]
    assert torch.equal(seen[2].states[:, :12], seen[1].states[:, 4:])
    assert torch.equal(seen[2].log_prior[:, :12], seen[1].log_prior[:, 4:])
    value = state.objective(seen[2].states[-1]).conservative / state.objective.assay_std
    assert torch.equal(seen[2].worth, value)


def test_the_value_is_averaged_over_workers_and_has_its_own_step_size(make_exact):
    state = make_exact(2).begin(path_consistency, learning_rate=1e-9, value_learning_rate=0.1, num_fits=1)
    policy, value = ([p.detach().clone() for p in m.parameters()] for m in (state.policy.network, state.value))
    seen = []
    path_consistency.step(state, lambda ps: seen.extend(ps))
    assert {id(p) for p in seen} == {id(p) for m in (state.policy.network, state.value) for p in m.parameters()}
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(policy, state.policy.network.parameters(), strict=True))
    assert any(not torch.allclose(a, b, atol=1e-3) for a, b in zip(value, state.value.parameters(), strict=True))


def test_the_value_starts_as_that_of_the_prior_and_the_same_on_all_workers(make_exact):
    problem = make_exact()
    values = [problem.begin(path_consistency, seed=seed).value for seed in (1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(*(v.state_dict().values() for v in values), strict=True))
    exact = problem.temperature * problem.chain.log_evidence(problem.value, problem.temperature)
    start = problem.prior.relax(problem.prior.init_state(1))
    assert float(values[0](start, 0).detach()) == pytest.approx(exact, abs=0.15)


def test_a_reward_that_is_no_number_is_a_failure(make_exact):
    state = make_exact(2).begin(path_consistency)
    state.objective.reward.single.fill_(math.nan)
    with pytest.raises(RunFailedError, match="diverged"):
        path_consistency.step(state)
