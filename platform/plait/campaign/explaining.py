"""What pydantic says of a configuration, in the words of the one who wrote it."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from plait.design.errors import ConfigError, RowProblem


def explain(error: ValidationError, what: str, model: type[BaseModel]) -> ConfigError:
    """A pydantic error about `model` as one of ours: one problem per field, entries of lists counted from 1.

    Where a field may be one of several things, only what lies deepest is told: the others were not meant.
    """
    told: dict[str, RowProblem] = {}
    for item in error.errors():
        column, keys = _place(item["loc"], model)
        reason = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            unknown = str(item["loc"][-1])
            near = get_close_matches(unknown, keys, 1)
            column = f"{column}.{unknown}".removeprefix(".")
            reason = "is no key here" + "".join(f" (did you mean {key}?)" for key in near)
        told.setdefault(column, RowProblem(0, column, repr(item.get("input"))[:80], reason))
    problems = [
        p for p in told.values() if not any(other.startswith((f"{p.column}.", f"{p.column}[")) for other in told)
    ]
    lines = "; ".join(f"{p.column}: {p.reason}".removeprefix(": ") for p in problems)
    return ConfigError(f"{what} cannot be used: {lines}", problems=problems)


def _place(location: tuple[int | str, ...], model: type[BaseModel]) -> tuple[str, list[str]]:
    """A location without what only pydantic knows by name, as KEY.KEY[NUMBER], and the keys that may stand there."""
    place, models = "", [model]
    is_key = len(location) == 1 or location[-1:] == ("[key]",)  # a number may also be a mapping's key, which is refused
    for part in location:
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        if isinstance(part, int):
            place += f".{part}" if is_key else f"[{part + 1}]"
        elif fields:
            place += f".{part}"
            models = [m for field in fields for m in _models(field.annotation)]
    return place.removeprefix("."), [key for m in models for key in m.model_fields]


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Every model that a field of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
