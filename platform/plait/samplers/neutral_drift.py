"""Neutral drift: designs bred under the reward, then changed at random wherever the reward does not mind.

Source: Kimura, "Evolutionary Rate at the Molecular Level" (Nature, 1968); in the laboratory, a drift that keeps what
works and lets the rest change uncovers what selection alone does not (Gupta and Tawfik, "Directed enzyme evolution via
small and effective neutral drift libraries", Nature Methods, 2008). Designs x0 are bred as the sampler genetic breeds
them; a share of them then walks: `steps` F proposals, F = free positions of the template, each 1 to 3 random letters
at adjacent ones of those or a transposed segment, accepted while

    value(x) >= value(x0) - tolerance max(value(x0) - m, one assay standard deviation),

value = the opinion of its island, m = the median conservative value of (at most 1000 of) the measured items, all in
the objective's unit: a design may lose a share of what it had gained. Sites that the model calls irrelevant are random
in the end, so each well tests many letters at once and moves what matters to other places: information per well, at
almost the same predicted value.

Limits: as genetic; where every letter matters (short designs) little can drift. The walk takes `steps` F calls of the
reward on all designs together. Choosing the best of many drifted designs by the same reward undoes the drift: ask for
as many as there are wells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Generator

from plait.design.errors import ConfigError
from plait.design.records import Dataset, Progress, no_progress
from plait.priors.base import DiffusionPrior
from plait.rewards.conservatism import Objective, require_yardstick
from plait.samplers import _evolution
from plait.samplers._evolution import EvolutionConfig, Measured, Tokens, Value
from plait.samplers._smc import checked
from plait.samplers.base import Samples

needs_reward = True
needs_gradient = False
_LONGEST_RUN = 3
_SAMPLE = 1000
"""Measured items at most whose median value is taken."""


class Config(EvolutionConfig):
    """Settings of neutral drift."""

    drifted: float = Field(0.75, ge=0, le=1, description="share of the designs that drift")
    steps: int = Field(4, ge=0, le=1000, description="proposals per free position")
    tolerance: float = Field(0.1, ge=0, le=1, description="share of its gain that a design may lose on the way")
    moved: float = Field(0.3, ge=0, le=1, description="share of the proposals that are transposed segments")


@dataclass(frozen=True)
class State:
    """What sample() needs; median is m, in the objective's unit."""

    config: Config
    measured: Measured
    objective: Objective
    median: float


@torch.no_grad()
def prepare(
    config: Config,
    prior: DiffusionPrior,
    objective: Objective | None,
    dataset: Dataset | None,
    generator: Generator,
    progress: Progress = no_progress,
) -> State:
    """Rank the measured items, note the pieces they show, and value them.

    Raises:
        ConfigError: No objective, readings that do not vary, no measured items, or no free position.
        RunFailedError: A reward is NaN or +inf.
    """
    if objective is None:
        raise ConfigError("neutral_drift keeps a reward's value, and none is given", hint="fit a reward model first")
    require_yardstick(objective)
    measured = Measured.of(dataset, config, "neutral_drift")
    return State(config, measured, objective, _median(objective, measured.dataset, generator))


def _median(objective: Objective, dataset: Dataset, generator: Generator) -> float:
    """The median conservative value of measured items; +inf, so that no gain is counted, where none is finite."""
    some = torch.randperm(len(dataset), generator=generator, device=generator.device)[:_SAMPLE].cpu().numpy()
    values = checked(objective(torch.from_numpy(dataset.tokens[some])).conservative).cpu().numpy()
    return float(np.median(values[np.isfinite(values)])) if np.isfinite(values).any() else np.inf


@torch.no_grad()
def sample(state: State, n: int, generator: Generator, progress: Progress = no_progress) -> Samples:
    """Draw n designs, the share `drifted` of them after their walk, in random order; log-weights are 0.

    Raises:
        RunFailedError: A reward is NaN or +inf, or nothing within the constraints was found or measured.
    """
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator, device=generator.device)))
    num_proposals = state.config.steps * len(state.measured.moves.free)

    def breeding(task: str, done: int, total: int, message: str) -> None:
        progress(task, done, total + num_proposals, message)

    def drifting(task: str, done: int, total: int, message: str) -> None:
        progress(task, num_islands + done, num_islands + total, message)

    num_islands = min(state.config.num_islands, n)
    bred = _evolution.breed(state.objective, state.measured, state.config, n, rng, breeding)
    order = rng.permutation(n)
    walk, rest = np.split(order, [round(state.config.drifted * n)])
    walked = _walk(
        state,
        bred.tokens[walk],
        _evolution.value_of(state.objective, bred.opinions[walk], state.config.spread),
        rng,
        drifting,
    )
    tokens = np.empty_like(bred.tokens)
    tokens[walk], tokens[rest] = walked, bred.tokens[rest]
    return Samples(torch.from_numpy(state.measured.dataset.space.canonical(tokens)), torch.zeros(n))


def _walk(state: State, start: Tokens, value: Value, rng: np.random.Generator, progress: Progress) -> Tokens:
    """Where designs (n, L) drift to."""
    config, moves = state.config, state.measured.moves
    if len(start) == 0:
        return start
    first = value(start)
    gain = np.maximum(first - state.median, state.objective.assay_std)
    lowest, tokens, total = first - config.tolerance * gain, start.copy(), config.steps * len(moves.free)
    for step in range(total):
        progress("drifting", step, total, "")
        partners = tokens[rng.permutation(len(tokens))]
        is_moved = rng.random(len(tokens))[:, None] < config.moved
        changed = np.where(is_moved, moves.exchange(tokens, partners, 1.0, rng), _scatter(state, tokens, rng))
        accepted = moves.is_legal(changed) & (value(changed) >= lowest)
        tokens[accepted] = changed[accepted]
    return tokens


def _scatter(state: State, tokens: Tokens, rng: np.random.Generator) -> Tokens:
    """Letters of each design drawn anew, at one to three free positions that follow each other."""
    n, moves = len(tokens), state.measured.moves
    start, span = rng.integers(len(moves.free), size=(n, 1)), rng.integers(1, _LONGEST_RUN + 1, size=(n, 1))
    order = np.cumsum(moves.num_letters > 1) - 1
    is_inside = (order >= start) & (order < start + span)
    return np.where(is_inside, moves.draw(n, rng), tokens)
