"""The reverse step of masked diffusion."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from plait.design.errors import UsageError
from plait.priors.base import Transition

if TYPE_CHECKING:
    from plait.priors._masking import MaskedDiffusion


class MaskedTransition:
    """One reverse step: every masked position is filled with probability `release`, independently of the others.

    q(letter j) = release * p(j | state), q(mask) = 1 - release, release = (m_t - m_s) / m_t = 1 / (num_steps - step)
    for the linear schedule m = 1 - step / num_steps; the last step releases all. Unmasked positions never change.
    """

    def __init__(self, model: MaskedDiffusion, state: Tensor, step: int, log_weights: Tensor | None = None) -> None:
        if not 0 <= step < model.num_steps:
            raise UsageError(f"step {step} is outside 0..{model.num_steps - 1}")
        self.model, self.state, self.step, self.log_weights = model, state, step, log_weights
        self.release = 1.0 / (model.num_steps - step)
        self._all_rows: Tensor | None = None

    @property
    def log_letters(self) -> Tensor:
        """Log-probability of each letter where a mask is filled, (n, L, V); one forward of all rows, kept."""
        if self._all_rows is None:
            self._all_rows = self._forward(slice(None))
        return self._all_rows

    @property
    def mask_weight(self) -> Tensor:
        """How much of each position is still masked, (n, L) float32: 0 or 1 in a hard state."""
        if self.state.is_floating_point():
            return self.state[..., -1]
        return (self.state == self.model.mask_token).float()

    def sample(self, generator: Generator, num: int = 1) -> Tensor:
        """Hard next states: (n, L) int64, or (n, num, L) for num > 1.

        Which positions are filled does not depend on the letters, so it is drawn first, and only rows in which
        something is filled go through the network. This changes the cost, not the law.
        """
        if self.state.is_floating_point():
            raise UsageError("a relaxed state has no hard next state", hint="use rsample, or decode the state first")
        with torch.no_grad():
            is_masked = self.state == self.model.mask_token
            chance = torch.rand(
                (len(self.state), num, self.state.shape[1]), generator=generator, device=self.state.device
            )
            is_filled = is_masked[:, None] & (chance < self.release)
            following = self.state[:, None].repeat(1, num, 1)
            rows = is_filled.flatten(1).any(1).nonzero()[:, 0]
            if len(rows):
                item, draw, position = is_filled[rows].nonzero(as_tuple=True)
                letters = self._rows(rows)[item, position].exp()
                race = letters / torch.empty_like(letters).exponential_(generator=generator)
                following[rows[item], draw, position] = race.argmax(-1)
        return following[:, 0] if num == 1 else following

    def log_prob(self, next_state: Tensor) -> Tensor:
        """Log-probability of hard next states (n, L) int64, (n,) nats; -inf where an unmasked position changed."""
        mask = self.model.mask_token
        was_masked, is_masked = self.state == mask, next_state == mask
        letter = self.log_letters.gather(-1, next_state.clamp(max=mask - 1)[..., None])[..., 0]
        stays = -torch.inf if self.release == 1 else math.log1p(-self.release)
        change = torch.where(is_masked, stays, letter + math.log(self.release))
        is_impossible = ~was_masked & (next_state != self.state)
        return change.masked_fill(~was_masked, 0.0).masked_fill(is_impossible, -torch.inf).sum(-1)

    def kl(self, other: Transition) -> Tensor:
        """KL(self || other) of the same step from the same state, exact for hard states, (n,) nats.

        sum over masked i of release * KL(p(. | state)_i || p_other(. | state)_i); in a relaxed state each position
        counts with its mask weight.
        """
        if not isinstance(other, MaskedTransition) or self.release != other.release:
            raise UsageError("only two masked diffusion transitions at the same step of equally many can be compared")
        mine, theirs = self.log_letters, other.log_letters
        probability = mine.exp()
        each = (probability * (mine - theirs).masked_fill(probability == 0, 0.0)).sum(-1)
        return self.release * (self.mask_weight * each).sum(-1)

    def tilt(self, log_weights: Tensor) -> MaskedTransition:
        """The step whose letters are re-weighted by exp(log_weights (n, L, V)) and normalised."""
        total = log_weights if self.log_weights is None else self.log_weights + log_weights
        tilted = MaskedTransition(self.model, self.state, self.step, total)
        if self._all_rows is not None:
            tilted._all_rows = (self._all_rows + log_weights).log_softmax(-1)
        return tilted

    def rsample(self, generator: Generator, temperature: float) -> Tensor:
        """A relaxed next state (n, L, V+1): y ~ Gumbel-softmax of q, then (state without its mask) + mask weight * y.

        No mask mass survives the last step; a position's mass stays 1.
        """
        letters = self.log_letters + math.log(self.release)
        stays = -torch.inf if self.release == 1 else math.log1p(-self.release)
        log_q = torch.cat([letters, torch.full_like(letters[..., :1], stays)], -1)
        gumbel = -torch.empty_like(log_q).exponential_(generator=generator).log()
        filled = ((log_q + gumbel) / temperature).softmax(-1)
        state = self.state if self.state.is_floating_point() else self.model.one_hot(self.state)
        settled = torch.cat([state[..., :-1], torch.zeros_like(state[..., :1])], -1)
        return settled + state[..., -1:] * filled

    def _rows(self, rows: Tensor) -> Tensor:
        return self._forward(rows) if self._all_rows is None else self._all_rows[rows]

    def _forward(self, rows: Tensor | slice) -> Tensor:
        letters = self.model.log_letters(self.state[rows])
        return letters if self.log_weights is None else (letters + self.log_weights[rows]).log_softmax(-1)
