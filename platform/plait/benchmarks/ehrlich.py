"""Ehrlich functions: test landscapes in closed form, with banned transitions, rare motifs and a known optimum of 1.

Source: Stanton et al. 2024, "Closed-Form Test Functions for Biophysical Sequence Design Benchmarking" (arXiv
2407.00236), section 4; the five problems of `tasks` are those that pytorch-holo 0.0.5 draws, stored as data. New ones
of the family, which no method was tuned on, go by their numbers: `drawn_task`.

    f(x) = prod_i max_p floor(q/m #{j: x[p + s_ij] = a_ij}) / q    if A[x_t, x_t+1] > 0 for every t, else infeasible

    a_ij  Ehrlich.motifs      s_ij  Ehrlich.offsets      A  Ehrlich.transitions      q  Ehrlich.quantisation

What it owes: every problem has a feasible sequence worth 1 (`Ehrlich.optimum` builds one): the motifs are one walk of
the chain cut into pieces, a letter may always follow itself, and the motifs laid end to end are no longer than L.
Known limits: no epistasis within a motif (that package's default), and an infeasible sequence is worth 0 here, minus
infinity there: a lab reads nothing where nothing works.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.design.alphabets import find_alphabet
from plait.design.errors import UsageError
from plait.design.records import Readings
from plait.design.space import DesignSpace

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
"""State i is written as letter i."""
DRAWN = "ehrlich-STATES-LENGTH-MOTIFS-MOTIF_LENGTH-LEVELS-SEED"
"""Names of newly drawn problems, a number in the place of each word."""
_BLOCK = 4_096
"""Sequences judged at a time: small enough for a core's cache."""


