"""A small prior, a reward in closed form, readings of it, and fine-tuners that start from them."""

import numpy as np
import pytest
import torch
from plait.benchmarks.exact import ExactChain, tabular_policy, total_variation
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


def order_free(length):
    """A tabular prior, one position per step, whose letters are the conditionals of one law drawn at random."""
    space = DesignSpace.from_template(DNA, "N" * length)
    config = masked_diffusion.Config(width=8, unmasking="one_by_one")
    prior = tabular_policy(masked_diffusion.init(config, space, generator()))
    law = torch.randn(4**length, generator=generator(), dtype=torch.float64).softmax(0)
    set_law(prior, law)
    return prior


def set_law(model, law):
    """Fill a tabular model with the conditionals of a law over all designs."""
    chain = ExactChain(model)
    can_become = ((chain.states[:, None] == model.mask_token) | (chain.states[:, None] == chain.designs)).all(-1)
    letters = nn.functional.one_hot(chain.designs, model.mask_token).double().flatten(1)
    table = can_become.double() @ (law[:, None] * letters)
    with torch.no_grad():
        model.network.backbone.leave.weight.copy_(table.clamp(min=1e-30).log().t())


class ExactProblem:
    """A prior, an objective and the law that tuning aims at, written out: 4^length designs."""

    def __init__(self, length=3, temperature=0.5):
        self.prior, self.temperature = order_free(length), temperature
        self.objective = ConservativeReward(PairReward(self.prior.space, is_differentiable=False), None, 0.0, 2.0)
        self.chain = ExactChain(self.prior)
        self.value = self.objective(self.chain.designs).conservative / 2.0
        self.target = self.chain.target(self.value, temperature)

    def distance(self, policy):
        """Total variation between a policy's law and the target."""
        return total_variation(ExactChain(policy).law(), self.target)

    def begin(self, tuner, seed=1, **settings):
        config = tuner.Config(kl_weight=self.temperature, **settings)
        return tuner.init(config, self.prior, self.objective, None, generator(seed))

    def tune(self, tuner, seed=1, **settings):
        """The policy after all updates, the last third of them at a fifth of the learning rate."""
        state = self.begin(tuner, seed, **settings)
        while not state.is_finished:
            tuner.step(state)
            if state.step == state.config.num_updates * 2 // 3:
                for group in state.optimiser.param_groups:
                    group["lr"] /= 5
        return state.policy


@pytest.fixture(name="make_exact")
def _make_exact():
    return ExactProblem


@pytest.fixture(name="set_law")
def _set_law():
    return set_law
