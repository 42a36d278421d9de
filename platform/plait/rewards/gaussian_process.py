"""Gaussian process regression with sequence kernels: strong where a few thousand readings cover a small space.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), chapters 2 and 5; kernels as in
_sequence_kernels.py. On standardised readings z,

    z ~ N(0, K + s^2 W^-1),  K = sum_j w_j K_j / mean(diag K_j),  mean(x) = k(x)^T (K + s^2 W^-1)^-1 z

    K_j: positional kernels, rho in `positional`; window kernels of two lengths, rho in `windows`
    w_j, s^2: by the marginal likelihood of `num_tuning` items (half of them the best), `tuning_steps` steps of Adam
    W: the items' weights by their replicates

Past `max_items` the best half of that many stay and the rest are drawn. The standard deviation is that of the process
given only `num_landmarks` of the items, an upper bound on its own that costs little on whole spaces. On a simplex the
mean carries gradients; the standard deviation is that of the nearest letters. A Prediction's two members are mean - std
and mean + std.

What it owes: the exact posterior mean given its weights (tested against a dense solve). Known limits: memory grows with
the square and time with the cube of the items; it sees no order of sites beyond its windows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
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
from plait.rewards._judged_fit import judged_fit
from plait.rewards._marginal_likelihood import tune
from plait.rewards._records import load_record
from plait.rewards._sequence_kernels import SequenceKernel, window_lengths
from plait.rewards.base import Prediction
from plait.rewards.calibration import Calibration
from plait.rewards.weights import item_weights

_ENUMERATED = 1 << 18
_CHUNK = 8_192
_NEGLIGIBLE = 2e-3
_LEAST_VARIANCE = 1e-6


class Config(BaseModel):
    """Settings of the process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    positional: tuple[float, ...] = Field((0.15, 0.4, 0.7), min_length=1, description="rho of the positional kernels")
    windows: tuple[float, ...] = Field((0.1, 0.3), description="rho of the window kernels; none for ()")
    num_tuning: int = Field(600, ge=10, le=5_000, description="items that set the weights of the kernels")
    tuning_steps: int = Field(40, ge=1, le=1_000, description="steps of Adam on their logarithms, rate 0.1")
    max_items: int = Field(3_000, ge=100, le=20_000, description="items of the exact solve at most")
    num_landmarks: int = Field(128, ge=1, le=2_000, description="items that the standard deviation is computed from")
    held_out_fraction: float = Field(0.2, gt=0, lt=1, description="share of the items that calibrate the fit")


