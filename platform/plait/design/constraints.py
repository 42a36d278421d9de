"""Constraints on a whole sequence; each says which item breaks it at which position (from 1)."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from plait.design.alphabets import Alphabet
from plait.design.errors import BadInputError

Broken = list[tuple[int, int, str]]
"""(item from 0, position from 1 or 0 for the whole sequence, reason)"""


class _Constraint(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def is_satisfied(self, tokens: NDArray[np.int64], alphabet: Alphabet) -> NDArray[np.bool_]:
        """(n,) bool for tokens (n, L) int64."""
        satisfied = np.ones(len(tokens), dtype=bool)
        satisfied[sorted({item for item, _, _ in self.violations(tokens, alphabet)})] = False
        return satisfied

    def violations(self, tokens: NDArray[np.int64], alphabet: Alphabet) -> Broken:
        """Every place where tokens (n, L) int64 break the rule."""
        raise NotImplementedError


class GcWindow(_Constraint):
    """The share of G and C, in every window of `window` letters (the whole sequence by default)."""

    kind: Literal["gc_window"] = "gc_window"
    minimum: float = Field(0.0, ge=0, le=1)
    maximum: float = Field(1.0, ge=0, le=1)
    window: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _is_a_range(self) -> GcWindow:
        if self.minimum > self.maximum:
            raise ValueError("minimum must not exceed maximum")
        return self

    def violations(self, tokens: NDArray[np.int64], alphabet: Alphabet) -> Broken:
        """The start of every window whose GC share lies outside the range."""
        if not {"G", "C"} <= set(alphabet.letters) or not alphabet.complement:
            raise BadInputError(f"gc_window needs dna or rna, not '{alphabet.name}'")
        width = min(self.window or tokens.shape[1], tokens.shape[1])
        is_gc = np.isin(tokens, [alphabet.letters.index("G"), alphabet.letters.index("C")])
        share = sliding_window_view(is_gc, width, axis=1).mean(-1)
        outside = (share < self.minimum - 1e-9) | (share > self.maximum + 1e-9)
        return [
            (
                int(i),
                int(p) + 1,
                f"GC {share[i, p]:.2f} in {width} letters, allowed {self.minimum:g} to {self.maximum:g}",
            )
            for i, p in zip(*np.nonzero(outside), strict=True)
        ]


class MaxHomopolymer(_Constraint):
    """No letter more than `length` times in a row."""

    kind: Literal["max_homopolymer"] = "max_homopolymer"
    length: int = Field(ge=1)

    def violations(self, tokens: NDArray[np.int64], alphabet: Alphabet) -> Broken:
        """The start of every run that is too long."""
        if tokens.shape[1] <= self.length:
            return []
        windows = sliding_window_view(tokens, self.length + 1, axis=1)
        is_run = (windows == windows[..., :1]).all(-1)
        is_run[:, 1:] &= ~is_run[:, :-1]
        return [
            (int(i), int(p) + 1, f"more than {self.length} '{alphabet.letters[tokens[i, p]]}' in a row")
            for i, p in zip(*np.nonzero(is_run), strict=True)
        ]


class ForbiddenMotif(_Constraint):
    """None of the motifs (wildcards allowed); for alphabets with a complement on both strands."""

    kind: Literal["forbidden_motif"] = "forbidden_motif"
    motifs: tuple[str, ...] = Field(min_length=1)
    both_strands: bool = True

    def violations(self, tokens: NDArray[np.int64], alphabet: Alphabet) -> Broken:
        """The start of every occurrence, on the strand that is read."""
        found: Broken = []
        for motif in self.motifs:
            foreign = [f"{c!r} at position {i}" for i, c in enumerate(motif, start=1) if c not in alphabet.wildcards]
            if foreign or not motif:
                why = ", ".join(foreign) or "it is empty"
                raise BadInputError(f"the motif '{motif}' is not written in {alphabet.name}: {why}")
            if len(motif) > tokens.shape[1]:
                continue
            mask = np.array([[letter in alphabet.wildcards[code] for letter in alphabet.letters] for code in motif])
            strands = {"": mask}
            if self.both_strands and alphabet.complement:
                twin = mask[::-1][:, alphabet.complement_tokens()]
                if not np.array_equal(twin, mask):
                    strands[" on the other strand"] = twin
            windows = sliding_window_view(tokens, len(motif), axis=1)
            for strand, allowed in strands.items():
                hit = allowed[np.arange(len(motif)), windows].all(-1)
                found += [(int(i), int(p) + 1, f"motif {motif}{strand}") for i, p in zip(*np.nonzero(hit), strict=True)]
        return sorted(found)


class EditDistance(_Constraint):
    """At most `maximum` letters differ from `parent` (substitutions; designs have one length)."""

    kind: Literal["edit_distance"] = "edit_distance"
    parent: str = Field(min_length=1)
    maximum: int = Field(ge=0)

    def violations(self, tokens: NDArray[np.int64], alphabet: Alphabet) -> Broken:
        """The position of the first letter beyond the allowed number of changes."""
        if why := alphabet.problem_in(self.parent):
            raise BadInputError(f"the parent '{self.parent}' is not written in {alphabet.name}: {why}")
        parent = alphabet.encode([self.parent])[0]
        if len(parent) != tokens.shape[1]:
            raise BadInputError(f"the parent has {len(parent)} letters, designs have {tokens.shape[1]}")
        changes = (tokens != parent).cumsum(1)
        return [
            (
                int(i),
                int((changes[i] > self.maximum).argmax()) + 1,
                f"{changes[i, -1]} changes from the parent, allowed {self.maximum}",
            )
            for i in np.flatnonzero(changes[:, -1] > self.maximum)
        ]


AnyConstraint = Annotated[GcWindow | MaxHomopolymer | ForbiddenMotif | EditDistance, Field(discriminator="kind")]
