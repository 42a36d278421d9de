"""A small prior, a reward in closed form, readings of it, and fine-tuners that start from them."""

import numpy as np
import pytest
import torch
from plait.design.alphabets import DNA
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.priors import masked_diffusion
from plait.rewards.base import Prediction
from plait.rewards.conservatism import ConservativeReward
from torch import Generator, nn

SPACE = DesignSpace.from_template(DNA, "NNGYNN")
SCALES = {"braid": 1.0, "seiko": -1.0}
"""Standard deviations to subtract, where the name asks for an uncertainty; 0 elsewhere."""
FAST = {
    "ppo": {"num_epochs": 2},
    "reward_weighted_mle": {"pool_size": 256, "num_fits": 4, "fit_size": 64},
    "path_consistency": {"replay_size": 256, "num_fits": 3, "fit_size": 32, "value_width": 16},
    "ctrl": {"num_conditions": 3},
}
"""Small settings of the fine-tuners that do more than one optimiser update per rollout."""


class PairReward(nn.Module):
    """Worth of letters and of neighbouring letter pairs, summed: a reward model in closed form."""

    unit = "log10"

    def __init__(self, space, is_differentiable=True):
        super().__init__()
        self.space, self.is_differentiable = space, is_differentiable
        draw = Generator().manual_seed(0)
        self.single = torch.randn((space.length, space.alphabet.size), generator=draw)
        self.pair = torch.randn((space.alphabet.size, space.alphabet.size), generator=draw)

    def predict(self, x):
        letters = x if x.is_floating_point() else nn.functional.one_hot(x, self.space.alphabet.size).float()
        value = (letters * self.single).sum((1, 2))
        value = value + torch.einsum("nla,ab,nlb->n", letters[:, :-1], self.pair, letters[:, 1:])
        return Prediction(torch.stack([value, 1.1 * value]), torch.tensor([0.5, 0.5]), self.unit)


class Spread:
    """The members' spread as uncertainty."""

    is_differentiable = True

    def std(self, x, prediction):
        return prediction.std


def generator(seed=0):
    return Generator().manual_seed(seed)


def model(**settings):
    return masked_diffusion.init(masked_diffusion.Config(**{"width": 32, **settings}), SPACE, generator(1))


def name_of(tuner):
    return tuner.__name__.rsplit(".", 1)[-1]


def objective(tuner, is_differentiable=True, assay_std=2.0):
    scale = SCALES.get(name_of(tuner), 0.0)
    return ConservativeReward(PairReward(SPACE, is_differentiable), Spread() if scale else None, scale, assay_std)


def dataset():
    """Readings of 300 designs, without noise."""
    every = np.concatenate(list(SPACE.enumerate()))
    tokens = every[np.random.default_rng(0).permutation(len(every))[:300]]
    values = PairReward(SPACE).predict(torch.from_numpy(tokens)).mean.double().numpy()
    return Dataset(SPACE, tokens, values, np.ones(300, dtype=np.int64), np.full(300, np.nan), "log10")


def initialise(tuner, config, prior, goal, data, seed=0):
    """init(), without a policy of the round before where the fine-tuner can continue one."""
    previous = [None] if getattr(tuner, "continues", False) else []
    return tuner.init(config, prior, goal, data, generator(seed), *previous)


def begin(tuner, seed=0, prior=None, goal=None, **settings):
    config = tuner.Config(**{"batch_size": 16, "num_updates": 40, **FAST.get(name_of(tuner), {}), **settings})
    return initialise(tuner, config, prior or model(), goal or objective(tuner), dataset(), seed)


@pytest.fixture(name="make_prior")
def _make_prior():
    return model


@pytest.fixture(name="make_objective")
def _make_objective():
    return objective


@pytest.fixture(name="begin")
def _begin():
    return begin


@pytest.fixture(name="make_dataset")
def _make_dataset():
    return dataset


@pytest.fixture(name="initialise")
def _initialise():
    return initialise
