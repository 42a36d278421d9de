"""Deny-list screening: designs that share a stretch with a listed sequence are not cleared.

The list that comes with Plait is empty on purpose: a package is no place to publish hazardous sequences. A team adds
its own file (JSON, the form of data/deny_list.json) with entries of three sorts:

    {"id": "tox-1", "kind": "dna", "sequence": "ACGT...", "reason": "why"}        letters; IUPAC codes make it a motif
    {"id": "tox-2", "kind": "protein", "sequence": "MKT...", "reason": "why"}     also found in DNA, in all six frames
    {"id": "tox-3", "kind": "dna", "sha256": "...", "length": 40, "reason": "why"} hash of upper-case letters (T, not U)

This is an exact comparison, not a homology search, and no substitute for the screening that a synthesis provider does.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from plait.design.alphabets import DNA, PROTEIN, Alphabet
from plait.design.errors import BadInputError, PlaitError, first_reason

_CODON_LETTERS = "TCAG"
_AMINO_ACIDS = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
GENETIC_CODE = dict(zip(map("".join, itertools.product(_CODON_LETTERS, repeat=3)), _AMINO_ACIDS, strict=True))
_COMPLEMENT = str.maketrans("ACGT", "TGCA")


class ScreeningVerdict(NamedTuple):
    """What the screener says of one design, and why."""

    is_cleared: bool
    reason: str


class DenyEntry(BaseModel):
    """One listed sequence: its letters, or the SHA-256 of them and their number."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1, max_length=200)
    kind: Literal["dna", "protein"]
    reason: str = Field(min_length=1)
    sequence: str | None = Field(None, min_length=4)
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    length: int | None = Field(None, ge=4)

    @model_validator(mode="after")
    def _is_letters_or_hash(self) -> DenyEntry:
        if (self.sequence is None) == (self.sha256 is None) or (self.sha256 is None) != (self.length is None):
            raise ValueError(f"entry '{self.id}' needs either a sequence, or sha256 and length")
        foreign = set(self.sequence or "") - set(self.alphabet.wildcards)
        if foreign:
            raise ValueError(f"entry '{self.id}' has letters that are not {self.kind}: {' '.join(sorted(foreign))}")
        return self

    @property
    def alphabet(self) -> Alphabet:
        """What the entry is written in."""
        return DNA if self.kind == "dna" else PROTEIN