@dataclass(eq=False)
class GaussianProcess:
    """A fitted process; a RewardModel and a FeatureModel.

    Attributes:
        config: How it was fitted.
        space: The design space.
        unit: The assay's unit.
        kernels: (positional or window length, rho) of each kernel kept.
        weights: (j,) float64 its weight in K, normalisation included.
        noise: s^2, in units of the readings' variance.
        items: (m, L) int64 items of the exact solve.
        alpha: (m,) float64 their coefficients.
        landmarks: (r, L) int64.
        whitening: (r, r) float64: k(x, landmarks) @ whitening has the explained variance as its square.
        shift: Mean of the readings, in the assay's unit.
        scale: Standard deviation of the readings, in the assay's unit.
        calibration: How the same recipe did on held-out groups; None where it was not judged.
    """

    config: Config
    space: DesignSpace
    unit: str
    kernels: tuple[tuple[int, float], ...]
    weights: NDArray[np.float64]
    noise: float
    items: Tensor
    alpha: Tensor
    landmarks: Tensor
    whitening: Tensor
    shift: float
    scale: float
    calibration: Calibration | None = None
    is_differentiable: bool = True

    def predict(self, x: Tensor) -> Prediction:
        """Predictions in the assay's unit.

        Args:
            x: Tokens (n, L) int64 (any n; no gradient), or a simplex (n, L, V) float (gradients flow to the mean).
        """
        pieces = (x,) if x.is_floating_point() else torch.split(x, _CHUNK)
        mean = torch.cat([self._mean(piece) for piece in pieces]) * self.scale + self.shift
        std = self.scale * torch.cat([self._std(piece) for piece in pieces])
        return Prediction(torch.stack([mean - std, mean + std]), torch.full((2,), 0.5), self.unit)

    def features(self, x: Tensor) -> Tensor:
        """What the landmarks see of tokens (n, L) or of a simplex's nearest letters, (n, r) float32."""
        tokens = x.argmax(-1) if x.is_floating_point() else x
        total = torch.zeros(len(tokens), len(self.landmarks))
        for kernel, weight in self._terms():
            if kernel.is_positional:
                total += weight * kernel.values(tokens, self.landmarks)
        for kernel, table in zip(self._window_terms(), self._landmark_tables, strict=True):
            total += kernel.look_up(table, tokens)
        return total @ self.whitening.float()

    def _std(self, x: Tensor) -> Tensor:
        tokens = x.argmax(-1) if x.is_floating_point() else x
        prior = torch.zeros(len(tokens))
        for kernel, weight in self._terms():
            prior += weight * kernel.with_itself(tokens)
        explained = (self.features(tokens) ** 2).sum(1)
        return torch.sqrt((prior - explained).clamp_min(_LEAST_VARIANCE))

    def _mean(self, x: Tensor) -> Tensor:
        """Mean in units of the readings' standard deviation, (n,) float32."""
        if not x.is_floating_point() and self._is_enumerated:
            total = self._whole_space[self._number(x)]
        else:
            rows = self.alpha.float()
            positional = [(kernel, weight) for kernel, weight in self._terms() if kernel.is_positional]
            total = torch.zeros(len(x))
            for kernel, weight in positional:
                total = total + weight * (kernel.values(x, self.items) @ rows)
        for kernel, table in zip(self._window_terms(), self._mean_tables, strict=True):
            total = total + kernel.look_up(table, x)[:, 0]
        return total

    def _terms(self) -> list[tuple[SequenceKernel, float]]:
        return [
            (SequenceKernel(self.space, k, rho), float(weight))
            for (k, rho), weight in zip(self.kernels, self.weights, strict=True)
        ]

    def _window_terms(self) -> list[SequenceKernel]:
        return [kernel for kernel, _ in self._terms() if not kernel.is_positional]

    @property
    def _is_enumerated(self) -> bool:
        return bool(self.space.alphabet.size**self.space.length <= _ENUMERATED)

    def _number(self, tokens: Tensor) -> Tensor:
        digits = self.space.alphabet.size ** torch.arange(self.space.length - 1, -1, -1)
        return (tokens * digits).sum(1)

    @cached_property
    def _whole_space(self) -> Tensor:
        """The positional kernels' mean of every sequence of a small space, (V^L,) float32."""
        total = torch.zeros(self.space.alphabet.size**self.space.length)
        for kernel, weight in self._terms():
            if kernel.is_positional:
                total += weight * kernel.table(self.items, self.alpha[:, None])[:, 0]
        return total

    @cached_property
    def _mean_tables(self) -> list[Tensor]:
        return self._tables(self.items, self.alpha[:, None])

    @cached_property
    def _landmark_tables(self) -> list[Tensor]:
        return self._tables(self.landmarks, torch.eye(len(self.landmarks)))

    def _tables(self, items: Tensor, coefficients: Tensor) -> list[Tensor]:
        windows = [(kernel, weight) for kernel, weight in self._terms() if not kernel.is_positional]
        return [weight * kernel.table(items, coefficients) for kernel, weight in windows]

    def save(self, directory: Path) -> str:
        """Write a bundle of kind "reward" and return its content hash."""
        return save_bundle(directory, "reward", *self.record())

    def record(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Description and tensors of its bundle."""
        description = {
            "algorithm": "gaussian_process",
            "config": self.config.model_dump(mode="json"),
            "space": self.space.model_dump(mode="json"),
            "unit": self.unit,
            "kernels": self.kernels,
            "noise": self.noise,
            "shift": self.shift,
            "scale": self.scale,
            "calibration": None if self.calibration is None else asdict(self.calibration),
        }
        tensors = {name: getattr(self, name).numpy() for name in ("items", "alpha", "landmarks", "whitening")}
        return description, {**tensors, "weights": self.weights}


def fit(config: Config, dataset: Dataset, generator: Generator) -> GaussianProcess:
    """Fit the process: on all but held-out groups, which calibrate it, then on everything.

    Args:
        config: Settings.
        dataset: At least 10 items.
        generator: The held-out groups and the items drawn come from it alone.

    Raises:
        BadInputError: Too few items, or values that do not vary.
    """
    return judged_fit(train, config, dataset, generator)


def train(config: Config, dataset: Dataset, generator: Generator) -> GaussianProcess:
    """The process given all items, not judged; draws from the generator only past max_items or num_tuning."""
    dataset = dataset.take(_best_and_drawn(dataset.values, config.max_items, generator))
    kernels = [SequenceKernel(dataset.space, dataset.space.length, rho) for rho in config.positional]
    kernels += [SequenceKernel(dataset.space, k, rho) for k in window_lengths(dataset.space) for rho in config.windows]
    tokens, noise_shape = torch.from_numpy(dataset.tokens), 1 / torch.from_numpy(item_weights(dataset)).double()
    shift, scale = float(dataset.values.mean()), float(dataset.values.std()) or 1.0
    z = torch.from_numpy((dataset.values - shift) / scale)
    tuned = torch.from_numpy(_best_and_drawn(dataset.values, config.num_tuning, generator))
    grams = [kernel.gram(tokens[tuned], tokens[tuned]) for kernel in kernels]
    sizes = np.array([float(gram.diagonal().mean()) for gram in grams])
    stacked = torch.stack([gram.double() / size for gram, size in zip(grams, sizes.tolist(), strict=True)])
    shares, noise = tune(stacked, z[tuned], noise_shape[tuned], config.tuning_steps)
    kept = np.flatnonzero(shares > _NEGLIGIBLE * shares.sum())
    weights = shares[kept] / sizes[kept]
    gram = torch.zeros(len(tokens), len(tokens))
    for j, weight in zip(kept, weights.tolist(), strict=True):
        gram += weight * kernels[j].gram(tokens, tokens)
    solved = gram.double() + torch.diag(noise * noise_shape)
    alpha = torch.cholesky_solve(z[:, None], torch.linalg.cholesky(solved))[:, 0]
    chosen = torch.from_numpy(_best_and_drawn(dataset.values, config.num_landmarks, generator))
    factor = torch.linalg.cholesky(solved[chosen][:, chosen])
    whitening = torch.linalg.solve_triangular(factor, torch.eye(len(chosen), dtype=torch.float64), upper=False).T
    return GaussianProcess(
        config=config,
        space=dataset.space,
        unit=dataset.unit,
        kernels=tuple((kernels[j].k, kernels[j].rho) for j in kept),
        weights=weights,
        noise=noise,
        items=tokens,
        alpha=alpha,
        landmarks=tokens[chosen],
        whitening=whitening.contiguous(),
        shift=shift,
        scale=scale,
    )


def _best_and_drawn(values: NDArray[np.float64], num: int, generator: Generator) -> NDArray[np.int64]:
    """All items up to `num`; past it the best half of that many and as many drawn from the rest, (<= num,) int64."""
    if len(values) <= num:
        return np.arange(len(values))
    order = np.argsort(-values, kind="stable")
    best, rest = order[: num // 2], order[num // 2 :]
    drawn = torch.randperm(len(rest), generator=generator)[: num - len(best)].numpy()
    return np.asarray(np.concatenate([best, rest[drawn]]))


def load(directory: Path) -> GaussianProcess:
    """A process that save() wrote.

    Raises:
        CorruptArtifactError: The bundle is damaged, of another kind, or its tensors do not fit its configuration.
    """
    return load_record(directory, from_record, "Gaussian process")


def from_record(description: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> GaussianProcess:
    """What GaussianProcess.record() told; KeyError, TypeError or ValueError where it does not fit together."""
    record, arrays = description["calibration"], {name: tensor.copy() for name, tensor in tensors.items()}
    space = DesignSpace.model_validate(description["space"])
    items, landmarks = torch.from_numpy(arrays["items"]), torch.from_numpy(arrays["landmarks"])
    alpha, whitening = torch.from_numpy(arrays["alpha"]), torch.from_numpy(arrays["whitening"])
    kernels = tuple((int(k), float(rho)) for k, rho in description["kernels"])
    is_sound = items.shape == (len(alpha), space.length) and landmarks.shape == (len(whitening), space.length)
    if not is_sound or len(kernels) != len(arrays["weights"]):
        raise ValueError("its tensors do not fit each other")
    for tokens in (items, landmarks):
        space.decode(tokens.numpy())
    return GaussianProcess(
        config=Config.model_validate(description["config"]),
        space=space,
        unit=str(description["unit"]),
        kernels=kernels,
        weights=arrays["weights"],
        noise=float(description["noise"]),
        items=items,
        alpha=alpha,
        landmarks=landmarks,
        whitening=whitening,
        shift=float(description["shift"]),
        scale=float(description["scale"]),
        calibration=None if record is None else Calibration(**record),
    )