@dataclass(frozen=True, eq=False)
class Ehrlich:
    """One problem.

    Attributes:
        length: Number of positions L.
        transitions: (S, S) float64, row: from, column: to; rows sum to 1, the diagonal is positive, 0 is banned.
        motifs: (c, m) int64 letters.
        offsets: (c, m) int64, the place of each motif letter counted from the motif's first, which is at 0.
        quantisation: Number of levels q above 0 that a motif can reach; divides m.
    """

    length: int
    transitions: NDArray[np.float64]
    motifs: NDArray[np.int64]
    offsets: NDArray[np.int64]
    quantisation: int

    def __post_init__(self) -> None:
        if self.motifs.shape[1] % self.quantisation:
            raise UsageError(
                f"{self.quantisation} levels do not divide motifs of {self.motifs.shape[1]} letters",
                hint="the optimum would be below 1: use a divisor of the motif length",
            )
        if (self.offsets[:, -1] + 1).sum() > self.length:
            raise UsageError(f"the motifs do not fit into {self.length} positions", hint="use a longer sequence")

    @property
    def num_states(self) -> int:
        """Number of letters S."""
        return len(self.transitions)

    def is_feasible(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,) bool: no banned transition in tokens (n, L) int64."""
        allowed = (self.transitions > 0).ravel()
        pairs = tokens[:, :-1] * self.num_states + tokens[:, 1:]
        return np.asarray(allowed[pairs].all(1))

    def value(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,) float64 in [0, 1] of tokens (n, L) int64; 0 where infeasible."""
        blocks = [tokens[start : start + _BLOCK] for start in range(0, len(tokens), _BLOCK)]
        parts = [np.where(self.is_feasible(block), self._motif_product(block), 0.0) for block in blocks]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _motif_product(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """The product over motifs of the share of each that its best place holds, (n,) float64."""
        columns = np.ascontiguousarray(tokens.T.astype(np.uint8))
        product = np.ones(len(tokens))
        step = self.motifs.shape[1] // self.quantisation
        for motif, offsets in zip(self.motifs.astype(np.uint8), self.offsets.tolist(), strict=True):
            num_places = self.length - offsets[-1]
            found = np.zeros((num_places, len(tokens)), dtype=np.uint8)
            for letter, offset in zip(motif, offsets, strict=True):
                found += columns[offset : offset + num_places] == letter
            product *= found.max(0) // step / self.quantisation
        return product

    def optimum(self) -> NDArray[np.int64]:
        """A feasible sequence worth 1, (L,) int64: the motifs in turn, each letter repeated up to the next one."""
        ends = np.cumsum(self.offsets[:, -1] + 1)
        starts = np.concatenate([[0], ends[:-1]])
        places = (starts[:, None] + self.offsets).ravel()
        return np.repeat(self.motifs.ravel(), np.diff(places, append=self.length))

    def stationary(self) -> NDArray[np.float64]:
        """The chain's stationary law, (S,) float64."""
        equations = np.vstack([self.transitions.T - np.eye(self.num_states), np.ones(self.num_states)])
        law = np.linalg.lstsq(equations, np.eye(self.num_states + 1)[-1], rcond=None)[0]
        return np.asarray(law)

    def sample(self, n: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """`n` sequences of the chain started from its stationary law, (n, L) int64: all feasible."""
        return _walk(self.stationary(), self.transitions, self.length, n, generator)


def _walk(
    first: NDArray[np.float64],
    transitions: NDArray[np.float64],
    length: int,
    n: int,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """(n, length) int64 walks of a chain; what has probability 0 is never drawn."""
    cumulative = np.vstack([transitions, first]).cumsum(1)
    cumulative /= cumulative[:, -1:]
    tokens = np.full((n, length + 1), len(transitions), dtype=np.int64)
    for position, drawn in enumerate(generator.random((length, n))):
        tokens[:, position + 1] = (cumulative[tokens[:, position]] <= drawn[:, None]).sum(1)
    return tokens[:, 1:]


def draw_ehrlich(
    num_states: int, length: int, num_motifs: int, motif_length: int, quantisation: int, seed: int
) -> Ehrlich:
    """A new problem: the same family and guarantees as the stored ones, from our own random numbers.

    Each letter bans about a fifth of the others (one of S = 4), never itself nor its successor on one random tour of
    all letters, so that every letter can be reached from every other.

    Raises:
        UsageError: Numbers that make no problem, such as motifs that do not fit into the length.
    """
    if not 2 <= num_states <= len(LETTERS) or num_motifs < 1 or not 2 <= motif_length <= 255 or quantisation < 1:
        raise UsageError("no such Ehrlich function", hint=f"use 2 to {len(LETTERS)} states, motifs of 2 to 255 letters")
    if num_motifs * motif_length > length:
        raise UsageError(f"{num_motifs} motifs of {motif_length} letters do not fit into {length} positions")
    generator = np.random.default_rng(seed)
    tour = generator.permutation(num_states)
    weights = np.exp(generator.standard_normal((num_states, num_states)) / 0.5)
    num_banned = max(0, min(num_states - 2, num_states - 2 * int(0.4 * num_states) - 1))
    for state, successor in zip(tour, np.roll(tour, -1), strict=True):
        others = np.setdiff1d(tour, [state, successor])
        weights[state, generator.permutation(others)[:num_banned]] = 0.0
    transitions = weights / weights.sum(1, keepdims=True)
    uniform = np.full(num_states, 1 / num_states)
    letters = _walk(uniform, transitions, num_motifs * motif_length, 1, generator)[0]
    slack = length // num_motifs - motif_length
    shares = generator.dirichlet(np.ones(motif_length - 1), num_motifs)
    gaps = 1 + (slack * shares).astype(np.int64)
    offsets = np.pad(gaps.cumsum(1), ((0, 0), (1, 0)))
    return Ehrlich(length, transitions, letters.reshape(num_motifs, motif_length), offsets, quantisation)


def read_ehrlich(record: dict[str, Any]) -> Ehrlich:
    """The problem of a stored record: length, quantisation, transitions, motifs, spacings (gaps between letters)."""
    transitions = np.array(record["transitions"], dtype=np.float64)
    gaps = np.array(record["spacings"], dtype=np.int64)
    return Ehrlich(
        length=record["length"],
        transitions=transitions / transitions.sum(1, keepdims=True),
        motifs=np.array(record["motifs"], dtype=np.int64),
        offsets=np.pad(gaps.cumsum(1), ((0, 0), (1, 0))),
        quantisation=record["quantisation"],
    )


@dataclass(frozen=True, eq=False)
class EhrlichTask:
    """A benchmark task over one problem: noise-free readings, feasibility for the designer to learn."""

    name: str
    title: str
    source: str
    problem: Ehrlich
    space: DesignSpace
    suite: str = "ehrlich"
    unit: str = "score"
    num_rounds: int = 10
    batch_size: int = 96
    num_offline: int = 1_000

    def offline(self, seed: int) -> Readings:
        """Distinct sequences of the chain with their exact values."""
        drawn = self.problem.sample(2 * self.num_offline, np.random.default_rng(seed))
        _, first = np.unique(drawn, axis=0, return_index=True)
        tokens = drawn[np.sort(first)[: self.num_offline]]
        return Readings(tuple(self.space.decode(tokens)), self.problem.value(tokens), ("1",) * len(tokens))

    def corpus(self) -> tuple[str, ...]:
        """There are no natural sequences."""
        return ()

    def measure(self, sequences: Sequence[str], seed: int) -> list[float | None]:
        """The lab: exact, the same for every seed; 0 where infeasible.

        Raises:
            BadInputError: A sequence of another length or with a foreign letter.
        """
        del seed
        return [*self.problem.value(self.space.encode(sequences)).tolist()]

    def truth(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n,) float64 of tokens (n, L) int64; 0 where infeasible."""
        return self.problem.value(tokens)

    def everything(self) -> None:
        """The landscape is too large to be written out."""


@cache
def tasks() -> tuple[EhrlichTask, ...]:
    """The five stored problems as tasks, from the shortest alphabet and sequence up."""
    stored = json.loads((files("plait.benchmarks") / "data" / "ehrlich.json").read_text())
    problems = [read_ehrlich(record) for record in stored["problems"]]
    return tuple(_task(f"ehrlich-s{p.num_states}-l{p.length}", p, stored["source"]) for p in problems)


def drawn_task(name: str) -> EhrlichTask | None:
    """The task over the problem that `draw_ehrlich` draws from the numbers in a name like DRAWN; None for other names.

    Raises:
        UsageError: Numbers that make no problem.
    """
    numbers = re.fullmatch("ehrlich" + "-([0-9]{1,9})" * 6, name)
    return _task(name, draw_ehrlich(*map(int, numbers.groups())), _DRAWN_SOURCE) if numbers else None


_DRAWN_SOURCE = "A new Ehrlich function of the family of Stanton et al. 2024 (arXiv 2407.00236)"


def _task(name: str, problem: Ehrlich, source: str) -> EhrlichTask:
    letters = LETTERS[: problem.num_states]
    space = DesignSpace(alphabet=find_alphabet(f"custom:{letters}"), allowed=(letters,) * problem.length)
    num_motifs, motif_length = problem.motifs.shape
    title = f"Ehrlich function, {len(letters)} letters, length {problem.length}, {num_motifs} motifs of {motif_length}"
    return EhrlichTask(name, title, source, problem, space)
