"""How far every method lands from the common target, where that is known: `python -m plait.benchmarks.exactness`.

On 4^6 designs, filled one by one, with a prior drawn at random and a reward of letters, neighbours and distant pairs,
the target prior * exp(reward / temperature) / Z is written out. Of samplers n designs are compared with it, beside the
distance that n exact draws would have (the floor); of fine-tuned policies the exact law is. Fine-tuners without
gradients get a table of letters that contradict each other in no order of filling and draw from the prior's law: there
they owe the target. The others get the prior's own network.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from plait.benchmarks.exact import ExactChain, sampling_floor, tabular_policy, total_variation
from plait.campaign.catalog import algorithms
from plait.design.alphabets import DNA
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.priors import masked_diffusion
from plait.priors._masking import MaskedDiffusion
from plait.rewards.conservatism import ObjectiveValue

TEMPERATURE = 0.5
OWES = {
    "ancestral": "the prior's law",
    "best_of_n": "the law of the best of N",
    "exhaustive": "the best designs",
    "smc": "the target as n grows",
    "tds": "the target as n grows",
    "svdd_r": "the target as n grows",
    "svdd_mc": "the target as M grows, with the exact soft value",
    "ppo": "the target, of a table filled one by one",
    "reward_weighted_mle": "the target, of a table filled one by one",
    "path_consistency": "the target, of a table filled one by one",
}
"""Everything else owes no law."""
SETTINGS: dict[str, dict[str, Any]] = {
    "cfg": {"num_train_steps": 400},
    "ddom": {"num_train_steps": 400},
    "smc": {"is_resampled": False},
    "tds": {"is_resampled": False},
    "svdd_pm": {"batch_size": 4096},
    "svdd_mc": {"batch_size": 4096},
    "svdd_r": {"batch_size": 4096},
    "drakes": {"num_updates": 300, "batch_size": 64},
    "braid": {"num_updates": 300, "batch_size": 64},
    "seiko": {"num_updates": 300, "batch_size": 64, "previous_kl_weight": 0.0},
    "strl": {"num_updates": 300, "batch_size": 64},
    "ctrl": {"num_updates": 100},
    "ppo": {"num_updates": 150, "batch_size": 2048, "learning_rate": 0.05, "clip": 1e3},
    "reward_weighted_mle": {
        "num_updates": 150, "batch_size": 2048, "pool_size": 65_536, "fit_size": 4096, "learning_rate": 0.05,
        "min_effective": 0.0, "clip": 1e3,
    },
    "path_consistency": {
        "num_updates": 100, "batch_size": 1024, "replay_size": 16_384, "fit_size": 2048, "learning_rate": 0.05,
        "value_learning_rate": 3e-3, "clip": 1e3,
    },
}  # fmt: skip
TABULAR = {"ppo", "reward_weighted_mle", "path_consistency"}
SCALES = {"braid": 1.0, "seiko": -1.0}
NO_LEASH = {"strl"}


@dataclass(frozen=True)
class Epistasis:
    """A reward of single letters, neighbours and distant pairs: mean 0 and standard deviation 1 over all designs.

    It is sure of itself: there is nothing that pessimism could subtract, whatever the scale.

    Attributes:
        single: (L, V).
        pair: (L, V, L, V), zero for a position with itself.
        centre: What is subtracted.
        scale: See Objective.
    """

    single: Tensor
    pair: Tensor
    centre: float = 0.0
    scale: float = 0.0
    assay_std: float = 1.0
    is_differentiable: bool = True

    @property
    def has_uncertainty(self) -> bool:
        """Where a scale is set there is one, of 0."""
        return self.scale != 0

    def __call__(self, x: Tensor) -> ObjectiveValue:
        """The value of tokens (n, L) int64 or a simplex (n, L, V)."""
        letters = x if x.is_floating_point() else torch.nn.functional.one_hot(x, self.single.shape[1]).float()
        value = torch.einsum("nia,ia->n", letters, self.single) - self.centre
        value = value + torch.einsum("nia,iajb,njb->n", letters, self.pair, letters)
        return ObjectiveValue(value, value, torch.zeros_like(value))


@dataclass(frozen=True)
class Problem:
    """What all methods are given.

    Attributes:
        prior: Drawn at random, filled one by one.
        table: A table over states with the same law of designs, coherent.
        objective: The reward.
        dataset: Readings of some designs.
        chain: The prior's, written out.
        target: (F,) float64.
    """

    prior: MaskedDiffusion
    table: MaskedDiffusion
    objective: Epistasis
    dataset: Dataset
    chain: ExactChain
    target: Tensor


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        name: Its file.
        owes: The law it owes, in words; empty for none.
        distance: Total variation to the target.
        floor: Mean total variation of as many exact draws; 0 where the law itself was compared.
        seconds: Preparation and sampling, or fine-tuning.
    """

    name: str
    owes: str
    distance: float
    floor: float
    seconds: float


