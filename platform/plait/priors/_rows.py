"""Equal rows found by a hash: sorting whole rows takes longer than a small network does."""

from __future__ import annotations

import torch
from torch import Tensor

_MULTIPLIER = 6364136223846793005


def distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows (k, ...) of rows (n, ...), and which of them each row is, (n,) int64; real vectors are sorted.

    Rows of equal hash are compared, so a collision costs time and nothing else. Rows that all differ come back as they
    are.
    """
    if rows.is_floating_point():
        return torch.unique(rows, dim=0, return_inverse=True)  # type: ignore[no-any-return]
    n = len(rows)
    flat = rows.reshape(n, rows[:1].numel())
    powers = torch.full_like(flat[0], _MULTIPLIER).cumprod(0) if n else flat.sum(0)
    hashes, which = torch.unique((flat * powers).sum(1), return_inverse=True)
    order = torch.arange(n, device=rows.device)
    if len(hashes) == n:
        return rows, order
    first = torch.full_like(hashes, n).scatter_reduce(0, which, order, "amin")
    if not torch.equal(rows[first][which], rows):
        return torch.unique(rows, dim=0, return_inverse=True)  # type: ignore[no-any-return]
    return rows[first], which
