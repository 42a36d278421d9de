"""Several families of reward model, each with the say that its record on held-out readings earns.

Source: weights by exponentiated skill, as in prediction with expert advice (Cesa-Bianchi and Lugosi, "Prediction,
Learning, and Games", 2006), here with the skill on one held-out share instead of an online loss. No family is best on
every landscape: kernels see small spaces best, convolutions motifs, products of motifs long designs.

    t(x) = sum_f w_f t_f(x),  w = softmax(sharpness * skill),  skill_f = Pearson(t_f, t) on held-out groups
    t = exp(tilt * normal score of the reading's rank): the scale on which families are judged and mixed; those that
        choose a scale of their own (motifs, sparse) are fitted on the readings, all others on t

`sharpness` and `tilt` are arguments of the same name; families below `min_say` are left out and the rest fitted again
on everything. The mean is t(x) in the assay's unit; members are all families' members in that unit, moved together so
that they average to it. On a simplex the families without gradients are silent; the best one
that has them always stays.

What it owes: a rising function of t(x) as its mean (no family's doubts change the order of designs), and weights that
follow the skills it reports. Known limits: skill is measured among readings like those at hand; designs lie beyond.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor
from torch.nn import functional

from plait.design.bundles import save_bundle
from plait.design.errors import ConfigError
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.metrics.ranks import pearson
from plait.rewards import ensemble, gaussian_process, motifs, sparse
from plait.rewards._judged_fit import held_out_groups, require_teaching
from plait.rewards._records import load_record
from plait.rewards._warp import Warp, fit_warp
from plait.rewards.base import Prediction, RewardModel
from plait.rewards.calibration import Calibration, calibrate

Family = Literal["gaussian_process", "wide_conv", "positional_conv", "mlp", "motifs", "sparse"]
NETWORKS = ("wide_conv", "positional_conv", "mlp")
ON_READINGS = ("motifs", "sparse")
SHORT: tuple[Family, ...] = ("gaussian_process", "wide_conv", "positional_conv", "mlp")
LONG: tuple[Family, ...] = ("wide_conv", "mlp", "motifs", "sparse")
SHORT_LENGTH = 16
"""Letters up to which motifs have nowhere to move."""


class Config(BaseModel):
    """Settings of a mixture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    families: tuple[Family, ...] | None = Field(
        None,
        min_length=1,
        description="by default kernels and networks up to 16 letters, past them motifs and networks",
    )
    members: int = Field(5, ge=1, le=64, description="networks per family")
    is_bootstrap: bool = Field(False, description="each network sees its own resample of the items")
    steps: int | None = Field(None, ge=1, le=100_000, description="updates per network; each family's own by default")
    tilt: float | None = Field(
        None, ge=0, le=5, description="how much more the best readings count; by default the readings' tails tell"
    )
    sharpness: float = Field(10.0, ge=0, le=1000, description="inverse temperature of the weights; 0 weighs all alike")
    min_say: float = Field(0.05, ge=0, lt=1, description="families of a smaller weight are left out of the final fit")
    is_refitted: bool = Field(
        True, description="fit again on all items once the families are weighed, or keep the trial"
    )
    held_out_fraction: float = Field(0.2, gt=0, lt=1, description="share of the items that skill is measured on")


class _Part(RewardModel, Protocol):
    def record(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]: ...


