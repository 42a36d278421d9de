"""Finished stages, and the outbox of what MLflow is still to be told."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, Select, func, select, update

from plait.campaign.records import OutboxMessage, StageRun
from plait.registry import audit
from plait.registry import tables as t
from plait.registry._campaigns import campaign_id, subject
from plait.registry.transaction import SYSTEM, Transaction, missing


def _stages(tx: Transaction, campaign: str) -> Select[Any]:
    query = select(t.stage_run).where(t.stage_run.c.campaign_id == campaign_id(tx, campaign))
    return query.order_by(t.stage_run.c.id)


def _record(row: Row[Any], campaign: str) -> StageRun:
    return StageRun(
        id=row.id,
        campaign=campaign,
        round=row.round_number,
        stage=row.stage,
        input_hash=row.input_hash,
        outputs=row.outputs,
        seconds=row.seconds,
        finished_at=row.finished_at,
        mlflow_run_id=row.mlflow_run_id,
    )


def stage(tx: Transaction, campaign: str, number: int, stage: str, input_hash: str) -> StageRun | None:
    """The finished stage of this key, if any.

    Raises:
        NotFoundError: No such campaign.
    """
    query = _stages(tx, campaign)
    row = tx.first(query.where(t.stage_run.c.round_number == number).where(*_is(stage, input_hash)))
    return None if row is None else _record(row, campaign)


def _is(stage: str, input_hash: str) -> tuple[Any, Any]:
    return t.stage_run.c.stage == stage, t.stage_run.c.input_hash == input_hash


def stages(tx: Transaction, campaign: str, number: int | None = None) -> list[StageRun]:
    """Finished stages, oldest first.

    Raises:
        NotFoundError: No such campaign.
    """
    query = _stages(tx, campaign)
    if number is not None:
        query = query.where(t.stage_run.c.round_number == number)
    return [_record(row, campaign) for row in tx.rows(query)]


def stage_seconds(tx: Transaction) -> dict[str, tuple[int, float]]:
    """How many stages of each name were finished, and the seconds they took together."""
    number, seconds = func.count().label("number"), func.sum(t.stage_run.c.seconds).label("seconds")
    query = select(t.stage_run.c.stage, number, seconds).select_from(t.stage_run.join(t.campaign))
    query = query.where(t.campaign.c.project_id == tx.project_id).group_by(t.stage_run.c.stage)
    return {row.stage: (row.number, row.seconds) for row in tx.rows(query)}


def finish_stage(
    tx: Transaction,
    campaign: str,
    number: int,
    stage: str,
    input_hash: str,
    outputs: dict[str, Any],
    seconds: float,
) -> StageRun:
    """Records a finished stage; the existing row if the key is there already.

    Raises:
        NotFoundError: No such campaign.
    """
    tx.lock()
    existing = _stages(tx, campaign).where(t.stage_run.c.round_number == number).where(*_is(stage, input_hash))
    row = tx.first(existing)
    if row is None:
        values = {
            "campaign_id": campaign_id(tx, campaign),
            "round_number": number,
            "stage": stage,
            "input_hash": input_hash,
            "outputs": outputs,
            "seconds": seconds,
            "finished_at": tx.now,
        }
        tx.insert(t.stage_run, values)
        details = {"stage": stage, "input_hash": input_hash, "seconds": seconds}
        audit.record(tx, SYSTEM, "stage.finished", subject(campaign, number), details)
        row = tx.rows(existing)[0]
    return _record(row, campaign)


def push_outbox(tx: Transaction, message: OutboxMessage) -> None:
    """MLflow is to be told, after this transaction commits; a key that was pushed before is left as it is."""
    tx.lock()
    document = asdict(message)
    document["metrics"] = {name: _plain(value) for name, value in message.metrics.items()}
    document["curves"] = {name: [(s, _plain(v)) for s, v in curve] for name, curve in message.curves.items()}
    rest = {"project_id": tx.project_id, "message": document, "created_at": tx.now}
    tx.find_or_insert(t.outbox, {"key": message.key}, rest)


def _plain(value: float) -> float | str:
    """JSON has no NaN: a figure that is not finite travels as text."""
    return value if math.isfinite(value) else str(value)


def outbox(tx: Transaction) -> list[OutboxMessage]:
    """What MLflow has not been told yet, oldest first."""
    waiting = t.outbox.c.project_id == tx.project_id, t.outbox.c.sent_at.is_(None)
    return [
        _message(row.message) for row in tx.rows(select(t.outbox.c.message).where(*waiting).order_by(t.outbox.c.id))
    ]


def _message(document: dict[str, Any]) -> OutboxMessage:
    metrics = {name: float(value) for name, value in document["metrics"].items()}
    curves = {name: [(int(s), float(v)) for s, v in curve] for name, curve in document["curves"].items()}
    return OutboxMessage(**{**document, "metrics": metrics, "curves": curves})


def mark_sent(tx: Transaction, key: str, mlflow_run_id: str) -> None:
    """MLflow knows; ties the run to its stage run and model.

    Raises:
        NotFoundError: No message of this key.
    """
    tx.lock()
    row = tx.first(select(t.outbox).where(t.outbox.c.key == key))
    if row is None:
        raise missing("outbox message", key, (m.key for m in outbox(tx)))
    message, run = _message(row.message), {"mlflow_run_id": mlflow_run_id}
    tx.connection.execute(update(t.outbox).where(t.outbox.c.id == row.id).values(sent_at=tx.now, **run))
    if message.stage_run_id is not None:
        tx.connection.execute(update(t.stage_run).where(t.stage_run.c.id == message.stage_run_id).values(run))
    if message.model is not None:
        tx.connection.execute(update(t.model).where(t.model.c.id == message.model["registry_id"]).values(run))
