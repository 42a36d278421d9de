"""Sequence kernels against their definition, letter by letter, and on simplices."""

import numpy as np
import pytest
import torch
from plait.design.alphabets import DNA, PROTEIN, find_alphabet
from plait.design.space import DesignSpace
from plait.rewards._sequence_kernels import SequenceKernel, window_lengths


def by_definition(space, k, rho, x, y):
    """k(x, y) of two items, window by window."""
    strands = [y, space.alphabet.complement_tokens()[y[::-1]]] if space.strand_symmetric else [y]
    starts = range(space.length - k + 1)
    return sum(rho ** int((x[p : p + k] != s[q : q + k]).sum()) for s in strands for p in starts for q in starts)


@pytest.mark.parametrize("is_symmetric", [False, True])
@pytest.mark.parametrize("k", [2, 4, 6])
def test_a_kernel_is_its_definition(k, is_symmetric):
    space = DesignSpace.from_template(DNA, "NNNNNN", strand_symmetric=is_symmetric)
    rng = np.random.default_rng(k)
    x, y = rng.integers(0, 4, (5, 6)), rng.integers(0, 4, (7, 6))
    kernel = SequenceKernel(space, k, 0.3)
    expected = [[by_definition(space, k, 0.3, a, b) for b in y] for a in x]
    np.testing.assert_allclose(kernel.gram(torch.from_numpy(x), torch.from_numpy(y)), expected, rtol=1e-5)


@pytest.mark.parametrize("is_symmetric", [False, True])
@pytest.mark.parametrize("k", [2, 4, 6])
def test_an_items_likeness_with_itself_is_the_diagonal(k, is_symmetric):
    space = DesignSpace.from_template(DNA, "NNNNNN", strand_symmetric=is_symmetric)
    x = torch.from_numpy(np.random.default_rng(k).integers(0, 2, (9, 6)))
    kernel = SequenceKernel(space, k, 0.3)
    torch.testing.assert_close(kernel.with_itself(x), kernel.gram(x, x).diagonal())


@pytest.mark.parametrize("k", [3, 5])
def test_a_table_is_the_sum_over_items_and_a_simplex_meets_it_at_its_corners(k):
    space = DesignSpace.from_template(DNA, "NNNNN")
    rng = np.random.default_rng(0)
    y, weights = torch.from_numpy(rng.integers(0, 4, (6, 5))), torch.from_numpy(rng.normal(size=(6, 2))).float()
    x = torch.from_numpy(rng.integers(0, 4, (9, 5)))
    kernel = SequenceKernel(space, k, 0.2)
    table = kernel.table(y, weights)
    expected = kernel.gram(x, y) @ weights
    torch.testing.assert_close(kernel.look_up(table, x), expected)
    corners = torch.nn.functional.one_hot(x, 4).float().requires_grad_()
    found = kernel.look_up(table, corners)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert torch.isfinite(corners.grad).all()
    assert corners.grad.abs().sum() > 0


def test_windows_on_a_simplex_are_multilinear():
    space = DesignSpace.from_template(DNA, "NNNN")
    kernel, half = SequenceKernel(space, 2, 0.1), torch.full((1, 4, 4), 0.25)
    every = torch.cartesian_prod(*[torch.arange(4)] * 4)
    y = torch.tensor([[0, 1, 2, 3]])
    table = kernel.table(y, torch.ones(1, 1))
    torch.testing.assert_close(kernel.look_up(table, half)[0], kernel.look_up(table, every).mean(0))


@pytest.mark.parametrize(
    ("alphabet", "length", "expected"),
    [
        (DNA, 50, (4, 6)),
        (DNA, 6, (4,)),
        (PROTEIN, 60, (2, 3)),
        (PROTEIN, 4, (2, 3)),
        (find_alphabet("custom:01"), 4, ()),
    ],
)
def test_window_lengths(alphabet, length, expected):
    space = DesignSpace(alphabet=alphabet, allowed=(alphabet.letters,) * length)
    assert window_lengths(space) == expected