@dataclass(eq=False)
class Mixture:
    """A fitted mixture; a RewardModel and a FeatureModel.

    Attributes:
        config: How it was fitted.
        space: The design space.
        unit: The assay's unit.
        parts: Family name to its fitted model, which predicts scores.
        weights: (f,) float32, each family's say, sum 1.
        warp: Between readings and scores.
        scale: Standard deviation of the readings, in the assay's unit.
        skills: Every family's skill on the held-out groups, those left out as well.
        calibration: How the same recipe did on held-out groups; None where it was not judged.
    """

    config: Config
    space: DesignSpace
    unit: str
    parts: dict[Family, _Part]
    weights: Tensor
    warp: Warp
    scale: float
    skills: dict[str, float]
    calibration: Calibration | None = None

    @property
    def is_differentiable(self) -> bool:
        """Some family carries gradients."""
        return any(part.is_differentiable for part in self.parts.values())

    def predict(self, x: Tensor) -> Prediction:
        """Predictions in the assay's unit.

        Args:
            x: Tokens (n, L) int64 (any n; no gradient), or a simplex (n, L, V) float (gradients flow to it).
        """
        scores = self._scores(x)
        members = self.warp.to_readings(scores.members)
        centre = self.warp.to_readings(scores.mean)
        shift = centre - (scores.weights[:, None] * members).sum(0)  # the mean of warped members is not the warped mean
        return Prediction(members + shift, scores.weights, self.unit)

    def _scores(self, x: Tensor) -> Prediction:
        """All members' scores; of a simplex those of the families that have gradients."""
        members, shares = [], []
        for weight, (family, part) in zip(self.weights, self.parts.items(), strict=True):
            if x.is_floating_point() and not part.is_differentiable:
                continue
            own = part.predict(x)
            members.append(self.warp.to_scores(own.members) if family in ON_READINGS else own.members)
            shares.append(weight * own.weights)
        weights = torch.cat(shares).to(members[0])
        return Prediction(torch.cat(members), weights / weights.sum())

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layers of the network family with the most say, else what the process sees: (n, d).

        Raises:
            ConfigError: Neither is in the mixture.
        """
        shown = [family for family in self.parts if family in NETWORKS] or [
            f for f in self.parts if f not in ON_READINGS
        ]
        if not shown:
            raise ConfigError(
                f"the elliptical bonus needs features, and {' and '.join(self.parts)} have none",
                hint="set reward.settings.min_say: 0, so that networks stay, or use another conservatism",
            )
        say = dict(zip(self.parts, self.weights.tolist(), strict=True))
        model: Any = self.parts[max(shown, key=say.__getitem__)]
        features: Tensor = model.features(x)
        return features

    def save(self, directory: Path) -> str:
        """Write a bundle of kind "reward" and return its content hash."""
        records = {family: part.record() for family, part in self.parts.items()}
        description = {
            "algorithm": "mixture",
            "config": self.config.model_dump(mode="json"),
            "space": self.space.model_dump(mode="json"),
            "unit": self.unit,
            "scale": self.scale,
            "skills": self.skills,
            "families": list(records),
            "parts": {family: part_description for family, (part_description, _) in records.items()},
            "calibration": None if self.calibration is None else asdict(self.calibration),
        }
        tensors = {f"{family}/{name}": t for family, (_, own) in records.items() for name, t in own.items()}
        tensors |= {"weights": self.weights.numpy(), "readings": self.warp.readings, "scores": self.warp.scores}
        return save_bundle(directory, "reward", description, tensors)


def fit(config: Config, dataset: Dataset, generator: Generator) -> Mixture:
    """Fit a mixture: every family on all but held-out groups, which weigh and calibrate; then those that count on all.

    Args:
        config: Settings.
        dataset: At least 10 items.
        generator: The held-out groups and all that the families draw come from it alone.

    Raises:
        BadInputError: Too few items, or values that do not vary.
    """
    require_teaching(dataset)
    warp = fit_warp(dataset.values, config.tilt)
    kept, held_out = held_out_groups(dataset, config.held_out_fraction, generator)
    families = _families(config, dataset.space)
    trial = _train(config, families, kept, warp.of_dataset(kept), generator)
    whole = Mixture(
        config=config,
        space=dataset.space,
        unit=dataset.unit,
        parts=trial,
        weights=torch.full((len(trial),), 1 / len(trial)),
        warp=warp,
        scale=float(dataset.values.std()),
        skills={},
    )
    unseen, truth = torch.from_numpy(held_out.tokens), warp.of_dataset(held_out).values
    skills: dict[str, float] = {}
    for family, part in trial.items():
        alone = replace(whole, parts={family: part}, weights=torch.ones(1))
        skills[family] = pearson(alone._scores(unseen).mean.double().numpy(), truth)
    say = _say(config, torch.tensor([skills[f] for f in families]), [trial[f].is_differentiable for f in families])
    judged = replace(whole, weights=say, skills=skills)
    calibration = calibrate(judged.predict(unseen), held_out)
    counting = tuple(family for family, share in zip(families, say.tolist(), strict=True) if share > 0)
    if not config.is_refitted:
        kept_parts = {family: trial[family] for family in counting}
        return replace(judged, parts=kept_parts, weights=say[say > 0], calibration=calibration)
    final = _train(config, counting, dataset, warp.of_dataset(dataset), generator)
    return replace(judged, parts=final, weights=say[say > 0], calibration=calibration)


def _families(config: Config, space: DesignSpace) -> tuple[Family, ...]:
    return config.families or (SHORT if space.length <= SHORT_LENGTH else LONG)


def _say(config: Config, skills: Tensor, has_gradients: list[bool]) -> Tensor:
    """The families' weights, (f,) float32, sum 1; 0 for those left out."""
    say = functional.softmax(config.sharpness * skills, dim=0)
    with_gradients = torch.where(torch.tensor(has_gradients), say, 0.0)
    stays = (say >= config.min_say) | (say == say.max()) | ((with_gradients > 0) & (say == with_gradients.max()))
    say = torch.where(stays, say, 0.0)
    return say / say.sum()


