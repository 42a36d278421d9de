"""A masked diffusion model under a condition, and the conditions that measured values give.

A condition y in 0..K-1 adds an embedding e_y to one parameter of the network: its backbone says which, the first bias
or the position embedding. At a fixed y that is a plain model with e_y added there: fold(y). Additions of low rank to
the weights (Hu et al. 2021, LoRA: W + B A, B zero at first, W frozen) fold as well, so whatever samples, saves or loads
a model needs to know nothing of conditions.

Embeddings start at 0, which leaves the prior's law as it is. Over an untrained prior, whose output layer is 0, they
start at random: that leaves its law as it is too, and 0 would be a saddle point, where neither layer has a gradient for
what the conditions tell.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.func import functional_call

from plait.design.errors import ConfigError
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.priors._backbones import Denoiser, DilatedCnn, ResidualMlp
from plait.priors._masking import MaskedDiffusion
from plait.priors.base import DiffusionPrior

FEWEST_ITEMS = 20
START = 0.5
"""Standard deviation of the embeddings over an untrained prior."""


class LowRank(nn.Module):
    """Additions B A to the weight of every linear layer and convolution of a network; 0 until they are trained."""

    def __init__(self, network: nn.Module, rank: int, generator: Generator) -> None:
        """A (rank, inputs) is drawn from `generator`, so that A times normalised inputs is of order 1; B is 0."""
        super().__init__()
        layers = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv1d)]
        self.names = [f"{name}.weight" for name in layers]
        weights = [network.get_parameter(name).flatten(1) for name in self.names]
        drawn = [torch.randn((rank, w.shape[1]), generator=generator, device=generator.device) for w in weights]
        self.down = nn.ParameterList(d / math.sqrt(d.shape[1]) for d in drawn)
        self.up = nn.ParameterList(torch.zeros((w.shape[0], rank), device=generator.device) for w in weights)

    def added_to(self, network: nn.Module) -> dict[str, Tensor]:
        """Name -> W + B A; gradients flow to A and B."""
        weights = [network.get_parameter(name) for name in self.names]
        pairs = zip(self.up, self.down, strict=True)
        return {
            name: weight + (up @ down).view_as(weight)
            for name, weight, (up, down) in zip(self.names, weights, pairs, strict=True)
        }


class Conditional(nn.Module):
    """A copy of a prior that also hears a condition.

    Attributes:
        model: The copy; frozen where there are adapters, else all of its weights are trained.
        num_conditions: K; the conditions are 0..K-1.
        none: The number K, which stands for no condition: its embedding is always 0.
        embedding: e_y of all conditions, (K, ...), each of the shape of the parameter that it is added to.
        adapters: Additions to the model's weights, or None.
    """

    def __init__(self, prior: DiffusionPrior, num_conditions: int, rank: int = 0, seed: int = 0) -> None:
        """Exactly the prior's law under every condition, until it is trained.

        Args:
            prior: A masked diffusion model; it is copied.
            num_conditions: K.
            rank: Of the adapters; 0 trains all weights instead.
            seed: Draws adapters and embeddings, so that workers start from the same ones.

        Raises:
            ConfigError: The prior is no masked diffusion model with one of the backbones that hear a condition.
        """
        super().__init__()
        if not isinstance(prior, MaskedDiffusion) or not isinstance(prior.network.backbone, ResidualMlp | DilatedCnn):
            raise ConfigError(
                "this prior's network hears no conditions", hint="use a masked_diffusion prior (backbone mlp or cnn)"
            )
        self.model = prior.clone(is_trainable=rank == 0)
        self.network, self.num_conditions, self.none = self.model.network, num_conditions, num_conditions
        self.shifted = f"backbone.{prior.network.backbone.shifted}"
        place = self.network.get_parameter(self.shifted)
        drawn = Generator(place.device).manual_seed(seed)
        start = torch.randn((num_conditions, *place.shape), generator=drawn, device=place.device)
        is_untrained = not bool(prior.network.backbone.leave.weight.any())
        self.embedding = nn.Parameter(START * start if is_untrained else torch.zeros_like(start))
        self.adapters = LowRank(self.network, rank, drawn) if rank else None

    def trained(self) -> list[nn.Parameter]:
        """What an optimiser moves, always in the same order."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def shift(self, condition: int | Tensor) -> Tensor:
        """Embeddings (...) of one condition, or (n, ...) of conditions (n,) int64; 0 for none."""
        return torch.cat([self.embedding, torch.zeros_like(self.embedding[:1])])[condition]

    def weights(self) -> dict[str, Tensor]:
        """The weights that the adapters change, by name."""
        return self.adapters.added_to(self.network) if self.adapters is not None else {}

    def given(self, condition: int | Tensor) -> MaskedDiffusion:
        """The model under a condition, as trained so far and with gradients: good for one backward pass.

        Args:
            condition: One for all rows, or (n,) int64, one for each row that goes through the network; in the latter
                case only the likelihoods of designs may be used, for steps of a chain do not keep the rows together.
        """
        network = cast(Denoiser, _Given(self, condition))
        return MaskedDiffusion(self.model.space, self.model.num_steps, network, self.model.settings)

    @torch.no_grad()
    def fold(self, condition: int) -> MaskedDiffusion:
        """The model under a condition as a plain frozen model of its own."""
        plain = self.model.clone(is_trainable=False)
        for name, weight in self.weights().items():
            plain.network.get_parameter(name).copy_(weight)
        plain.network.get_parameter(self.shifted).add_(self.shift(condition))
        return plain


