"""Finished runs in MLflow: parameters, curves, dataset lineage, files and a registered model, written once per key."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from plait.campaign.records import OutboxMessage
from plait.design.errors import RunFailedError
from plait.settings import redacted

KEY_TAG = "plait.key"
ALIAS = "current"
"""Points at the version of a model that was told last (MLflow keeps `latest` for itself)."""
SCHEMA = "mlflow"
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between tries where MLflow says that its database is away."""

_METRICS_A_BATCH, _PARAMS_A_BATCH = 1000, 100
_LONGEST_PARAM, _LONGEST_DIGEST = 6000, 36


class MlflowTracker:
    """The Tracker over an MLflow store.

    Models go in as the files they are, never as an MLflow flavour: those are pickles. On PostgreSQL MLflow gets the
    schema `mlflow` unless the URL sets a search_path, because it would take over our alembic_version.

    Args:
        tracking_uri: sqlite:////absolute/path.db, postgresql://..., or the URL of an MLflow server.
        artifact_root: Place of the artifacts, one folder an experiment: a path (made when first used) or a URL.
    """

    def __init__(self, tracking_uri: str, artifact_root: str) -> None:
        self._uri, self._artifact_root = tracking_uri, artifact_root

    def record(self, message: OutboxMessage, artifact: Path | None) -> str:
        """Write a finished run and return its run id; a run of this key that broke off is completed, not doubled.

        Args:
            message: What to tell.
            artifact: Folder of the model bundle, kept with the run under "model"; None for none.

        Raises:
            RunFailedError: MLflow cannot be told; telling again later goes on.
        """
        try:
            return self._outlasting(message, artifact)
        except Exception as error:
            reason = f"{type(error).__name__}: {redacted(' '.join(str(error).split()))[:300]}"
            raise RunFailedError(
                f"MLflow at {redacted(self._uri)} cannot be told of {message.run_name}: {reason}",
                hint="correct the setting mlflow_tracking_uri or make the store reachable; nothing else is lost",
            ) from error

    def _outlasting(self, message: OutboxMessage, artifact: Path | None) -> str:
        """Tell, again where MLflow's database broke off: what was written is found by its key."""
        for pause in PAUSES:
            try:
                with _quiet():
                    return self._record(message, artifact)
            except Exception as error:
                if getattr(error, "error_code", "") != "TEMPORARILY_UNAVAILABLE":
                    raise
            time.sleep(pause)
        with _quiet():
            return self._record(message, artifact)

    def _record(self, message: OutboxMessage, artifact: Path | None) -> str:
        client = self._client
        run = self._run(message)
        run_id = str(run.info.run_id)
        if run.info.status == "FINISHED":
            return run_id
        self._log_numbers(run_id, message, run.info.start_time)
        if message.dataset is not None:
            client.log_inputs(run_id, [_dataset_input(message.dataset)])
        if artifact is not None:
            client.log_artifacts(run_id, str(artifact), "model")
        if message.model is not None:
            self._register(run_id, f"{run.info.artifact_uri}/model", message.model)
        client.set_terminated(run_id, "FINISHED")
        return run_id

    @cached_property
    def _client(self) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        uri = _in_own_schema(self._uri) if self._uri.startswith("postgresql") else self._uri
        from mlflow.tracking import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # its errors are raised too, and ours to tell
        return MlflowClient(tracking_uri=uri, registry_uri=uri)

    def _run(self, message: OutboxMessage) -> Any:
        """The run of this key: finished, broken off, or new."""
        experiment = self._experiment(message.experiment)
        found = self._client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{message.key}'", max_results=1)
        if found:
            return found[0]
        tags = {KEY_TAG: message.key, "mlflow.source.name": "plait"}
        if message.stage_run_id is not None:
            tags["plait.stage_run_id"] = str(message.stage_run_id)
        if message.model is not None:
            tags |= {"plait.model_id": str(message.model["registry_id"]), "plait.artifact": message.model["artifact"]}
        if message.dataset is not None:
            tags["plait.dataset_version_id"] = message.dataset["id"]
        return self._client.create_run(experiment, tags=tags, run_name=message.run_name)

    def _experiment(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            location = f"{self._artifact_root}/{quote(name, safe='')}"
            if Path(location).is_absolute():
                Path(location).mkdir(parents=True, exist_ok=True)
                location = Path(location).as_uri()
            return str(self._client.create_experiment(name, artifact_location=location))
        if experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _log_numbers(self, run_id: str, message: OutboxMessage, timestamp: int) -> None:
        """Parameters, then metrics; all with the run's start as their time, so that writing them twice is no change."""
        from mlflow.entities import Metric, Param

        params = [Param(name, _as_text(value)) for name, value in message.params.items()]
        metrics = [Metric(n, v, timestamp, step) for n, points in message.curves.items() for step, v in points]
        drawn = {metric.key for metric in metrics}
        metrics += [Metric(name, v, timestamp, 0) for name, v in message.metrics.items() if name not in drawn]
        for start in range(0, len(params), _PARAMS_A_BATCH):
            self._client.log_batch(run_id, params=params[start : start + _PARAMS_A_BATCH])
        for start in range(0, len(metrics), _METRICS_A_BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + _METRICS_A_BATCH])

    def _register(self, run_id: str, source: str, model: dict[str, Any]) -> None:
        from mlflow.exceptions import MlflowException

        name = model["name"]
        try:
            self._client.get_registered_model(name)
        except MlflowException:
            self._client.create_registered_model(name, tags={"plait.kind": model["kind"]})
        versions = self._client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
        if not versions:
            tags = {"plait.model_id": str(model["registry_id"]), "plait.version": str(model["version"])}
            tags["plait.artifact"] = model["artifact"]
            versions = [self._client.create_model_version(name, source, run_id, tags=tags)]
        self._client.set_registered_model_alias(name, ALIAS, versions[0].version)


def _dataset_input(dataset: dict[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    described = Dataset(
        name=dataset["name"],
        digest=dataset["id"][:_LONGEST_DIGEST],
        source_type="plait",
        source=json.dumps(dataset, sort_keys=True),
    )
    return DatasetInput(described, [InputTag("mlflow.data.context", "training")])


def _as_text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_PARAM else text[: _LONGEST_PARAM - 1] + "…"


def _in_own_schema(uri: str) -> str:
    """The URL by the driver we have, in MLflow's own schema, which is made where it is not there yet."""
    _, _, rest = uri.partition("://")
    if "search_path" in rest:
        return f"postgresql+psycopg://{rest}"
    import psycopg

    with psycopg.connect(f"postgresql://{rest}", autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    return f"postgresql+psycopg://{rest}{'&' if '?' in rest else '?'}options=-csearch_path%3D{SCHEMA}"


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow's and its dependencies' warnings are not the user's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
