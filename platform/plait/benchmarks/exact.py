"""What a masked diffusion chain and its reward-tilted target are, exactly, on a space that can be written out.

With S states x (partly masked designs) and the moves x -> y that one step can make, every law here is a sum over
moves: the law of the T-step chain forwards, the value of a state backwards, the path KL of two chains along the way.

    chain = ExactChain(prior)
    goal = chain.target(objective(chain.designs).conservative / objective.assay_std, temperature)
    total_variation(chain.empirical(samples.tokens), goal)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from plait.design.errors import UsageError
from plait.priors._backbones import Denoiser
from plait.priors._masking import MaskedDiffusion

MOST_MOVES = 20_000_000
"""About 2 GB while they are built."""
LEAST_LOG = -80.0
"""Logit of a letter without probability in a table: it must stay finite."""


class ExactChain:
    """The chain of a prior or policy as it is now: later changes of its weights are not seen.

    Attributes:
        states: All partly masked designs (S, L) int64.
        designs: The finished ones among them (F, L) int64, in lexicographic order.
    """

    def __init__(self, prior: MaskedDiffusion) -> None:
        """Write out all states and moves; both ways of unmasking, any template.

        Raises:
            UsageError: One step can make more than 20 million moves (4^6 has 531,441).
        """
        self.num_steps, self._is_one_by_one, mask = prior.num_steps, prior.is_one_by_one, prior.mask_token
        self._grid = _Grid(prior)
        count = math.prod(2 * len(choices) - 1 for choices in self._grid.choices)
        if count > MOST_MOVES:
            raise UsageError(f"{count:,} moves are too many to write out", hint="use fewer letters or positions")
        self.states = self._grid.states()
        self._is_finished = (self.states != mask).all(1)
        self.designs = self.states[self._is_finished]
        self._design_of = torch.where(self._is_finished, self._is_finished.cumsum(0) - 1, -1)
        self._start = int(self.state_index(prior.init_state(1).cpu()))
        self._build_moves(_log_letters(prior, self.states), mask)

    def _build_moves(self, log_letters: Tensor, mask: int) -> None:
        """From, to, log-probability of the letters filled, number of positions filled and of masks kept, per move."""
        from_digits, to_digits = self._grid.moves()
        self._from, self._to = self._grid.number(from_digits), self._grid.number(to_digits)
        filled = torch.stack([f != t for f, t in zip(from_digits, to_digits, strict=True)])
        if self._is_one_by_one:
            keep = filled.sum(0) == 1
            self._from, self._to, filled = self._from[keep], self._to[keep], filled[:, keep]
        self._num_filled = filled.sum(0).double()
        self._num_kept = (self.states[self._to] == mask).sum(1).double()
        self._log_filled = torch.zeros(len(self._from), dtype=torch.float64)
        for position, is_filled in enumerate(filled):
            source, letter = self._from[is_filled], self.states[self._to[is_filled], position]
            self._log_filled[is_filled] += log_letters[source, position, letter]

    def _log_moves(self, step: int) -> Tensor:
        """Log-probability of each move at `step`, (M,) float64."""
        release = 1.0 / (self.num_steps - step)
        if self._is_one_by_one:
            return self._log_filled + math.log(release)
        kept = torch.special.xlogy(self._num_kept, torch.tensor(1.0 - release, dtype=torch.float64))
        total: Tensor = self._log_filled + self._num_filled * math.log(release) + kept
        return total

    def laws(self) -> list[Tensor]:
        """The law over states before each step and after the last: T + 1 tensors (S,) float64."""
        law = torch.zeros(len(self.states), dtype=torch.float64)
        law[self._start] = 1.0
        laws = [law]
        for step in range(self.num_steps):
            law = torch.zeros_like(law).index_add_(0, self._to, laws[-1][self._from] * self._log_moves(step).exp())
            laws.append(law)
        return laws

    def law(self) -> Tensor:
        """Law of the T-step chain over `designs`, (F,) float64."""
        return self.laws()[-1][self._is_finished]

    def target(self, value: Tensor, temperature: float) -> Tensor:
        """The law times exp(value / temperature), normalised, (F,) float64; value (F,) in the temperature's unit."""
        return (self.law().log() + value.double() / temperature).softmax(0)

    def best_of(self, value: Tensor, num: int) -> Tensor:
        """Law of the best of `num` draws by value (F,), (F,) float64: (F_x)^num - (F_x - p_x)^num; no ties."""
        order = value.argsort()
        law = self.law()[order]
        below = law.cumsum(0)
        best = torch.empty_like(law)
        best[order] = below**num - (below - law).clamp(min=0) ** num
        return best

    def log_evidence(self, value: Tensor, temperature: float) -> float:
        """Nats: log E[exp(value / temperature)] over the chain's designs; value (F,)."""
        return float((self.law().log() + value.double() / temperature).logsumexp(0))

    def value(self, value: Tensor, temperature: float) -> list[Tensor]:
        """v_t(x) = temperature * log E[exp(value / temperature) | x before step t], T + 1 tensors (S,) float64.

        -inf where the steps that are left cannot finish the state (and, one by one, where it has too few masks).
        """
        ahead = torch.full((len(self.states),), -torch.inf, dtype=torch.float64)
        ahead[self._is_finished] = value.double() / temperature
        values = [ahead]
        for step in reversed(range(self.num_steps)):
            ahead = _log_sum_by(self._from, self._log_moves(step) + ahead[self._to], len(ahead))
            values.insert(0, ahead)
        return [temperature * v for v in values]

    def path_kl(self, other: ExactChain) -> float:
        """KL of this chain's whole paths against those of another chain over the same states and steps, nats."""
        total = 0.0
        for step, law in enumerate(self.laws()[:-1]):
            probability = law[self._from] * self._log_moves(step).exp()
            each = (self._log_filled - other._log_filled).masked_fill(probability == 0, 0.0)
            total += float((probability * each).sum())
        return total

    def empirical(self, tokens: Tensor, log_weights: Tensor | None = None) -> Tensor:
        """The share of each design among tokens (n, L), (F,) float64; weighted by exp(log_weights (n,))."""
        weights = torch.zeros(len(tokens)) if log_weights is None else log_weights.cpu()
        shares = torch.zeros(len(self.designs), dtype=torch.float64)
        return shares.index_add_(0, self.index(tokens), weights.double().softmax(0))

    def index(self, tokens: Tensor) -> Tensor:
        """Rows of `designs` that tokens (n, L) int64 are, (n,) int64.

        Raises:
            UsageError: One lies outside the space or holds a mask.
        """
        rows = self._design_of[self.state_index(tokens)]
        if bool((rows < 0).any()):
            raise UsageError("a design that still holds a mask is no finished design", hint="use state_index")
        return rows

    def state_index(self, states: Tensor) -> Tensor:
        """Rows of `states` that states (n, L) int64 are, (n,) int64.

        Raises:
            UsageError: One lies outside the space.
        """
        rows = self._grid.find(states.cpu())
        if bool((rows < 0).any()):
            raise UsageError("a state lies outside the chain's space", hint="compare only models over one space")
        return rows


