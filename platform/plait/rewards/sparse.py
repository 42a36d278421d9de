"""A sparse surrogate for long designs: which letter pairs, at which gap, anywhere, and which letters, where.

Source: the lasso, Tibshirani, "Regression Shrinkage and Selection via the Lasso" (JRSS B, 1996); screening by marginal
correlation, Fan and Lv, "Sure Independence Screening" (JRSS B, 2008); solved by FISTA, Beck and Teboulle (2009).
On readings t (their logarithm where that is their scale) each of m bootstrap members minimises

    sum_i w_i (t_i - b - sum_f beta_f x_f(i))^2 / 2 + lambda sum_f s_f |beta_f|,

x_f(i) = 1 if item i holds feature f: letter a with letter b `gap` positions behind it, anywhere (f = (gap, a, b)), or
letter a at position l. w_i = times the bootstrap drew i, times what its noise leaves it (w); s_f = standard deviation
of x_f. Only the num_features features of the largest |correlation| with t enter; each member's lambda is the one that
predicts the items its bootstrap left out best.

What it owes: nothing but its held-out record. Its strength are rare motifs in a large alphabet, where a thousand
readings name single elements; motifs of few letters are everywhere, so that the presence of a pair says little (the
reward model motifs is made for those). Pairs are looked for on the given strand, in a strand-symmetric space on both;
letters at positions there on the strand that stands for the item.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor

from plait.design.bundles import save_bundle
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.rewards._gapped_pairs import has_pairs, letter_planes
from plait.rewards._judged_fit import judged_fit
from plait.rewards._links import Link, Scale, choose_link
from plait.rewards._records import load_record
from plait.rewards.base import Prediction
from plait.rewards.calibration import Calibration
from plait.rewards.weights import item_weights

_LAMBDAS = np.geomspace(0.7, 0.005, 14).astype(np.float32)
"""Penalties tried, as shares of the one at which no feature is left."""
_CHUNK = 4096

Numbers = NDArray[np.float32]


class Config(BaseModel):
    """Settings of the sparse surrogate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: int = Field(4, ge=1, le=64, description="bootstrap members")
    max_gap: int = Field(20, ge=1, le=1000, description="largest distance of the two letters of a pair")
    min_count: int = Field(4, ge=1, description="items that hold a feature, at least, and that lack it")
    num_features: int = Field(800, ge=1, le=10_000, description="features that enter a member's lasso")
    iterations: int = Field(300, ge=1, le=100_000, description="steps of the lasso's solver")
    scale: Scale = Field("auto", description="of the fit: identity, log, or auto: log if it makes readings less skewed")
    held_out_fraction: float = Field(0.2, gt=0, lt=1, description="share of the items that calibrate the fit")


