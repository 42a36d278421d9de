"""CONFIG.yaml: what a campaign is. Unknown keys are errors; only `name` and `dataset` have no default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from plait.campaign.explaining import explain
from plait.campaign.open_numbers import is_range
from plait.campaign.sections import (
    AcquisitionConfig,
    AssayConfig,
    BatchConfig,
    ConservatismConfig,
    FilterConfig,
    FinetuneConfig,
    JudgeConfig,
    ObjectiveConfig,
    PriorConfig,
    RewardConfig,
    SamplerConfig,
    ScheduleConfig,
    Section,
    SpaceConfig,
    SweepConfig,
    TrainingConfig,
)
from plait.design.errors import ConfigError, NotFoundError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"


NumWorkers = Annotated[int, Field(ge=0, le=1_024)]


DEFAULT_CONSERVATISM = {
    "braid": ConservatismConfig(kind="boot"),
    "drakes": ConservatismConfig(kind="none"),
    "strl": ConservatismConfig(kind="none"),
    "seiko": ConservatismConfig(kind="boot", scale=-0.5),
}
"""Fine-tuner -> conservatism where the configuration says nothing."""


class CampaignConfig(Section):
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
    training: TrainingConfig = TrainingConfig()
    sweep: SweepConfig = SweepConfig()
    sampler: SamplerConfig = SamplerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
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

    @model_validator(mode="before")
    @classmethod
    def _ranges_are_swept(cls, given: Any) -> Any:
        stray = [place for place in _ranges_in(given) if not SWEPT.fullmatch(place)]
        if stray:
            raise ValueError(
                f"{stray[0]} cannot be a range; a sweep varies conservatism.scale, finetune.kl_weight and the numbers "
                "in finetune.settings"
            )
        return given

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


SWEPT = re.compile(r"conservatism(\[\d+\])?\.scale|finetune\.(kl_weight|settings\.\w+)")
"""Places at which a range may stand."""


def _ranges_in(value: Any, place: str = "") -> Iterator[str]:
    """The places at which a document has a range."""
    if is_range(value):
        yield place
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _ranges_in(item, f"{place}.{key}".removeprefix("."))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value, start=1):
            yield from _ranges_in(item, f"{place}[{index}]")


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
