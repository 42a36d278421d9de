"""The sections of CONFIG.yaml, each with its fields, defaults and bounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from plait.campaign.open_numbers import AUTO, AUTO_SCALE, OpenScale, OpenWeight, Range, is_range
from plait.campaign.schedules import check_every
from plait.design.constraints import AnyConstraint
from plait.design.records import Goal


class Section(BaseModel):
    """A mapping in which unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Weight = Annotated[float, Field(ge=0, le=1_000)]
Scalarisation = Literal["weighted_sum", "chebyshev", "hypervolume"]


class ObjectiveConfig(Section):
    """What is wanted of the designs; goal, weight and threshold are those of the campaign's own dataset."""

    assay: str | None = Field(None, description="name of the assay in reports; the dataset's name by default")
    goal: Goal | None = Field(None, description="maximize or minimize; the dataset's goal by default")
    weight: Weight = Field(1.0, description="of this assay among several; 0 keeps only its threshold")
    threshold: float | None = Field(
        None, allow_inf_nan=False, description="a design must be at least this good, in the assay's unit"
    )
    scalarisation: Scalarisation = Field("weighted_sum", description="how several assays become one value")
    feasibility_weight: float = Field(
        1.0, ge=0, le=100, description="standard deviations per nat of log P(threshold is met)"
    )


class ScheduleConfig(Section):
    """When schedulers compute rounds; said anew by `plait campaign queue`."""

    every: str | None = Field(None, description="rounds begin only then (UTC): monday 09:00, day, 12 hours")
    when: Literal["results-complete"] | None = Field(None, description="a measured round is closed by the scheduler")
    at: AwareDatetime | None = Field(None, description="the first round begins no earlier")
    priority: int = Field(0, ge=-1_000, le=1_000, description="higher goes first")

    @field_validator("every")
    @classmethod
    def _rhythm(cls, every: str | None) -> str | None:
        return None if every is None else check_every(every)


class SpaceConfig(Section):
    """Which sequences are candidates; read off the dataset where nothing is said."""

    alphabet: str | None = Field(None, description="dna, rna, protein or custom:LETTERS; the dataset's by default")
    length: int | None = Field(None, ge=1, description="letters; the dataset's by default")
    template: str | None = Field(None, description="IUPAC template such as NNNGYNNNN")
    constraints: tuple[AnyConstraint, ...] = ()
    strand_symmetric: bool = False