@dataclass(frozen=True, eq=False)
class SparseSurrogate:
    """A fitted surrogate; a RewardModel.

    Attributes:
        config: How it was fitted.
        space: The design space.
        unit: The assay's unit.
        scale: Standard deviation of the readings, in the assay's unit.
        link: Between the scale of the fit and the assay's unit.
        pairs: (k, 3) int64 gapped pairs (gap, a, b) that some member uses.
        pair_effects: (m, k) float32.
        letter_effects: (m, L, V) float32.
        intercepts: (m,) float32.
        calibration: How the same recipe did on held-out groups; None where it was not judged.
    """

    config: Config
    space: DesignSpace
    unit: str
    scale: float
    link: Link
    pairs: NDArray[np.int64]
    pair_effects: Numbers
    letter_effects: Numbers
    intercepts: Numbers
    calibration: Calibration | None = None
    is_differentiable: bool = False

    def predict(self, x: Tensor) -> Prediction:
        """Predictions of tokens (n, L) int64 in the assay's unit, on the CPU."""
        pieces = [self._fitted(part) for part in np.split(x.cpu().numpy(), range(_CHUNK, len(x), _CHUNK))]
        members = self.link.inverse(torch.from_numpy(np.concatenate(pieces, 1)))
        return Prediction(members, torch.full((len(members),), 1.0 / len(members)), self.unit)

    def _fitted(self, tokens: NDArray[np.int64]) -> Numbers:
        """Members' values on the scale of the fit, (m, n)."""
        size, length = self.space.alphabet.size, self.space.length
        tokens = self.space.canonical(tokens)  # the strand whose positions were learnt
        pairs = self.pair_effects @ _pairs_of(self.space, tokens, self.pairs).astype(np.float32)
        flat = torch.from_numpy(self.letter_effects.reshape(len(self.intercepts), -1).T.copy())
        where = torch.from_numpy(tokens + size * np.arange(length))
        letters: Numbers = torch.nn.functional.embedding_bag(where, flat, mode="sum").numpy().T
        return np.asarray(pairs + letters + self.intercepts[:, None], dtype=np.float32)

    def save(self, directory: Path) -> str:
        """Write a bundle of kind "reward" and return its content hash."""
        return save_bundle(directory, "reward", *self.record())

    def record(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Description and tensors of its bundle."""
        description = {
            "algorithm": "sparse",
            "config": self.config.model_dump(mode="json"),
            "space": self.space.model_dump(mode="json"),
            "unit": self.unit,
            "scale": self.scale,
            "link": asdict(self.link),
            "calibration": None if self.calibration is None else asdict(self.calibration),
        }
        names = ("pairs", "pair_effects", "letter_effects", "intercepts")
        return description, {name: getattr(self, name) for name in names}


def _pairs_of(space: DesignSpace, tokens: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(k, n) bool: pairs held, on either strand where both are one item."""
    found = has_pairs(letter_planes(tokens, space.alphabet.size), pairs)
    if space.strand_symmetric:
        twins = space.alphabet.complement_tokens()[tokens[:, ::-1]]
        found |= has_pairs(letter_planes(twins, space.alphabet.size), pairs)
    return found


def fit(config: Config, dataset: Dataset, generator: Generator) -> SparseSurrogate:
    """Fit the surrogate: on all but held-out groups, which calibrate it, then on everything.

    Args:
        config: Settings.
        dataset: At least 10 items.
        generator: The held-out groups and the resamples come from it alone.

    Raises:
        BadInputError: Too few items, or values that do not vary.
    """
    return judged_fit(train, config, dataset, generator)


def train(config: Config, dataset: Dataset, generator: Generator) -> SparseSurrogate:
    """The surrogate of all items, not judged."""
    space, n = dataset.space, len(dataset)
    link = choose_link(config.scale, dataset.values)
    target = link.forward(dataset.values).astype(np.float32)
    draws = torch.randint(n, (config.members, n), generator=generator).numpy()
    times = np.stack([np.bincount(row, minlength=n) for row in draws])
    weights = (times * item_weights(dataset)).astype(np.float32)
    weights /= weights.sum(1, keepdims=True)
    screened = _screen(config, dataset, target, weights)
    codes = np.unique(np.concatenate(screened))
    values = _features(space, dataset.tokens, codes).astype(np.float32)
    effects, intercepts = np.zeros((config.members, len(codes)), dtype=np.float32), np.zeros(config.members, np.float32)
    for member, own in enumerate(screened):
        index = np.searchsorted(codes, own)
        lasso = _lasso(values[index], target, weights[member], times[member] == 0, config.iterations)
        effects[member, index], intercepts[member] = lasso
    num_letters = space.length * space.alphabet.size
    letter_effects = np.zeros((config.members, num_letters), dtype=np.float32)
    is_pair, is_used = codes >= num_letters, (effects != 0).any(0)
    letter_effects[:, codes[~is_pair]] = effects[:, ~is_pair]
    return SparseSurrogate(
        config,
        space,
        dataset.unit,
        float(dataset.values.std()),
        link,
        _decoded(space, codes[is_pair & is_used]),
        effects[:, is_pair & is_used],
        letter_effects.reshape(config.members, space.length, -1),
        intercepts,
    )


def _decoded(space: DesignSpace, codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pairs (k, 3) of codes (k,): L V + ((gap - 1) V + a) V + b; the codes below L V are letters, l V + a."""
    size = space.alphabet.size
    rest, second = np.divmod(codes - space.length * size, size)
    gap, first = np.divmod(rest, size)
    return np.stack([gap + 1, first, second], 1)


def _features(space: DesignSpace, tokens: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(k, n) bool: features held, codes (k,) sorted: letters at their positions first, then pairs."""
    num_letters = space.length * space.alphabet.size
    position, letter = np.divmod(codes[codes < num_letters], space.alphabet.size)
    pairs = _decoded(space, codes[codes >= num_letters])
    return np.concatenate([tokens.T[position] == letter[:, None], _pairs_of(space, tokens, pairs)])


def _screen(config: Config, dataset: Dataset, target: Numbers, weights: Numbers) -> list[NDArray[np.int64]]:
    """Codes of each member's most correlated features, sorted; weights (m, n) sum to 1."""
    space = dataset.space
    size, num_letters = space.alphabet.size, space.length * space.alphabet.size
    centred = target - (weights @ target)[:, None]
    gaps = range(min(config.max_gap, space.length - 1))
    blocks = [np.arange(num_letters), *(num_letters + gap * size**2 + np.arange(size**2) for gap in gaps)]
    codes, correlations = [], []
    for block in blocks:
        values = _features(space, dataset.tokens, block)
        count = values.sum(1)
        is_told = (count >= config.min_count) & (len(dataset) - count >= config.min_count)
        held = values[is_told].astype(np.float32).T
        share = weights @ held
        codes.append(block[is_told])
        correlations.append((weights * centred) @ held / np.sqrt(np.maximum(share * (1 - share), 1e-9)))
    told, strength = np.concatenate(codes), np.abs(np.concatenate(correlations, 1))
    return [np.sort(told[np.argsort(-row, kind="stable")[: config.num_features]]) for row in strength]


def _lasso(
    values: Numbers, target: Numbers, weights: Numbers, left_out: NDArray[np.bool_], iterations: int
) -> tuple[Numbers, np.float32]:
    """Effects (k,) and intercept of features (k, n), the penalty chosen on the items `left_out`, (n,) bool."""
    mean, middle = values @ weights, weights @ target
    centred = values - mean[:, None]
    std = np.sqrt(np.maximum(centred**2 @ weights, 1e-12))
    centred /= std[:, None]
    gram, pull = (centred * weights) @ centred.T, centred @ (weights * (target - middle))
    rate = np.float32(1 / (1.01 * np.linalg.norm(gram, 2) + 1e-9))
    penalty = rate * _LAMBDAS * np.abs(pull).max(initial=0)
    beta = ahead = np.zeros((len(pull), len(_LAMBDAS)), dtype=np.float32)
    momentum = 1.0
    for _ in range(iterations):
        moved = ahead - rate * (gram @ ahead - pull[:, None])
        new = np.sign(moved) * np.maximum(np.abs(moved) - penalty, 0)
        faster = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + np.float32((momentum - 1) / faster) * (new - beta)
        beta, momentum = new, faster
    beta /= std[:, None]
    intercepts = middle - mean @ beta
    errors = ((values[:, left_out].T @ beta + intercepts - target[left_out, None]) ** 2).sum(0)
    best = int(errors.argmin()) if left_out.any() else len(_LAMBDAS) // 2
    return beta[:, best], intercepts[best]


def load(directory: Path) -> SparseSurrogate:
    """A surrogate that save() wrote.

    Raises:
        CorruptArtifactError: The bundle is damaged, of another kind, or its tensors do not fit its configuration.
    """
    return load_record(directory, from_record, "sparse surrogate")


def from_record(description: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> SparseSurrogate:
    """What SparseSurrogate.record() told; KeyError, TypeError or ValueError where it does not fit together."""
    config, space = Config.model_validate(description["config"]), DesignSpace.model_validate(description["space"])
    record = description["calibration"]
    pairs, num_pairs = tensors["pairs"], len(tensors["pairs"])
    shapes = {
        "pairs": (num_pairs, 3),
        "pair_effects": (config.members, num_pairs),
        "letter_effects": (config.members, space.length, space.alphabet.size),
        "intercepts": (config.members,),
    }
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name} has the shape {tensors[name].shape}, not {shape}")
    if ((pairs < [1, 0, 0]) | (pairs >= [space.length, space.alphabet.size, space.alphabet.size])).any():
        raise ValueError("a pair lies outside the space")
    return SparseSurrogate(
        config,
        space,
        str(description["unit"]),
        float(description["scale"]),
        Link(**description["link"]),
        pairs,
        tensors["pair_effects"],
        tensors["letter_effects"],
        tensors["intercepts"],
        None if record is None else Calibration(**record),
    )
