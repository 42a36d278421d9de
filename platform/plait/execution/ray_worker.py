"""What runs in each Ray worker of a training."""

from __future__ import annotations

import json
from typing import Any

import ray.train
import ray.train.torch
import torch

from plait.design.errors import RunFailedError
from plait.execution.gradients import PeerLostError, all_say, average_gradients, first_says
from plait.execution.loop import FAILURE, RESULT, Share, Worker, reason_of, run_worker
from plait.execution.storage import open_storage


def work(config: dict[str, Any]) -> None:
    """One worker. A worker that is lost is Ray's to replace; a job that fails is not tried again.

    A failing worker leaves its reason before it raises; Ray then replaces the whole group (others may be waiting for
    this one), and the new workers find the reason and end.
    """
    share: Share = config["share"]
    storage = open_storage(share.storage)
    if any(storage.exists(end) for end in (RESULT, FAILURE)):
        return
    torch.set_num_threads(share.torch_threads)
    context = ray.train.get_context()
    try:
        worker = Worker(
            average_gradients,
            rank=context.get_world_rank(),
            size=context.get_world_size(),
            device=_gpu() if share.is_on_gpu else "cpu",
            first_says=first_says,
            all_say=all_say,
            seconds_between_checkpoints=share.seconds_between_checkpoints,
        )
        run_worker(share.job, storage, share.seed, worker)
    except PeerLostError:
        raise
    except Exception as error:
        message, hint = reason_of(error)
        storage.write(FAILURE, json.dumps({"message": message, "hint": hint}).encode())
        raise


def _gpu() -> str:
    """The GPU that Ray set aside for this worker.

    Raises:
        RunFailedError: Torch does not see it.
    """
    device = str(ray.train.torch.get_device())
    if not device.startswith("cuda"):
        raise RunFailedError(
            "worker_gpus is set, but torch sees no GPU where the worker runs",
            hint="install a CUDA build of torch on the cluster's machines, or set worker_gpus to 0",
        )
    return device
