"""The seam between generative priors and everything that samples from or fine-tunes them.

A state is whatever the prior diffuses: for masked diffusion hard tokens (n, L) int64 with the mask token V, or a
relaxed state (n, L, V+1) float of letter probabilities. Algorithms pass states on and never look inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Generator, Tensor, nn

from plait.design.space import DesignSpace

AverageGradients = Callable[[list[nn.Parameter]], None]
"""Replaces each parameter's .grad by its mean over all workers, in place."""


Precision = Literal["float32", "bfloat16"]


def keep_gradients(parameters: list[nn.Parameter]) -> None:
    """AverageGradients of a single worker: nothing to do."""


def split_evenly(total: int, num_parts: int) -> list[int]:
    """Sizes of `num_parts` parts that differ by one at most, larger ones first; some are 0 where total is smaller."""
    return [total // num_parts + (part < total % num_parts) for part in range(num_parts)]


def pieces(rows: Tensor, num_pieces: int) -> tuple[Tensor, ...]:
    """Rows (n, ...) in `num_pieces` even pieces, in order; in n pieces where there are fewer rows."""
    return torch.split(rows, split_evenly(len(rows), min(num_pieces, len(rows))))


class Transition(Protocol):
    """The law of the next state given the current one (n chains), network outputs computed once and kept.

    Attributes:
        state: The current states.
        step: Which step this is; num_steps where there is none left.
    """

    state: Tensor
    step: int

    def sample(self, generator: Generator, num: int = 1) -> Tensor:
        """Draw num next states for each chain: (n, ...) for num = 1, else (n, num, ...)."""
        ...

    def log_prob(self, next_state: Tensor) -> Tensor:
        """Log-probability of hard next states, (n,) nats."""
        ...

    def kl(self, other: Transition) -> Tensor:
        """KL(self || other), exact, (n,) nats."""
        ...

    def guided(self, gradient: Tensor) -> Transition:
        """Re-weighted by the first-order change of a value along each move; gradient has the shape of relax(state).

        Letters are re-weighted by exp(gradient of the letter - gradient of the mask) and normalised; a Gaussian's mean
        would move by its variance times the gradient.
        """
        ...

    def blend(self, other: Transition, weight: float) -> Transition:
        """The geometric mixture self^(1 - weight) other^weight, normalised; weights above 1 extrapolate."""
        ...

    def complete(self, generator: Generator | None = None) -> Tensor:
        """Finished designs (n, L) int64 as seen from here: the likeliest letters, or drawn ones with a generator."""
        ...

    def follow(self, next_state: Tensor) -> Transition:
        """The law of the step after this one from next states (n, ...) or (n, num, ...), flattened to n * num chains.

        What the network said of a state that did not change is kept; after the last step only complete() is left.
        """
        ...

    def take(self, index: Tensor) -> Transition:
        """The chains at index (k,) int64, with all that the network said of them."""
        ...

    def rsample(self, generator: Generator, temperature: float) -> Tensor:
        """A relaxed next state that carries gradients (Gumbel-softmax)."""
        ...


@dataclass(frozen=True)
class Visit:
    """States that chains hold for one step or for several.

    Attributes:
        transition: The law of one step from each of k states, network outputs kept: what is asked of it before the walk
            goes on is not computed again.
        step: The step that `transition` is of.
        chains: (k,) int64, whose states they are.
        weight: (k,) float32, what the path KL of the stay is a multiple of: transition.kl() times weight.
    """

    transition: Transition
    step: int
    chains: Tensor
    weight: Tensor


class DiffusionPrior(Protocol):
    """A pre-trained diffusion model over a design space; also the type of a policy.

    Attributes:
        space: The design space.
        num_steps: Steps of the reverse chain.
        rows_forwarded: Rows that went through the network so far.
    """

    space: DesignSpace
    num_steps: int
    rows_forwarded: int

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        ...

    def init_state(self, n: int) -> Tensor:
        """The state before the first step, n times."""
        ...

    def transition(self, state: Tensor, step: int) -> Transition:
        """The law of step `step` (0 is the first and noisiest, num_steps - 1 the last)."""
        ...

    def draw(self, n: int, generator: Generator) -> Tensor:
        """Finished states of n chains, exactly as stepping through all transitions would draw them."""
        ...

    def walk(self, n: int, stop: int, generator: Generator) -> Iterator[Visit]:
        """Every state that n chains hold before step `stop` (up to num_steps), each once; the path KL is a sum over it.

        The last visit is that of all n chains, in order, where they stand before step `stop`.
        """
        ...

    def relax(self, state: Tensor) -> Tensor:
        """States as floats that a gradient can be taken at: (n, L, V+1) one-hot for hard tokens."""
        ...

    def predict_clean(self, state: Tensor, step: int) -> Tensor:
        """Letter probabilities of the finished design given states before `step`, (n, L, V) float."""
        ...

    def decode(self, state: Tensor) -> Tensor:
        """Finished states to tokens (n, L) int64."""
        ...

    def denoising_log_likelihood(self, designs: Tensor, generator: Generator) -> Tensor:
        """One draw of elbo() per design (n, L), (n,) nats, with gradients: what training on designs raises."""
        ...

    def elbo(self, tokens: Tensor, generator: Generator, num_draws: int = 32) -> tuple[Tensor, Tensor]:
        """Lower bound on log p(x) in nats, (n,), and its standard error, (n,)."""
        ...

    def compute_in(self, precision: Precision) -> None:
        """Let convolutions and matrix products of the network run in `precision`, in clones made from now on as well.

        Weights, log-probabilities and losses stay float32. It is not saved.
        """
        ...

    def clone(self, is_trainable: bool) -> DiffusionPrior:
        """An independent copy with its own weights."""
        ...

    def restrict(self, space: DesignSpace) -> DiffusionPrior:
        """The same model over a smaller space of the same length and alphabet.

        Raises:
            ConfigError: The space has another length or alphabet, or allows letters that this one does not.
        """
        ...

    def description(self) -> dict[str, Any]:
        """What save() writes beside the tensors."""
        ...

    def save(self, directory: Path, kind: str = "prior") -> str:
        """Write a bundle (kind "prior" or "policy") and return its content hash."""
        ...
