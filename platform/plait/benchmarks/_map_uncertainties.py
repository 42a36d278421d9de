"""Uncertainties that the map tries beside those of rewards/uncertainty/: statistics of support that did not pay."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from plait.design.records import Dataset

NEIGHBOURS = 5
_AT_ONCE = 4_096


def distance(dataset: Dataset, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean Hamming distance to the NEIGHBOURS nearest offline items, on the nearer strand; assay std per std of it."""
    space = dataset.space
    one_hot = np.eye(space.alphabet.size, dtype=np.float32)
    measured = one_hot[dataset.tokens].reshape(len(dataset), -1)
    twin = space.alphabet.complement_tokens() if space.strand_symmetric else None
    found = []
    for start in range(0, len(tokens), _AT_ONCE):
        part = tokens[start : start + _AT_ONCE]
        agree = one_hot[part].reshape(len(part), -1) @ measured.T
        if twin is not None:
            agree = np.maximum(agree, one_hot[twin[part[:, ::-1]]].reshape(len(part), -1) @ measured.T)
        found.append(np.partition(space.length - agree, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS].mean(1))
    return _in_unit(np.concatenate(found).astype(np.float64), dataset)


def unlikeliness(dataset: Dataset, log_prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """-log prior: how unnatural an item is; assay std per std of it."""
    return _in_unit(-log_prior, dataset)


def _in_unit(statistic: NDArray[np.float64], dataset: Dataset) -> NDArray[np.float64]:
    spread = float(statistic.std())
    return np.asarray((statistic - statistic.min()) / (spread if spread > 0 else 1.0) * float(dataset.values.std()))
