"""Scorers of black-box rewards by name: what a campaign may ask for is the name, what it means stands only here.

scorers:
  folding: {kind: subprocess, command: [fold, --quiet], timeout_s: 300}
  server: {kind: http, url: https://scores.example.org/v1, headers: {Authorization: SCORES_TOKEN}}

Commands, addresses and header values never enter a campaign, a model's bundle or the registry.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

ScorerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,100}$")]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,199}$")]


class SubprocessSettings(BaseModel):
    """A program that reads one sequence a line and writes one number a line; started without a shell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["subprocess"] = "subprocess"
    command: tuple[str, ...] = Field(min_length=1, description="program (on PATH, or an absolute path) and arguments")
    timeout_s: float = Field(600, gt=0, le=86_400, description="seconds that one batch may take")

    @field_validator("command")
    @classmethod
    def _can_be_started(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        if not command[0] or any("\0" in word for word in command):
            raise ValueError("must start with a program, and no word may hold a NUL")
        if "/" in command[0] and not command[0].startswith("/"):
            raise ValueError("names a program relative to wherever Plait runs; give an absolute path or a name on PATH")
        return command


class HttpSettings(BaseModel):
    """A server that answers POST {"sequences": [...]} with {"scores": [...]}; redirects are not followed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["http"] = "http"
    url: str = Field(max_length=2_000, description="http:// or https://, without credentials")
    timeout_s: float = Field(60, gt=0, le=86_400, description="seconds of silence after which an answer is given up")
    headers: dict[HeaderName, VariableName] = Field(
        default_factory=dict, description="header -> environment variable that holds its value; never the value itself"
    )
    num_retries: int = Field(4, ge=0, le=20, description="times a busy (429, 503) or lost server is asked again")
    backoff_s: float = Field(0.5, gt=0, le=60, description="seconds before the first retry; doubles with each")

    @field_validator("url")
    @classmethod
    def _is_a_plain_web_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not re.fullmatch(r"[!-~]+", url):
            raise ValueError("is no web address; give http://host/path or https://host/path")
        if parts.username is not None or parts.password is not None:
            raise ValueError("holds credentials; put them into an environment variable and name it under headers")
        return url


AnyScorer = Annotated[SubprocessSettings | HttpSettings, Field(discriminator="kind")]
SCORER_KINDS: dict[str, type[BaseModel]] = {"subprocess": SubprocessSettings, "http": HttpSettings}
