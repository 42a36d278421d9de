"""Ensembles of small networks: the default reward model.

Members of several families are fitted to the same readings; each family's say is measured, not assumed: its weight
is softmax(sharpness * Spearman) of predictions on held-out groups of sequences. Values are standardised for training
and reported in the assay's unit. In a strand-symmetric space a prediction is the mean over both strands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Generator, Tensor, nn
from torch.nn import functional

from plait.design.bundles import save_bundle
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.metrics.ranks import spearman
from plait.rewards._judged_fit import held_out_groups, require_teaching
from plait.rewards._networks import LetterPerceptron, MemberNetwork, PositionalConvolution, WideConvolution
from plait.rewards._records import load_record
from plait.rewards.base import Prediction
from plait.rewards.calibration import Calibration, calibrate
from plait.rewards.weights import item_weights

Family = Literal["wide_conv", "positional_conv", "mlp"]
OfSimplex = Callable[[Tensor], Tensor]
_ACCELERATOR_CHUNK_LETTERS = 1 << 20
"""About 1 GB of activations at a time where no cache is to be met."""


class Config(BaseModel):
    """Settings of an ensemble.

    Attributes:
        families: Kinds of members; each family has `members` of them.
        members: Members per family.
        is_bootstrap: Each member sees its own resample of the items (with replacement).
        steps: Updates per fit.
        learning_rate: Peak of the one-cycle schedule (AdamW).
        weight_decay: Of AdamW.
        batch_size: Items per update.
        filters: Convolution filters per member.
        kernel: Convolution width in letters, odd; None takes 7 up to length 12 or for over 8 letters, else 11.
        hidden: Units of each of the two hidden layers.
        held_out_fraction: Share of the items (whole groups) on which families are weighted and the fit calibrated.
        sharpness: Inverse temperature of the family weights, per unit of Spearman; 0 weighs all alike.
        min_say: Families of a smaller weight are left out of the final fit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    families: tuple[Family, ...] = Field(("wide_conv", "positional_conv", "mlp"), min_length=1)
    members: int = Field(5, ge=1, le=64)
    is_bootstrap: bool = False
    steps: int = Field(300, ge=1, le=100_000)
    learning_rate: float = Field(3e-3, gt=0, le=1)
    weight_decay: float = Field(0.01, ge=0, le=10)
    batch_size: int = Field(128, ge=1, le=65_536)
    filters: int = Field(48, ge=1, le=4096)
    kernel: int | None = Field(None, ge=1, le=63)
    hidden: int = Field(64, ge=1, le=4096)
    held_out_fraction: float = Field(0.2, gt=0, lt=1)
    sharpness: float = Field(10.0, ge=0, le=1000)
    min_say: float = Field(0.05, ge=0, lt=1)

    @field_validator("kernel")
    @classmethod
    def _is_odd(cls, kernel: int | None) -> int | None:
        if kernel is not None and kernel % 2 == 0:
            raise ValueError("the kernel must be odd, so that its window has a centre")
        return kernel


