"""Reading a reward model back from its bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from plait.design.bundles import load_bundle
from plait.design.errors import CorruptArtifactError

Model = TypeVar("Model")
FromRecord = Callable[[dict[str, Any], dict[str, NDArray[Any]]], Model]


def load_record(directory: Path, from_record: FromRecord[Model], what: str) -> Model:
    """The model that `from_record` makes of a bundle of kind "reward".

    Raises:
        CorruptArtifactError: The bundle is damaged, of another kind, or its tensors do not fit its configuration.
    """
    description, tensors = load_bundle(directory, "reward")
    try:
        return from_record(description, tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise CorruptArtifactError(
            f"{directory} holds no usable {what}: {error}", hint="train the model again"
        ) from error
