"""Algorithms by name: every public file of a room, and entry points of the group plait.ROOM.

Over YAML and HTTP an algorithm is chosen by its file name only, never by a dotted path.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from plait.campaign.explaining import explain
from plait.design.errors import ConfigError

EXPORTS: dict[str, tuple[str, ...]] = {
    "priors": ("Config", "init", "pretrain_init", "pretrain_step", "load"),
    "rewards": ("Config", "fit", "load"),
    "rewards.uncertainty": ("fit",),
    "finetune": ("Config", "needs_gradient", "init", "step"),
    "samplers": ("Config", "needs_reward", "needs_gradient", "prepare", "sample"),
    "acquisition": ("Config", "select"),
}
"""Room -> what a file must export to be an algorithm of it."""


@cache
def algorithms(room: str) -> dict[str, ModuleType]:
    """Name -> module of every algorithm in a room."""
    package = importlib.import_module(f"plait.{room}")
    names = [info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_")]
    modules = {name: importlib.import_module(f"plait.{room}.{name}") for name in names if name != "base"}
    modules |= {point.name: point.load() for point in entry_points(group=f"plait.{room}")}
    return {name: module for name, module in sorted(modules.items()) if all(hasattr(module, e) for e in EXPORTS[room])}


def find(room: str, name: str) -> Any:
    """The algorithm `name` of a room.

    Raises:
        ConfigError: No such algorithm; the message lists those there are.
    """
    known = algorithms(room)
    if name not in known:
        raise ConfigError(f"there is no '{name}' in {room}", hint=f"choose one of {', '.join(known)}")
    return known[name]


def configure(room: str, name: str, settings: dict[str, Any]) -> Any:
    """The algorithm's checked Config.

    Raises:
        ConfigError: Unknown algorithm, unknown key, or a value out of bounds.
    """
    model = find(room, name).Config
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        raise explain(error, f"{room}.{name} settings", model) from error
