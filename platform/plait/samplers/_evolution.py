"""What the evolutionary samplers share: moves in the space, islands bred under a reward, designs drawn from them.

Islands are populations that never meet: each starts from its own few of the best measured items and follows its own
opinion, conservative + spread (what one member of the reward model says - the mean), members drawn by their weights, so
that designs differ in what they believe, as under Thompson sampling. Where an objective has no members to show, it is
conservative + spread k std, k ~ N(0, 1). One generation keeps the best of a population and of its children; a child is
a parent that gets a segment of another parent, in place or somewhere else (a transposition), and point mutations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import ndtri

from plait.design.errors import ConfigError, RunFailedError
from plait.design.records import Dataset, Progress
from plait.design.space import DesignSpace
from plait.rewards.conservatism import Objective
from plait.rewards.support_gate import SupportGate
from plait.samplers._smc import checked

Tokens = NDArray[np.int64]
Values = NDArray[np.float64]
Value = Callable[[Tokens], Values]

CROSSED = 0.7
"""How often a child gets a segment of a second parent."""
_TRIES = 50
"""Rounds of children at most when designs are bred without a model."""


class EvolutionConfig(BaseModel):
    """Settings of the evolutionary samplers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_parents: int = Field(200, ge=1, le=1_000_000, description="best measured items that islands start from")
    founders: int = Field(25, ge=1, le=1_000_000, description="of them, those that one island starts from")
    num_islands: int = Field(16, ge=1, le=10_000, description="populations bred apart, one per design at most")
    generations: int = Field(30, ge=1, le=100_000, description="of the search within one call")
    population_size: int = Field(100, ge=2, le=1_000_000, description="designs that an island keeps")
    num_children: int = Field(400, ge=1, le=1_000_000, description="designs that an island tries per generation")
    mutations: float = Field(1.5, ge=0, le=1000, description="mean number of point mutations of a child")
    transposed: float = Field(0.3, ge=0, le=1, description="share of the segments that change their place")
    observed: int = Field(
        2,
        ge=0,
        le=4,
        description="designs keep to pieces of this many letters that the data show, where it has enough data to tell; "
        "0: no limit",
    )
    spread: float = Field(
        1.0, ge=0, le=10, description="of opinions: 1 follows single members, 0 the conservative value"
    )
    min_distance: int = Field(2, ge=1, description="letters in which an island's designs differ at least")


