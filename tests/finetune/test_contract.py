"""What every fine-tuner owes: a better objective, resuming, workers that agree, refusal of what its name forbids."""

import math

import pytest
import torch
from plait.design.errors import ConfigError, RunFailedError
from plait.finetune import braid, drakes, strl
from plait.finetune.base import Info
from plait.samplers import ancestral
from torch import Generator

TUNERS = [drakes, braid, strl]


def generator(seed=0):
    return Generator().manual_seed(seed)


def designs(policy, n=400):
    state = ancestral.prepare(ancestral.Config(), policy, None, None, generator())
    return ancestral.sample(state, n, generator(4)).tokens


@pytest.mark.parametrize("tuner", TUNERS)
def test_tuning_raises_the_reward_of_hard_samples_and_spares_the_prior(tuner, make_prior, begin):
    prior = make_prior()
    before = {k: v.clone() for k, v in prior.network.state_dict().items()}
    state = begin(tuner, prior=prior)
    infos = []
    while not state.is_finished:
        infos.append(tuner.step(state))
    assert len(infos) == 40
    tuned, plain = (state.objective(designs(p)).conservative.mean() for p in (state.policy, prior))
    assert float(tuned) > float(plain) + 2.0
    assert state.policy.space.is_feasible(designs(state.policy).numpy()).all()
    assert all(torch.equal(v, before[k]) for k, v in prior.network.state_dict().items())
    assert infos[0].kl == pytest.approx(0, abs=1e-6)
    assert infos[-1].kl > 0.5
    assert all(isinstance(i, Info) and math.isfinite(i.loss) and 0 < i.unique_fraction <= 1 for i in infos)


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_resumed_run_equals_an_unbroken_one(tuner, begin):
    whole, broken, resumed = begin(tuner), begin(tuner), begin(tuner, seed=5)
    for _ in range(6):
        tuner.step(whole)
    for _ in range(3):
        tuner.step(broken)
    resumed.load_state_dict(broken.state_dict())
    for _ in range(3):
        last = tuner.step(resumed)
    assert resumed.step == whole.step == 6
    assert math.isfinite(last.loss)
    for a, b in zip(whole.policy.network.parameters(), resumed.policy.network.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("tuner", TUNERS)
def test_two_workers_average_their_gradients(tuner, begin):
    settings = {"num_soft_steps": 3, "clip": 1e6}
    separate = []
    for seed in (1, 2):
        tuner.step(begin(tuner, seed, **settings), lambda ps: separate.append([p.grad.clone() for p in ps]))
    means = [torch.stack(pair).mean(0) for pair in zip(*separate, strict=True)]

    def average(parameters):
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.grad.copy_(mean)

    workers = [begin(tuner, seed, **settings) for seed in (1, 2)]
    infos = [tuner.step(worker, average) for worker in workers]
    assert infos[0].grad_norm == infos[1].grad_norm
    weights = [list(worker.policy.network.parameters()) for worker in workers]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(*separate, strict=True))


@pytest.mark.parametrize("tuner", TUNERS)
def test_config_is_frozen_documented_and_closed(tuner):
    for field in tuner.Config.model_fields.values():
        assert field.description
        assert not field.is_required()
    with pytest.raises(ValueError, match="extra"):
        tuner.Config(unknown=1)


@pytest.mark.parametrize("tuner", TUNERS)
def test_what_cannot_work_is_named(tuner, make_prior, make_objective):
    with pytest.raises(ConfigError, match="differentiable"):
        tuner.init(tuner.Config(), make_prior(), make_objective(tuner, is_differentiable=False), None, generator())
    for std in (0.0, math.nan):
        with pytest.raises(ConfigError, match="standard deviation"):
            tuner.init(tuner.Config(), make_prior(), make_objective(tuner, assay_std=std), None, generator())


@pytest.mark.parametrize(("tuner", "goal"), [(drakes, braid), (strl, braid), (braid, drakes)])
def test_an_objective_that_contradicts_the_name_is_refused(tuner, goal, make_prior, make_objective):
    with pytest.raises(ConfigError, match=tuner.__name__.rsplit(".", 1)[-1]):
        tuner.init(tuner.Config(), make_prior(), make_objective(goal), None, generator())


@pytest.mark.parametrize(("tuner", "weight"), [(drakes, 0), (braid, 0), (strl, 0.1)])
def test_a_kl_weight_that_contradicts_the_name_is_refused(tuner, weight):
    with pytest.raises(ValueError, match="kl_weight"):
        tuner.Config(kl_weight=weight)


def test_divergence_is_a_failure_and_not_a_policy(begin):
    state = begin(drakes)
    state.objective.reward.single.fill_(math.nan)
    with pytest.raises(RunFailedError, match="diverged"):
        drakes.step(state)
