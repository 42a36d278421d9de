"""Masked diffusion prior: configuration, pre-training, loading.

Source: Sahoo et al. 2024, "Simple and Effective Masked Diffusion Language Models" (MDLM, SUBS); the noise schedule is
linear and complete (mask probability t, no cut-off near 0). Pre-training minimises, per free position,

    E_x E_{k ~ uniform 1..F} (1/k) sum over k masked positions of -log p(letter | unmasked letters),

the bound of the paper with its time integrated out (less variance for short designs). The exponential average of the
weights is what is judged and kept; a model that does not beat the uniform law on held-out sequences is not kept.

    state = pretrain_init(config, init(config, space, generator), corpus, generator)
    while not state.is_finished:
        info = pretrain_step(state)
    prior = state.best_prior()
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor

from plait.design.bundles import load_bundle
from plait.design.errors import BadInputError, ConfigError, CorruptArtifactError
from plait.design.space import DesignSpace
from plait.priors._backbones import Denoiser, DilatedCnn, ResidualMlp, draw_weights
from plait.priors._masking import MaskedDiffusion
from plait.priors.base import AverageGradients, keep_gradients, pieces

LONGEST_MLP = 16
FEWEST_SEQUENCES = 20
HELD_OUT_DRAWS = 8
SIGNIFICANCE = 3.0
"""Standard errors by which a trained prior must beat the uniform law on held-out sequences."""


class Config(BaseModel):
    """Settings of the prior and of its pre-training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: Literal["auto", "mlp", "cnn"] = Field("auto", description="auto: mlp up to 16 positions, else cnn")
    width: int | None = Field(None, ge=4, le=2048, description="hidden units or channels; default 256 (mlp), 32 (cnn)")
    depth: int | None = Field(
        None, ge=1, le=16, description="residual layers (mlp), default 2; repeats of `dilations` (cnn), default 1"
    )
    kernel: int = Field(5, ge=1, le=31, description="positions per convolution, odd (cnn)")
    dilations: tuple[int, ...] | None = Field(
        None, description="positions between the taps of one repeat's convolutions (cnn); default 1, 2, 4, ... across L"
    )
    num_steps: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="steps of the reverse chain; default: one per free position up to 16, then 32, above 64 128",
    )
    unmasking: Literal["independent", "one_by_one"] = Field(
        "independent",
        description="independent: a step may fill several positions, without regard to each other; one_by_one: exactly "
        "one, drawn uniformly (as many steps as free positions; what a step-wise target can be met with exactly)",
    )
    learning_rate: float = Field(3e-3, gt=0, le=1, description="Adam's step size")
    batch_size: int = Field(128, ge=1, le=65_536, description="sequences per update, of all workers together")
    num_pretrain_steps: int = Field(1000, ge=0, le=10_000_000, description="updates at most")
    validation_interval: int = Field(50, ge=1, description="updates between two looks at the held-out sequences")
    patience: int = Field(10, ge=1, description="looks without a better held-out ELBO before stopping")
    holdout_fraction: float = Field(0.1, gt=0, lt=1, description="share of distinct sequences never trained on")
    max_holdout: int = Field(512, ge=5, description="held-out sequences that are looked at, at most")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    split_seed: int = Field(
        0, ge=0, description="draws the held-out sequences and their masks, the same on all workers"
    )


def init(config: Config, space: DesignSpace, generator: Generator) -> MaskedDiffusion:
    """An untrained prior: exactly the uniform law over the letters each position allows.

    Workers that train together pass generators with the same seed, so that they start from the same weights.

    Raises:
        ConfigError: Nothing is free in the space, the kernel is even, or one_by_one with another number of steps.
    """
    free = len(space.free_positions())
    if free == 0:
        raise ConfigError(
            "every position of the design space is fixed", hint="free at least one position of the template"
        )
    if config.kernel % 2 == 0:
        raise ConfigError(f"kernel {config.kernel} is even", hint="use an odd number of positions")
    if config.unmasking == "one_by_one" and config.num_steps not in (None, free):
        raise ConfigError(
            f"one_by_one fills {free} free positions in {free} steps, not in {config.num_steps}",
            hint="leave num_steps out",
        )
    length, letters = space.length, space.alphabet.size
    is_mlp = config.backbone == "mlp" or (config.backbone == "auto" and length <= LONGEST_MLP)
    backbone: ResidualMlp | DilatedCnn
    if is_mlp:
        backbone = ResidualMlp(length, letters, config.width or 256, config.depth or 2)
    else:
        dilations = config.dilations or _spanning(length, config.kernel)
        backbone = DilatedCnn(length, letters, config.width or 32, config.kernel, dilations * (config.depth or 1))
    network = Denoiser(backbone, torch.from_numpy(space.allowed_mask()))
    draw_weights(network, generator)
    num_steps = config.num_steps or (free if free <= 16 or config.unmasking == "one_by_one" else _default_steps(free))
    return MaskedDiffusion(space, num_steps, network, config.model_dump(mode="json"))


