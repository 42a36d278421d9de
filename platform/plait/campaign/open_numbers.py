"""Numbers of a configuration that may be left open: a number, a range {low, high, log}, or auto."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

AUTO: Literal["auto"] = "auto"
"""Stands for a range of Plait's own where a number is swept."""


class Range(BaseModel):
    """Numbers that a sweep tries, in the place of one number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float = Field(allow_inf_nan=False, description="the smallest that is tried")
    high: float = Field(allow_inf_nan=False, description="the largest that is tried")
    log: bool = Field(False, description="evenly by the logarithm: as many between 0.01 and 0.1 as between 0.1 and 1")

    @model_validator(mode="after")
    def _has_room(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low must lie below high, got {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"by the logarithm a range begins above 0, got low {self.low:g}")
        return self


def is_range(value: Any) -> bool:
    """A plain mapping is written as a range."""
    return isinstance(value, dict) and {"low", "high"} <= set(value) <= {"low", "high", "log"}


def _written_as(value: Any) -> str:
    """How an open number is written, so that a mistake is told of that form alone."""
    if value is None or value == AUTO:
        return str(value)
    return "range" if isinstance(value, dict | Range) else "number"


_Auto = Annotated[Literal["auto"], Tag("auto")]
_Range = Annotated[Range, Tag("range")]
_None = Annotated[None, Tag("None")]
OpenScale = Annotated[
    Annotated[float, Field(ge=-100, le=100), Tag("number")] | _Auto | _Range | _None, Discriminator(_written_as)
]
OpenWeight = Annotated[
    Annotated[float, Field(ge=0), Tag("number")] | _Auto | _Range | _None, Discriminator(_written_as)
]

AUTO_SCALE = Range(low=0.05, high=2.0, log=True)
"""`conservatism: {scale: auto}`: standard deviations subtracted."""