def _train(
    config: Config, families: tuple[Family, ...], readings: Dataset, scores: Dataset, generator: Generator
) -> dict[Family, _Part]:
    """Each family's model, fitted on its scale."""
    return {
        family: _module(family).train(
            _settings(config, family), readings if family in ON_READINGS else scores, generator
        )
        for family in families
    }


def _module(family: Family) -> ModuleType:
    return {"gaussian_process": gaussian_process, "motifs": motifs, "sparse": sparse}.get(family, ensemble)


def _settings(config: Config, family: Family) -> BaseModel:
    networks: dict[str, Any] = {"members": config.members, "is_bootstrap": config.is_bootstrap}
    networks |= {} if config.steps is None else {"steps": config.steps}
    if family == "gaussian_process":
        return gaussian_process.Config()
    if family == "motifs":
        return motifs.Config(**networks)
    if family == "sparse":
        return sparse.Config()
    return ensemble.Config(families=(family,), **networks)


def load(directory: Path) -> Mixture:
    """A mixture that save() wrote.

    Raises:
        CorruptArtifactError: The bundle is damaged, of another kind, or its tensors do not fit its configuration.
    """
    return load_record(directory, from_record, "mixture")


def from_record(description: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> Mixture:
    """What Mixture.save() wrote; an error of Python's own where it does not fit together."""
    record = description["calibration"]
    config, space = Config.model_validate(description["config"]), DesignSpace.model_validate(description["space"])
    known: dict[Family, dict[str, Any]] = description["parts"]
    parts: dict[Family, _Part] = {}
    for family in description.get("families") or [f for f in _families(config, space) if f in known]:
        arrays = {name.split("/", 1)[1]: t for name, t in tensors.items() if name.startswith(f"{family}/")}
        parts[family] = _module(family).from_record(known[family], arrays)
    weights = torch.from_numpy(tensors["weights"].copy())
    if len(weights) != len(parts) or not parts:
        raise ValueError("its weights do not fit its families")
    return Mixture(
        config=config,
        space=space,
        unit=str(description["unit"]),
        parts=parts,
        weights=weights,
        warp=Warp(tensors["readings"].copy(), tensors["scores"].copy()),
        scale=float(description["scale"]),
        skills={family: float(skill) for family, skill in description["skills"].items()},
        calibration=None if record is None else Calibration(**record),
    )
