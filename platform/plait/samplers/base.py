"""The seam of sampling: each algorithm is a module that exports Config, prepare and sample.

    state = best_of_n.prepare(config, prior, objective, dataset, generator)
    samples = best_of_n.sample(state, 96, generator)

prepare does once what needs doing once; sample may be called again and again. Samplers step through transitions and
complete() states; they never look inside a state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel
from torch import Generator, Tensor

from plait.design.records import Dataset, Progress, no_progress
from plait.priors.base import DiffusionPrior
from plait.rewards.conservatism import Objective


@dataclass(frozen=True)
class Samples:
    """n designs.

    Attributes:
        tokens: (n, L) int64.
        log_weights: (n,) float32 log importance weights towards the sampler's target (zeros where it has none).
        num_forwards: Rows that went through the prior's network, all steps together.
        log_evidence: Estimate of log E_prior[exp(reward / temperature)], nats; None where the sampler gives none.
    """

    tokens: Tensor
    log_weights: Tensor
    num_forwards: int = 0
    log_evidence: float | None = None


class Sampler(Protocol):
    """The exports of a file in samplers/.

    Attributes:
        Config: Settings.
        needs_reward: prepare refuses a missing objective.
        needs_gradient: prepare refuses an objective that is not differentiable.
    """

    Config: type[BaseModel]
    needs_reward: bool
    needs_gradient: bool

    def prepare(
        self,
        config: Any,
        prior: DiffusionPrior,
        objective: Objective | None,
        dataset: Dataset | None,
        generator: Generator,
        progress: Progress = no_progress,
    ) -> Any:
        """Whatever is computed once (value nets, conditional priors; nothing for most).

        Raises:
            ConfigError: The sampler needs a reward and none is given, or the space does not suit it.
        """
        ...

    def sample(self, state: Any, n: int, generator: Generator, progress: Progress = no_progress) -> Samples:
        """Draw n designs in the space (template by construction, constraints not judged)."""
        ...
