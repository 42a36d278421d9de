"""CONFIG.yaml: what a campaign is. Unknown keys are errors; only `name` and `dataset` have no default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from plait.campaign.explaining import explain
from plait.design.constraints import AnyConstraint
from plait.design.errors import ConfigError, NotFoundError
from plait.design.records import Goal

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"


NumWorkers = Annotated[int, Field(ge=0, le=1_024)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Weight = Annotated[float, Field(ge=0, le=1_000)]
Scalarisation = Literal["weighted_sum", "chebyshev", "hypervolume"]


class ObjectiveConfig(_Section):
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


class SpaceConfig(_Section):
    """Which sequences are candidates; read off the dataset where nothing is said."""

    alphabet: str | None = Field(None, description="dna, rna, protein or custom:LETTERS; the dataset's by default")
    length: int | None = Field(None, ge=1, description="letters; the dataset's by default")
    template: str | None = Field(None, description="IUPAC template such as NNNGYNNNN")
    constraints: tuple[AnyConstraint, ...] = ()
    strand_symmetric: bool = False


class PriorConfig(_Section):
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


class RewardConfig(_Section):
    """The optimiser's reward model."""

    algorithm: str = "mixture"
    members: int = Field(5, ge=2, le=64, description="networks of a family")
    settings: dict[str, Any] = {}


class AssayConfig(_Section):
    """A further assay: another dataset over the same sequences, measured on every design beside the first."""

    dataset: str = Field(min_length=1)
    goal: Goal | None = Field(None, description="maximize or minimize; the dataset's goal by default")
    weight: Weight = Field(1.0, description="of this assay among several; 0 keeps only its threshold")
    threshold: float | None = Field(
        None, allow_inf_nan=False, description="a design must be at least this good, in the assay's unit"
    )
    reward: RewardConfig | None = Field(None, description="the campaign's by default")


class JudgeConfig(_Section):
    """The held-out judge ensemble."""

    settings: dict[str, Any] = {}


class ConservatismConfig(_Section):
    """What is subtracted from the predicted mean."""

    kind: Literal["auto", "none", "boot", "bonus", "rarity"] = Field(
        "auto", description="auto asks the first round's readings whether what they lack is worse, better or neither"
    )
    scale: float | None = Field(
        None,
        ge=-100,
        le=100,
        description="standard deviations subtracted, 0.5 by default; below 0 they are added (optimism)",
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
        return self

    @property
    def effective_scale(self) -> float:
        """Scale, 0 where kind is none or the readings are still to be asked."""
        if self.kind in ("none", "auto"):
            return 0.0
        return 0.5 if self.scale is None else self.scale


class FinetuneConfig(_Section):
    """How the prior becomes a policy."""

    algorithm: str | None = Field(
        None,
        description="file in finetune/, or none; by default, where the sampler is ancestral, by the sign of what is "
        "subtracted: braid above 0, drakes at 0, seiko below",
    )
    kl_weight: float | None = Field(
        None,
        ge=0,
        description="assay standard deviations per nat; default by length, doubled while the policy repeats itself",
    )
    settings: dict[str, Any] = {}


class SamplerConfig(_Section):
    """How candidates are drawn from the policy."""

    algorithm: str = "ancestral"
    settings: dict[str, Any] = {}


class AcquisitionConfig(_Section):
    """How a batch is chosen from the candidates."""

    algorithm: str = "top_q"
    settings: dict[str, Any] = {}


class FilterConfig(_Section):
    """What is removed before choosing."""

    support_gate: bool = Field(True, description="reject designs with k-mers or letters never seen offline")
    naturalness: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="reject designs whose prior ELBO lies below this quantile of the policy's own samples; 0 = never; "
        "0.25 by default where the prior comes from a corpus or a registered model, else 0",
    )


class BatchConfig(_Section):
    """What is sent to the lab."""

    size: int = Field(96, ge=1, le=100_000, description="designs per round")
    min_distance: int = Field(1, ge=1, description="smallest Hamming distance between two designs of a batch")
    num_candidates: int = Field(2_000, ge=1, le=1_000_000, description="policy samples to choose from")
    exhaustive_limit: int = Field(
        262_144, ge=0, le=2_000_000, description="spaces up to this size are scored exhaustively as well; 0 = never"
    )


DEFAULT_CONSERVATISM = {
    "braid": ConservatismConfig(kind="boot"),
    "drakes": ConservatismConfig(kind="none"),
    "strl": ConservatismConfig(kind="none"),
    "seiko": ConservatismConfig(kind="boot", scale=-0.5),
}
"""Fine-tuner -> conservatism where the configuration says nothing."""


