"""One trial of a sweep, in whatever process it runs: trained from its last checkpoint to its outcome.

Checkpoints, curves and the outcome lie in a storage that every machine sees, a folder a trial.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from plait.campaign.sweep_ports import OUTCOME, SweepPlan, Trial, TrialOutcome
from plait.design.errors import StoreError
from plait.execution.curves import CURVES, read_curves
from plait.execution.loop import RESULT, SECONDS_BETWEEN_CHECKPOINTS, Worker, reason_of, run_worker
from plait.execution.storage import Storage, open_storage

TRIAL = "trial.json"
"""What is tried in a folder."""


def find_outcome(root: str, trial: Trial) -> TrialOutcome | None:
    """The outcome of a trial, None where it is not finished, or something else was tried under its number."""
    storage = _folder(root, trial)
    if not storage.exists(OUTCOME):
        return None
    document = json.loads(storage.read(OUTCOME))
    if document.pop("trial") != _described(trial):
        return None
    curves = {name: [(int(at), float(v)) for at, v in points] for name, points in document.pop("curves").items()}
    return TrialOutcome(trial, looks=tuple(document.pop("looks")), curves=curves, **document)


def run_trial(
    plan: SweepPlan,
    trial: Trial,
    root: str,
    torch_threads: int,
    seconds_between_checkpoints: float = SECONDS_BETWEEN_CHECKPOINTS,
) -> TrialOutcome:
    """Train to the outcome, which is kept; found again where it is there.

    A training that fails is a failed trial; files that cannot be read or written are no fault of the trial's.

    Args:
        plan: The sweep.
        trial: Which of its trials.
        root: Of the sweep's storage, an absolute path or fsspec URL.
        torch_threads: Threads of torch.
        seconds_between_checkpoints: Seconds of work.

    Raises:
        OSError: The storage cannot be used.
        StoreError: The storage or the artifacts cannot be reached.
    """
    if (known := find_outcome(root, trial)) is not None:
        return known
    import torch

    torch.set_num_threads(torch_threads)
    storage = _folder(root, trial)
    _clear_if_other(storage, trial)
    try:
        outcome = _train(plan, trial, storage, seconds_between_checkpoints)
    except (OSError, StoreError):
        raise
    except Exception as error:
        outcome = TrialOutcome(trial, error=reason_of(error)[0])
    storage.write(OUTCOME, json.dumps(asdict(outcome)).encode())
    return outcome


def _folder(root: str, trial: Trial) -> Storage:
    return open_storage(f"{root}/trial-{trial.number:04d}")


def _described(trial: Trial) -> object:
    return json.loads(json.dumps(asdict(trial)))


def _clear_if_other(storage: Storage, trial: Trial) -> None:
    """Nothing stays of another trial of this number: a checkpoint of other values would be gone on from."""
    from plait.execution.checkpoints import CHECKPOINTS

    if storage.exists(TRIAL) and json.loads(storage.read(TRIAL)) == _described(trial):
        return
    for name in (OUTCOME, RESULT, CHECKPOINTS, CURVES):
        storage.remove(name)
    storage.write(TRIAL, json.dumps(asdict(trial)).encode())


def _train(plan: SweepPlan, trial: Trial, storage: Storage, seconds: float) -> TrialOutcome:
    from plait.execution.checkpoints import CHECKPOINTS
    from plait.priors.base import keep_gradients

    if not storage.exists(RESULT):
        worker = Worker(keep_gradients, seconds_between_checkpoints=seconds)
        run_worker(plan.start(trial), storage, plan.seed_of(trial), worker)
    document = json.loads(storage.read(f"{RESULT}/{OUTCOME}"))
    storage.remove(CHECKPOINTS)
    return TrialOutcome(trial, looks=tuple(document.pop("looks")), curves=read_curves(storage), **document)
