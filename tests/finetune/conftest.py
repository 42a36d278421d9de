"""A small prior, a reward in closed form and fine-tuners that start from them."""

import pytest
import torch
from plait.design.alphabets import DNA
from plait.design.space import DesignSpace
from plait.finetune import braid
from plait.priors import masked_diffusion
from plait.rewards.base import Prediction
from plait.rewards.conservatism import ConservativeReward
from torch import Generator, nn

SPACE = DesignSpace.from_template(DNA, "NNGYNN")


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


def objective(tuner, is_differentiable=True, assay_std=2.0):
    is_pessimistic = tuner is braid
    reward = PairReward(SPACE, is_differentiable)
    return ConservativeReward(reward, Spread() if is_pessimistic else None, 1.0 if is_pessimistic else 0.0, assay_std)


def begin(tuner, seed=0, prior=None, **settings):
    config = tuner.Config(**{"batch_size": 16, "num_updates": 40, **settings})
    return tuner.init(config, prior or model(), objective(tuner), None, generator(seed))


@pytest.fixture(name="make_prior")
def _make_prior():
    return model


@pytest.fixture(name="make_objective")
def _make_objective():
    return objective


@pytest.fixture(name="begin")
def _begin():
    return begin
