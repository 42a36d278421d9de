"""A small measured-looking landscape that the tests of this room fit on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from plait.design.alphabets import DNA
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.rewards import ensemble

torch.set_num_threads(1)
SMALL = ensemble.Config(members=2, steps=60, filters=8, hidden=16, learning_rate=0.02)


def landscape(tokens):
    """GC content plus a motif anywhere: something that every family can learn."""
    gc = np.isin(tokens, [1, 2]).mean(1)
    motif = ((tokens[:, :-1] == 2) & (tokens[:, 1:] == 0)).any(1)
    return 10.0 + 3.0 * gc + motif


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    space = DesignSpace.from_template(DNA, "N" * 10)
    tokens = np.unique(rng.integers(0, 4, (300, 10)), axis=0)
    noise = 0.1 * rng.standard_normal(len(tokens))
    counts = np.ones(len(tokens), dtype=np.int64)
    return Dataset(space, tokens, landscape(tokens) + noise, counts, np.full(len(tokens), 0.1), "log10 PSI")


@pytest.fixture(scope="session")
def model(dataset: Dataset) -> ensemble.Ensemble:
    return ensemble.fit(SMALL, dataset, torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def symmetric(dataset: Dataset) -> Dataset:
    space = dataset.space.model_copy(update={"strand_symmetric": True})
    tokens, index = np.unique(space.canonical(dataset.tokens), axis=0, return_index=True)
    part = dataset.take(index)
    return replace(part, space=space, tokens=tokens)


@pytest.fixture(scope="session")
def truth():
    """The landscape's exact values, tokens (n, L) -> (n,)."""
    return landscape
