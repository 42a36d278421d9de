"""SEIKO: online rounds that seek what the reward model does not know, held to the round before and to the prior.

Source: Uehara et al. 2024, "Feedback Efficient Online Fine-Tuning of Diffusion Models". Round i designs a batch with
the present policy, has it measured, refits reward and uncertainty, and then maximises

    E_policy[ r(x) - scale * g(x) ] / assay_std - a * KL(path of policy || path of the round before's)
                                                - b * KL(path of policy || path of prior),

r = mean of the reward, g = its uncertainty, scale = `objective.scale` (below 0: optimism, with which a campaign begins;
it may raise the scale round by round), a = `previous_kl_weight`, b = `kl_weight`. It is BRAID with the sign turned and
a second leash; rollout and gradient are those of direct backpropagation. The policy starts from the round before's; in
the first round that is the prior.

With u(x) = (r - scale * g) / assay_std the maximum over all laws p of designs follows from

    a KL(p || p_previous) + b KL(p || p_prior) - E_p[u] = (a + b) KL(p || p*) + constant,
    p* proportional to p_previous^(a / (a + b)) p_prior^(b / (a + b)) exp(u / (a + b)).

So one round tilts by the temperature a + b. If u did not change, k rounds from the prior would give the law p_prior
exp(u / T_k) with 1 / T_k = (1 - (a / (a + b))^k) / b: b alone is the temperature in the end, and a says how slowly it
is reached.

Known limits: those of direct backpropagation (biased straight-through gradients, a differentiable reward).
"""

from __future__ import annotations

from pydantic import Field
from torch import Generator

from plait.design.errors import ConfigError
from plait.design.records import Dataset
from plait.finetune import _direct_backprop
from plait.finetune._direct_backprop import BackpropState, RolloutConfig
from plait.finetune.base import Info
from plait.priors.base import AverageGradients, DiffusionPrior, keep_gradients
from plait.rewards.conservatism import Objective, default_kl_weight

needs_gradient = True
divided = ("batch_size",)
continues = True


class Config(RolloutConfig):
    """Settings of SEIKO."""

    kl_weight: float | None = Field(
        None,
        gt=0,
        le=100,
        description="assay standard deviations per nat of path KL against the prior; default .2 up to 16 positions, "
        "less for longer ones",
    )
    previous_kl_weight: float | None = Field(
        None,
        ge=0,
        le=100,
        description="assay standard deviations per nat of path KL against the policy of the round before; default: "
        "kl_weight",
    )


def init(
    config: Config,
    prior: DiffusionPrior,
    objective: Objective,
    dataset: Dataset | None,
    generator: Generator,
    previous: DiffusionPrior | None = None,
) -> BackpropState:
    """The state before the first update; the offline data are not used beyond the objective.

    Args:
        config: Settings.
        prior: The pre-trained model.
        objective: What is maximised, with an uncertainty; its scale may have either sign.
        dataset: Not used.
        generator: This worker's own.
        previous: The policy of the round before, which the new one starts from; None in the first round.

    Raises:
        ConfigError: The objective has no uncertainty, something is not differentiable, or the policy of the round
            before is over another space or has another number of steps.
    """
    if not objective.has_uncertainty:
        raise ConfigError(
            "seiko seeks what the reward does not know, and no uncertainty is named",
            hint="set conservatism to boot or bonus, with a scale below 0 for optimism",
        )
    if previous is not None and (previous.space != prior.space or previous.num_steps != prior.num_steps):
        raise ConfigError(
            "the policy of the round before is over another space, or has another number of steps, than the prior",
            hint="start seiko anew from the prior",
        )
    weight = default_kl_weight(prior.space.num_free) if config.kl_weight is None else config.kl_weight
    previous_weight = weight if config.previous_kl_weight is None else config.previous_kl_weight
    if previous is None:
        return _direct_backprop.init(config, prior, objective, weight + previous_weight, generator)
    return _direct_backprop.init(config, prior, objective, weight, generator, previous, previous_weight)


def step(state: BackpropState, average_gradients: AverageGradients = keep_gradients, num_pieces: int = 1) -> Info:
    """One update, in place.

    Raises:
        RunFailedError: The loss is not finite.
    """
    return _direct_backprop.step(state, average_gradients, num_pieces)
