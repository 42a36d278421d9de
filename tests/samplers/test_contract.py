"""What every sampler owes: designs in the space, one seed the same designs, its cost, a clear refusal."""

import pytest
import torch
from torch import Generator, nn

from plait.design.alphabets import DNA
from plait.design.errors import ConfigError
from plait.design.space import DesignSpace
from plait.priors import masked_diffusion
from plait.rewards.base import Prediction
from plait.rewards.conservatism import Objective
from plait.samplers import ancestral, best_of_n, exhaustive

SAMPLERS = [ancestral, best_of_n, exhaustive]
SPACE = DesignSpace.from_template(DNA, "NNGYN")


class LinearReward(nn.Module):
    """A letter's worth at each position, summed: a reward model in closed form that counts its calls."""

    is_differentiable = True
    unit = "log10"

    def __init__(self, space, seed=0):
        super().__init__()
        self.space, self.calls = space, 0
        self.worth = torch.randn((space.length, space.alphabet.size), generator=Generator().manual_seed(seed))

    def predict(self, x):
        self.calls += 1
        letters = x if x.is_floating_point() else nn.functional.one_hot(x, self.space.alphabet.size).float()
        value = (letters * self.worth).sum((1, 2))
        return Prediction(torch.stack([value - 0.1, value + 0.1]), torch.tensor([0.5, 0.5]), self.unit)


def generator(seed=0):
    return Generator().manual_seed(seed)


def model(space=SPACE, seed=1, **settings):
    prior = masked_diffusion.init(masked_diffusion.Config(**{"width": 16, **settings}), space, generator(seed))
    with torch.no_grad():
        prior.network.backbone.leave.weight.normal_(0, 0.7, generator=generator(seed + 1))
    return prior


def objective(space=SPACE):
    return Objective(LinearReward(space), None, 0.0, 1.0)


def prepare(sampler, prior, goal, **settings):
    return sampler.prepare(sampler.Config(**settings), prior, goal, None, generator())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_designs_lie_in_the_space_and_one_seed_gives_the_same(sampler):
    prior = model()
    state = prepare(sampler, prior, objective())
    one, two = (sampler.sample(state, 20, generator(3)) for _ in range(2))
    assert one.tokens.shape == (20, 5)
    assert one.tokens.dtype == torch.int64
    assert one.log_weights.shape == (20,)
    assert SPACE.is_feasible(one.tokens.numpy()).all()
    assert torch.equal(one.tokens, two.tokens)
    assert one.num_forwards == two.num_forwards
    assert not one.tokens.requires_grad
    assert not one.log_weights.requires_grad


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_designs_can_be_asked_for(sampler):
    assert sampler.sample(prepare(sampler, model(), objective()), 0, generator()).tokens.shape == (0, 5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_config_is_frozen_documented_and_closed(sampler):
    for field in sampler.Config.model_fields.values():
        assert field.description
        assert not field.is_required()
    with pytest.raises(ValueError, match="extra"):
        sampler.Config(unknown=1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_missing_reward_is_named(sampler):
    if sampler.needs_reward:
        with pytest.raises(ConfigError, match="reward"):
            prepare(sampler, model(), None)
    else:
        assert sampler.sample(prepare(sampler, model(), None), 3, generator()).tokens.shape == (3, 5)
