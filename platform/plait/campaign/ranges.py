"""Ranges in a configuration: which numbers a sweep varies, and the configuration at the two ends of all of them.

Ranges may stand for conservatism.scale, finetune.kl_weight and every number in finetune.settings: what a round's
fine-tuning reads. `auto` stands for a range of Plait's own.
"""

from __future__ import annotations

from types import NoneType
from typing import Any, get_args

from pydantic import TypeAdapter

from plait.campaign import catalog
from plait.campaign.config import CampaignConfig, parse_config
from plait.campaign.open_numbers import AUTO, AUTO_SCALE, Range, is_range
from plait.campaign.sweep_ports import Axis
from plait.design.errors import ConfigError
from plait.rewards.conservatism import SHORT_DESIGN, default_kl_weight

SCALE, KL_WEIGHT, SETTINGS = "conservatism.scale", "finetune.kl_weight", "finetune.settings"
AUTO_KL_FACTOR = 10.0
"""`kl_weight: auto` reaches from the default divided by this to the default times this."""


def axes_of(config: CampaignConfig, round_number: int, num_free: int) -> dict[str, Axis]:
    """The numbers that a round's sweep varies, by their place in the configuration; {} where there is nothing to sweep.

    Args:
        config: The configuration.
        round_number: From 1.
        num_free: Positions that vary in the design space, which the default leash depends on.

    Raises:
        ConfigError: A range stands for something that is no number of the fine-tuner.
    """
    found = {SCALE: config.conservatism_of(round_number).scale, KL_WEIGHT: config.finetune.kl_weight}
    found |= {f"{SETTINGS}.{key}": value for key, value in config.finetune.settings.items()}
    ranges = {place: _range_of(place, value, num_free) for place, value in found.items() if _is_swept(value)}
    return {
        place: Axis(of.low, of.high, of.log, _is_whole(config.finetuner, place, of)) for place, of in ranges.items()
    }


def with_values(settings: dict[str, Any], values: dict[str, float]) -> dict[str, Any]:
    """Settings of a fine-tuner with a trial's values in the place of ranges; the scale is not among them."""
    put = {place.rpartition(".")[2]: value for place, value in values.items() if place != SCALE}
    return {key: value for key, value in settings.items() if not _is_swept(value)} | put


def check_ranges(config: CampaignConfig) -> list[CampaignConfig]:
    """The configuration at the low and at the high end of its ranges, both checked; itself where it has none.

    Raises:
        ConfigError: One of the ends cannot be used, or a sweep is described and nothing is to be swept.
    """
    by_round = [axes_of(config, number, SHORT_DESIGN) for number in range(1, config.rounds + 1)]
    if not any(by_round):
        if "sweep" in config.model_fields_set:
            raise ConfigError(
                "sweep: nothing is to be swept", hint=f"set {SCALE} or {KL_WEIGHT} to auto, or give {_WHERE} a range"
            )
        return [config]
    if config.finetuner == "none":
        raise ConfigError("finetune.algorithm none trains nothing that a sweep could vary: give numbers, no ranges")
    return [
        parse_config(_at(config.model_dump(mode="json", exclude_unset=True), end), f"the {end} end of the ranges")
        for end in ("low", "high")
    ]


_WHERE = f"{SCALE}, {KL_WEIGHT} or a number in {SETTINGS}"


def _is_swept(value: Any) -> bool:
    return value == AUTO or isinstance(value, Range) or is_range(value)


def _range_of(place: str, value: Any, num_free: int) -> Range:
    if isinstance(value, Range):
        return value
    if value != AUTO:
        return TypeAdapter(Range).validate_python(value)
    if place == SCALE:
        return AUTO_SCALE
    if place == KL_WEIGHT:
        middle = default_kl_weight(num_free)
        return Range(low=middle / AUTO_KL_FACTOR, high=middle * AUTO_KL_FACTOR, log=True)
    raise ConfigError(f"{place} knows no auto", hint="give a range, such as {low: 0.001, high: 0.01, log: true}")


def _is_whole(algorithm: str, place: str, of: Range) -> bool:
    """The number is a whole one.

    Raises:
        ConfigError: The fine-tuner has no such number, or the ends of the range are not whole.
    """
    if place == SCALE or algorithm == "none":
        return False
    key = place.rpartition(".")[2]
    fields = catalog.find("finetune", algorithm).Config.model_fields
    kinds = set(get_args(fields[key].annotation) or (fields[key].annotation,)) - {NoneType} if key in fields else set()
    if not kinds or not kinds <= {int, float}:
        numbers = [k for k, f in fields.items() if {int, float} & set(get_args(f.annotation) or (f.annotation,))]
        raise ConfigError(
            f"{place}: a range stands for a number, and {algorithm} has none of this name",
            hint=f"its numbers are {', '.join(numbers)}",
        )
    if kinds == {int} and not (of.low.is_integer() and of.high.is_integer()):
        raise ConfigError(f"{place}: this is a whole number, so the ends of its range must be whole")
    return kinds == {int}


def _at(value: Any, end: str, place: str = "") -> Any:
    """A document without its sweep, with `end` ("low" or "high") in the place of each range."""
    if place in (SCALE, KL_WEIGHT) and value == AUTO:
        value = _range_of(place, value, SHORT_DESIGN).model_dump()
    if is_range(value):
        number = float(value[end])
        return int(number) if place.startswith(SETTINGS) and number.is_integer() else number
    if isinstance(value, dict):
        inside = {key: (f"{place}.{key}" if place else str(key)) for key in value}
        return {key: _at(item, end, inside[key]) for key, item in value.items() if inside[key] != "sweep"}
    return [_at(item, end, place) for item in value] if isinstance(value, list) else value