class DenyList(BaseModel):
    """A list of entries. Sequences longer than `window` letters (a third for protein) match by any window of theirs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    source: str = Field(min_length=1)
    window: int = Field(30, ge=12, description="DNA letters that a design may at most share with an entry, plus one")
    entries: tuple[DenyEntry, ...] = ()

    @cached_property
    def patterns(self) -> tuple[tuple[DenyEntry, frozenset[str], tuple[str, ...], int], ...]:
        """(entry, exact stretches or hashes, the letters allowed at each position of a motif, stretch length)."""
        return tuple(_pattern(entry, self.window) for entry in self.entries)


class DenyListScreener:
    """Screens designs by the list that comes with Plait and, where given, a team's own.

    Args:
        path: The team's list.
        is_builtin_used: False leaves out the list that comes with Plait.

    Raises:
        BadInputError: A list cannot be read or is malformed: nothing is screened, so nothing is cleared.
    """

    def __init__(self, path: Path | None = None, is_builtin_used: bool = True) -> None:
        builtin = Path(str(files("plait.lab") / "data" / "deny_list.json"))
        contents = [_read(source) for source in ([builtin] if is_builtin_used else []) + ([path] if path else [])]
        self.lists = tuple(_parse(content, source) for source, content in contents)
        self.name = "plait-deny-list"
        self.version = "+".join(
            f"{deny.name}-{deny.version}-{hashlib.sha256(content).hexdigest()[:12]}"
            for deny, (_, content) in zip(self.lists, contents, strict=True)
        )
        self.num_entries = sum(len(deny.entries) for deny in self.lists)

    def screen(self, sequences: Sequence[str], alphabet: str) -> list[tuple[bool, str]]:
        """A ScreeningVerdict for each of `sequences`, written in `alphabet` (dna, rna, protein, custom).

        DNA and RNA are read on both strands, and in six frames against protein entries. Designs in a custom alphabet
        are no nucleic acids and no proteins: no entry speaks of them, and the verdict says so. What is not written in
        its alphabet cannot be judged and is not cleared.
        """
        return [self._judge(sequence, alphabet.split(":")[0]) for sequence in sequences]

    def _judge(self, sequence: str, alphabet: str) -> ScreeningVerdict:
        if alphabet == "custom":
            return ScreeningVerdict(True, "custom alphabet: deny-lists speak of dna, rna and protein only")
        if alphabet not in ("dna", "rna", "protein"):
            return ScreeningVerdict(False, f"cannot be judged: unknown alphabet '{alphabet}'")
        letters = PROTEIN if alphabet == "protein" else DNA
        text = sequence.replace("U", "T") if alphabet == "rna" and "T" not in sequence else sequence
        why = letters.problem_in(text) or ("" if text else "it is empty")
        if why or (alphabet == "rna" and "T" in sequence):
            return ScreeningVerdict(False, f"cannot be judged: {why or 'T in an RNA sequence'}")
        readings = {"protein": [text]} if alphabet == "protein" else _nucleic_readings(text)
        for deny in self.lists:
            for entry, exact, motif, length in deny.patterns:
                if any(_has(reading, entry, exact, motif, length) for reading in readings.get(entry.kind, [])):
                    return ScreeningVerdict(
                        False, f"matches '{entry.id}' of {deny.name} {deny.version}: {entry.reason}"
                    )
        return ScreeningVerdict(True, f"matches none of {self.num_entries} entries")


def translate(sequence: str) -> str:
    """Protein letters of DNA read from its first letter by the standard genetic code; * is a stop."""
    return "".join(GENETIC_CODE[sequence[i : i + 3]] for i in range(0, len(sequence) - 2, 3))


def _nucleic_readings(sequence: str) -> dict[str, list[str]]:
    strands = [sequence, sequence[::-1].translate(_COMPLEMENT)]
    return {"dna": strands, "protein": [translate(strand[frame:]) for strand in strands for frame in range(3)]}


def _stretches(sequence: str, length: int) -> Iterable[str]:
    return (sequence[i : i + length] for i in range(len(sequence) - length + 1))


def _pattern(entry: DenyEntry, window: int) -> tuple[DenyEntry, frozenset[str], tuple[str, ...], int]:
    if entry.sha256 is not None and entry.length is not None:
        return entry, frozenset([entry.sha256]), (), entry.length
    letters = entry.sequence or ""
    if set(letters) <= set(entry.alphabet.letters):
        length = min(window if entry.kind == "dna" else window // 3, len(letters))
        return entry, frozenset(_stretches(letters, length)), (), length
    return entry, frozenset(), tuple(entry.alphabet.wildcards[letter] for letter in letters), len(letters)


def _has(reading: str, entry: DenyEntry, exact: frozenset[str], motif: tuple[str, ...], length: int) -> bool:
    for stretch in _stretches(reading, length):
        key = stretch if entry.sha256 is None else hashlib.sha256(stretch.encode()).hexdigest()
        if key in exact or (motif and all(letter in allowed for letter, allowed in zip(stretch, motif, strict=True))):
            return True
    return False


def _read(path: Path) -> tuple[Path, bytes]:
    try:
        return path, path.read_bytes()
    except (OSError, ValueError) as error:
        raise _closed(path, str(error)) from error


def _parse(content: bytes, path: Path) -> DenyList:
    try:
        return DenyList.model_validate_json(content)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise _closed(path, f"{where}: {first_reason(error)}" if where else first_reason(error)) from error


def _closed(path: Path, why: str) -> PlaitError:
    return BadInputError(f"the deny-list {path} cannot be used: {why}", hint="without it no design is cleared")
