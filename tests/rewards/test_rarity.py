import numpy as np
import pytest
import torch
from plait.design.records import Dataset
from plait.rewards.uncertainty import rarity
from torch.nn import functional


def by_hand(dataset, item):
    """Standardised rarity of one design: pieces counted one by one, on both strands where both are one item."""
    letters = ["".join(map(str, row)) for row in dataset.tokens]
    twin = dataset.space.alphabet.complement_tokens()
    symmetric = dataset.space.strand_symmetric
    strands = letters + (["".join(map(str, twin[row[::-1]])) for row in dataset.tokens] if symmetric else [])
    kinds = []
    fitted = rarity.fit(dataset, None, None)
    for number, kind in enumerate(fitted.kinds):
        in_place = number >= len(fitted.kinds) // 2

        def count(piece, window, pool, k=kind.k, in_place=in_place):
            starts = range(dataset.space.length - k + 1)
            return sum(s[i : i + k] == piece for s in pool for i in starts if not in_place or i == window)

        def surprise(text, pool, k=kind.k, count=count):
            windows = range(dataset.space.length - k + 1)
            return np.mean([-np.log(count(text[w : w + k], w, pool) + 0.5) for w in windows])

        n = len(letters)
        own = []
        for i, text in enumerate(letters):
            others = [s for j, s in enumerate(strands) if j % n != i]
            own.append(surprise(text, others))
        kinds.append((surprise("".join(map(str, item)), strands) - np.mean(own)) / np.std(own))
    return float(np.mean(kinds)), fitted


@pytest.mark.parametrize("is_symmetric", [False, True])
def test_rarity_is_counted_by_hand(dataset, symmetric, is_symmetric):
    data = (symmetric if is_symmetric else dataset).take(np.arange(80))
    item = np.array([0, 0, 0, 0, 1, 2, 3, 3, 3, 3])
    expected, fitted = by_hand(data, item)
    assert len(fitted.kinds) == 4
    assert float(fitted.z(torch.from_numpy(item)[None])[0]) == pytest.approx(expected, abs=1e-4)
    if is_symmetric:
        strand = data.space.canonical(item[None])
        assert fitted.z(torch.from_numpy(strand)).shape == (1,)


def test_what_the_data_lacks_is_rare(dataset):
    poor = dataset.take(~((dataset.tokens[:, :-1] == 2) & (dataset.tokens[:, 1:] == 0)).any(1))
    fitted = rarity.fit(poor, None, None)
    z = fitted.z(torch.as_tensor(dataset.tokens)).numpy()
    is_lacking = ((dataset.tokens[:, :-1] == 2) & (dataset.tokens[:, 1:] == 0)).any(1)
    assert z[is_lacking].mean() > z[~is_lacking].mean() + 1.0


def test_soft_rarity_is_the_mean_over_its_letters(dataset):
    fitted = rarity.fit(dataset, None, None)
    tokens = torch.as_tensor(dataset.tokens[:5])
    other = tokens.clone()
    other[:, 3] = (other[:, 3] + 1) % 4
    x, y = functional.one_hot(tokens, 4).float(), functional.one_hot(other, 4).float()
    torch.testing.assert_close(
        fitted.z(0.25 * x + 0.75 * y), 0.25 * fitted.z(tokens) + 0.75 * fitted.z(other), rtol=1e-4, atol=1e-4
    )


def test_too_little_data_counts_nothing(dataset):
    few = dataset.take(np.arange(3))
    space = few.space
    fitted = rarity.fit(Dataset(space, few.tokens, few.values, few.counts, few.noise_std), None, None)
    assert fitted.kinds == () or all(kind.k == 1 for kind in fitted.kinds)
    assert bool(torch.isfinite(fitted.z(torch.as_tensor(dataset.tokens))).all())


def test_both_strands_are_equally_rare(symmetric):
    fitted = rarity.fit(symmetric, None, None)
    tokens = torch.as_tensor(symmetric.tokens[:20])
    twin = torch.from_numpy(symmetric.space.alphabet.complement_tokens())[tokens.flip(1)]
    torch.testing.assert_close(fitted.z(tokens), fitted.z(twin), rtol=1e-4, atol=1e-4)
