"""The trials of a sweep, as they run in a worker: a fine-tuning that is judged on its way, and where it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from plait.campaign.fingerprints import derive_seed
from plait.campaign.jobs import FinetuneJob, FinetuneRun, ObjectivePlan, item_elbo
from plait.campaign.ports import ArtifactStore
from plait.campaign.ranges import SCALE, with_values
from plait.campaign.sections import SweepConfig
from plait.campaign.sweep_ports import OUTCOME, Axis, Trial
from plait.metrics.diversity import unique_fraction
from plait.priors.base import AverageGradients, DiffusionPrior
from plait.rewards.conservatism import Objective
from plait.rewards.support_gate import SupportGate

ELBO_DRAWS = 8
"""Draws of the ELBO of a design: its mean over hundreds of designs is what counts."""
ELBO_TOLERANCE = 0.01
"""Nats per free position below the floor that count as none: a prior that learnt nothing finds all designs alike."""
NOT_NATURAL = "prior ELBO"
NOT_DISTINCT = "unique fraction"
NOT_SUPPORTED = "support gate"


@dataclass(frozen=True)
class Look:
    """A policy as the judge sees it, by fresh designs; values are higher-is-better, in the objective's unit.

    Attributes:
        update: Updates done.
        score: Mean over designs of the judge's mean less `pessimism` of its standard deviations.
        judged: Mean over designs of the judge's mean.
        judged_error: Standard error of `score` by the choice of designs.
        proxy: Mean over designs of the mean of the reward that the policy climbed.
        kl: Mean path KL against the prior, nats per design.
        unique: Share of distinct designs.
        elbo: Mean prior ELBO, nats per free position.
        supported: Share of designs that constraints and support gate let through; judged and proxy are of these.
        shortfall: 0 where the policy meets every floor, else by what share of a floor it misses them, summed.
        missed: The floors it misses.
    """

    update: int
    score: float
    judged: float
    judged_error: float
    proxy: float
    kl: float
    unique: float
    elbo: float
    supported: float
    shortfall: float
    missed: tuple[str, ...]


@dataclass(frozen=True)
class Judge:
    """How policies are judged: every trial by the same random numbers, so that they differ by their policies only.

    Attributes:
        plan: The judge's objective: its mean less `pessimism` standard deviations.
        proxy: The objective of the reward that is climbed.
        gates: What designs have to pass before they count.
        min_elbo: Floor of the mean prior ELBO, nats per free position; None for none.
    """

    plan: ObjectivePlan
    proxy: ObjectivePlan
    gates: tuple[SupportGate, ...]
    section: SweepConfig
    min_elbo: float | None
    seed: int

    @cached_property
    def _objectives(self) -> tuple[Objective, Objective]:
        return self.plan.build(), self.proxy.build()

    def __getstate__(self) -> dict[str, Any]:
        """Without the loaded models: every process reads its own."""
        return {key: value for key, value in self.__dict__.items() if key != "_objectives"}

    @torch.no_grad()
    def look(self, update: int, policy: DiffusionPrior, prior: DiffusionPrior) -> Look:
        """The policy after an update."""
        generator = Generator().manual_seed(self.seed)
        tokens, kl = draw_with_kl(policy, prior, self.section.num_samples, generator)
        items = prior.space.canonical(tokens.numpy())
        passes = prior.space.is_feasible(items)
        for gate in self.gates:
            passes &= gate.judge(items).is_supported
        counted = tokens[torch.from_numpy(passes)] if passes.any() else tokens
        judge, climbed = self._objectives
        value = judge(counted)
        unique, elbo = unique_fraction(items), mean_elbo(prior, tokens, generator)
        short = self._shortfalls(unique, elbo, float(passes.mean()))
        return Look(
            update,
            score=float(value.conservative.mean()),
            judged=float(value.mean.mean()),
            judged_error=float(value.conservative.double().std(correction=0)) / len(counted) ** 0.5,
            proxy=float(climbed(counted).mean.mean()),
            kl=kl,
            unique=unique,
            elbo=elbo,
            supported=float(passes.mean()),
            shortfall=sum(short.values()),
            missed=tuple(name for name, share in short.items() if share > 0),
        )

    def _shortfalls(self, unique: float, elbo: float, supported: float) -> dict[str, float]:
        """By what share of each floor a policy misses it."""
        few, unnatural = max(0.0, self.section.min_unique - unique), 0.0
        lost = max(0.0, self.section.min_supported - supported)
        if self.min_elbo is not None and elbo < self.min_elbo - ELBO_TOLERANCE:
            unnatural = (self.min_elbo - elbo) / max(abs(self.min_elbo), ELBO_TOLERANCE)
        return {
            NOT_DISTINCT: few / self.section.min_unique if few else 0.0,
            NOT_NATURAL: unnatural,
            NOT_SUPPORTED: lost / self.section.min_supported if lost else float(supported == 0),
        }


@torch.no_grad()
def draw_with_kl(policy: DiffusionPrior, prior: DiffusionPrior, n: int, generator: Generator) -> tuple[Tensor, float]:
    """N designs (n, L) of a policy, and its path KL against the prior, in nats per design, on those chains."""
    state, kl = policy.init_state(n), torch.zeros(n)
    for step in range(policy.num_steps):
        mine = policy.transition(state, step)
        kl = kl + mine.kl(prior.transition(state, step))
        state = mine.sample(generator)
    return policy.decode(state), float(kl.mean())


def mean_elbo(prior: DiffusionPrior, tokens: Tensor, generator: Generator) -> float:
    """Mean prior ELBO of designs (n, L), nats per free position."""
    return float(item_elbo(prior, tokens, generator, ELBO_DRAWS).mean()) / len(prior.space.free_positions())


def elbo_floor(prior: DiffusionPrior, quantile: float, n: int, generator: Generator) -> float:
    """The prior's own designs' ELBO at a quantile, nats per free position."""
    own = item_elbo(prior, prior.decode(prior.draw(n, generator)), generator, ELBO_DRAWS)
    return float(np.quantile(own.numpy(), quantile)) / len(prior.space.free_positions())


@dataclass(frozen=True)
class TrialJob:
    """A round's fine-tuning with a trial's values."""

    job: FinetuneJob
    judge: Judge
    looks: tuple[int, ...]
    cutoffs: Mapping[int, float]
    store: ArtifactStore

    @property
    def num_steps(self) -> int:
        """Updates at most."""
        return self.job.num_steps

    def start(self, rank: int, world_size: int, generator: Generator) -> TrialRun:
        """The run of one worker."""
        return TrialRun(self, self.job.start(rank, world_size, generator))


class TrialRun:
    """A fine-tuning under way that is looked at now and then; ends below a cutoff."""

    def __init__(self, job: TrialJob, run: FinetuneRun) -> None:
        self._job, self._run, self._prior = job, run, job.job.prior()
        self._done, self._looks, self._is_stopped = 0, list[dict[str, Any]](), False

    def step(self, average_gradients: AverageGradients) -> dict[str, float]:
        """One update, and a look where one is due."""
        figures = self._run.step(average_gradients)
        self._done += 1
        if self._done in (*self._job.looks, self._job.num_steps):
            look = self._job.judge.look(self._done, self._run.policy, self._prior)
            self._looks.append(asdict(look))
            cutoff = self._job.cutoffs.get(self._done)
            if cutoff is not None and self._done < self._job.num_steps:
                self._is_stopped = look.shortfall > 0 or look.score < cutoff
        return figures

    def is_done(self) -> bool:
        """Ended before its time."""
        return self._is_stopped

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        run = self._run.state_dict()
        return {"run": run, "done": self._done, "looks": json.dumps(self._looks), "is_stopped": self._is_stopped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on."""
        self._run.load_state_dict(state["run"])
        self._done, self._looks = state["done"], json.loads(state["looks"])
        self._is_stopped = state["is_stopped"]

    def save(self, directory: Path) -> None:
        """The policy into the store, and what was seen of it into the directory."""
        with TemporaryDirectory(prefix="plait-policy-") as folder:
            self._run.save(Path(folder))
            artifact = self._job.store.put(Path(folder))
        directory.mkdir(parents=True)
        document = {"looks": self._looks, "artifact": artifact, "is_stopped": self._is_stopped}
        (directory / OUTCOME).write_text(json.dumps(document))


