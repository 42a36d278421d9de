"""Running a stage once: found by its key if it is done, else done and recorded; MLflow is told afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from plait.campaign.fingerprints import digest
from plait.campaign.ports import Ports
from plait.campaign.records import Campaign, DatasetVersion, OutboxMessage, StageRun
from plait.campaign.repository import Lease, UnitOfWork
from plait.campaign.turns import NewModel, NewRun, Outcome, Turn
from plait.design.errors import RunFailedError


def scratch_key(campaign: Campaign, number: int, stage: str) -> str:
    """The name of a stage's unfinished work; homes may share an artifact root, and campaigns of theirs a name."""
    return f"{campaign.name}-{campaign.created_at:%y%m%d%H%M%S%f}-{0 if stage == 'prior' else number}-{stage}"


def input_hash(turn: Turn, stage: str, outputs: dict[str, dict[str, Any]]) -> str:
    """Hash of everything a stage depends on: configuration, space, data, and the outputs of the stages before it."""
    if stage == "prior":
        config = [turn.campaign.config.get("prior", {}), turn.config.workers_of(1)]
        config += [turn.campaign.config["training"]] if "training" in turn.campaign.config else []
        return digest([stage, config, turn.campaign.space, turn.campaign.dataset_version_id, turn.seed(stage)])
    versions = [assay.version.id for assay in turn.assays]
    return digest([stage, turn.campaign.config, turn.campaign.space, *versions, list(turn.taken), outputs])


def run_stage(
    turn: Turn,
    stage: str,
    function: Callable[[Turn], Outcome],
    outputs: dict[str, dict[str, Any]],
    lease: Lease | None = None,
) -> StageRun:
    """Run a stage, or find it done; its outputs are added to `outputs`.

    Raises:
        RunFailedError: Memory ran out.
    """
    name, number = turn.campaign.name, 0 if stage == "prior" else turn.round.number
    key = input_hash(turn, stage, outputs)
    done = turn.ports.repository.transact(lambda uow: uow.stage(name, number, stage, key))
    if done is None:
        started = time.monotonic()
        try:
            outcome = function(turn)
        except MemoryError as error:
            raise RunFailedError(f"stage {stage} ran out of memory", hint="lower batch.num_candidates") from error
        done = _record(turn, stage, number, key, outcome, time.monotonic() - started, lease)
    outputs[stage] = done.outputs
    return done


def _record(
    turn: Turn, stage: str, number: int, key: str, outcome: Outcome, seconds: float, lease: Lease | None
) -> StageRun:
    """The stage, its models and the words for MLflow: each is found by its key where it is there already."""
    name = turn.campaign.name

    def write(uow: UnitOfWork) -> StageRun:
        if lease is not None:
            uow.fence(lease)
        done = uow.finish_stage(name, number, stage, key, outcome.outputs, seconds)
        for model in outcome.models:
            register(
                uow,
                turn.ports,
                f"{name}-{model.suffix}",
                model,
                model.version or turn.version,
                f"{name}/{number}/{stage}/{key[:16]}",
                done.id,
            )
        for run in outcome.runs:
            uow.push_outbox(_message(turn, run, f"{name}/{number}/{stage}/{key[:16]}/{run.suffix}"))
        return done

    return turn.ports.repository.transact(write)


def _message(turn: Turn, run: NewRun, key: str) -> OutboxMessage:
    name, version = turn.campaign.name, turn.version
    return OutboxMessage(
        key=key,
        experiment=name,
        run_name=f"{name} round {turn.round.number} {run.suffix}",
        params=run.params,
        metrics={curve: points[-1][1] for curve, points in run.curves.items()},
        curves=run.curves,
        dataset={"name": version.dataset, "version": version.number, "id": version.id},
        model=None,
    )


def register(
    uow: UnitOfWork,
    ports: Ports,
    name: str,
    new: NewModel,
    version: DatasetVersion | None,
    key: str,
    stage_run_id: int | None,
) -> None:
    """A model into the registry, and the word for MLflow into the outbox, in one transaction."""
    model = uow.add_model(
        name,
        kind=new.kind,
        algorithm=new.algorithm,
        artifact_sha256=new.artifact,
        details=new.details,
        actor=ports.actor,
        dataset_version_id=version.id if version else None,
        stage_run_id=stage_run_id,
    )
    metrics = {curve: values[-1][1] for curve, values in new.curves.items() if values}
    metrics |= {k: float(v) for k, v in new.details.get("calibration", {}).items() if isinstance(v, int | float)}
    uow.push_outbox(
        OutboxMessage(
            key=f"{key}/{new.suffix}",
            experiment=name.removesuffix(f"-{new.suffix}"),
            run_name=f"{name} v{model.version}",
            params=new.params | {"algorithm": new.algorithm, "kind": new.kind},
            metrics=metrics,
            curves=new.curves,
            dataset={"name": version.dataset, "version": version.number, "id": version.id} if version else None,
            model={
                "registry_id": model.id,
                "name": name,
                "version": model.version,
                "kind": new.kind,
                "artifact": new.artifact,
            },
            stage_run_id=stage_run_id,
        )
    )


def flush_outbox(ports: Ports) -> None:
    """Tell MLflow what it has not been told; the registry is right whether this succeeds or not."""
    with ports.repository.lease("outbox", lambda text: ports.progress("waiting", 0, 0, text)):
        waiting = ports.repository.transact(lambda uow: uow.outbox())
        for index, message in enumerate(waiting):
            ports.progress("telling MLflow", index, len(waiting), message.run_name)
            _tell(ports, message)
        if waiting:
            ports.progress("telling MLflow", len(waiting), len(waiting), "")


def tell_if_possible(ports: Ports) -> None:
    """Tell MLflow what finished stages have for it, where somebody stops a campaign: if not now, then another time."""
    try:
        flush_outbox(ports)
    except RunFailedError as error:
        ports.progress("telling MLflow", 0, 0, error.message)


def _tell(ports: Ports, message: OutboxMessage) -> None:
    artifact = ports.artifacts.path(message.model["artifact"]) if message.model else None
    run_id = ports.tracker.record(message, artifact)
    ports.repository.transact(lambda uow: uow.mark_sent(message.key, run_id))