class _Given(nn.Module):
    """The network under a condition, adapters folded in once."""

    def __init__(self, conditional: Conditional, condition: int | Tensor) -> None:
        super().__init__()
        self.conditional = conditional
        self.allowed = conditional.network.allowed
        self.weights, self.shift = conditional.weights(), conditional.shift(condition)

    def forward(self, x: Tensor) -> Tensor:
        letters: Tensor = functional_call(self.conditional.network, self.weights, (x, self.shift))
        return letters


def quantile_bins(values: NDArray[np.float64], num_bins: int) -> NDArray[np.int64]:
    """Bin of each value, (n,) int64 from 0, the highest values in the last; equally filled but for ties.

    Equal values share a bin, and empty bins are left out, so there may be fewer than `num_bins`.
    """
    edges = np.unique(np.quantile(values, np.arange(1, num_bins) / num_bins))
    bins = np.searchsorted(edges, values, side="right")
    return np.unique(bins, return_inverse=True)[1].reshape(-1).astype(np.int64)


def value_conditions(dataset: Dataset | None, num_bins: int, algorithm: str) -> tuple[Dataset, NDArray[np.int64]]:
    """The measured items and the quantile bin of each one's value, (n,) int64.

    Raises:
        ConfigError: No data, fewer than 20 items, or values that fall into one bin.
    """
    if dataset is None:
        raise ConfigError(f"{algorithm} learns from measured items, and none are given", hint="give a dataset")
    bins = quantile_bins(dataset.values, num_bins)
    if len(dataset) < FEWEST_ITEMS or bins.max() == 0:
        raise ConfigError(
            f"{algorithm} cannot learn conditions from {len(dataset)} items of {len(np.unique(dataset.values))} values",
            hint=f"give at least {FEWEST_ITEMS} measured items whose values differ",
        )
    return dataset, bins


def both_strands(space: DesignSpace, tokens: Tensor) -> Tensor:
    """Tokens (n, L) and, where a design and its reverse complement are one item, those below, (2n, L)."""
    if not space.strand_symmetric:
        return tokens
    twin = torch.from_numpy(space.alphabet.complement_tokens()).to(tokens.device)
    return torch.cat([tokens, twin[tokens.flip(1)]])
