"""A small masked diffusion model, a reward in closed form and readings of it."""

import numpy as np
import pytest
import torch
from plait.design.records import Dataset
from plait.priors import masked_diffusion
from plait.rewards.base import Prediction
from plait.rewards.conservatism import ConservativeReward
from torch import Generator, nn


class LinearReward(nn.Module):
    """A letter's worth at each position, summed; counts its calls."""

    unit = "log10"

    def __init__(self, space, is_differentiable=True):
        super().__init__()
        self.space, self.is_differentiable, self.calls = space, is_differentiable, 0
        self.worth = torch.randn((space.length, space.alphabet.size), generator=Generator().manual_seed(0))

    def predict(self, x):
        """A black box reads tokens only."""
        self.calls += 1
        assert self.is_differentiable or x.dtype == torch.int64
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


def make_objective(space, is_differentiable=True, assay_std=1.0):
    return ConservativeReward(LinearReward(space, is_differentiable), None, 0.0, assay_std)


def make_dataset(space, n=120):
    """Readings of distinct designs, without noise."""
    every = np.concatenate(list(space.enumerate()))
    tokens = every[np.random.default_rng(0).permutation(len(every))[:n]]
    values = make_objective(space)(torch.from_numpy(tokens)).mean.double().numpy()
    return Dataset(space, tokens, values, np.ones(len(tokens), dtype=np.int64), np.full(len(tokens), np.nan), "log10")


def prepare(sampler, prior, objective, dataset=None, **settings):
    return sampler.prepare(sampler.Config(**settings), prior, objective, dataset, generator())


@pytest.fixture(name="generator")
def _generator():
    return generator


@pytest.fixture(name="make_prior")
def _make_prior():
    return make_prior


@pytest.fixture(name="make_objective")
def _make_objective():
    return make_objective


@pytest.fixture(name="make_dataset")
def _make_dataset():
    return make_dataset


@pytest.fixture(name="prepare")
def _prepare():
    return prepare
