"""The seam of fine-tuning: each algorithm is a module that exports Config, init and step.

    state = braid.init(config, prior, objective, dataset, generator)
    info = braid.step(state)            # one update; `average_gradients` joins workers, `num_pieces` saves memory
    policy = state.policy

No loop, logging, Ray, device choice or path inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel
from torch import Generator

from plait.design.records import Dataset
from plait.priors.base import AverageGradients, DiffusionPrior, keep_gradients
from plait.rewards.conservatism import Objective


@dataclass(frozen=True)
class Info:
    """What one update saw.

    Attributes:
        reward: Mean proxy reward of the rollout's designs, in the assay's unit.
        conservative: Mean conservative reward, in the assay's unit.
        kl: Mean path KL of policy against prior, in nats per design.
        loss: The loss that was minimised.
        grad_norm: Gradient norm before clipping.
        unique_fraction: Share of distinct designs in the rollout.
    """

    reward: float
    conservative: float
    kl: float
    loss: float
    grad_norm: float
    unique_fraction: float


class State(Protocol):
    """A fine-tuner between two updates."""

    policy: DiffusionPrior

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs (weights, optimiser, generator, counters): tensors, numbers, text."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from state_dict()."""
        ...


class FineTuner(Protocol):
    """The exports of a file in finetune/.

    Attributes:
        Config: Settings; has num_updates and batch_size (designs per rollout, which workers share).
        needs_gradient: The objective must be differentiable; a black box is refused.
        divided: Settings that are sizes and that workers divide among themselves; the last is the size of the batch
            whose gradient is averaged.

    A file may also export `continues = True`: then init takes one more argument, previous: DiffusionPrior | None, the
    policy of the round before, and starts from it.
    """

    Config: type[BaseModel]
    needs_gradient: bool
    divided: tuple[str, ...]

    def init(
        self,
        config: Any,
        prior: DiffusionPrior,
        objective: Objective,
        dataset: Dataset | None,
        generator: Generator,
    ) -> State:
        """The state before the first update.

        Raises:
            ConfigError: The configuration or objective contradicts the algorithm's name, or is not differentiable
                where the algorithm needs it.
        """
        ...

    def step(self, state: Any, average_gradients: AverageGradients = keep_gradients, num_pieces: int = 1) -> Info:
        """One update, in place; the batch of a gradient goes forward and backward in `num_pieces` even pieces.

        The update is that of the whole batch (in law, where random numbers are drawn on the way), in less memory.
        """
        ...
