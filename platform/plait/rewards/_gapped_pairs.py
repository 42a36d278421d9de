"""Presence of gapped letter pairs, (gap, a, b): a stands somewhere and b `gap` positions behind it.

A sequence is kept as one row of bits per letter, so that a pair is looked for at all positions by one shift and one
AND of 64-bit words: hundreds of thousands of sequences a second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.uint64]


def letter_planes(tokens: NDArray[np.int64], size: int) -> Planes:
    """(V, W, n) uint64: bit l % 64 of word l // 64 tells whether a letter stands at position l of tokens (n, L)."""
    n, length = tokens.shape
    is_letter = np.zeros((size, n, -(-length // 64) * 64), dtype=np.uint8)
    is_letter[:, :, :length] = tokens == np.arange(size)[:, None, None]
    words = np.packbits(is_letter, axis=-1, bitorder="little").view("<u8")
    return np.ascontiguousarray(words.transpose(0, 2, 1)).astype(np.uint64)


def has_pairs(planes: Planes, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(k, n) bool: which of the pairs (k, 3), rows (gap, a, b), each sequence holds somewhere."""
    gap, first, second = pairs.T
    num_words = planes.shape[1]
    padded = np.concatenate([planes, np.zeros_like(planes[:, :1])], 1)
    low, bits = gap // 64, (gap % 64).astype(np.uint64)[:, None]
    found = np.zeros((len(pairs), planes.shape[2]), dtype=bool)
    for word in range(num_words):
        here, behind = np.minimum(low + word, num_words), np.minimum(low + word + 1, num_words)
        ahead = padded[second, here] >> bits
        if num_words > 1:
            ahead |= (padded[second, behind] << (np.uint64(63) - bits)) << np.uint64(1)
        found |= (padded[first, word] & ahead) != 0
    return found