def load(directory: Path) -> MaskedDiffusion:
    """A prior or policy from its bundle.

    Raises:
        CorruptArtifactError: A file is missing or changed, or the bundle holds something else.
    """
    description, tensors = load_bundle(directory)
    if description.get("algorithm") != "masked_diffusion":
        raise CorruptArtifactError(f"{directory} holds no masked diffusion model")
    try:
        config, space = Config(**description["settings"]), DesignSpace(**description["space"])
        model = init(config, space, Generator().manual_seed(0))
        Config(num_steps=description["num_steps"])  # within bounds
        model.num_steps = int(description["num_steps"])
        model.network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in tensors.items()})
    except (KeyError, ValueError, TypeError, RuntimeError, ConfigError) as error:
        raise CorruptArtifactError(f"{directory} does not describe a masked diffusion model: {error}") from error
    model.network.requires_grad_(False)
    return model


@dataclass(frozen=True)
class PretrainInfo:
    """What one update saw.

    Attributes:
        step: Updates done, this one included.
        loss: Bound on -log p per free position on the mini-batch, nats.
        grad_norm: Gradient norm before clipping, mean over workers' gradients.
        held_out_elbo: ELBO per free position on held-out sequences, nats; NaN where this update did not look.
    """

    step: int
    loss: float
    grad_norm: float
    held_out_elbo: float


