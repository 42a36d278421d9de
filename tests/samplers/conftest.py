"""A small masked diffusion model and a reward in closed form."""

import pytest
import torch
from plait.priors import masked_diffusion
from plait.rewards.base import Prediction
from plait.rewards.conservatism import ConservativeReward
from torch import Generator, nn


class LinearReward(nn.Module):
    """A letter's worth at each position, summed; counts its calls."""

    is_differentiable = True
    unit = "log10"

    def __init__(self, space):
        super().__init__()
        self.space, self.calls = space, 0
        self.worth = torch.randn((space.length, space.alphabet.size), generator=Generator().manual_seed(0))

    def predict(self, x):
        self.calls += 1
        letters = x if x.is_floating_point() else nn.functional.one_hot(x, self.space.alphabet.size).float()
        value = (letters * self.worth).sum((1, 2))
        return Prediction(torch.stack([value - 0.1, value + 0.1]), torch.tensor([0.5, 0.5]), self.unit)


def generator(seed=0):
    return Generator().manual_seed(seed)


def make_prior(space, **settings):
    """A model far from uniform: its output layer drawn at random."""
    prior = masked_diffusion.init(masked_diffusion.Config(**{"width": 16, **settings}), space, generator(1))
    with torch.no_grad():
        prior.network.backbone.leave.weight.normal_(0, 0.7, generator=generator(2))
    return prior


def prepare(sampler, prior, objective, **settings):
    return sampler.prepare(sampler.Config(**settings), prior, objective, None, generator())


@pytest.fixture(name="generator")
def _generator():
    return generator


@pytest.fixture(name="make_prior")
def _make_prior():
    return make_prior


@pytest.fixture(name="make_objective")
def _make_objective():
    return lambda space: ConservativeReward(LinearReward(space), None, 0.0, 1.0)


@pytest.fixture(name="prepare")
def _prepare():
    return prepare