@dataclass(frozen=True)
class Moves:
    """Changes of designs that keep to the template and to observed pieces.

    Attributes:
        space: The design space.
        letters: (L, V) int64, the letters allowed at a position come first.
        rank: (L, V) int64, where a letter stands among `letters`.
        num_letters: (L,) int64, how many are allowed.
        free: (f,) int64, the positions that allow more than one.
        seen: (V ** k,) bool, pieces of k letters that the data show.
        k: Length of the pieces; 0 for no limit.
    """

    space: DesignSpace
    letters: Tokens
    rank: Tokens
    num_letters: Tokens
    free: Tokens
    seen: NDArray[np.bool_]
    k: int

    @classmethod
    def of(cls, dataset: Dataset, observed: int) -> Moves:
        """The moves that a dataset allows."""
        mask = dataset.space.allowed_mask()
        letters = np.argsort(~mask, axis=1, kind="stable")
        rank, free = np.argsort(letters, axis=1), dataset.space.free_positions()
        gate = SupportGate.fit(dataset, k=observed, judges_positions=False)
        return cls(dataset.space, letters, rank, mask.sum(1), free, gate.seen_kmers, gate.k)

    def is_legal(self, tokens: Tokens) -> NDArray[np.bool_]:
        """(n,) bool: within the space, all pieces observed."""
        size, num_pieces = self.space.alphabet.size, tokens.shape[1] - self.k + 1
        codes = np.zeros((len(tokens), num_pieces if self.k else 0), dtype=np.int64)
        for i in range(self.k):
            codes = codes * size + tokens[:, i : i + num_pieces]
        return np.asarray(self.seen[codes].all(1) & self.space.is_feasible(tokens))

    def draw(self, n: int, rng: np.random.Generator) -> Tokens:
        """(n, L) independent letters, at each position from those allowed."""
        rank = (rng.random((n, len(self.letters))) * self.num_letters).astype(np.int64)
        return self.letters[np.arange(len(self.letters)), rank]

    def mutate(self, tokens: Tokens, mean: float, rng: np.random.Generator) -> Tokens:
        """Free positions get another letter each, of each design a Poisson number on average."""
        rate = rng.poisson(mean, len(tokens))[:, None] / len(self.free)
        position = np.arange(tokens.shape[1])
        further = 1 + (rng.random(tokens.shape) * (self.num_letters - 1)).astype(np.int64)
        others = self.letters[position, (self.rank[position, tokens] + further) % self.num_letters]
        return np.where(rng.random(tokens.shape) < rate, others, tokens)

    def exchange(self, tokens: Tokens, others: Tokens, transposed: float, rng: np.random.Generator) -> Tokens:
        """Each design with a segment of another, at the segment's own place or, if transposed, at any other."""
        n, length = tokens.shape
        is_moved = rng.random((n, 1)) < transposed
        start = self.free[rng.integers(len(self.free), size=(n, 1))]
        span = rng.integers(1, max(length, 2), size=(n, 1))
        span = np.where(is_moved, rng.integers(2, max(3, length // 3), size=(n, 1)), span)
        position = np.arange(length)
        origin = position + is_moved * rng.integers(1 - length, length, size=(n, 1))
        is_inside = (position >= start) & (position < start + span)
        is_inside &= (origin >= 0) & (origin < length)
        taken = np.take_along_axis(others, np.clip(origin, 0, length - 1), 1)
        fits = self.space.allowed_mask()[position, taken]
        return np.where(is_inside & fits, taken, tokens)

    def children(self, parents: Tokens, n: int, config: EvolutionConfig, rng: np.random.Generator) -> Tokens:
        """At most n legal children of parents (k, L)."""
        first, second = (parents[rng.integers(len(parents), size=n)] for _ in range(2))
        crossed = self.exchange(first, second, config.transposed, rng)
        born = self.mutate(np.where((rng.random(n) < CROSSED)[:, None], crossed, first), config.mutations, rng)
        return self.space.canonical(born[self.is_legal(born)])


@dataclass(frozen=True)
class Measured:
    """The items that evolution starts from.

    Attributes:
        dataset: All measured items.
        parents: (k, L) int64 the best of them, best first; they may break the space's constraints, children do not.
        designs: (j, L) int64 the best of those within the constraints, best first.
        moves: What may become of them.
    """

    dataset: Dataset
    parents: Tokens
    designs: Tokens
    moves: Moves

    @classmethod
    def of(cls, dataset: Dataset | None, config: EvolutionConfig, algorithm: str) -> Measured:
        """The start that a dataset gives.

        Raises:
            ConfigError: No measured items, or a template that leaves no position free.
        """
        if dataset is None or len(dataset) == 0:
            raise ConfigError(
                f"{algorithm} breeds measured items, and there are none", hint="give it a dataset, or use best_of_n"
            )
        if dataset.space.num_free == 0:
            raise ConfigError(f"{algorithm} has nothing to change", hint="give a template with positions that are free")
        ranked = dataset.tokens[np.argsort(-dataset.values, kind="stable")]
        designs = ranked[dataset.space.is_feasible(ranked)][: config.num_parents]
        return cls(dataset, ranked[: config.num_parents], designs, Moves.of(dataset, config.observed))


def value_of(objective: Objective, opinion: Values, spread: float) -> Value:
    """The value of tokens (n, L) in the eyes of one opinion (1,), or one for each of them (n,): all within (0, 1)."""

    def value(tokens: Tokens) -> Values:
        seen = objective(torch.from_numpy(tokens))
        conservative = checked(seen.conservative).cpu().numpy()
        if seen.prediction is None:
            apart = ndtri(opinion) * seen.std.double().cpu().numpy()
        else:
            whose = torch.searchsorted(seen.prediction.weights.double().cumsum(0).cpu(), torch.from_numpy(opinion))
            whose = whose.clamp(max=len(seen.prediction.weights) - 1).expand(len(tokens))
            said = seen.prediction.members.cpu()[whose, torch.arange(len(tokens))]
            apart = (said - seen.mean.cpu()).double().numpy()
        return np.asarray(conservative + spread * np.where(np.isfinite(conservative), apart, 0.0), dtype=np.float64)

    return value


def evolve(value: Value, measured: Measured, config: EvolutionConfig, rng: np.random.Generator) -> Tokens:
    """The last population of one island, its founders among it: distinct, best first, legal unless measured."""
    founders = measured.parents[rng.permutation(len(measured.parents))[: config.founders]]
    population, values = _fittest(founders, value(founders), config.population_size)
    for _ in range(config.generations):
        born = measured.moves.children(population, config.num_children, config, rng)
        if len(born):
            population, values = _fittest(
                np.concatenate([population, born]), np.concatenate([values, value(born)]), config.population_size
            )
    return population


def _fittest(population: Tokens, values: Values, size: int) -> tuple[Tokens, Values]:
    """At most `size` of a population and their values: distinct, best first."""
    index = np.unique(population, axis=0, return_index=True)[1]
    best = index[np.argsort(-values[index], kind="stable")[:size]]
    return population[best], values[best]


@dataclass(frozen=True)
class Bred:
    """Designs (n, L) int64, and (n,) float64 the opinion of the island that each comes from."""

    tokens: Tokens
    opinions: Values


def breed(
    objective: Objective,
    measured: Measured,
    config: EvolutionConfig,
    n: int,
    rng: np.random.Generator,
    progress: Progress,
) -> Bred:
    """An equal share of the n designs from each island: its best new ones that lie min_distance apart.

    Where islands find fewer new ones, the closer ones, then the measured ones within the constraints, then repeats
    fill up.

    Raises:
        RunFailedError: A reward is NaN or +inf, or nothing within the constraints was found or measured.
    """
    num_islands = min(config.num_islands, n)
    known = {row.tobytes() for row in measured.dataset.tokens}
    chosen, opinions = [measured.parents[:0]], [np.zeros(0)]
    ranks = rng.permutation(num_islands)
    for island in range(num_islands):
        progress("breeding designs", island, num_islands, "")
        own = (ranks[island : island + 1] + rng.uniform(0.01, 0.99)) / num_islands
        population = evolve(value_of(objective, own, config.spread), measured, config, rng)
        quota = n // num_islands + (island < n % num_islands)
        population = population[measured.dataset.space.is_feasible(population)]
        population = population if len(population) else _at_least_one(measured.designs)
        picked = _pick(population, known, quota, config.min_distance)
        known |= {row.tobytes() for row in picked}
        chosen.append(picked)
        opinions.append(np.repeat(own, quota))
    return Bred(np.concatenate(chosen), np.concatenate(opinions))


def _pick(population: Tokens, known: set[bytes], quota: int, min_distance: int) -> Tokens:
    """As many of a population as asked for, best first: new and far apart, else new, else known, else again."""
    is_new = [row.tobytes() not in known for row in population]
    far: list[int] = []
    for i in np.flatnonzero(is_new):
        if len(far) == quota:
            break
        if ((population[far] != population[i]).sum(1) >= min_distance).all():
            far.append(int(i))
    rest = sorted(set(range(len(population))) - set(far), key=lambda i: (not is_new[i], i))
    return np.asarray(population[np.resize([*far, *rest], quota)])


def breed_blindly(
    measured: Measured, config: EvolutionConfig, n: int, rng: np.random.Generator, progress: Progress
) -> Tokens:
    """Children of the best measured items without a model, (n, L), new and distinct where such are found.

    Where too few are, measured items within the constraints fill up, or repeats, or it fails as breed() does.
    """
    known = {row.tobytes() for row in measured.dataset.tokens}
    new: list[Tokens] = []
    for _ in range(_TRIES):
        progress("breeding designs", len(new), n, "")
        for child in measured.moves.children(measured.parents, config.num_children, config, rng):
            if len(new) < n and child.tobytes() not in known:
                known.add(child.tobytes())
                new.append(child)
        if len(new) == n:
            break
    bred = np.array(new, dtype=np.int64).reshape(-1, measured.parents.shape[1])
    if len(bred) == n:
        return bred
    fill = _at_least_one(measured.designs if len(measured.designs) else bred)
    return np.concatenate([bred, fill[rng.integers(len(fill), size=n - len(bred))]])


def _at_least_one(designs: Tokens) -> Tokens:
    """The designs (n, L), refused where there are none."""
    if len(designs) == 0:
        raise RunFailedError(
            "no measured item lies within the constraints, nor does any child of one",
            hint="loosen the constraints, measure items that keep them, or use best_of_n",
        )
    return designs
