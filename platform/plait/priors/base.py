"""The seam between generative priors and everything that samples from or fine-tunes them.

A state is whatever the prior diffuses: for masked diffusion hard tokens (n, L) int64 with the mask token V, or a
relaxed state (n, L, V+1) float of letter probabilities. Algorithms pass states on and never look inside.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import Generator, Tensor, nn

from plait.design.space import DesignSpace

AverageGradients = Callable[[list[nn.Parameter]], None]
"""Replaces each parameter's .grad by its mean over all workers, in place."""


def keep_gradients(parameters: list[nn.Parameter]) -> None:
    """AverageGradients of a single worker: nothing to do."""


class Transition(Protocol):
    """The law of the next state given the current one (n chains)."""

    def sample(self, generator: Generator, num: int = 1) -> Tensor:
        """Draw num next states for each chain: (n, ...) for num = 1, else (n, num, ...)."""
        ...

    def log_prob(self, next_state: Tensor) -> Tensor:
        """Log-probability of hard next states, (n,) nats."""
        ...

    def kl(self, other: Transition) -> Tensor:
        """KL(self || other), exact, (n,) nats."""
        ...

    def tilt(self, log_weights: Tensor) -> Transition:
        """Letters re-weighted by exp(log_weights (n, L, V)) and normalised."""
        ...

    def rsample(self, generator: Generator, temperature: float) -> Tensor:
        """A relaxed next state that carries gradients (Gumbel-softmax)."""
        ...


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

    def predict_clean(self, state: Tensor) -> Tensor:
        """Letter probabilities of the finished design given a state, (n, L, V) float."""
        ...

    def decode(self, state: Tensor) -> Tensor:
        """Finished states to tokens (n, L) int64."""
        ...

    def elbo(self, tokens: Tensor, generator: Generator, num_draws: int = 32) -> tuple[Tensor, Tensor]:
        """Lower bound on log p(x) in nats, (n,), and its standard error, (n,)."""
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
