"""The masked diffusion model itself: its states, its bound on the likelihood."""

from __future__ import annotations

import copy
import itertools
import math
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional

from plait.design.bundles import save_bundle
from plait.design.errors import ConfigError, UsageError
from plait.design.space import DesignSpace
from plait.priors._backbones import Denoiser
from plait.priors._transitions import MaskedTransition
from plait.priors.base import Precision, Visit

EXACT_ELBO_POSITIONS = 16
_ELEMENTS_AT_ONCE = 1 << 17


class MaskedDiffusion:
    """Masked discrete diffusion over a design space (Sahoo et al. 2024, MDLM, the SUBS parameterisation).

    Hard states are tokens (n, L) int64 with V as the mask; relaxed states (n, L, V+1) float32. Positions that allow one
    letter are never masked. The network sees no time: the masks tell it.

    Attributes:
        space: The design space.
        num_steps: Steps T of the reverse chain.
        network: The denoiser.
        settings: The configuration it was built from, as plain JSON values.
        rows_forwarded: Rows that went through the network so far.
    """

    def __init__(self, space: DesignSpace, num_steps: int, network: Denoiser, settings: dict[str, Any]) -> None:
        self.space, self.num_steps, self.network, self.settings = space, num_steps, network, settings
        self.rows_forwarded = 0
        self.mask_token = space.alphabet.mask_token

    @property
    def free(self) -> Tensor:
        """Positions that allow more than one letter, (F,) int64."""
        return (self.network.allowed.sum(-1) > 1).nonzero()[:, 0]

    def init_state(self, n: int) -> Tensor:
        """(n, L) int64: the mask wherever there is a choice, the only letter elsewhere."""
        allowed = self.network.allowed
        start = torch.where(allowed.sum(-1) > 1, self.mask_token, allowed.int().argmax(-1))
        return start.repeat(n, 1)

    def one_hot(self, tokens: Tensor) -> Tensor:
        """(..., V+1) float32 of tokens that may hold the mask."""
        return torch.eye(self.mask_token + 1, device=tokens.device)[tokens]

    def log_letters(self, state: Tensor) -> Tensor:
        """Log-probability of each letter at each position given a hard or relaxed state, (n, L, V)."""
        self.rows_forwarded += len(state)
        letters: Tensor = self.network(state if state.is_floating_point() else self.one_hot(state))
        return letters

    @property
    def is_one_by_one(self) -> bool:
        """Each step fills exactly one position, drawn uniformly from the masked ones."""
        return bool(self.settings.get("unmasking") == "one_by_one")

    def transition(self, state: Tensor, step: int) -> MaskedTransition:
        """The law of step `step` (0 is the noisiest, num_steps - 1 leaves no mask)."""
        return MaskedTransition(self, state, step)

    @torch.no_grad()
    def draw(self, n: int, generator: Generator) -> Tensor:
        """Finished states (n, L) int64 of n chains."""
        (last,) = deque(self.walk(n, self.num_steps, generator), maxlen=1)  # holds no other visit
        return last.transition.state

    def walk(self, n: int, stop: int, generator: Generator) -> Iterator[Visit]:
        """Every state that n chains hold before step `stop`, as stepping through all transitions would draw them.

        Which positions a step fills does not depend on the letters, so it is drawn first. Then the k-th filling of all
        chains goes through the network together, whichever steps they fall on: a forward has a row for every chain.
        """
        steps = self._draw_steps(n, generator).clamp(max=stop)
        ordered, position = steps.sort(1)
        rank = torch.zeros_like(steps).scatter_(1, position, functional.pad(ordered.diff(dim=1) > 0, (1, 0)).cumsum(1))
        is_filled = steps < stop
        num = torch.where(is_filled, rank + 1, 0).amax(1)
        # Step of each chain's k-th filling; `stop` where there is none, and before that the start.
        times = steps.new_full((n, self.space.length + 1), stop).scatter_(1, rank, steps)
        nats = self._released(functional.pad((times + 1).clamp(max=stop), (1, 0))).diff(dim=1)
        state = self.init_state(n)
        for number in range(int(num.max()) if n else 0):
            chains = (num > number).nonzero()[:, 0]
            transition = self.transition(state[chains], 0)
            yield Visit(transition, 0, chains, nats[chains, number] / transition.release)
            state[chains] = transition.fill((is_filled & (rank == number))[chains], generator)
        last = self.transition(state, stop)
        rest = nats.gather(1, num[:, None])[:, 0]
        everyone = torch.arange(n, device=state.device)
        yield Visit(last, stop, everyone, torch.zeros_like(rest) if last.is_finished else rest / last.release)

    def _draw_steps(self, n: int, generator: Generator) -> Tensor:
        """The step at which each position is filled, (n, L) int64; num_steps where there is nothing to fill."""
        is_free = (self.network.allowed.sum(-1) > 1).expand(n, -1)
        if self.is_one_by_one:
            race = torch.rand(is_free.shape, generator=generator, device=is_free.device)
            steps = race.masked_fill(~is_free, torch.inf).argsort(1).argsort(1)
        else:
            steps = torch.randint(self.num_steps, is_free.shape, generator=generator, device=is_free.device)
        return steps.masked_fill(~is_free, self.num_steps)

    def _released(self, steps: Tensor) -> Tensor:
        """Sum of the release probabilities of the first `steps` (...) int64 steps, float32."""
        each = 1.0 / torch.arange(self.num_steps, 0, -1, dtype=torch.float64, device=steps.device)
        return functional.pad(each.cumsum(0), (1, 0)).float()[steps]

    def relax(self, state: Tensor) -> Tensor:
        """States as floats, (n, L, V+1): one-hot, the mask last."""
        return state if state.is_floating_point() else self.one_hot(state)

    def predict_clean(self, state: Tensor, step: int) -> Tensor:
        """Letter probabilities of the finished design, (n, L, V): settled letters stay, masks hold the prediction."""
        soft = self.relax(state)
        return soft[..., :-1] + soft[..., -1:] * self.log_letters(state).exp()

    def decode(self, state: Tensor) -> Tensor:
        """Tokens (n, L) int64 of finished states; the likeliest letter of a relaxed one."""
        return state[..., :-1].argmax(-1) if state.is_floating_point() else state

    def fits(self, tokens: Tensor) -> Tensor:
        """(n,) bool: every letter of tokens (n, L) is allowed at its position."""
        return self.network.allowed[torch.arange(tokens.shape[1], device=tokens.device), tokens].all(-1)

    def log_likelihood(self, tokens: Tensor, is_masked: Tensor) -> Tensor:
        """Sum over masked positions of log p(letter | the unmasked ones), (n,) nats, for tokens, is_masked (n, L)."""
        letters = self.log_letters(tokens.masked_fill(is_masked, self.mask_token))
        return letters.gather(-1, tokens[..., None])[..., 0].masked_fill(~is_masked, 0.0).sum(-1)

    def draw_masks(self, sizes: Tensor, generator: Generator) -> Tensor:
        """(n, L) bool with sizes[i] of the free positions masked, uniformly at random; sizes (n,) int64."""
        free = self.free
        ranks = torch.rand((len(sizes), len(free)), generator=generator, device=free.device).argsort(-1).argsort(-1)
        masks = torch.zeros((len(sizes), self.space.length), dtype=torch.bool, device=free.device)
        masks[:, free] = ranks < sizes[:, None]
        return masks

    def draw_sizes(self, n: int, generator: Generator) -> Tensor:
        """Numbers of masked positions, (n,) int64, stratified over 1..F in increasing order."""
        offset = torch.rand(1, generator=generator, device=self.free.device)
        strata = (torch.arange(n, device=self.free.device) + offset) / n
        return (strata * len(self.free)).long().clamp(max=len(self.free) - 1) + 1

    def denoising_log_likelihood(self, designs: Tensor, generator: Generator) -> Tensor:
        """One draw of elbo() per design with gradients, (n,) nats: F/k * log p(k masked letters | the others).

        Each design's k is uniform in 1..F; over the n designs together it is stratified. Designs (n, L) int64.
        """
        order = torch.randperm(len(designs), generator=generator, device=designs.device)
        sizes = self.draw_sizes(len(designs), generator)[order]
        return self.log_likelihood(designs, self.draw_masks(sizes, generator)) * len(self.free) / sizes

    def elbo(self, tokens: Tensor, generator: Generator, num_draws: int = 32) -> tuple[Tensor, Tensor]:
        """Lower bound on log p(x) in nats, (n,) float32, and its standard error, (n,).

        E over k uniform in 1..F, over masks of k free positions, of F/k * log p(masked letters | the others): the
        continuous-time bound of MDLM with the time integrated out; also log p averaged over all orders of filling.

        Args:
            tokens: (n, L) int64. A design outside the space gets -inf.
            generator: For the masks.
            num_draws: Masks per design, stratified over k; 0, or at least 2^F, enumerates all masks: standard error 0.

        Raises:
            UsageError: One draw or fewer than none, or an enumeration over more than 16 free positions.
        """
        free = len(self.free)
        if num_draws < 0 or num_draws == 1 or (num_draws == 0 and free > EXACT_ELBO_POSITIONS):
            raise UsageError(
                f"an ELBO from {num_draws} draws over {free} free positions is not possible",
                hint=f"use at least 2 draws; 0 (exact) for at most {EXACT_ELBO_POSITIONS} free positions",
            )
        is_inside = self.fits(tokens)
        bound = torch.full((len(tokens),), -torch.inf, device=tokens.device)
        error = torch.zeros_like(bound)
        is_exact = num_draws == 0 or (free <= EXACT_ELBO_POSITIONS and 2**free <= num_draws)
        with torch.no_grad():
            inside = tokens[is_inside]
            result = self._enumerated_elbo(inside) if is_exact else self._drawn_elbo(inside, generator, num_draws)
        bound[is_inside], error[is_inside] = result
        return bound, error

    def _enumerated_elbo(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        free = self.free.tolist()
        masks = torch.zeros((2 ** len(free) - 1, self.space.length), dtype=torch.bool, device=tokens.device)
        subsets = (s for k in range(1, len(free) + 1) for s in itertools.combinations(free, k))
        for row, subset in enumerate(subsets):
            masks[row, list(subset)] = True
        sizes = masks.sum(-1)
        weights = torch.tensor(
            [1.0 / (k * math.comb(len(free), k)) for k in range(1, len(free) + 1)], device=tokens.device
        )
        bound = torch.zeros(len(tokens), device=tokens.device)
        for item, row in enumerate(tokens):
            likelihood = self.log_likelihood_in_chunks(row.expand(len(masks), -1), masks)
            bound[item] = likelihood @ weights[sizes - 1]
        return bound, torch.zeros_like(bound)

    def _drawn_elbo(self, tokens: Tensor, generator: Generator, num_draws: int) -> tuple[Tensor, Tensor]:
        sizes = (
            torch.cat([self.draw_sizes(num_draws, generator) for _ in range(len(tokens))])
            if len(tokens)
            else self.free[:0]
        )
        masks = self.draw_masks(sizes, generator)
        likelihood = self.log_likelihood_in_chunks(tokens.repeat_interleave(num_draws, 0), masks)
        draws = (likelihood * len(self.free) / sizes).view(len(tokens), num_draws)
        # Neighbouring draws lie in the same stratum or the next: their differences do not see the strata's spread.
        variance = draws.diff(dim=-1).square().mean(-1) / (2 * num_draws)
        return draws.mean(-1), variance.sqrt()

    def log_likelihood_in_chunks(self, tokens: Tensor, masks: Tensor) -> Tensor:
        """log_likelihood() of many rows, a bounded number at a time."""
        size = max(1, _ELEMENTS_AT_ONCE // self.space.length)
        pieces = [
            self.log_likelihood(t, m) for t, m in zip(torch.split(tokens, size), torch.split(masks, size), strict=True)
        ]
        return torch.cat(pieces) if pieces else torch.zeros(0, device=tokens.device)

    def compute_in(self, precision: Precision) -> None:
        """Let the network's convolutions and matrix products run in `precision`, in clones made from now on as well."""
        self.network.precision = precision

    def clone(self, is_trainable: bool) -> MaskedDiffusion:
        """An independent copy with its own weights, frozen unless it is to be trained."""
        network = copy.deepcopy(self.network).requires_grad_(is_trainable)
        return MaskedDiffusion(self.space, self.num_steps, network, self.settings)

    def restrict(self, space: DesignSpace) -> MaskedDiffusion:
        """The same model over a smaller space: letters that it forbids get probability 0, the others keep their odds.

        Raises:
            ConfigError: The space has another length or alphabet, allows letters that this one does not, or fixes all.
        """
        if space.length != self.space.length or space.alphabet.letters != self.space.alphabet.letters:
            raise ConfigError(
                f"a prior over {self.space.length} letters of {self.space.alphabet.letters} cannot design "
                f"{space.length} letters of {space.alphabet.letters}",
                hint="train a prior on the design space's own length and alphabet",
            )
        allowed = torch.from_numpy(space.allowed_mask()).to(self.network.allowed.device)
        if bool((allowed & ~self.network.allowed).any()) or not bool((allowed.sum(-1) > 1).any()):
            raise ConfigError(
                f"the template {space.template} leaves the prior's {self.space.template}, or fixes everything",
                hint="train a prior on the wider space",
            )
        smaller = self.clone(is_trainable=False)
        smaller.space, smaller.network.allowed = space, allowed
        if self.is_one_by_one:
            smaller.num_steps = len(smaller.free)
            smaller.settings = self.settings | {"num_steps": None}
        return smaller

    def description(self) -> dict[str, Any]:
        """What save() writes beside the tensors."""
        return {
            "algorithm": "masked_diffusion",
            "space": self.space.model_dump(mode="json"),
            "num_steps": self.num_steps,
            "settings": self.settings,
        }

    def save(self, directory: Path, kind: str = "prior") -> str:
        """Write a bundle (kind "prior" or "policy") and return its content hash."""
        tensors = {name: tensor.detach().cpu().numpy() for name, tensor in self.network.state_dict().items()}
        return save_bundle(directory, kind, self.description(), tensors)