def total_variation(p: Tensor, q: Tensor) -> float:
    """Half the summed difference of two laws (F,): 0 equal, 1 disjoint."""
    return float((p.double() - q.double()).abs().sum() / 2)


def sampling_floor(law: Tensor, n: int) -> float:
    """Mean total variation between a law (F,) and the shares of n independent draws from it: exact (de Moivre).

    E|X - np| = 2 m C(n, m) p^m (1 - p)^(n - m + 1) with m = floor(np) + 1, for X binomial.
    """
    p = law.double().clamp(max=1.0)
    m = (n * p).floor().clamp(max=n - 1) + 1
    count = torch.tensor(n + 1.0, dtype=torch.float64).lgamma() - (m + 1).lgamma() - (n - m + 1).lgamma()
    log = m.log() + count + torch.special.xlogy(m, p) + torch.special.xlogy(n - m + 1, 1 - p)
    return float(log.exp().sum() / n)


def tabular_policy(prior: MaskedDiffusion, law: Tensor | None = None) -> MaskedDiffusion:
    """A trainable policy with one row of logits per state, started at the prior's own letters.

    With `law` (F,) over ExactChain.designs it starts at that law's conditionals instead. Filled one by one, in whatever
    order, it then draws from exactly that law; and only from such a start is the best policy, by reward less KL of its
    paths, the one that draws from the target: letters that contradict each other from order to order leave
    E[exp(value)] depending on which position is filled next, which no policy chooses.

    A relaxed state is read as its likeliest hard one, so no gradient flows through states.
    """
    table: Any = _Table(prior)
    network = Denoiser(table, prior.network.allowed)
    letters = _log_letters(prior, table.grid.states()) if law is None else table.grid.conditionals(law)
    with torch.no_grad():
        table.leave.weight.copy_(letters.float().flatten(1).clamp(min=LEAST_LOG).t())
    return MaskedDiffusion(prior.space, prior.num_steps, network, prior.settings)


