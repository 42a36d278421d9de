"""The design space: which sequences are candidates at all."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from plait.design.alphabets import Alphabet
from plait.design.constraints import AnyConstraint
from plait.design.errors import BadInputError, RowProblem, first_reason


@dataclass(frozen=True)
class Violation:
    """One broken rule: item (row of the batch, from 0), position (from 1; 0 = the whole sequence), rule and reason."""

    item: int
    position: int
    rule: str
    reason: str


class DesignSpace(BaseModel):
    """Sequences of one length, with the letters allowed at each position and constraints on the whole.

    Attributes:
        alphabet: The letters.
        allowed: For each of the L positions the letters allowed there, such as ("ACGT", "G", "CT").
        constraints: Rules beyond single positions (GC window, homopolymer, motifs, edit distance).
        strand_symmetric: A sequence and its reverse complement are one item.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    alphabet: Alphabet
    allowed: tuple[str, ...]
    constraints: tuple[AnyConstraint, ...] = ()
    strand_symmetric: bool = False

    @model_validator(mode="after")
    def _positions_are_usable(self) -> DesignSpace:
        if not self.allowed:
            raise ValueError("a design space needs at least one position")
        for position, letters in enumerate(self.allowed, start=1):
            if not letters or not set(letters) <= set(self.alphabet.letters) or len(set(letters)) != len(letters):
                raise ValueError(f"position {position} allows '{letters}': not a set of {self.alphabet.letters}")
        if self.strand_symmetric:
            twin = self.alphabet.complement_tokens()
            mask = self.allowed_mask()
            if not np.array_equal(mask, mask[::-1][:, twin]):
                raise ValueError("a strand-symmetric space must allow the reverse complement of each of its sequences")
        for rule in self.constraints:  # a rule that cannot be judged here says so now, not in the middle of a round
            rule.violations(np.zeros((0, self.length), dtype=np.int64), self.alphabet)
        return self

    @classmethod
    def from_template(
        cls,
        alphabet: Alphabet,
        template: str,
        constraints: Sequence[AnyConstraint] = (),
        strand_symmetric: bool = False,
    ) -> DesignSpace:
        """The space of an IUPAC template such as NNNGYNNNN (X is any residue in a protein).

        Letters in brackets are a choice in any alphabet: [01]0[01] is a template of custom:01.

        Raises:
            BadInputError: A template letter that stands for nothing in this alphabet.
        """
        codes = re.findall(r"\[[^\[\]]+\]|.", template, re.DOTALL)
        allowed = tuple(code[1:-1] if len(code) > 1 else alphabet.wildcards.get(code, "") for code in codes)
        foreign = [f"'{code}' at position {i}" for i, code in enumerate(codes, start=1) if not allowed[i - 1]]
        if foreign or not codes:
            raise BadInputError(f"the template '{template}' cannot be read: {', '.join(foreign) or 'it is empty'}")
        try:
            return cls(
                alphabet=alphabet, allowed=allowed, constraints=tuple(constraints), strand_symmetric=strand_symmetric
            )
        except ValidationError as error:
            raise BadInputError(f"the template '{template}' makes no design space: {first_reason(error)}") from error

    @property
    def length(self) -> int:
        """Number of positions L."""
        return len(self.allowed)

    @property
    def template(self) -> str:
        """The allowed letters in IUPAC code where one exists, else in brackets."""
        names = {"".join(sorted(letters)): code for code, letters in self.alphabet.wildcards.items()}
        return "".join(names.get("".join(sorted(letters)), f"[{letters}]") for letters in self.allowed)

    @property
    def size(self) -> int:
        """Number of sequences the positions allow, constraints and strands not counted."""
        return math.prod(len(set(letters)) for letters in self.allowed)

    def allowed_mask(self) -> NDArray[np.bool_]:
        """(L, V) bool: which letter may stand where."""
        return np.array([[letter in letters for letter in self.alphabet.letters] for letters in self.allowed])

    def _fits(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        return self.allowed_mask()[np.arange(self.length), tokens]

    def free_positions(self) -> NDArray[np.int64]:
        """(k,) int64: the positions that allow more than one letter."""
        return np.flatnonzero(self.allowed_mask().sum(1) > 1)

    @property
    def num_free(self) -> int:
        """Number of positions that allow more than one letter."""
        return len(self.free_positions())

    def overlaps(self, other: DesignSpace) -> bool:
        """Whether a sequence of this space may lie in another one as well, constraints not counted."""
        if (self.alphabet.letters, self.length) != (other.alphabet.letters, other.length):
            return False
        return bool((self.allowed_mask() & other.allowed_mask()).any(1).all())

    def encode(self, sequences: Sequence[str]) -> NDArray[np.int64]:
        """Tokens (n, L) int64 of sequences that fit the positions (constraints are not judged here).

        Raises:
            BadInputError: Every sequence with a foreign letter, another length or a letter its position forbids.
        """
        if not sequences:
            return np.zeros((0, self.length), dtype=np.int64)
        wrong = [
            RowProblem(item, "sequence", s, f"length {len(s)}, expected {self.length}")
            for item, s in enumerate(sequences, start=1)
            if len(s) != self.length
        ]
        if wrong:
            raise BadInputError(f"{len(wrong)} of {len(sequences)} sequences have another length", problems=wrong)
        tokens = self.alphabet.encode(sequences)
        fits = self._fits(tokens)
        if not fits.all():
            first = {i: int(fits[i].argmin()) for i in np.flatnonzero(~fits.all(1)).tolist()}
            why = {i: f"'{sequences[i][p]}' at position {p + 1}: allowed {self.allowed[p]}" for i, p in first.items()}
            problems = [RowProblem(i + 1, "sequence", sequences[i], reason) for i, reason in why.items()]
            raise BadInputError(
                f"{len(problems)} sequences lie outside the template {self.template}", problems=problems
            )
        return tokens

    def decode(self, tokens: NDArray[np.int64]) -> list[str]:
        """Sequences of tokens (n, L) int64."""
        return self.alphabet.decode(tokens)

    def canonical(self, tokens: NDArray[np.int64]) -> NDArray[np.int64]:
        """Each item's one representative, (n, L) int64: the smaller of the two strands where they are one item."""
        if not self.strand_symmetric or len(tokens) == 0:
            return tokens
        twin = self.alphabet.complement_tokens()[tokens[:, ::-1]]
        difference = tokens != twin
        first = difference.argmax(1)
        rows = np.arange(len(tokens))
        is_larger = difference.any(1) & (tokens[rows, first] > twin[rows, first])
        return np.where(is_larger[:, None], twin, tokens)

    def violations(self, tokens: NDArray[np.int64]) -> list[Violation]:
        """Every broken rule of tokens (n, L), with its position."""
        fits = self._fits(tokens)
        found = [
            Violation(
                int(i), int(p) + 1, "template", f"'{self.alphabet.letters[tokens[i, p]]}', allowed {self.allowed[p]}"
            )
            for i, p in zip(*np.nonzero(~fits), strict=True)
        ]
        for rule in self.constraints:
            found += [Violation(i, p, rule.kind, why) for i, p, why in rule.violations(tokens, self.alphabet)]
        return found

    def is_feasible(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n,) bool: fits every position and every constraint."""
        fits = self._fits(tokens).all(1)
        for rule in self.constraints:
            fits &= rule.is_satisfied(tokens, self.alphabet)
        return np.asarray(fits)

    def enumerate(self, chunk: int = 65_536) -> Iterator[NDArray[np.int64]]:
        """All feasible items in lexicographic order of tokens, (<= chunk, L) int64 at a time, one strand of a pair."""
        choices = [np.flatnonzero(letters) for letters in self.allowed_mask()]
        for start in range(0, self.size, chunk):
            number = np.arange(start, min(start + chunk, self.size), dtype=np.int64)
            tokens = np.empty((len(number), self.length), dtype=np.int64)
            for position in reversed(range(self.length)):  # the digits of `number`, last position fastest
                number, digit = np.divmod(number, len(choices[position]))
                tokens[:, position] = choices[position][digit]
            keep = self.is_feasible(tokens) & (self.canonical(tokens) == tokens).all(1)
            if keep.any():
                yield tokens[keep]
