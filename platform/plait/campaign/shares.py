"""What one worker of a training does: its share of every batch, and rewards asked for from another device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from plait.campaign import catalog
from plait.campaign.config import CampaignConfig
from plait.design.errors import ConfigError
from plait.priors.base import AverageGradients, split_evenly
from plait.rewards.conservatism import Objective, ObjectiveValue


def share_of(room: str, algorithm: str, settings: dict[str, Any], rank: int, world_size: int) -> tuple[Any, float]:
    """The configuration of one of `world_size` workers, and the weight of its gradients.

    Sizes are divided, so that all workers together do what one alone would; where they do not divide evenly, parts
    differ by one, and the weight (1 on average) makes every item of the batch count alike.

    Raises:
        ConfigError: Settings out of bounds, or a size too small for so many workers.
    """
    whole = catalog.configure(room, algorithm, settings)
    if world_size == 1:
        return whole, 1.0
    divided: tuple[str, ...] = getattr(catalog.find(room, algorithm), "divided", ("batch_size",))
    sizes = {name: getattr(whole, name) for name in divided}
    parts = {name: split_evenly(size, world_size)[rank] for name, size in sizes.items()}
    said = ", ".join(f"{name} {size}" for name, size in sizes.items())
    try:
        config = catalog.configure(room, algorithm, settings | parts)
    except ConfigError as error:
        raise ConfigError(
            f"{world_size} workers cannot share {said}: {error.message}",
            hint=f"give a larger {divided[0]}, or fewer workers",
        ) from error
    return config, parts[divided[-1]] * world_size / sizes[divided[-1]]


def weighted(average_gradients: AverageGradients, weight: float) -> AverageGradients:
    """The same mean over workers, this one's gradients counting `weight` times."""
    if weight == 1:
        return average_gradients

    def average(parameters: list[nn.Parameter]) -> None:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(weight)
        average_gradients(parameters)

    return average


@dataclass(frozen=True)
class OnCpu:
    """An objective that stays on the CPU, for designs on another device; gradients flow through."""

    objective: Objective

    @property
    def scale(self) -> float:
        """The objective's own."""
        return self.objective.scale

    @property
    def assay_std(self) -> float:
        """The objective's own."""
        return self.objective.assay_std

    @property
    def has_uncertainty(self) -> bool:
        """The objective's own."""
        return self.objective.has_uncertainty

    @property
    def is_differentiable(self) -> bool:
        """The objective's own."""
        return self.objective.is_differentiable

    def __call__(self, x: Tensor) -> ObjectiveValue:
        """The value of tokens (n, L) int64 or a simplex (n, L, V), where x lies."""
        value = self.objective(x.cpu())
        conservative, mean, std = (part.to(x.device) for part in (value.conservative, value.mean, value.std))
        return ObjectiveValue(conservative, mean, std)


def check_training(config: CampaignConfig) -> None:
    """Workers can share what each round trains.

    Raises:
        ConfigError: A batch is too small for them, or min_workers asks for more than there are.
    """
    least = config.training.min_workers
    for number in range(1, config.rounds + 1):
        num_workers = config.workers_of(number)
        if least is not None and least > num_workers:
            raise ConfigError(
                f"training.min_workers is {least}, and round {number} has {num_workers} workers",
                hint="set workers to at least min_workers, or leave min_workers out",
            )
        if num_workers > 1 and number == 1 and config.prior.model is None:
            share_of("priors", config.prior.algorithm, config.prior.settings, num_workers - 1, num_workers)
        if num_workers > 1 and config.finetuner != "none":
            share_of("finetune", config.finetuner, config.finetune.settings, num_workers - 1, num_workers)