@dataclass(eq=False)
class Ensemble:
    """A fitted ensemble; a RewardModel and a FeatureModel.

    Attributes:
        config: How it was fitted.
        space: The design space.
        unit: The assay's unit.
        networks: Family name to its network of members, in the order of Config.families.
        weights: (m,) float32, each member's say, sum 1.
        shift: Mean of the readings, in the assay's unit.
        scale: Standard deviation of the readings, in the assay's unit.
        calibration: How the same recipe did on held-out groups; None where it was not judged.
    """

    config: Config
    space: DesignSpace
    unit: str
    networks: nn.ModuleDict
    weights: Tensor
    shift: float
    scale: float
    calibration: Calibration | None = None
    is_differentiable: bool = True

    def predict(self, x: Tensor) -> Prediction:
        """Predictions in the assay's unit.

        Args:
            x: Tokens (n, L) int64 (any n; no gradient), or a simplex (n, L, V) float (gradients flow to it).
        """
        members = torch.cat([self._over_chunks(network, network, x) for network in self._families()])
        return Prediction(members * self.scale + self.shift, self.weights.to(members.device), self.unit)

    def features(self, x: Tensor) -> Tensor:
        """Last hidden layers of the first fitted family, all its members side by side, (n, d) float32."""
        first = self._families()[0]

        def flat(simplex: Tensor) -> Tensor:
            return first.features(simplex).transpose(1, 2).flatten(0, 1)

        return self._over_chunks(first, flat, x).T

    def _families(self) -> list[MemberNetwork]:
        return [cast(MemberNetwork, network) for network in self.networks.values()]

    def _over_chunks(self, network: MemberNetwork, function: OfSimplex, x: Tensor) -> Tensor:
        """function((n, L, V)) -> (k, n) over x by `network`; tokens are cut into chunks and carry no gradient."""
        if x.is_floating_point():
            return _both_strands(self.space, function, x)
        with torch.no_grad():
            size = network.chunk_letters if x.device.type == "cpu" else _ACCELERATOR_CHUNK_LETTERS
            chunks = torch.split(x, max(size // x.shape[1], 16))
            one_hot = torch.eye(
                self.space.alphabet.size, device=x.device
            )  # 1.5 to 2 times as fast as functional.one_hot
            letters = (functional.embedding(chunk, one_hot) for chunk in chunks)
            return torch.cat([_both_strands(self.space, function, chunk) for chunk in letters], dim=-1)

    def save(self, directory: Path) -> str:
        """Write a bundle of kind "reward" and return its content hash."""
        return save_bundle(directory, "reward", *self.record())

    def record(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Description and tensors of its bundle."""
        description = {
            "algorithm": "ensemble",
            "families": list(self.networks),
            "config": self.config.model_dump(mode="json"),
            "space": self.space.model_dump(mode="json"),
            "unit": self.unit,
            "shift": self.shift,
            "scale": self.scale,
            "calibration": None if self.calibration is None else asdict(self.calibration),
        }
        tensors = {name: tensor.cpu().numpy() for name, tensor in self.networks.state_dict().items()}
        return description, {**tensors, "weights": self.weights.cpu().numpy()}


def _both_strands(space: DesignSpace, function: OfSimplex, x: Tensor) -> Tensor:
    """function(x), averaged over both strands where the space says that they are one item."""
    result = function(x)
    if not space.strand_symmetric:
        return result
    twin = torch.as_tensor(space.alphabet.complement_tokens(), device=x.device)
    return (result + function(x.flip(1)[:, :, twin])) / 2


def _build(family: Family, config: Config, space: DesignSpace, generator: Generator) -> MemberNetwork:
    kernel = config.kernel or (7 if space.length <= 12 or space.alphabet.size > 8 else 11)
    kernel = min(kernel, 2 * (space.length // 2) + 1)
    if family == "mlp":
        return LetterPerceptron(config.members, space.length, space.alphabet.size, config.hidden, generator)
    kind = WideConvolution if family == "wide_conv" else PositionalConvolution
    return kind(config.members, space.length, space.alphabet.size, config.filters, kernel, config.hidden, generator)


def fit(config: Config, dataset: Dataset, generator: Generator) -> Ensemble:
    """Fit an ensemble to a dataset.

    First on all but a held-out share of the sequence groups (that weighs the families and gives the calibration),
    then, with those weights, on everything.

    Args:
        config: Settings.
        dataset: At least 10 items.
        generator: The held-out groups, initial weights, resamples and order of the items come from it alone.

    Raises:
        BadInputError: Too few items, or values that do not vary.
    """
    require_teaching(dataset)
    kept, held_out = held_out_groups(dataset, config.held_out_fraction, generator)
    trial = train(config, kept, generator)
    unseen = torch.as_tensor(held_out.tokens)
    by_family = trial.predict(unseen).members.reshape(len(config.families), config.members, -1).mean(1)
    skills = torch.tensor([spearman(prediction.double().numpy(), held_out.values) for prediction in by_family])
    say = functional.softmax(config.sharpness * skills.float(), dim=0)
    say = torch.where((say >= config.min_say) | (say == say.max()), say, 0.0)
    say = say / say.sum()
    judged = replace(trial, weights=_member_weights(say, config.members))
    calibration = calibrate(judged.predict(unseen), held_out)
    families = tuple(family for family, share in zip(config.families, say.tolist(), strict=True) if share > 0)
    final = _fit_members(config, families, dataset, generator)
    return replace(final, weights=_member_weights(say[say > 0], config.members), calibration=calibration)


def _member_weights(say: Tensor, members: int) -> Tensor:
    """Each family's say, shared evenly among its members, (families * members,)."""
    return (say / members).repeat_interleave(members)


def train(config: Config, dataset: Dataset, generator: Generator) -> Ensemble:
    """All families on all items, each member with the same say; not judged."""
    return _fit_members(config, config.families, dataset, generator)


def _fit_members(config: Config, families: Sequence[Family], dataset: Dataset, generator: Generator) -> Ensemble:
    """These families on all items, each member with the same say."""
    x = functional.one_hot(torch.as_tensor(dataset.tokens), dataset.space.alphabet.size).float()
    weights = torch.as_tensor(item_weights(dataset))
    values = torch.as_tensor(dataset.values)
    shift = float((weights * values).sum() / weights.sum())
    scale = float(((weights * (values - shift) ** 2).sum() / weights.sum()).sqrt()) or 1.0
    targets = ((values - shift) / scale).float()
    networks = nn.ModuleDict()
    for family in families:
        networks[family] = network = _build(family, config, dataset.space, generator)
        _train(network, config, dataset.space, x, targets, _resampled(config, weights, generator), generator)
    total = len(families) * config.members
    return Ensemble(
        config,
        dataset.space,
        dataset.unit,
        networks.eval().requires_grad_(False),
        torch.full((total,), 1.0 / total),
        shift,
        scale,
    )


def _train(
    network: MemberNetwork,
    config: Config,
    space: DesignSpace,
    x: Tensor,
    targets: Tensor,
    weights: Tensor,
    generator: Generator,
) -> None:
    """Minimise each member's squared error, in place; all see the same batches, each with its own weights (m, n)."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=max(config.steps, 2))
    queue = torch.empty(0, dtype=torch.int64)
    for _ in range(config.steps):
        while len(queue) < min(config.batch_size, len(x)):
            queue = torch.cat([queue, torch.randperm(len(x), generator=generator)])
        batch, queue = queue[: config.batch_size], queue[config.batch_size :]
        error = _both_strands(space, network, x[batch]) - targets[batch]
        loss = (weights[:, batch] * error**2).mean(1).sum()
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        cycle.step()
    optimiser.zero_grad(set_to_none=True)


def _resampled(config: Config, weights: Tensor, generator: Generator) -> Tensor:
    """(members, n) item weights: bootstrap counts times weights, or the weights alone."""
    n = len(weights)
    if not config.is_bootstrap:
        return weights.expand(config.members, n)
    draws = torch.randint(n, (config.members, n), generator=generator)
    counts = torch.zeros(config.members, n).scatter_add_(1, draws, torch.ones(config.members, n))
    resampled = counts * weights
    return resampled / resampled.mean(1, keepdim=True)


def load(directory: Path) -> Ensemble:
    """An ensemble that save() wrote.

    Raises:
        CorruptArtifactError: The bundle is damaged, of another kind, or its tensors do not fit its configuration.
    """
    return load_record(directory, from_record, "ensemble")


def from_record(description: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> Ensemble:
    """What Ensemble.record() told; KeyError, TypeError, ValueError or RuntimeError where it does not fit together."""
    config = Config.model_validate(description["config"])
    space = DesignSpace.model_validate(description["space"])
    families: list[Family] = description["families"]
    networks = nn.ModuleDict({family: _build(family, config, space, Generator()) for family in families})
    arrays = {name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()}
    weights = arrays.pop("weights")
    networks.load_state_dict(arrays)
    networks.eval().requires_grad_(False)
    unit, shift, scale = str(description["unit"]), float(description["shift"]), float(description["scale"])
    record = description["calibration"]
    calibration = None if record is None else Calibration(**record)
    return Ensemble(config, space, unit, networks, weights, shift, scale, calibration)