class PriorConfig(Section):
    """The generative prior: trained on a corpus file or dataset, or a registered model."""

    algorithm: str = "masked_diffusion"
    corpus: str | None = Field(None, description="file of natural sequences (text, FASTA, CSV)")
    dataset: str | None = Field(None, description="dataset whose sequences are the corpus; the campaign's by default")
    model: str | None = Field(None, description="registered prior, NAME or NAME@ALIAS")
    settings: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_source(self) -> PriorConfig:
        given = [key for key in ("corpus", "dataset", "model") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of corpus, dataset, model; got {' and '.join(given)}")
        if self.model is not None and self.settings:
            raise ValueError("settings belong to training; a registered model has its own")
        return self


class RewardConfig(Section):
    """The optimiser's reward model."""

    algorithm: str = "mixture"
    members: int = Field(5, ge=2, le=64, description="networks of a family")
    settings: dict[str, Any] = {}


class AssayConfig(Section):
    """A further assay: another dataset over the same sequences, measured on every design beside the first."""

    dataset: str = Field(min_length=1)
    goal: Goal | None = Field(None, description="maximize or minimize; the dataset's goal by default")
    weight: Weight = Field(1.0, description="of this assay among several; 0 keeps only its threshold")
    threshold: float | None = Field(
        None, allow_inf_nan=False, description="a design must be at least this good, in the assay's unit"
    )
    reward: RewardConfig | None = Field(None, description="the campaign's by default")


class JudgeConfig(Section):
    """The held-out judge ensemble."""

    settings: dict[str, Any] = {}


class ConservatismConfig(Section):
    """What is subtracted from the predicted mean."""

    kind: Literal["auto", "none", "boot", "bonus", "rarity"] = Field(
        "auto", description="auto asks the first round's readings whether what they lack is worse, better or neither"
    )
    scale: OpenScale = Field(
        None,
        description="standard deviations subtracted, 0.5 by default; below 0 they are added (optimism); auto (0.05 "
        "to 2) or a range {low, high, log} is swept",
    )

    @model_validator(mode="before")
    @classmethod
    def _a_scale_alone_is_boots(cls, given: Any) -> Any:
        return {"kind": "boot", **given} if isinstance(given, dict) and given.get("scale") is not None else given

    @model_validator(mode="after")
    def _kind_fits_scale(self) -> ConservatismConfig:
        if self.kind == "none" and self.scale:
            raise ValueError("kind: none subtracts nothing; leave scale out")
        if self.kind == "auto" and self.scale is not None:
            raise ValueError("kind: auto finds its own scale; name a kind (boot, bonus, rarity) or leave scale out")
        if isinstance(self.scale, Range) and self.scale.low <= 0 <= self.scale.high:
            raise ValueError("a range of scales lies above 0 (pessimism) or below 0 (optimism): they are tuned apart")
        return self

    @property
    def effective_scale(self) -> float:
        """Scale, 0 where kind is none or the readings are still to be asked; of a range its low end."""
        if self.kind in ("none", "auto"):
            return 0.0
        scale = AUTO_SCALE if self.scale == AUTO else self.scale
        return 0.5 if scale is None else scale.low if isinstance(scale, Range) else scale


class FinetuneConfig(Section):
    """How the prior becomes a policy."""

    algorithm: str | None = Field(
        None,
        description="file in finetune/, or none; by default, where the sampler is ancestral, by the sign of what is "
        "subtracted: braid above 0, drakes at 0, seiko below",
    )
    kl_weight: OpenWeight = Field(
        None,
        description="assay standard deviations per nat; default by length, doubled while the policy repeats itself; "
        "auto (from a tenth of the default to ten times it) or a range {low, high, log} is swept",
    )
    settings: dict[str, Any] = Field({}, description="of the algorithm; a range in the place of a number is swept")

    @field_validator("settings")
    @classmethod
    def _ranges_have_room(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for key, value in settings.items():
            if is_range(value):
                try:
                    Range.model_validate(value)
                except ValidationError as error:
                    raise ValueError(f"{key}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
        return settings


class SweepConfig(Section):
    """How ranges are swept: trials of a round's fine-tuning, each judged by the judge, never by its own reward."""

    num_trials: int = Field(16, ge=2, le=1_000, description="fine-tunings of a round, those that end early counted")
    max_concurrent: int | None = Field(
        None, ge=1, le=1_000, description="trials at a time; default as many as the setting and the CPUs allow"
    )
    generation: int = Field(
        4,
        ge=1,
        le=1_000,
        description="trials proposed together, from what all before them showed, however many run at a time",
    )
    num_looks: int = Field(3, ge=1, le=10, description="times a policy is judged on its way, the end counted")
    reduction: int = Field(
        2,
        ge=2,
        le=10,
        description="a trial goes on from a look if it is in the best one in this many so far",
    )
    num_samples: int = Field(256, ge=64, le=100_000, description="fresh designs by which a policy is judged")
    pessimism: float = Field(1.0, ge=0, le=10, description="judge's standard deviations subtracted from its mean")
    min_unique: float = Field(0.5, ge=0, le=1, description="floor of the share of distinct designs")
    min_supported: float = Field(
        0.25, ge=0, le=1, description="floor of the share of designs that pass constraints and support gate"
    )
    elbo_quantile: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="floor of the designs' mean prior ELBO, as a quantile of the prior's own designs; 0 = none",
    )


class TrainingConfig(Section):
    """How pre-training and fine-tuning use their workers."""

    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the networks' convolutions and matrix products; weights and losses stay float32"
    )
    accumulation: int = Field(
        1, ge=1, le=4096, description="pieces that a worker's batch is computed in, one after the other: less memory"
    )
    min_workers: int | None = Field(
        None,
        ge=1,
        le=1_024,
        description="fewest workers to go on with where machines are lost, same effective batch; designs are then "
        "other ones than of an unbroken run; by default lost workers are waited for",
    )


PLAIN_TRAINING = TrainingConfig()


class SamplerConfig(Section):
    """How candidates are drawn from the policy."""

    algorithm: str = "ancestral"
    settings: dict[str, Any] = {}


class AcquisitionConfig(Section):
    """How a batch is chosen from the candidates."""

    algorithm: str = "top_q"
    settings: dict[str, Any] = {}


class FilterConfig(Section):
    """What is removed before choosing."""

    support_gate: bool = Field(True, description="reject designs with k-mers or letters never seen offline")
    naturalness: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="reject designs whose prior ELBO lies below this quantile of the policy's own samples; 0 = never; "
        "0.25 by default where the prior comes from a corpus or a registered model, else 0",
    )


class BatchConfig(Section):
    """What is sent to the lab."""

    size: int = Field(96, ge=1, le=100_000, description="designs per round")
    min_distance: int = Field(1, ge=1, description="smallest Hamming distance between two designs of a batch")
    num_candidates: int = Field(2_000, ge=1, le=1_000_000, description="policy samples to choose from")
    exhaustive_limit: int = Field(
        262_144, ge=0, le=2_000_000, description="spaces up to this size are scored exhaustively as well; 0 = never"
    )
