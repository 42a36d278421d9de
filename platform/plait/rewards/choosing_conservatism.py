"""`conservatism: {kind: auto}`: what to subtract from the predicted mean, read off the readings themselves.

An uncertainty is worth subtracting where the truth falls as it rises, at the same prediction. That can be asked of the
measured items, each predicted by a model that never saw it. The sequences are cut into K random parts; each part j says
by itself what is rare, and all the other items answer:

    rho_j = partial rank correlation of rarity by part j and reading, given the held-out prediction
    t = mean_j rho_j / max(std_j rho_j / sqrt(K), 1 / sqrt(n))

The parts' spread shows what depends on the choice of a part; it is all the chance there is only where what one part
happens to lack has nothing to do with what another lacks. Where letters are not equally common, all parts agree on what
is rare and are answered by the same n readings: rho_j are then one correlation found K times, and the chance error of a
correlation of n items bounds the error from below. Below -T: what is rare is bad, a penalty pays. Above T: what is rare
reads higher than the model believes, as in a library from which the best were cut away; it is sought, if the library is
otherwise spread over the whole space: random designs must be hardly rarer than its own items. Mutants of one wild type,
or sequences with banned neighbours, lack most of the space by design, and that says nothing of its worth. Else the
plain mean is kept: the leash and the support gate are what is left.

Only rarity is put to this question. Measured on the landscapes of `python -m plait.benchmarks.conservatism_map`, what
reward models say of themselves (members' spread, elliptical bonus) has partial correlations that change sign from task
to task, and no scale of theirs gains what it costs elsewhere. Known limits: the sign is that of the measured region;
gaps in a library that is spread over the space are taken to have been cut by the readings, not by a designer; equal
prediction is a line through ranks, so where letters are unequally common, what a poor or lumpy prediction leaves of
their own effect is taken for rarity's, and then T is passed in a tenth of the libraries up to all of them; and it
speaks of data that nobody has selected by a model: ask it of a campaign's first readings, not of its own rounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from plait.design.errors import BadInputError
from plait.design.records import Dataset
from plait.metrics.ranks import partial_spearman
from plait.rewards.base import RewardModel
from plait.rewards.uncertainty import rarity

NUM_PARTS = 8
"""K."""
SIGNIFICANCE = 3.0
"""T. Readings of pure noise pass it, in either direction, in 1 of 300 libraries of 1,500 8-mers (letters GC-biased,
biased by position, or equally common); by the parts' spread alone the biased ones did in 6 of 10."""
MOST_FOREIGN = 3.0
"""Mean rarity of random designs of the space, in standard deviations of the items' own, up to which a library is spread
over the space. Measured: libraries cut at the 60th percentile 0.6 to 1.1, uncut 0.0 to 0.1; Ehrlich functions 7 to 15,
mutants of a protein 16."""
NUM_RANDOM = 2_000
SCALE = 0.5
"""Standard deviations of the readings that one standard deviation of rarity is worth, either way."""


@dataclass(frozen=True)
class Choice:
    """A conservatism and why.

    Attributes:
        kind: "rarity", or "none" where the data does not say what absence means.
        scale: What is subtracted is scale * std: above 0 a penalty, below 0 what is rare is sought; 0 for none.
        correlation: Mean of rho_j, see the module; -1 to 1.
        t: Its distance from 0 in standard errors; 0 where there are too few items to ask.
        reason: One sentence.
    """

    kind: Literal["none", "rarity"]
    scale: float
    correlation: float
    t: float
    reason: str


def choose(halves: tuple[Dataset, Dataset], models: tuple[RewardModel, RewardModel]) -> Choice:
    """The conservatism that the readings speak for.

    Args:
        halves: Two disjoint parts of the data (the optimiser's and the judge's); what is rare is rare in both together.
        models: The reward model fitted on each part, in the same order; it predicts the other part.

    Raises:
        BadInputError: A part is empty.
    """
    first, second = halves
    if not len(first) or not len(second):
        raise BadInputError("conservatism cannot be chosen from one half of the data", hint="give both halves items")
    predictions = [
        model.predict(torch.as_tensor(unseen.tokens)).mean.detach().cpu().double().numpy()
        for model, unseen in ((models[1], first), (models[0], second))
    ]
    return choose_for(join(first, second), np.concatenate(predictions))


def choose_for(dataset: Dataset, held_out: NDArray[np.float64]) -> Choice:
    """The same from predictions of every item, (n,) float64, each by a model that did not see the item."""
    rho = _by_part(dataset, held_out)
    correlation = t = 0.0
    if len(rho):
        correlation = float(rho.mean())
        t = correlation / max(float(rho.std(ddof=1)) / math.sqrt(len(rho)), 1 / math.sqrt(len(dataset)))
    figures = f"partial rank correlation {correlation:+.2f}, {abs(t):.1f} standard errors from 0"
    if t >= SIGNIFICANCE:
        foreign = _foreign(dataset)
        if foreign > MOST_FOREIGN:
            reason = f"rare pieces read higher than predicted ({figures}), but the library does not cover the space"
            return Choice("none", 0.0, correlation, t, f"{reason}: leash and support gate alone")
        reason = f"rare pieces read higher than predicted ({figures}): what the data lacks is sought"
        return Choice("rarity", -SCALE, correlation, t, reason)
    if t <= -SIGNIFICANCE:
        reason = f"rare pieces read lower than predicted ({figures}): what the data lacks is penalised"
        return Choice("rarity", SCALE, correlation, t, reason)
    reason = f"the readings do not say what rarity means ({figures}): leash and support gate alone"
    return Choice("none", 0.0, correlation, t, reason)


def _foreign(dataset: Dataset) -> float:
    """Mean rarity of designs drawn uniformly from the template, in standard deviations; an average item has 0."""
    draws = np.random.default_rng(0).random((NUM_RANDOM, dataset.space.length, dataset.space.alphabet.size))
    tokens = np.where(dataset.space.allowed_mask(), draws, -1.0).argmax(2)
    return float(rarity.fit(dataset, None, None).z(torch.from_numpy(tokens)).mean())


def _by_part(dataset: Dataset, held_out: NDArray[np.float64]) -> NDArray[np.float64]:
    """rho_j, (NUM_PARTS,); empty where the parts would hold fewer items than there are parts."""
    if len(dataset) < NUM_PARTS**2:
        return np.zeros(0)
    part = np.random.default_rng(0).permutation(len(dataset)) % NUM_PARTS
    tokens = torch.as_tensor(dataset.tokens)
    found = []
    for number in range(NUM_PARTS):
        other = part != number
        rare = rarity.fit(dataset.take(~other), None, None).z(tokens[torch.from_numpy(other)]).double().numpy()
        found.append(partial_spearman(rare, dataset.values[other], held_out[other]))
    return np.array(found)


def join(first: Dataset, second: Dataset) -> Dataset:
    """Two disjoint datasets over one space as one."""
    return Dataset(
        first.space,
        np.concatenate([first.tokens, second.tokens]),
        np.concatenate([first.values, second.values]),
        np.concatenate([first.counts, second.counts]),
        np.concatenate([first.noise_std, second.noise_std]),
        first.unit,
    )
