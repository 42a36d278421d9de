"""Groups of related sequences, and splits of a dataset that keep each group on one side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from plait.design.errors import BadInputError
from plait.design.records import Dataset

_MIN_GROUPS = 20
_MAX_SHARE = 0.2


def linkage_groups(
    tokens: NDArray[np.int64], distance: int, twins: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Single-linkage clusters of tokens (n, L): items within `distance` substitutions share a group, (n,) int64.

    Where twins (n, L) are given, the other strands of the same items, the nearer strand counts.
    """
    n, length = tokens.shape
    both = [tokens] if twins is None else [tokens, twins]
    one_hot = np.eye(max(int(t.max(initial=0)) for t in both) + 1, dtype=np.float32)
    letters, *others = [one_hot[t].reshape(n, -1) for t in both]
    rows, columns = [], []
    for start in range(0, n, 2048):
        agree = letters[start : start + 2048] @ letters.T
        for strand in others:
            agree = np.maximum(agree, letters[start : start + 2048] @ strand.T)
        near = np.argwhere(agree >= length - distance - 0.5)
        rows.append(near[:, 0] + start)
        columns.append(near[:, 1])
    i, j = np.concatenate(rows), np.concatenate(columns)
    graph = coo_array((np.ones(len(i), dtype=bool), (i, j)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def position_groups(tokens: NDArray[np.int64], seed: int, min_groups: int = _MIN_GROUPS) -> NDArray[np.int64]:
    """Items that agree at a random subset of positions share a group, (n,) int64.

    Positions are added in random order until there are `min_groups` groups and none holds over a fifth of the items.
    """
    order = np.random.default_rng(seed).permutation(tokens.shape[1])
    groups = np.zeros(len(tokens), dtype=np.int64)
    for position in order:
        groups = np.unique(np.stack([groups, tokens[:, position]], 1), axis=0, return_inverse=True)[1].reshape(-1)
        if _is_balanced(groups, min_groups):
            break
    return groups.astype(np.int64)


def _is_balanced(groups: NDArray[np.int64], min_groups: int = _MIN_GROUPS) -> bool:
    sizes = np.bincount(groups)
    return len(sizes) >= min_groups and sizes.max() <= _MAX_SHARE * len(groups)


def split_groups(tokens: NDArray[np.int64], seed: int, twins: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Group of each item, (n,) int64 from 0; relatives share one.

    Single linkage at the largest distance up to a fifth of the length that still leaves many small clusters; where
    even distance 1 joins most items (short spaces are dense), groups are the letters at a random subset of positions.

    Args:
        tokens: (n, L) int64 distinct items.
        seed: Chooses the subset of positions.
        twins: (n, L) int64 the other strands, where a sequence and its reverse complement are one item.
    """
    for distance in sorted({max(1, tokens.shape[1] // part) for part in (5, 10, 20)} | {1}, reverse=True):
        groups = linkage_groups(tokens, distance, twins)
        if _is_balanced(groups):
            return groups
    return position_groups(tokens, seed)


def _twins(dataset: Dataset) -> NDArray[np.int64] | None:
    """The other strands of the items, (n, L) int64, where both are one item."""
    if not dataset.space.strand_symmetric:
        return None
    return np.asarray(dataset.space.alphabet.complement_tokens()[dataset.tokens[:, ::-1]])


def hold_out(dataset: Dataset, seed: int, fraction: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices kept and held out, whole groups at a time; held out is as close to `fraction` as groups allow.

    Raises:
        BadInputError: Fewer than two items.
    """
    if len(dataset) < 2:
        raise BadInputError(f"{len(dataset)} items cannot be split", hint="give at least two distinct sequences")
    groups = split_groups(dataset.tokens, seed, _twins(dataset))
    if groups.max() == 0:
        groups = np.arange(len(dataset))
    order = np.random.default_rng(seed).permutation(groups.max() + 1)
    filled = np.cumsum(np.bincount(groups)[order])
    num_out = int(np.abs(filled[:-1] - fraction * len(dataset)).argmin()) + 1
    is_out = np.isin(groups, order[:num_out])
    return np.flatnonzero(~is_out), np.flatnonzero(is_out)


def folds(dataset: Dataset, seed: int, num_folds: int) -> NDArray[np.int64]:
    """Fold of each item, (n,) int64 below num_folds, whole groups at a time and evenly filled."""
    groups = split_groups(dataset.tokens, seed, _twins(dataset))
    sizes = np.bincount(groups)
    order = np.random.default_rng(seed).permutation(len(sizes))
    fold_of, filled = np.zeros(len(sizes), dtype=np.int64), np.zeros(num_folds)
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return fold_of[groups]


def judge_split(dataset: Dataset, seed: int, judge_fraction: float = 0.5) -> tuple[Dataset, Dataset]:
    """The optimiser's and the judge's datasets: disjoint, no group on both sides.

    Raises:
        BadInputError: Fewer than two items.
    """
    kept, held_out = hold_out(dataset, seed, judge_fraction)
    return dataset.take(kept), dataset.take(held_out)
