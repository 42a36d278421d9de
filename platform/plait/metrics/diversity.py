"""How different designs are: from each other, and from what was measured before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mean_pairwise_distance(tokens: NDArray[np.int64]) -> float:
    """Mean over all pairs of the share of positions that differ, tokens (n, L); 0 for n < 2.

    Counted per position from letter frequencies, so the cost is n L, not n^2.
    """
    n, length = tokens.shape
    if n < 2:
        return 0.0
    counts = np.stack([np.bincount(column, minlength=int(tokens.max()) + 1) for column in tokens.T]).astype(np.float64)
    same_pairs = (counts * (counts - 1)).sum() / 2
    return float(1.0 - same_pairs / (length * n * (n - 1) / 2))


def unique_fraction(tokens: NDArray[np.int64]) -> float:
    """Share of distinct rows of tokens (n, L); 0 for none."""
    return len(np.unique(tokens, axis=0)) / len(tokens) if len(tokens) else 0.0


def novelty(tokens: NDArray[np.int64], reference: NDArray[np.int64]) -> NDArray[np.int64]:
    """Smallest Hamming distance of each row of tokens (n, L) to a reference (k, L), (n,) int64; L where it is empty."""
    nearest = np.full(len(tokens), tokens.shape[1], dtype=np.int64)
    if len(reference) == 0 or len(tokens) == 0:
        return nearest
    letters = np.eye(int(max(tokens.max(), reference.max())) + 1, dtype=np.float32)
    known = letters[reference].reshape(len(reference), -1)
    for start in range(0, len(tokens), 1024):
        part = letters[tokens[start : start + 1024]]
        agree = (part.reshape(len(part), -1) @ known.T).max(1)
        nearest[start : start + 1024] -= np.rint(agree).astype(np.int64)
    return nearest


def kmer_frequencies(tokens: NDArray[np.int64], letters: int, k: int) -> NDArray[np.float64]:
    """Relative frequency of every k-mer over all rows of tokens (n, L), (letters ** k,), sum 1 (zeros where L < k)."""
    num_windows = tokens.shape[1] - k + 1
    counts = np.zeros(letters**k)
    if num_windows < 1 or len(tokens) == 0:
        return counts
    codes = sum(tokens[:, i : i + num_windows] * letters ** (k - 1 - i) for i in range(k))
    counts += np.bincount(np.asarray(codes).reshape(-1), minlength=letters**k)
    return np.asarray(counts / counts.sum())


def kmer_correlation(a: NDArray[np.int64], b: NDArray[np.int64], letters: int, k: int = 3) -> float:
    """Pearson correlation of the k-mer frequencies of two sets of tokens (n, L) and (m, L); 0 where undefined."""
    x, y = kmer_frequencies(a, letters, k), kmer_frequencies(b, letters, k)
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 1e-15 else 0.0
