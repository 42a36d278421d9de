"""Published loops in their plain form, written from their mathematics: what the benchmarks of speed compare with.

Every row is forwarded at every step, every position draws a letter whether it needs one or not, and nothing is kept:
the loops are right, and plain. `network` maps states (n, L, V+1) to log-probabilities of letters (n, L, V).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

from plait.priors._backbones import Denoiser, DilatedCnn

Network = Callable[[Tensor], Tensor]
Values = Callable[[Tensor], Tensor]


def conv1d_network(network: Denoiser) -> Network:
    """The same weights through padded Conv1d and GroupNorm layers, as the published backbone calls them.

    Raises:
        TypeError: The backbone is not the convolutional one.
    """
    backbone = network.backbone
    if not isinstance(backbone, DilatedCnn):
        raise TypeError("only the convolutional backbone was published")

    def forward(x: Tensor) -> Tensor:
        hidden = functional.relu(backbone.enter(x.transpose(1, 2))) + backbone.position
        for norm, convolution in zip(backbone.norms, backbone.convolutions, strict=True):
            hidden = hidden + functional.relu(convolution(norm(hidden)))
        logits: Tensor = backbone.leave(functional.relu(backbone.mix(hidden))).transpose(1, 2)
        return logits.masked_fill(~network.allowed, -torch.inf).log_softmax(-1)

    return forward


def _step_law(letters: Tensor, release: float) -> Tensor:
    """Log-probability (n, L, V+1) of each letter and of staying masked, for a masked position."""
    stays = torch.full_like(letters[..., :1], 1.0 - release)
    return torch.cat([letters.exp() * release, stays], -1).clamp(min=1e-30).log()


def _gumbel(like: Tensor, generator: Generator) -> Tensor:
    return -torch.empty_like(like).exponential_(generator=generator).log()


def _hard_step(network: Network, x: Tensor, release: float, num: int, generator: Generator) -> Tensor:
    """`num` next states for each of x (n, L, V+1), (n * num, L, V+1)."""
    law = _step_law(network(x), release).repeat_interleave(num, 0)
    drawn = functional.one_hot((law + _gumbel(law, generator)).argmax(-1), law.shape[-1]).to(law.dtype)
    before = x.repeat_interleave(num, 0)
    return torch.where(before[..., -1:] > 0, drawn, before)


@torch.no_grad()
def ancestral(network: Network, start: Tensor, num_steps: int, generator: Generator) -> Tensor:
    """Designs (n, L) of MDLM's sampler from masked states (n, L, V+1): one forward of all rows per step."""
    x = start
    for step in range(num_steps):
        x = _hard_step(network, x, 1.0 / (num_steps - step), 1, generator)
    return x[..., :-1].argmax(-1)


@torch.no_grad()
def svdd_pm(
    network: Network, values: Values, start: Tensor, num_steps: int, num: int, temperature: float, generator: Generator
) -> Tensor:
    """Designs (n, L) of SVDD-PM: of `num` proposals, the values of their likeliest completions choose one per chain."""
    x, n = start, len(start)
    for step in range(num_steps):
        proposals = _hard_step(network, x, 1.0 / (num_steps - step), num, generator)
        is_masked = proposals[..., -1] > 0
        letters = torch.where(is_masked, network(proposals).argmax(-1), proposals[..., :-1].argmax(-1))
        weights = (values(letters).view(n, num) / temperature).softmax(1)
        chosen = torch.multinomial(weights, 1, generator=generator)[:, 0]
        x = proposals.view(n, num, *x.shape[1:])[torch.arange(n, device=x.device), chosen]
    return x[..., :-1].argmax(-1)


def drakes_loss(
    policy: Network,
    prior: Network,
    values: Values,
    start: Tensor,
    num_steps: int,
    num_soft: int,
    kl_weight: float,
    generator: Generator,
) -> Tensor:
    """The loss of one DRAKES update: roll out, then forward both networks again on all stored states for the KL."""
    x, states = start, []
    for step in range(num_steps):
        states.append(x)
        release = 1.0 / (num_steps - step)
        if step < num_steps - num_soft:
            with torch.no_grad():
                x = _hard_step(policy, x, release, 1, generator)
        else:
            law = _step_law(policy(x), release)
            drawn = (law + _gumbel(law, generator)).softmax(-1)
            settled = torch.cat([x[..., :-1], torch.zeros_like(x[..., :1])], -1)
            x = settled + x[..., -1:] * drawn
    soft = x[..., :-1]
    hard = functional.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
    kl = torch.zeros(len(start), device=start.device)
    for step, state in enumerate(states):
        mine, theirs = policy(state), prior(state)
        each = (mine.exp() * (mine - theirs)).sum(-1)
        kl = kl + (state[..., -1] * each).sum(-1) / (num_steps - step)
    return -values(hard + soft - soft.detach()).mean() + kl_weight * kl.mean()
