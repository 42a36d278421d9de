"""Use cases over datasets: import, append, replace. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from plait.campaign.fingerprints import content_hash
from plait.campaign.records import DatasetVersion, Upload
from plait.campaign.repository import Repository
from plait.design.alphabets import find_alphabet
from plait.design.errors import BadInputError, NotFoundError, RowProblem, UsageError, WrongStateError
from plait.design.records import Goal, Readings

Mode = Literal["new", "append", "replace"]


@dataclass(frozen=True)
class Import:
    """What an import did: the version, and whether it is new (False: the same content was there already)."""

    version: DatasetVersion
    is_new: bool
    num_added: int


def import_dataset(
    repository: Repository,
    readings: Readings,
    *,
    dataset: str,
    alphabet: str,
    unit: str,
    goal: Goal,
    mode: Mode,
    actor: str,
    upload: Upload | None = None,
) -> Import:
    """Register readings as a new version of a dataset; the same content twice is one version.

    Raises:
        WrongStateError: A known dataset with other content and neither append nor replace.
        BadInputError: Appended rows contradict readings that are there, or have another length.
        UsageError: Appending with another alphabet, unit or goal.
    """
    find_alphabet(alphabet)
    own_hash = content_hash(readings, alphabet=alphabet, unit=unit, goal=goal)
    with repository.begin() as uow:
        try:
            latest: DatasetVersion | None = uow.dataset_version(dataset)
        except NotFoundError:
            latest = None
        seen = {version.id: version for version in (uow.dataset_versions(dataset) if latest else [])}
        if latest is not None and mode != "append" and own_hash in seen and (mode == "new" or latest.id == own_hash):
            return Import(seen[own_hash], False, 0)
        if latest is not None and mode == "new":
            raise WrongStateError(
                f"the dataset '{dataset}' exists with other content (version {latest.number})",
                hint="add --append to join these rows to it, or --replace to make them its new version",
            )
        if latest is not None and mode == "replace" and own_hash in seen:
            raise WrongStateError(
                f"this content is version {seen[own_hash].number} of '{dataset}'; the latest is {latest.number}",
                hint="versions are never moved: import it under another name to work from it again",
            )
        combined, num_added = readings, len(readings)
        if latest is not None and mode == "append":
            combined, num_added = _append(uow.readings(latest.id), readings, latest, alphabet, unit, goal)
            own_hash = content_hash(combined, alphabet=alphabet, unit=unit, goal=goal)
            if own_hash == latest.id:
                return Import(latest, False, 0)
        version = uow.add_dataset_version(
            dataset,
            combined,
            content_hash=own_hash,
            alphabet=alphabet,
            unit=unit,
            goal=goal,
            actor=actor,
            parent_id=latest.id if latest else None,
            upload=upload,
        )
        return Import(version, version.id not in seen, num_added)


def _append(
    old: Readings, new: Readings, version: DatasetVersion, alphabet: str, unit: str, goal: Goal
) -> tuple[Readings, int]:
    named = {"alphabet": (version.alphabet, alphabet), "unit": (version.unit, unit), "goal": (version.goal, goal)}
    for key, (before, now) in named.items():
        if before != now:
            raise UsageError(f"the dataset '{version.dataset}' has {key} {before}, not {now}")
    known = {
        (s, r): (v, None if old.stds is None else float(old.stds[i]))
        for i, (s, r, v) in enumerate(zip(old.sequences, old.replicates, old.values, strict=True))
    }
    problems, keep = [], []
    for i, (sequence, replicate, value) in enumerate(zip(new.sequences, new.replicates, new.values, strict=True)):
        if len(sequence) != version.length:
            problems.append(
                RowProblem(i + 2, "sequence", sequence, f"length {len(sequence)}, expected {version.length}")
            )
        elif (sequence, replicate) not in known:
            keep.append(i)
        elif known[sequence, replicate][0] != value:
            was = known[sequence, replicate][0]
            problems.append(
                RowProblem(i + 2, "value", f"{value:g}", f"{sequence} replicate {replicate} is registered with {was:g}")
            )
    if problems:
        raise BadInputError(
            f"{len(problems)} rows contradict the dataset '{version.dataset}'",
            hint="name another replicate, or use --replace",
            problems=problems,
        )
    return concatenate(old, take(new, keep)), len(keep)


def take(readings: Readings, rows: list[int]) -> Readings:
    """The readings at `rows`."""
    return Readings(
        tuple(readings.sequences[i] for i in rows),
        readings.values[rows],
        tuple(readings.replicates[i] for i in rows),
        None if readings.stds is None else readings.stds[rows],
        None if readings.batches is None else tuple(readings.batches[i] for i in rows),
    )


def concatenate(first: Readings, second: Readings) -> Readings:
    """Both, in order; a std or batch that one of them lacks is NaN or ""."""

    def stds(part: Readings) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.full(len(part), np.nan) if part.stds is None else part.stds

    return Readings(
        first.sequences + second.sequences,
        np.concatenate([first.values, second.values]),
        first.replicates + second.replicates,
        None if first.stds is None and second.stds is None else np.concatenate([stds(first), stds(second)]),
        None
        if first.batches is None and second.batches is None
        else (first.batches or ("",) * len(first)) + (second.batches or ("",) * len(second)),
    )
