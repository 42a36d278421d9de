"""Gradient averaging over the workers of a torch process group."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn


class PeerLostError(RuntimeError):
    """Another worker is gone: this one has nothing wrong and can start again from the last checkpoint."""


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace each .grad by its mean over all workers, by one all_reduce of all of them laid end to end.

    A parameter without a gradient here counts as zero.

    Raises:
        PeerLostError: A worker is gone.
    """
    if dist.get_world_size() == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    try:
        dist.all_reduce(flat)
    except RuntimeError as error:
        raise PeerLostError(str(error)) from error
    flat /= dist.get_world_size()
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    for parameter, gradient, part in zip(parameters, gradients, parts, strict=True):
        parameter.grad = gradient.copy_(part.view_as(gradient))


def agree(is_wanted: bool) -> bool:
    """Rank 0's word, on every worker.

    Raises:
        PeerLostError: A worker is gone.
    """
    if dist.get_world_size() == 1:
        return is_wanted
    word = torch.tensor([is_wanted], dtype=torch.uint8)
    try:
        dist.broadcast(word, src=0)
    except RuntimeError as error:
        raise PeerLostError(str(error)) from error
    return bool(word.item())
