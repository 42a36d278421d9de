"""Registered models: versions of a name, and the aliases that point at them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update

from plait.campaign.records import Model
from plait.design.errors import UsageError
from plait.registry import audit
from plait.registry import tables as t
from plait.registry._datasets import version_row
from plait.registry.transaction import Transaction, missing


def add_model(
    tx: Transaction,
    name: str,
    *,
    kind: str,
    algorithm: str,
    artifact_sha256: str,
    details: dict[str, Any],
    actor: str,
    dataset_version_id: str | None = None,
    stage_run_id: int | None = None,
) -> Model:
    """The next version of `name`; the existing one if this name already has this artifact.

    Raises:
        NotFoundError: No such dataset version.
    """
    tx.lock()
    known = _models(tx, name)
    for model in known:
        if model.artifact_sha256 == artifact_sha256:
            return model
    values = {
        "project_id": tx.project_id,
        "name": name,
        "version": len(known) + 1,
        "kind": kind,
        "algorithm": algorithm,
        "artifact_id": tx.find_or_insert(t.artifact, {"sha256": artifact_sha256}, tx.by(actor)),
        "details": details,
        "dataset_version_id": version_row(tx, dataset_version_id).id if dataset_version_id else None,
        "stage_run_id": stage_run_id,
    }
    tx.insert(t.model, {**values, **tx.by(actor)})
    audit.record(tx, actor, "model.registered", f"model/{name}/{len(known) + 1}", {"artifact": artifact_sha256})
    return _models(tx, name)[-1]


def _models(tx: Transaction, name: str | None = None) -> list[Model]:
    aliases: dict[int, list[str]] = {}
    for row in tx.rows(select(t.alias.c.model_id, t.alias.c.alias).order_by(t.alias.c.alias)):
        aliases.setdefault(row.model_id, []).append(row.alias)
    joined = (
        t.model.join(t.artifact, t.artifact.c.id == t.model.c.artifact_id)
        .join(t.actor, t.actor.c.id == t.model.c.created_by)
        .outerjoin(t.dataset_version, t.dataset_version.c.id == t.model.c.dataset_version_id)
    )
    columns = (t.artifact.c.sha256, t.actor.c.name.label("actor"), t.dataset_version.c.content_hash)
    query = select(t.model, *columns).select_from(joined).where(t.model.c.project_id == tx.project_id)
    if name is not None:
        query = query.where(t.model.c.name == name)
    return [
        Model(
            id=row.id,
            name=row.name,
            version=row.version,
            kind=row.kind,
            algorithm=row.algorithm,
            artifact_sha256=row.sha256,
            details=row.details,
            aliases=tuple(aliases.get(row.id, ())),
            created_at=row.created_at,
            created_by=row.actor,
            dataset_version_id=row.content_hash,
            stage_run_id=row.stage_run_id,
            mlflow_run_id=row.mlflow_run_id,
        )
        for row in tx.rows(query.order_by(t.model.c.name, t.model.c.version))
    ]


def models(tx: Transaction) -> list[Model]:
    """All versions, by name and number."""
    return _models(tx)


def model(tx: Transaction, reference: str) -> Model:
    """By NAME (latest), NAME@ALIAS or NAME@VERSION (a number).

    Raises:
        NotFoundError: No such model, version or alias.
    """
    name, _, which = reference.partition("@")
    versions = _models(tx, name)
    if not versions:
        raise missing("model", name, dict.fromkeys(m.name for m in _models(tx)))
    if not which:
        return versions[-1]
    found = next((m for m in versions if which in (str(m.version), *m.aliases)), None)
    if found is None:
        names = [f"{name}@{w}" for m in versions for w in (m.version, *m.aliases)]
        raise missing("model", reference, names)
    return found


def promote(tx: Transaction, reference: str, alias: str, actor: str) -> Model:
    """Point NAME@alias at this version; where it pointed before is kept in alias_history.

    Raises:
        NotFoundError: No such model.
        UsageError: The alias is a number or empty.
    """
    if not alias or alias.isdigit() or "@" in alias:
        raise UsageError(f"'{alias}' cannot be an alias", hint="use a word, such as champion")
    tx.lock()
    chosen = model(tx, reference)
    identity = {"project_id": tx.project_id, "model_name": chosen.name, "alias": alias}
    before = next((m.id for m in _models(tx, chosen.name) if alias in m.aliases), None)
    if before == chosen.id:
        return chosen
    key = tx.find_or_insert(t.alias, identity, {"model_id": chosen.id})
    tx.connection.execute(update(t.alias).where(t.alias.c.id == key).values(model_id=chosen.id))
    tx.insert(t.alias_history, {"alias_id": key, "model_id": chosen.id, "previous_model_id": before, **tx.by(actor)})
    subject = f"model/{chosen.name}/{chosen.version}"
    audit.record(tx, actor, "model.promoted", subject, {"alias": alias, "previous_model_id": before})
    return model(tx, f"{chosen.name}@{alias}")