@dataclass
class PretrainState:
    """Pre-training between two updates.

    Attributes:
        prior: The model being trained.
        average: The exponential average of its weights.
        uniform_elbo: Held-out ELBO per free position of the untrained model, nats.
        best_elbo: The best one so far, that of the untrained model to begin with.
        step: Updates done.
        num_stale: Looks at the held-out sequences since the best one.
    """

    config: Config
    prior: MaskedDiffusion
    average: MaskedDiffusion
    optimiser: torch.optim.Optimizer
    generator: Generator
    corpus: Tensor
    held_out: Tensor
    held_out_masks: Tensor
    uniform: Tensor
    uniform_elbo: float
    best_elbo: float
    best: dict[str, Tensor]
    step: int = 0
    num_stale: int = 0

    @property
    def is_finished(self) -> bool:
        """All updates are done, or the held-out ELBO stopped rising; the same on all workers."""
        return self.step >= self.config.num_pretrain_steps or self.num_stale >= self.config.patience

    def best_prior(self) -> MaskedDiffusion:
        """A frozen prior with the averaged weights of the best look; the uniform law where none beat it clearly."""
        best = self.average.clone(is_trainable=False)
        best.network.load_state_dict(self.best)
        return best

    def state_dict(self) -> dict[str, Any]:
        """Everything that resuming needs: tensors, numbers, text."""
        return {
            "prior": copy.deepcopy(self.prior.network.state_dict()),
            "average": copy.deepcopy(self.average.network.state_dict()),
            "best": dict(self.best),
            "optimiser": copy.deepcopy(self.optimiser.state_dict()),
            "generator": self.generator.get_state(),
            "best_elbo": self.best_elbo,
            "step": self.step,
            "num_stale": self.num_stale,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from state_dict()."""
        self.prior.network.load_state_dict(state["prior"])
        self.average.network.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        self.best = dict(state["best"])
        self.best_elbo, self.step, self.num_stale = state["best_elbo"], state["step"], state["num_stale"]


def pretrain_init(config: Config, prior: MaskedDiffusion, corpus: Tensor, generator: Generator) -> PretrainState:
    """Pre-training before its first update; trains `prior` in place.

    Args:
        config: Settings.
        prior: From init(), the same on all workers.
        corpus: Tokens (n, L) int64; a sequence that stands there twice counts twice.
        generator: This worker's own, for mini-batches and masks.

    Raises:
        BadInputError: Fewer than 20 distinct sequences, or some lie outside the space.
    """
    device = prior.network.allowed.device
    corpus = corpus.to(device)
    if corpus.ndim != 2 or corpus.shape[1] != prior.space.length or not bool(prior.fits(corpus).all()):
        raise BadInputError(
            f"the corpus does not fit the design space {prior.space.template}", hint="drop or fix those sequences"
        )
    items, item_of = torch.unique(corpus, dim=0, return_inverse=True)
    if len(items) < FEWEST_SEQUENCES:
        raise BadInputError(
            f"{len(items)} distinct sequences are too few to learn a prior from",
            hint=f"give at least {FEWEST_SEQUENCES}",
        )
    shared = Generator(device).manual_seed(config.split_seed)
    order = torch.randperm(len(items), generator=shared, device=device)
    num_held_out = max(5, round(config.holdout_fraction * len(items)))
    held_out = items[order[:num_held_out][: config.max_holdout]]
    sizes = torch.cat([prior.draw_sizes(HELD_OUT_DRAWS, shared) for _ in range(len(held_out))])
    average = prior.clone(is_trainable=False)
    prior.network.requires_grad_(True)
    state = PretrainState(
        config=config,
        prior=prior,
        average=average,
        optimiser=torch.optim.Adam(prior.network.parameters(), lr=config.learning_rate, fused=True),
        generator=generator,
        corpus=corpus[~torch.isin(item_of, order[:num_held_out])],
        held_out=held_out,
        held_out_masks=prior.draw_masks(sizes, shared),
        uniform=torch.zeros(0),
        uniform_elbo=math.nan,
        best_elbo=math.nan,
        best=copy.deepcopy(average.network.state_dict()),
    )
    state.uniform = _held_out_elbo(state)
    state.uniform_elbo = state.best_elbo = float(state.uniform.mean())
    return state


def pretrain_step(
    state: PretrainState, average_gradients: AverageGradients = keep_gradients, num_pieces: int = 1
) -> PretrainInfo:
    """One update, in place; looks at the held-out sequences every `validation_interval` updates.

    The batch goes through the network in `num_pieces` pieces, one in memory at a time: the same update up to rounding.
    """
    config, prior, generator = state.config, state.prior, state.generator
    chosen = torch.randint(len(state.corpus), (config.batch_size,), generator=generator, device=state.corpus.device)
    sizes = prior.draw_sizes(config.batch_size, generator)
    masks = prior.draw_masks(sizes, generator)
    state.optimiser.zero_grad()
    loss = 0.0
    for rows in pieces(torch.arange(config.batch_size, device=chosen.device), num_pieces):
        each = -prior.log_likelihood(state.corpus[chosen[rows]], masks[rows]) / sizes[rows]
        part = each.mean() * (len(rows) / config.batch_size)
        part.backward()  # type: ignore[no-untyped-call]
        loss += float(part.detach())
    parameters = list(prior.network.parameters())
    average_gradients(parameters)
    grad_norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip)
    state.optimiser.step()
    decay = min(0.9999, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for mean, new in zip(state.average.network.parameters(), parameters, strict=True):
            mean.lerp_(new, 1 - decay)
    state.step += 1
    held_out = _look(state) if state.step % config.validation_interval == 0 else math.nan
    return PretrainInfo(state.step, loss, float(grad_norm), held_out)


def _look(state: PretrainState) -> float:
    elbo = _held_out_elbo(state)
    gain = elbo - state.uniform
    is_clear = float(gain.mean()) > SIGNIFICANCE * float(gain.std()) / math.sqrt(len(gain))
    mean = float(elbo.mean())
    if mean > state.best_elbo and is_clear:
        state.best_elbo, state.num_stale = mean, 0
        state.best = copy.deepcopy(state.average.network.state_dict())
    else:
        state.num_stale += 1
    return mean


def _held_out_elbo(state: PretrainState) -> Tensor:
    """ELBO per free position of each held-out sequence, (m,) nats, by the averaged weights, always the same masks."""
    with torch.no_grad():
        tokens = state.held_out.repeat_interleave(HELD_OUT_DRAWS, 0)
        likelihood = state.average.log_likelihood_in_chunks(tokens, state.held_out_masks)
    return (likelihood / state.held_out_masks.sum(-1)).view(-1, HELD_OUT_DRAWS).mean(-1)


def _default_steps(free: int) -> int:
    return 32 if free <= 64 else 128


def _spanning(length: int, kernel: int) -> tuple[int, ...]:
    """Dilations 1, 2, 4, ... until the convolutions together carry one end of the design to the other."""
    count = max(1, math.ceil(math.log2((length - 1) / (kernel // 2)))) if kernel > 1 and length > 1 else 1
    return tuple(2**i for i in range(count))
