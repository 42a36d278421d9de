"""What a registered reward says of a pool of sequences: which model, which conservatism, and the scores of a chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from plait.campaign import catalog
from plait.campaign.assays import learnable
from plait.campaign.jobs import UNCERTAINTY_OF, load_reward
from plait.campaign.ports import Artifact, Ports, Scorers
from plait.campaign.records import Model
from plait.campaign.repository import UnitOfWork
from plait.campaign.sections import ConservatismConfig
from plait.design.errors import NotFoundError, UsageError, WrongStateError, first_reason
from plait.design.records import Dataset, Goal, Readings
from plait.design.space import DesignSpace
from plait.rewards.conservatism import ConservativeReward, Kind

COLUMNS = ("mean", "std", "conservative")
DEFAULT_CONSERVATISM = "boot"
CHAMPION = "champion"

ScoreTokens = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class ScoringPlan:
    """How sequences are scored; picklable, what it needs is fetched where it runs.

    Attributes:
        model: NAME@VERSION.
        algorithm: File in rewards/.
        reward: The fitted reward.
        space: What it can score.
        dataset: What it was fitted on, for kinds of conservatism that ask the data; else None.
        kind: Of conservatism.
        scale: Standard deviations that conservatism subtracts.
        sign: Turns the model's direction (higher is better) into the assay's: 1 or -1.
        num_members: Members whose own predictions are told, 0 for none.
        batch_size: Sequences of one forward.
        scorers: Black boxes by name.
    """

    model: str
    algorithm: str
    reward: Artifact
    space: DesignSpace
    dataset: Dataset | None
    kind: Kind
    scale: float
    sign: float
    num_members: int
    batch_size: int
    scorers: Scorers

    @property
    def columns(self) -> tuple[str, ...]:
        """What a score consists of."""
        return (*COLUMNS, *(f"member_{i}" for i in range(1, self.num_members + 1)))

    @property
    def identity(self) -> list[object]:
        """What scores depend on besides the sequences: equal plans give equal scores."""
        data = None if self.dataset is None else [self.dataset.tokens.tolist(), self.dataset.values.tolist()]
        how = [self.kind, self.scale, self.sign, self.num_members, self.batch_size]
        return [self.reward.sha256, self.algorithm, data, *how]

    def load(self) -> ScoreTokens:
        """Load the model; what it returns scores tokens (n, L) uint8 as (columns, n) float32.

        The std is interval-calibrated: mean +- 1.645 std holds 90% of readings as far as held-out data could tell.

        Raises:
            CorruptArtifactError: The model cannot be trusted.
        """
        reward = load_reward(self.algorithm, self.reward.path(), self.scorers)
        calibration = getattr(reward, "calibration", None)
        honest = 1.0 if calibration is None else float(calibration.interval_scale)
        uncertainty = None
        if self.kind != "none":
            fit = catalog.find("rewards.uncertainty", UNCERTAINTY_OF[self.kind]).fit
            uncertainty = fit(self.dataset, reward, None)
        objective = ConservativeReward(reward, uncertainty, self.scale, reward.scale)

        @torch.inference_mode()
        def score(tokens: NDArray[np.uint8]) -> NDArray[np.float32]:
            scores = np.empty((len(self.columns), len(tokens)), dtype=np.float32)
            for start in range(0, len(tokens), self.batch_size):
                rows = slice(start, start + self.batch_size)
                x = torch.from_numpy(tokens[rows].astype(np.int64))
                prediction = reward.predict(x)
                value = objective.value_of(x, prediction)
                parts = [self.sign * value.mean, prediction.std * honest, self.sign * value.conservative]
                scores[: len(COLUMNS), rows] = torch.stack(parts).cpu().numpy()
                if self.num_members:
                    scores[len(COLUMNS) :, rows] = self.sign * prediction.members.cpu().numpy()
            return scores

        return score


def plan_scoring(
    ports: Ports, reference: str | None, *, conservatism: str | None, has_members: bool, batch_size: int
) -> ScoringPlan:
    """Find the model and how it is to score.

    Args:
        ports: The world.
        reference: NAME, NAME@ALIAS or NAME@VERSION of a reward; None takes the newest champion, else the newest
            reward that was fitted on all data.
        conservatism: KIND or KIND:SCALE (none, boot, bonus, rarity); boot at its default scale by default.
        has_members: Members' own predictions are told too.
        batch_size: Sequences of one forward.

    Raises:
        NotFoundError: No such model, or no reward in this home.
        WrongStateError: It is no reward, or the conservatism needs data that the model does not come with.
        UsageError: The conservatism cannot be read.
    """
    kind, scale = parse_conservatism(conservatism or DEFAULT_CONSERVATISM)
    with ports.repository.begin() as uow:
        model = _newest(uow) if reference is None else uow.model(reference)
        if model.kind != "reward":
            raise WrongStateError(f"{model.name} is a {model.kind}; a reward scores", hint="see: plait model list")
        made_from = model.dataset_version_id
        version = None if made_from is None else uow.dataset_version_by_id(made_from)
        readings = uow.readings(made_from) if made_from is not None and kind in ("bonus", "rarity") else None
    artifact = Artifact(ports.artifacts, model.artifact_sha256)
    reward = load_reward(model.algorithm, artifact.path(), ports.scorers)
    goal: Goal = model.details.get("goal") or (version.goal if version else "maximize")
    one = torch.from_numpy(reward.space.allowed_mask().argmax(1)[None])
    return ScoringPlan(
        model=f"{model.name}@{model.version}",
        algorithm=model.algorithm,
        reward=artifact,
        space=reward.space,
        dataset=_dataset(model, readings, reward.space, goal, kind),
        kind=kind,
        scale=scale,
        sign=1.0 if goal == "maximize" else -1.0,
        num_members=len(reward.predict(one).members) if has_members else 0,
        batch_size=batch_size,
        scorers=ports.scorers,
    )


def parse_conservatism(text: str) -> tuple[Kind, float]:
    """KIND or KIND:SCALE.

    Raises:
        UsageError: It is neither.
    """
    kind, colon, scale = text.partition(":")
    try:
        section = ConservatismConfig(kind=kind, scale=float(scale) if colon else None)
    except ValidationError as error:
        raise UsageError(f"--conservatism {text}: {first_reason(error)}") from error
    except ValueError as error:
        raise UsageError(f"--conservatism {text}: '{scale}' is no number") from error
    if section.kind == "auto":
        raise UsageError("--conservatism auto: only a campaign can choose", hint="name none, boot, bonus or rarity")
    return section.kind, section.effective_scale


def _newest(uow: UnitOfWork) -> Model:
    """The newest champion among rewards, else the newest that was fitted on all data (of its round, the own assay's).

    Raises:
        NotFoundError: This home has no reward.
    """
    rewards = [m for m in uow.models() if m.kind == "reward"]
    champions = [m for m in rewards if CHAMPION in m.aliases]
    finals = [m for m in rewards if m.details.get("role", "final") == "final"]
    if not rewards:
        raise NotFoundError(
            "there is no reward model in this home", hint="run: plait campaign run NAME (or plait model import DIR)"
        )
    newest = max(champions or finals or rewards, key=lambda m: m.id)
    beside = [m for m in champions or finals or rewards if m.stage_run_id == newest.stage_run_id is not None]
    return min(beside, key=lambda m: m.id, default=newest)


def _dataset(model: Model, readings: Readings | None, space: DesignSpace, goal: Goal, kind: Kind) -> Dataset | None:
    if kind not in ("bonus", "rarity"):
        return None
    if readings is None or model.details.get("role", "final") != "final":
        raise WrongStateError(
            f"conservatism {kind} asks the data that a model was fitted on, and {model.name} does not come with it",
            hint="use boot or none, or a reward that a campaign fitted on all its data",
        )
    return learnable(readings, space, goal, "")
