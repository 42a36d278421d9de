"""Weights of kernels and noise by the marginal likelihood of the readings (Rasmussen and Williams 2006, 5.4)."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LEAST_NOISE = 1e-4


def tune(grams: Tensor, z: Tensor, noise_shape: Tensor, steps: int) -> tuple[NDArray[np.float64], float]:
    """Weights (j,) of unit kernels (j, n, n) float64 and the noise that make z likely, by Adam on their logarithms."""
    num, n = len(grams), len(z)
    flat = grams.reshape(num, -1)
    logs = torch.full((num + 1,), math.log(0.9 / num), dtype=torch.float64)
    logs[-1] = math.log(0.1)
    logs.requires_grad_()
    optimiser = torch.optim.Adam([logs], lr=0.1)
    for _ in range(steps):
        w = logs.detach().exp().clamp_min(_LEAST_NOISE * 1e-4)
        total = (w[:num] @ flat).view(n, n) + torch.diag((w[-1] + _LEAST_NOISE) * noise_shape)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(total))
        solved = inverse @ z
        slope = 0.5 * (inverse - torch.outer(solved, solved))  # of the negative log likelihood by the covariance
        by_noise = (slope.diagonal() * noise_shape).sum()
        logs.grad = torch.cat([flat @ slope.flatten(), by_noise[None]]) * w
        optimiser.step()
    final = logs.detach().exp().numpy()
    return final[:num], float(final[-1]) + _LEAST_NOISE
