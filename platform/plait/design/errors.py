"""Every error Plait raises on purpose: one tree, each with the exit code and the next thing to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pydantic import ValidationError


class PlaitError(Exception):
    """Base of all errors that a user may see.

    Args:
        message: What is wrong, in one sentence.
        hint: What to do about it, in one sentence; empty if the message says it.
    """

    exit_code: ClassVar[int] = 5
    code: ClassVar[str] = "failed"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross process boundaries (Ray workers), keyword-only fields included."""
        return _rebuild, (type(self), self.args, dict(self.__dict__))

    def to_json(self) -> dict[str, Any]:
        """The error as the document that `--json` prints."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint}}


def _rebuild(kind: type[PlaitError], args: tuple[Any, ...], fields: dict[str, Any]) -> PlaitError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


def first_reason(error: ValidationError) -> str:
    """What a pydantic error says first, in one line."""
    return error.errors()[0]["msg"].removeprefix("Value error, ")


class UsageError(PlaitError):
    """The call itself makes no sense (a flag that contradicts another)."""

    exit_code = 2
    code = "usage"


@dataclass(frozen=True)
class RowProblem:
    """One cell of an input file that cannot be used; rows count from 1 at the header."""

    row: int
    column: str
    value: str
    reason: str


class BadInputError(PlaitError):
    """Something that came from outside (file, YAML, HTTP body, environment) is wrong.

    Args:
        message: What is wrong.
        hint: What to do.
        problems: Every bad cell or field, in file order.
    """

    exit_code = 3
    code = "bad_input"

    def __init__(self, message: str, *, hint: str = "", problems: Sequence[RowProblem] = ()) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)

    def to_json(self) -> dict[str, Any]:
        """The error with every problem named."""
        document = super().to_json()
        document["error"]["problems"] = [asdict(problem) for problem in self.problems]
        return document


class ConfigError(BadInputError):
    """A configuration contradicts itself, its algorithm's name or its bounds."""

    code = "bad_config"


class NotFoundError(PlaitError):
    """A named thing does not exist in this home."""

    exit_code = 4
    code = "not_found"


class UnreachableError(NotFoundError):
    """A service that the home names does not answer now; the same call may succeed later."""

    code = "unreachable"


class WrongStateError(PlaitError):
    """The thing exists, but what was asked cannot be done to it now."""

    exit_code = 4
    code = "wrong_state"


class StoppedError(WrongStateError):
    """Somebody paused or cancelled the campaign."""

    code = "stopped"


class CorruptArtifactError(PlaitError):
    """A stored file is missing, truncated or its SHA-256 differs from the recorded one."""

    exit_code = 5
    code = "corrupt_artifact"


class RunFailedError(PlaitError):
    """A training run or a stage failed; what was finished before it stays."""

    exit_code = 5
    code = "run_failed"


class StoreError(RunFailedError):
    """What lies behind a URL cannot be reached or used now; the same call may succeed later."""