@dataclass(frozen=True)
class Plan:
    """A round's sweep (a SweepPlan).

    Attributes:
        axes: What is varied.
        base: The fine-tuning in which the values are put.
        judge: How policies are judged.
        section: The sweep as configured.
        num_updates: Of the longest trial.
        campaign_seed: With round and trial number it seeds every trial.
        round_number: From 1.
        store: Where policies are kept.
    """

    axes: Mapping[str, Axis]
    base: FinetuneJob
    judge: Judge
    section: SweepConfig
    num_updates: int
    campaign_seed: int
    round_number: int
    store: ArtifactStore

    @property
    def num_trials(self) -> int:
        """Trials in all."""
        return self.section.num_trials

    @property
    def generation(self) -> int:
        """Trials proposed together."""
        return self.section.generation

    @property
    def reduction(self) -> int:
        """Of how many judged at a look the best one is to be reached."""
        return self.section.reduction

    @property
    def max_concurrent(self) -> int | None:
        """Trials at a time."""
        return self.section.max_concurrent

    @property
    def seed(self) -> int:
        """Of the proposals."""
        return derive_seed(self.campaign_seed, self.round_number, "sweep")

    def seed_of(self, trial: Trial) -> int:
        """Of a trial's training."""
        return derive_seed(self.campaign_seed, self.round_number, f"sweep/{trial.number}")

    @property
    def looks(self) -> tuple[int, ...]:
        """Updates after which policies are judged: the last, that over `reduction`, that over `reduction` again."""
        found = {self.num_updates // self.reduction**back for back in range(self.section.num_looks)}
        return tuple(sorted(found - {0}))

    def job(self, values: Mapping[str, float]) -> FinetuneJob:
        """The fine-tuning with a trial's values."""
        scale = values.get(SCALE, self.base.plan.scale)
        return replace(
            self.base,
            settings=with_values(self.base.settings, dict(values)),
            plan=replace(self.base.plan, scale=scale),
        )

    def start(self, trial: Trial) -> TrialJob:
        """The trial's training."""
        return TrialJob(self.job(trial.values), self.judge, self.looks, dict(trial.cutoffs), self.store)
