"""Settings of one home, from (weakest first) HOME/settings.yaml, environment variables PLAIT_*, explicit arguments."""

from __future__ import annotations

import getpass
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from plait.design.errors import ConfigError, RowProblem
from plait.settings.roots import artifact_root, mlflow_root
from plait.settings.scorers import SCORER_KINDS, AnyScorer, ScorerName

SETTINGS_FILE = "settings.yaml"
PREFIX = "PLAIT_"
DEFAULT_HOME = ".plait"
NOT_SHOWN = "not shown"
"""Stands for a value that may be a secret."""

_PASSWORD = re.compile(r"(?<=://)([^/?#:@]*):.*@")
_SECRET_PARAMETER = re.compile(r"(?i)([?&;]\w*(?:password|passwd|token|secret)\w*=)[^&;\s]*")


class Settings(BaseSettings):
    """Where a home keeps its things and how it runs."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX, validate_default=True)

    home: Path = Field(description="folder that holds registry, artifacts and runs; absolute")
    database_url: str = Field(
        "", repr=False, description="registry, sqlite:////absolute/path or postgresql://...; default HOME/plait.db"
    )
    mlflow_tracking_uri: str = Field(
        "", repr=False, description="MLflow's store, a database or server URL; default HOME/mlflow.db"
    )
    mlflow_artifacts: str = Field(
        "",
        description="MLflow's artifacts: an absolute path, a URL (s3://...), or mlflow-artifacts:/folder where its "
        "server keeps them; default HOME/mlflow-artifacts",
    )
    artifact_root: str = Field(
        "",
        repr=False,
        description="models and documents by content: an absolute path or an fsspec URL that every machine of a "
        "cluster sees (s3://bucket/folder, credentials from the environment); default HOME/artifacts",
    )
    cache: Path = Field(
        Path(),
        description="what was fetched (landscapes, artifacts); default $XDG_CACHE_HOME/plait or ~/.cache/plait",
    )
    ray_address: str = Field(
        "local", min_length=1, description="local starts an embedded Ray; anything else joins that cluster"
    )
    ray_num_cpus: int | None = Field(
        None, ge=1, le=4096, description="logical CPUs of the embedded Ray; default what the machine or a run needs"
    )
    max_workers: int | None = Field(None, ge=1, le=4096, description="workers of one training on Ray, at most")
    worker_cpus: float = Field(1.0, gt=0, le=1024, description="CPUs that Ray sets aside for one worker")
    worker_gpus: float = Field(0.0, ge=0, le=64, description="GPUs that Ray sets aside for one worker; 0 trains on CPU")
    max_concurrent_trials: int | None = Field(
        None, ge=1, le=4096, description="trials of one sweep side by side, at most; default what the cluster holds"
    )
    max_campaigns: int = Field(1, ge=1, le=1024, description="rounds that one scheduler runs at a time")
    torch_threads: int = Field(
        1, ge=1, le=1024, description="torch threads of one process; designs repeat exactly only at the same number"
    )
    actor: str = Field("", description="who acts, in the audit trail; default the login name")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "WARNING"
    scorers: dict[ScorerName, AnyScorer] = Field(
        default_factory=dict, repr=False, description="what the names of black-box scorers mean; from the file only"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_home(cls, values: dict[str, Any]) -> dict[str, Any]:
        home = Path(values["home"]).expanduser().absolute()
        defaults = {
            "database_url": f"sqlite:///{home / 'plait.db'}",
            "mlflow_tracking_uri": f"sqlite:///{home / 'mlflow.db'}",
            "mlflow_artifacts": str(home / "mlflow-artifacts"),
            "artifact_root": str(home / "artifacts"),
            "cache": _cache_folder(home),
        }
        return {**defaults, **values, "home": home}

    @field_validator("database_url", "mlflow_tracking_uri")
    @classmethod
    def _absolute_url(cls, url: str) -> str:
        if "://" not in url:
            raise ValueError("is no URL; give sqlite:////absolute/path.db or postgresql://user@host/database")
        if url.startswith("sqlite:") and not Path(url.partition(":///")[2].partition("?")[0]).is_absolute():
            raise ValueError(
                "is relative to wherever Plait is started; give sqlite:////absolute/path.db (four slashes)"
            )
        return url

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str) -> str:
        if not re.match(r"(sqlite|postgresql)(\+\w+)?://", url):
            raise ValueError("names another database; give sqlite:////absolute/path.db or postgresql://user@host/name")
        return url

    @field_validator("artifact_root")
    @classmethod
    def _reachable_root(cls, root: str) -> str:
        return artifact_root(root)

    @field_validator("mlflow_artifacts")
    @classmethod
    def _mlflow_root(cls, root: str) -> str:
        return mlflow_root(root)

    @field_validator("cache")
    @classmethod
    def _absolute_path(cls, path: Path) -> Path:
        if not path.expanduser().is_absolute():
            raise ValueError("is relative; give an absolute path")
        return path.expanduser()

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, level: object) -> object:
        return level.upper() if isinstance(level, str) else level

    @field_validator("actor")
    @classmethod
    def _someone(cls, actor: str) -> str:
        name = actor.strip() or _login_name()
        if not name.isprintable() or len(name) > 200:
            raise ValueError("must be one printable line of at most 200 characters")
        return name

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then environment, then the home's file."""
        file = Path(init_settings()["home"]) / SETTINGS_FILE
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls, yaml_file=file)