def problem(template: str = "NNNNNN", num_readings: int = 500) -> Problem:
    """The problem over a DNA template."""
    space = DesignSpace.from_template(DNA, template)
    config = masked_diffusion.Config(width=32, unmasking="one_by_one")
    prior = masked_diffusion.init(config, space, _seed(1))
    with torch.no_grad():
        for parameter in prior.network.backbone.leave.parameters():
            parameter.normal_(0, 0.3, generator=_seed(2))
    prior.network.requires_grad_(False)
    chain = ExactChain(prior)
    objective = _epistasis(chain.designs, space.alphabet.size)
    value = objective(chain.designs).mean
    rows = torch.randperm(len(value), generator=_seed(3))[:num_readings]
    ones = np.ones(len(rows))
    readings = value[rows].double().numpy()
    dataset = Dataset(space, chain.designs[rows].numpy(), readings, ones.astype(np.int64), np.nan * ones)
    table = tabular_policy(prior, chain.law())
    return Problem(prior, table, objective, dataset, chain, chain.target(value, TEMPERATURE))


def samplers(given: Problem, n: int, settings: dict[str, dict[str, Any]]) -> Iterator[Row]:
    """Every sampler, n designs each."""
    for name, sampler in algorithms("samplers").items():
        start = time.perf_counter()
        config = _configure(sampler, {"temperature": TEMPERATURE, **settings.get(name, {})})
        state = sampler.prepare(config, given.prior, given.objective, given.dataset, _seed(4))
        drawn = sampler.sample(state, n, _seed(5))
        seconds = time.perf_counter() - start
        distance = total_variation(given.chain.empirical(drawn.tokens, drawn.log_weights), given.target)
        yield Row(name, OWES.get(name, ""), distance, sampling_floor(given.target, n), seconds)


def tuners(given: Problem, settings: dict[str, dict[str, Any]]) -> Iterator[Row]:
    """Every fine-tuner, all updates."""
    for name, tuner in algorithms("finetune").items():
        start = time.perf_counter()
        leash = {} if name in NO_LEASH else {"kl_weight": TEMPERATURE}
        config = _configure(tuner, {**leash, **settings.get(name, {})})
        prior = given.table if name in TABULAR else given.prior
        objective = replace(given.objective, scale=SCALES.get(name, 0.0))
        state = tuner.init(config, prior, objective, given.dataset, _seed(6))
        while not state.is_finished:
            tuner.step(state)
        seconds = time.perf_counter() - start
        distance = total_variation(ExactChain(state.policy).law(), given.target)
        yield Row(name, OWES.get(name, ""), distance, 0.0, seconds)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    given = problem()
    print(f"prior: total variation to the target {total_variation(given.chain.law(), given.target):.3f}")
    print(f"{'method':<22}{'distance':>9}{'floor':>7}{'seconds':>9}  owes")
    for rows in (samplers(given, 4096, SETTINGS), tuners(given, SETTINGS)):
        for r in rows:
            print(f"{r.name:<22}{r.distance:>9.3f}{r.floor:>7.3f}{r.seconds:>9.1f}  {r.owes or 'no law'}", flush=True)


def _epistasis(designs: Tensor, num_letters: int) -> Epistasis:
    length = designs.shape[1]
    single = torch.randn((length, num_letters), generator=_seed(7))
    pair = torch.randn((length, num_letters, length, num_letters), generator=_seed(8)) / 2
    pair = pair * (1 - torch.eye(length))[:, None, :, None]
    plain = Epistasis(single, pair)(designs).mean
    spread = float(plain.std())
    return Epistasis(single / spread, pair / spread, float(plain.mean()) / spread)


def _configure(algorithm: ModuleType, settings: dict[str, Any]) -> Any:
    known = {key: value for key, value in settings.items() if key in algorithm.Config.model_fields}
    return algorithm.Config(**known)


def _seed(seed: int) -> Generator:
    return Generator().manual_seed(seed)


if __name__ == "__main__":
    main()