class CampaignConfig(_Section):
    """A whole campaign."""

    name: str = Field(pattern=NAME_PATTERN)
    dataset: str = Field(min_length=1)
    assays: tuple[AssayConfig, ...] = Field((), max_length=7, description="further assays, measured on every design")
    seed: int = Field(0, ge=0, lt=2**31)
    rounds: int = Field(3, ge=1, le=1_000)
    objective: ObjectiveConfig = ObjectiveConfig()
    space: SpaceConfig = SpaceConfig()
    prior: PriorConfig = PriorConfig()
    reward: RewardConfig = RewardConfig()
    judge: JudgeConfig = JudgeConfig()
    conservatism: ConservatismConfig | tuple[ConservatismConfig, ...] = ConservatismConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    sampler: SamplerConfig = SamplerConfig()
    filter: FilterConfig = FilterConfig()
    acquisition: AcquisitionConfig = AcquisitionConfig()
    batch: BatchConfig = BatchConfig()
    arms: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="ways of proposing that race for the wells: policy (the policy's samples, as finetune and sampler "
        "say) and samplers by name; by default policy alone where the whole space is ranked or an algorithm is named, "
        "else neutral_drift and policy",
    )
    workers: NumWorkers | tuple[NumWorkers, ...] = Field(
        0, description="Ray Train workers, or a list by round (the last entry goes on); 0 trains in this process"
    )

    @field_validator("conservatism", "workers")
    @classmethod
    def _at_least_one_round(cls, value: object) -> object:
        if value == ():
            raise ValueError("a list by round needs at least one entry")
        return value

    @model_validator(mode="after")
    def _names_tell_the_truth(self) -> CampaignConfig:
        algorithm, weight = self.finetune.algorithm, self.finetune.kl_weight
        if algorithm is None and weight == 0:
            raise ValueError("kl_weight 0 is no leash: name the fine-tuner, finetune.algorithm: strl")
        for number in range(1, self.rounds + 1):
            scale = self.conservatism_of(number).effective_scale
            if algorithm == "braid" and (scale <= 0 or weight == 0):
                raise ValueError(
                    f"braid is doubly conservative: round {number} needs conservatism.scale > 0 and kl_weight > 0 "
                    "(use drakes for the KL leash alone, strl for neither, seiko for optimism)"
                )
            if algorithm in ("drakes", "strl") and scale != 0 and "conservatism" in self.model_fields_set:
                raise ValueError(f"{algorithm} subtracts nothing: conservatism must be kind: none (use braid for both)")
        if algorithm == "seiko" and self.conservatism_of(1).effective_scale >= 0:
            raise ValueError("seiko starts out optimistic: round 1 needs conservatism.scale < 0 (later ones may rise)")
        if algorithm == "drakes" and weight == 0:
            raise ValueError("drakes needs kl_weight > 0 (use strl for no leash)")
        if algorithm == "strl" and weight:
            raise ValueError("strl has no leash: kl_weight must be 0 or left out (use drakes)")
        if self.finetuner == "none" and (weight is not None or self.finetune.settings):
            raise ValueError("finetune.algorithm none trains nothing: leave kl_weight and settings out")
        return self

    @model_validator(mode="after")
    def _assays_differ(self) -> CampaignConfig:
        names = [self.dataset, *(a.dataset for a in self.assays)]
        if len(set(names)) < len(names):
            raise ValueError(f"each assay is a dataset of its own, got {', '.join(names)}")
        if self.objective.weight == 0 and not any(a.weight for a in self.assays):
            raise ValueError("every assay has weight 0: nothing would be optimised")
        idle = [a.dataset for a in self.assays if a.weight == 0 and a.threshold is None]
        if idle:
            raise ValueError(f"assay {idle[0]} has weight 0 and no threshold: it would do nothing")
        if not self.assays and self.objective.scalarisation != "weighted_sum":
            raise ValueError(f"objective.scalarisation {self.objective.scalarisation} needs several assays")
        return self

    @model_validator(mode="after")
    def _arms_differ(self) -> CampaignConfig:
        if self.arms is not None and len(set(self.arms)) < len(self.arms):
            raise ValueError(f"each arm runs once, got {', '.join(self.arms)}")
        return self

    @property
    def finetuner(self) -> str:
        """The fine-tuner of round 1, "none" where the prior itself is sampled; drakes before the readings are asked."""
        return self.finetuner_of(self.conservatism_of(1).effective_scale)

    def finetuner_of(self, scale: float) -> str:
        """The fine-tuner of a round that subtracts `scale` standard deviations."""
        if self.finetune.algorithm is not None:
            return self.finetune.algorithm
        if self.sampler.algorithm != "ancestral":
            return "none"
        return "braid" if scale > 0 else "drakes" if scale == 0 else "seiko"

    def conservatism_of(self, round_number: int) -> ConservatismConfig:
        """The conservatism of a round (from 1); the last entry of a list goes on."""
        if "conservatism" not in self.model_fields_set:
            return DEFAULT_CONSERVATISM.get(self.finetune.algorithm or "", ConservatismConfig())
        if isinstance(self.conservatism, ConservatismConfig):
            return self.conservatism
        return self.conservatism[min(round_number, len(self.conservatism)) - 1]

    def workers_of(self, round_number: int) -> int:
        """The Ray Train workers of a round (from 1); the prior is trained with round 1's."""
        if isinstance(self.workers, int):
            return self.workers
        return self.workers[min(round_number, len(self.workers)) - 1]


def parse_config(document: object, what: str = "the configuration") -> CampaignConfig:
    """A checked configuration.

    Raises:
        ConfigError: Unknown keys, values out of bounds, contradictions; each field is named.
    """
    if not isinstance(document, dict):
        raise ConfigError(f"{what} must be a mapping with at least 'name' and 'dataset'")
    try:
        return CampaignConfig.model_validate(document)
    except ValidationError as error:
        raise explain(error, what, CampaignConfig) from error


def read_config(path: Path) -> CampaignConfig:
    """The configuration in a YAML file; a relative corpus path is taken from the file's folder.

    Raises:
        NotFoundError: No such file.
        ConfigError: Not YAML, or parse_config's reasons.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:  # the last: brackets in brackets
        raise ConfigError(f"{path} is not readable YAML: {error}") from error
    config = parse_config(document, str(path))
    if config.prior.corpus and not Path(config.prior.corpus).is_absolute():
        corpus = str((path.parent / config.prior.corpus).resolve())
        config = config.model_copy(update={"prior": config.prior.model_copy(update={"corpus": corpus})})
    return config