class _Table(nn.Module):
    """Logits (n, L, V) looked up by the number of the state."""

    def __init__(self, prior: MaskedDiffusion) -> None:
        super().__init__()
        self.grid = _Grid(prior)
        self.shape = (prior.space.length, prior.mask_token)
        self.leave = nn.Linear(self.grid.size, self.shape[0] * self.shape[1], bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, L, V) of x (n, L, V+1)."""
        rows = self.grid.find(x.argmax(-1))
        return nn.functional.embedding(rows, self.leave.weight.t()).view(-1, *self.shape)


class _Grid:
    """Numbers of states: a position's digit is the rank of its letter, the mask last; the last position fastest."""

    def __init__(self, prior: MaskedDiffusion) -> None:
        allowed = prior.network.allowed.cpu()
        letters = [row.nonzero()[:, 0].tolist() for row in allowed]
        self.choices = [torch.tensor(c if len(c) == 1 else [*c, prior.mask_token]) for c in letters]
        sizes = [len(c) for c in self.choices]
        self.size = math.prod(sizes)
        self.strides = torch.tensor([math.prod(sizes[i + 1 :]) for i in range(len(sizes))])
        self.digits = torch.full((len(sizes), prior.mask_token + 1), -1)
        for row, choices in zip(self.digits, self.choices, strict=True):
            row[choices] = torch.arange(len(choices))

    def states(self) -> Tensor:
        """All states (S, L) int64."""
        return torch.stack([c.flatten() for c in torch.meshgrid(*self.choices, indexing="ij")], 1)

    def find(self, states: Tensor) -> Tensor:
        """Numbers (n,) int64 of states (n, L); -1 for one outside the space."""
        digits = self.digits[torch.arange(len(self.digits)), states]
        return torch.where((digits >= 0).all(-1), (digits * self.strides).sum(-1), -1)

    def conditionals(self, law: Tensor) -> Tensor:
        """Log-probability of each letter given the settled ones (S, L, V) float64, under a law (F,) over designs."""
        mass = law.double().view([max(1, len(c) - 1) for c in self.choices])
        for position, choices in enumerate(self.choices):
            if len(choices) > 1:
                mass = torch.cat([mass, mass.sum(position, keepdim=True)], position)
        letters = torch.full((self.size, *self.digits[:, :-1].shape), -torch.inf, dtype=torch.float64)
        for position, choices in enumerate(self.choices):
            each = mass.movedim(position, -1)[..., : max(1, len(choices) - 1)].unsqueeze(position)
            each = each.expand(*mass.shape, -1).flatten(0, -2)
            letters[:, position, choices[: each.shape[1]]] = each.log()
        return letters.log_softmax(-1).nan_to_num(nan=0.0, neginf=-torch.inf)

    def moves(self) -> tuple[list[Tensor], list[Tensor]]:
        """Digits before and after every move, per position (M,): a letter stays, a mask stays or becomes a letter."""
        pairs = []
        for choices in self.choices:
            letters, last = torch.arange(len(choices)), len(choices) - 1
            pairs.append((torch.cat([letters, torch.full((last,), last)]), torch.cat([letters, letters[:-1]])))
        grids = torch.meshgrid(*[torch.arange(len(before)) for before, _ in pairs], indexing="ij")
        chosen = [grid.flatten() for grid in grids]
        return (
            [before[c] for (before, _), c in zip(pairs, chosen, strict=True)],
            [after[c] for (_, after), c in zip(pairs, chosen, strict=True)],
        )

    def number(self, digits: list[Tensor]) -> Tensor:
        """Numbers (M,) of states given as digits per position."""
        return sum((d * s for d, s in zip(digits, self.strides, strict=True)), torch.tensor(0))


@torch.no_grad()
def _log_letters(prior: MaskedDiffusion, states: Tensor) -> Tensor:
    """Log-probability of letters (S, L, V) float64, normalised in float64; the prior does not count these forwards."""
    device = prior.network.allowed.device
    pieces = [prior.network(prior.one_hot(piece.to(device))).cpu() for piece in torch.split(states, 4096)]
    return torch.cat(pieces).double().log_softmax(-1)


def _log_sum_by(group: Tensor, log_values: Tensor, size: int) -> Tensor:
    """Logarithm of the summed exponentials of the values (M,) of each group, (size,); -inf for an empty one."""
    top = torch.full((size,), -torch.inf, dtype=torch.float64).scatter_reduce_(0, group, log_values, "amax")
    shift = top.masked_fill(top.isneginf(), 0.0)
    return torch.zeros_like(top).index_add_(0, group, (log_values - shift[group]).exp()).log() + shift
