"""The reverse step of masked diffusion."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from plait.design.errors import UsageError
from plait.priors._rows import distinct_rows
from plait.priors.base import Transition

if TYPE_CHECKING:
    from plait.priors._masking import MaskedDiffusion


class MaskedTransition:
    """One reverse step: masked positions are filled with letters of p(. | state); unmasked ones never change.

    With `release` = (m_t - m_s) / m_t = 1 / (num_steps - step), the linear schedule m = 1 - step / num_steps:

    * independent unmasking fills every masked position with probability `release`, whatever the others do:
      q(letter j) = release * p(j | state), q(mask) = 1 - release; the last step releases all;
    * one-by-one unmasking fills exactly one of the num_steps - step masked positions, each with probability `release`.

    What the network says of a row is computed when it is first needed, once, and kept.
    """

    def __init__(self, model: MaskedDiffusion, state: Tensor, step: int, log_weights: Tensor | None = None) -> None:
        if not 0 <= step <= model.num_steps:
            raise UsageError(f"step {step} is outside 0..{model.num_steps - 1}")
        self.model, self.state, self.step, self.log_weights = model, state, step, log_weights
        self._kept: _Outputs | None = None

    @property
    def is_finished(self) -> bool:
        """The last step is done: there is no next state."""
        return self.step == self.model.num_steps

    @property
    def release(self) -> float:
        """How likely a masked position is to be filled by this step."""
        if self.is_finished:
            raise UsageError("the last step is done: there is no next state", hint="use complete()")
        return 1.0 / (self.model.num_steps - self.step)

    @property
    def log_letters(self) -> Tensor:
        """Log-probability of each letter where a mask is filled, (n, L, V)."""
        return self._tilted(self._network(None), slice(None))

    @property
    def is_masked(self) -> Tensor:
        """Which positions are still masked, (n, L) bool; in a relaxed state those that hold any mask."""
        return self.state[..., -1] > 0 if self.state.is_floating_point() else self.state == self.model.mask_token

    @torch.no_grad()
    def sample(self, generator: Generator, num: int = 1) -> Tensor:
        """Hard next states: (n, L) int64, or (n, num, L) for num > 1.

        Which positions are filled does not depend on the letters, so it is drawn first, and only rows in which
        something is filled go through the network. This changes the cost, not the law.
        """
        if self.state.is_floating_point():
            raise UsageError("a relaxed state has no hard next state", hint="use rsample, or decode the state first")
        following = self.fill(self._draw_filled(generator, num), generator)
        return following[:, 0] if num == 1 else following

    @torch.no_grad()
    def fill(self, is_filled: Tensor, generator: Generator) -> Tensor:
        """Hard states whose positions is_filled (n, L) or (n, num, L) bool have drawn letters; of that shape, int64."""
        following = self.state if is_filled.ndim == 2 else self.state[:, None]
        following = following.expand(is_filled.shape).clone()
        rows = is_filled.flatten(1).any(1).nonzero()[:, 0]
        if len(rows):
            item, *draw, position = is_filled[rows].nonzero(as_tuple=True)
            letters = self._tilted(self._network(rows), rows)[item, position]
            following[rows[item], *draw, position] = _race(letters, generator)
        return following

    def log_prob(self, next_state: Tensor) -> Tensor:
        """Log-probability of hard next states (n, L) int64, (n,) nats; -inf for a state that no step leads to."""
        mask = self.model.mask_token
        was_masked, is_masked = self.state == mask, next_state == mask
        letter = self.log_letters.gather(-1, next_state.clamp(max=mask - 1)[..., None])[..., 0]
        if self.model.is_one_by_one:
            stays, is_possible = 0.0, (was_masked & ~is_masked).sum(-1) == 1
        else:
            stays = -torch.inf if self.release == 1 else math.log1p(-self.release)
            is_possible = torch.ones_like(was_masked[:, 0])
        change = torch.where(is_masked, stays, letter + math.log(self.release))
        is_possible = is_possible & (was_masked | (next_state == self.state)).all(-1)
        return change.masked_fill(~was_masked, 0.0).sum(-1).masked_fill(~is_possible, -torch.inf)

    def kl(self, other: Transition) -> Tensor:
        """KL(self || other) of the same step from the same state, exact, (n,) nats.

        sum over masked i of release * KL(p(. | state)_i || p_other(. | state)_i).
        """
        if not isinstance(other, MaskedTransition) or self.release != other.release:
            raise UsageError("only two masked diffusion transitions at the same step of equally many can be compared")
        mine, theirs = self.log_letters, other.log_letters
        probability = mine.exp()
        each = (probability * (mine - theirs).masked_fill(probability == 0, 0.0)).sum(-1)
        return self.release * each.masked_fill(~self.is_masked, 0.0).sum(-1)

    def tilt(self, log_weights: Tensor) -> MaskedTransition:
        """The step whose letters are re-weighted by exp(log_weights (n, L, V)) and normalised."""
        total = log_weights if self.log_weights is None else self.log_weights + log_weights
        tilted = MaskedTransition(self.model, self.state, self.step, total)
        tilted._kept = self._kept = self._kept or self._nothing_yet()
        return tilted

    def guided(self, gradient: Tensor) -> MaskedTransition:
        """Letters re-weighted by exp(gradient of the letter - gradient of the mask); gradient (n, L, V+1)."""
        return self.tilt(gradient[..., :-1] - gradient[..., -1:])

    def blend(self, other: Transition, weight: float) -> MaskedTransition:
        """Letters in proportion to p^(1 - weight) p_other^weight; weights above 1 extrapolate."""
        if not isinstance(other, MaskedTransition):
            raise UsageError("masked diffusion blends with masked diffusion only")
        difference = other.log_letters - self.log_letters
        return self.tilt(weight * difference.masked_fill(~self.model.network.allowed, 0.0))

    @torch.no_grad()
    def complete(self, generator: Generator | None = None) -> Tensor:
        """Finished designs (n, L) int64: masks filled with the likeliest letters, or drawn ones with a generator."""
        if self.is_finished:
            return self.model.decode(self.state)
        is_masked = self.state == self.model.mask_token
        rows = is_masked.any(1).nonzero()[:, 0]
        designs = self.state.clone()
        if len(rows):
            letters = self._tilted(self._network(rows), rows)
            filled = letters.argmax(-1) if generator is None else _race(letters, generator)
            designs[rows] = torch.where(is_masked[rows], filled, self.state[rows])
        return designs

    def follow(self, next_state: Tensor) -> MaskedTransition:
        """The next step from (n, L) or (n, num, L) int64 states; unchanged rows go through no network again."""
        flat = next_state.reshape(-1, *self.state.shape[1:])
        num = next_state.shape[1] if next_state.ndim > self.state.ndim else 1
        ahead = MaskedTransition(self.model, flat, self.step + 1)
        if self._kept is not None and not ahead.is_finished:
            parent = torch.arange(len(self.state), device=flat.device).repeat_interleave(num)
            is_same = (flat == self.state[parent]).all(1)
            ahead._kept = _Outputs(self._kept.letters.detach()[parent], self._kept.is_known[parent] & is_same)
        return ahead

    def take(self, index: Tensor) -> MaskedTransition:
        """The chains at index (k,) int64."""
        weights = None if self.log_weights is None else self.log_weights[index]
        taken = MaskedTransition(self.model, self.state[index], self.step, weights)
        if self._kept is not None:
            taken._kept = _Outputs(self._kept.letters[index], self._kept.is_known[index])
        return taken

    def rsample(self, generator: Generator, temperature: float) -> Tensor:
        """A relaxed next state (n, L, V+1): hard positions are filled with Gumbel-softmax letters of p(. | state).

        Which positions are filled does not depend on the network, so relaxing that would gain no gradient, and it
        would fill them too fast: a position is masked or filled, never in between, and path KLs stay exact.
        """
        letters = self.log_letters
        gumbel = -torch.empty_like(letters).exponential_(generator=generator).log()
        filled = ((letters + gumbel) / temperature).softmax(-1)
        filled = torch.cat([filled, torch.zeros_like(filled[..., :1])], -1)
        return torch.where(self._draw_filled(generator, 1)[:, 0, :, None], filled, self.model.relax(self.state))

    def _draw_filled(self, generator: Generator, num: int) -> Tensor:
        """Which positions are filled, (n, num, L) bool."""
        is_masked, release = self.is_masked[:, None].expand(-1, num, -1), self.release
        noise = torch.empty(is_masked.shape, device=is_masked.device)
        if not self.model.is_one_by_one:
            return is_masked & (noise.uniform_(generator=generator) < release)
        race = is_masked / noise.exponential_(generator=generator)
        return is_masked & torch.nn.functional.one_hot(race.argmax(-1), is_masked.shape[-1]).bool()

    def _tilted(self, letters: Tensor, rows: Tensor | slice) -> Tensor:
        return letters if self.log_weights is None else (letters + self.log_weights[rows]).log_softmax(-1)

    def _network(self, rows: Tensor | None) -> Tensor:
        """Log-probability of letters before any tilt, of all rows (None) or of `rows` (k,) int64."""
        kept = self._kept
        if torch.is_grad_enabled() and (kept is None or not kept.letters.requires_grad) and self._has_gradient():
            is_known = torch.ones(len(self.state), dtype=torch.bool, device=self.state.device)
            self._kept = kept = _Outputs(self._forward(self.state), is_known)
        if kept is None:
            self._kept = kept = self._nothing_yet()
        is_known = kept.is_known if rows is None else kept.is_known[rows]
        if not bool(is_known.all()):
            missing = (~is_known).nonzero()[:, 0] if rows is None else rows[~is_known]
            kept.letters[missing] = self._forward(self.state[missing])
            kept.is_known[missing] = True
        return kept.letters if rows is None else kept.letters[rows]

    def _nothing_yet(self) -> _Outputs:
        """No row's outputs; a tilted step shares what it or the plain one then asks the network."""
        letters = torch.empty((*self.state.shape[:2], self.model.mask_token), device=self.state.device)
        return _Outputs(letters, torch.zeros(len(self.state), dtype=torch.bool, device=self.state.device))

    def _has_gradient(self) -> bool:
        return self.state.requires_grad or any(p.requires_grad for p in self.model.network.parameters())

    def _forward(self, states: Tensor) -> Tensor:
        """The network's word on each distinct state once."""
        if states.is_floating_point():
            return self.model.log_letters(states)
        distinct, which = distinct_rows(states)
        letters = self.model.log_letters(distinct)
        return letters if distinct is states else letters[which]


@dataclass
class _Outputs:
    """What the network said so far: letters (n, L, V), of the rows where is_known (n,)."""

    letters: Tensor
    is_known: Tensor


def _race(log_letters: Tensor, generator: Generator) -> Tensor:
    """Letters drawn in proportion to exp(log_letters (..., V)), (...) int64."""
    letters = log_letters.exp()
    return (letters / torch.empty_like(letters).exponential_(generator=generator)).argmax(-1)
