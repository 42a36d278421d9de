"""The support gate: rejects designs with pieces that the offline data never shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plait.design.alphabets import Alphabet
from plait.design.records import Dataset

_EXPECTED_COUNT = 5.0


@dataclass(frozen=True)
class GateVerdict:
    """What the gate says of n designs.

    Attributes:
        is_supported: (n,) bool.
        reasons: n texts: the first unseen piece and its position (from 1); "" where supported.
    """

    is_supported: NDArray[np.bool_]
    reasons: list[str]


@dataclass(frozen=True)
class SupportGate:
    """Pieces seen offline.

    Attributes:
        alphabet: The letters.
        k: Length of the pieces that are looked up; 0 where the data is too small to judge any.
        seen_kmers: (V ** k,) bool, k-mers seen anywhere (on either strand where the space is strand-symmetric).
        seen_letters: (L, V) bool, letters seen at each position; all True where positions are not judged.
    """

    alphabet: Alphabet
    k: int
    seen_kmers: NDArray[np.bool_]
    seen_letters: NDArray[np.bool_]

    @classmethod
    def fit(cls, dataset: Dataset, k: int = 3, judges_positions: bool = True) -> SupportGate:
        """The gate of an offline set.

        An unseen piece is evidence only where chance would have shown it: the length used is the largest up to `k`
        at which letters drawn independently (each position at its own frequencies) would show half of all possible
        k-mers five times or more, so that a library of near relatives is judged by shorter pieces than a random one;
        a position is judged only where each of its letters had the chance to come up five times, and those that did
        come up did so five times.

        Args:
            dataset: The offline items.
            k: Longest piece to look up.
            judges_positions: Also reject letters never seen at their position.
        """
        space, tokens = dataset.space, dataset.tokens
        if space.strand_symmetric:
            tokens = np.concatenate([tokens, space.alphabet.complement_tokens()[tokens[:, ::-1]]])
        allowed, size = space.allowed_mask(), space.alphabet.size
        used = next((length for length in range(min(k, space.length), 0, -1) if _is_telling(tokens, size, length)), 0)
        seen_kmers = np.zeros(size**used, dtype=bool)
        seen_kmers[_codes(tokens, size, used).reshape(-1)] = True
        counts = np.stack([np.bincount(column, minlength=size) for column in tokens.T])
        rarest = np.where(counts > 0, counts, len(tokens)).min(1)
        chance = np.minimum(len(tokens) / allowed.sum(1), rarest)
        is_judged = (chance >= _EXPECTED_COUNT) & judges_positions
        return cls(space.alphabet, used, seen_kmers, (counts > 0) | ~is_judged[:, None])

    def judge(self, tokens: NDArray[np.int64]) -> GateVerdict:
        """The verdict on tokens (n, L) int64."""
        size = self.alphabet.size
        unseen = ~self.seen_kmers[_codes(tokens, size, self.k)]
        misplaced = ~self.seen_letters[np.arange(tokens.shape[1]), tokens]
        reasons = [""] * len(tokens)
        for item in np.flatnonzero(misplaced.any(1)):
            position = int(misplaced[item].argmax())
            letter = self.alphabet.letters[tokens[item, position]]
            reasons[item] = f"letter {letter} at position {position + 1} is never seen there offline"
        for item in np.flatnonzero(unseen.any(1)):
            position = int(unseen[item].argmax())
            piece = self.alphabet.decode(tokens[item : item + 1, position : position + self.k])[0]
            reasons[item] = f"{self.k}-mer {piece} at position {position + 1} is never seen offline"
        return GateVerdict(np.asarray(~(unseen.any(1) | misplaced.any(1))), reasons)


def _codes(tokens: NDArray[np.int64], size: int, k: int) -> NDArray[np.int64]:
    """Number of the k-mer that starts at each position, (n, L - k + 1) int64 (none for k = 0)."""
    if k == 0:
        return np.zeros((len(tokens), 0), dtype=np.int64)
    num_windows = tokens.shape[1] - k + 1
    codes = np.zeros((len(tokens), num_windows), dtype=np.int64)
    for i in range(k):
        codes = codes * size + tokens[:, i : i + num_windows]
    return codes


def _is_telling(tokens: NDArray[np.int64], size: int, k: int) -> bool:
    """Would independent letters, each position at its own frequencies, show half of the possible k-mers five times?"""
    frequencies = np.stack([np.bincount(column, minlength=size) for column in tokens.T]) / len(tokens)
    expected = np.zeros((size,) * k)
    for start in range(len(frequencies) - k + 1):
        product = np.ones(())
        for row in frequencies[start : start + k]:
            product = product[..., None] * row
        expected += len(tokens) * product
    possible = expected[expected > 0]
    return bool(np.median(possible) >= _EXPECTED_COUNT) if len(possible) else False