def _cache_folder(home: Path) -> Path:
    """The user's cache folder for Plait; in `home` for a user who has none."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():
        return named / "plait"
    try:
        return Path.home() / ".cache" / "plait"
    except RuntimeError:
        return home / "cache"


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError) as error:
        raise ValueError("is not set and this user has no login name; set PLAIT_ACTOR") from error


def load_settings(home: Path | str | None = None, **overrides: Any) -> Settings:
    """The settings of a home.

    Args:
        home: The home; else PLAIT_HOME, else `.plait` in the working directory.
        overrides: Fields given explicitly; None means not given.

    Raises:
        ConfigError: A value or key cannot be used; field, where it came from and what to do are named.
    """
    folder = Path(home or os.environ.get(f"{PREFIX}HOME") or DEFAULT_HOME).expanduser().absolute()
    if any(name.upper() == f"{PREFIX}SCORERS" for name in os.environ):
        raise ConfigError(
            f"{PREFIX}SCORERS is set, but the environment may not say which programs run",
            hint=f"unset it and put scorers into {folder / SETTINGS_FILE}",
        )
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(home=folder, **given)
    except ValidationError as error:
        raise _explain(error, folder, given) from None
    except (SettingsError, yaml.YAMLError, OSError, ValueError, TypeError, RecursionError) as error:
        reason = redacted(" ".join(str(error).split()))
        raise ConfigError(
            f"{folder / SETTINGS_FILE} cannot be read: {reason}", hint="it must be YAML, one `name: value` a line"
        ) from None


def _explain(error: ValidationError, home: Path, given: dict[str, Any]) -> ConfigError:
    problems = []
    for item in error.errors():
        field, *inside = [str(key) for key in item["loc"]] or ["settings"]
        variable = f"{PREFIX}{field.upper()}"
        source = (
            field if field in given else variable if variable in os.environ else f"{field} in {home / SETTINGS_FILE}"
        )
        reason = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden" and not inside:
            reason = f"is no setting; known are {', '.join(n for n in Settings.model_fields if n != 'home')}"
        elif item["type"] == "extra_forbidden":
            reason = f"is no key here; known are {', '.join(SCORER_KINDS[inside[1]].model_fields)}"
        shown = NOT_SHOWN if field == "scorers" else redacted(str(item.get("input")))[:120]
        problems.append(RowProblem(0, source, shown, ": ".join([*inside, reason])))
    lines = "; ".join(f"{p.column}{f' ({p.value!r})' if p.value != NOT_SHOWN else ''}: {p.reason}" for p in problems)
    return ConfigError(f"settings cannot be used: {lines}", problems=problems)


def save_settings(home: Path | str, **values: Any) -> Path:
    """Write values into the home's settings file, readable by its owner only (it may hold a password).

    Values that the file already has stay; one given as None is taken out. Checked before anything is written.

    Returns:
        The file.

    Raises:
        ConfigError: A value cannot be used, or the file that is there cannot be read.
    """
    folder = Path(home).expanduser().absolute()
    load_settings(folder, **values)
    file = folder / SETTINGS_FILE
    kept = yaml.safe_load(file.read_text()) if file.exists() else None
    merged = {**(kept or {}), **{k: str(v) if isinstance(v, Path) else v for k, v in values.items()}}
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{SETTINGS_FILE}-")  # mkstemp makes it 0600
    with os.fdopen(handle, "w") as stream:
        yaml.safe_dump({name: value for name, value in merged.items() if value is not None}, stream)
    Path(temporary).replace(file)
    return file


def redacted(url: str) -> str:
    """A URL, or a text with one URL, without its password: fit for messages and logs."""
    return _SECRET_PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))
