"""SEIKO: it seeks the unknown, starts from the round before, and both leashes hold."""

import pytest
import torch
from plait.design.errors import ConfigError
from plait.finetune import braid, seiko
from plait.finetune._rollouts import roll_out
from plait.rewards.conservatism import ConservativeReward
from torch import Generator


class UnknownLetter:
    """Nothing is known of one letter: a spread of its count, in the reward's unit."""

    is_differentiable = True

    def std(self, x, prediction):
        letters = x if x.is_floating_point() else torch.nn.functional.one_hot(x, 4).float()
        return letters[..., 0].sum(-1) + 0.1


def generator(seed=0):
    return Generator().manual_seed(seed)


def objective(make_objective, scale):
    plain = make_objective(seiko)
    return ConservativeReward(plain.reward, UnknownLetter(), scale, plain.assay_std)


def tuned(goal, prior, previous=None, num_updates=30, **settings):
    config = seiko.Config(batch_size=16, num_updates=num_updates, **settings)
    state = seiko.init(config, prior, goal, None, generator(), previous)
    infos = []
    while not state.is_finished:
        infos.append(seiko.step(state))
    return state.policy, infos


def path_kl(policy, other, n=2000):
    return float(roll_out(policy, other, n, generator(9)).kl.sum(0).mean())


def test_the_sign_of_the_scale_decides_whether_the_unknown_is_sought(make_prior, make_objective):
    shares = []
    for scale in (-2.0, 2.0):
        policy, _ = tuned(objective(make_objective, scale), make_prior())
        shares.append(float((policy.draw(500, generator(1)) == 0).float().mean()))
    assert shares[0] > shares[1] + 0.2


def test_a_later_round_starts_from_the_round_before(make_prior, make_objective):
    goal, prior = objective(make_objective, -1.0), make_prior()
    before, _ = tuned(goal, prior)
    weights = {k: v.clone() for k, v in before.network.state_dict().items()}
    _, infos = tuned(goal, prior, before, num_updates=5)
    exact = path_kl(before, prior)
    assert infos[0].kl == pytest.approx(exact, rel=0.25)
    assert infos[0].kl > 0.5
    assert all(torch.equal(v, weights[k]) for k, v in before.network.state_dict().items())


@pytest.mark.parametrize("num_soft_steps", [2, 5])
def test_the_loss_holds_both_leashes_and_the_report_only_that_of_the_prior(num_soft_steps, make_prior, make_objective):
    goal, prior = objective(make_objective, -1.0), make_prior()
    before, _ = tuned(goal, prior)
    settings = {"kl_weight": 0.3, "previous_kl_weight": 0.7, "num_soft_steps": num_soft_steps}
    _, infos = tuned(goal, prior, before, num_updates=4, **settings)
    rest = [info.loss + info.conservative / goal.assay_std - 0.3 * info.kl for info in infos]
    assert rest[0] == pytest.approx(0, abs=1e-4)
    assert rest[-1] > 1e-3


def test_a_short_leash_to_the_round_before_keeps_the_policy_there(make_prior, make_objective):
    goal, prior = objective(make_objective, 0.0), make_prior()
    before, _ = tuned(objective(make_objective, -2.0), prior)
    distances = []
    for weight in (0.0, 3.0):
        policy, _ = tuned(goal, prior, before, kl_weight=0.2, previous_kl_weight=weight)
        distances.append(path_kl(policy, before))
    assert distances[1] < distances[0] / 2


def test_the_first_round_holds_the_prior_by_both_weights(make_prior, make_objective):
    goal = objective(make_objective, -1.0)
    state = seiko.init(seiko.Config(kl_weight=0.3, previous_kl_weight=0.2), make_prior(), goal, None, generator())
    assert state.kl_weight == 0.5
    assert state.previous is None
    assert seiko.continues


def test_what_cannot_work_is_named(make_prior, make_objective):
    config, prior, goal = seiko.Config(), make_prior(), objective(make_objective, -1.0)
    with pytest.raises(ConfigError, match="uncertainty"):
        seiko.init(config, prior, ConservativeReward(goal.reward, None, -1.0, 1.0), None, generator())
    with pytest.raises(ConfigError, match="differentiable"):
        seiko.init(config, prior, make_objective(seiko, is_differentiable=False), None, generator())
    with pytest.raises(ConfigError, match="round before"):
        seiko.init(config, prior, goal, None, generator(), make_prior(num_steps=3))
    with pytest.raises(ConfigError, match="pessimistic"):
        braid.init(braid.Config(), prior, goal, None, generator())
