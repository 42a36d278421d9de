"""What runs in each Ray worker of a training."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import ray.train
import torch

from plait.execution.checkpoints import SUFFIX, newest_readable, write_checkpoint
from plait.execution.files import write_atomically
from plait.execution.gradients import PeerLostError, agree, average_gradients
from plait.execution.loop import FAILURE, RESULT, Share, Worker, reason_of, run_worker


def work(config: dict[str, Any]) -> None:
    """One worker. A worker that is lost is Ray's to replace; a job that fails is not tried again.

    A failing worker leaves its reason before it raises; Ray then replaces the whole group (others may be waiting for
    this one), and the new workers find the reason and end.
    """
    share: Share = config["share"]
    if any((share.directory / end).exists() for end in (RESULT, FAILURE)):
        return
    torch.set_num_threads(share.torch_threads)
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    worker = Worker(
        save=lambda step, state: _report(rank, step, state),
        average_gradients=average_gradients,
        rank=rank,
        size=size,
        agree=agree,
        seconds_between_checkpoints=share.seconds_between_checkpoints,
    )
    folders = sorted(share.checkpoints.glob("checkpoint_*"), reverse=True)
    states = newest_readable([[folder / _file_of(other) for other in range(size)] for folder in folders])
    try:
        run_worker(share.job, share.directory, share.seed, worker, states[rank] if states else None)
    except PeerLostError:
        raise
    except Exception as error:
        message, hint = reason_of(error)
        write_atomically(share.directory / FAILURE, json.dumps({"message": message, "hint": hint}).encode())
        raise


def _report(rank: int, step: int, state: dict[str, Any]) -> None:
    """This worker's part of a checkpoint; Ray joins the parts of all."""
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder) / _file_of(rank), state)
        ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _file_of(rank: int) -> str:
    return f"worker-{rank}{SUFFIX}"
