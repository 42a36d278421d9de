"""What the workers of a torch process group agree on: gradients, rank 0's word, everybody's yes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn


class PeerLostError(RuntimeError):
    """Another worker is gone: this one has nothing wrong and can start again from the last checkpoint."""


@contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(str(error)) from error


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
    with _peers():
        dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    for parameter, gradient, part in zip(parameters, gradients, parts, strict=True):
        parameter.grad = gradient.copy_(part.view_as(gradient))


def first_says(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """Rank 0's numbers on every worker; all pass as many.

    Raises:
        PeerLostError: A worker is gone.
    """
    if dist.get_world_size() == 1:
        return numbers
    words = torch.tensor(numbers, dtype=torch.int64)
    with _peers():
        dist.broadcast(words, src=0)
    return tuple(words.tolist())


def all_say(is_so: bool) -> bool:
    """Whether it is so on every worker.

    Raises:
        PeerLostError: A worker is gone.
    """
    if dist.get_world_size() == 1:
        return is_so
    word = torch.tensor([is_so], dtype=torch.uint8)
    with _peers():
        dist.all_reduce(word, op=dist.ReduceOp.MIN)
    return bool(word.item())
