"""Alphabets: the letters a design is written in, their order as tokens, their complement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from plait.design.errors import BadInputError, RowProblem, first_reason

IUPAC_DNA = {
    "A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
    "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT",
}  # fmt: skip
IUPAC_RNA = {key.replace("T", "U"): value.replace("T", "U") for key, value in IUPAC_DNA.items()}


_USABLE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789*._")


class Alphabet(BaseModel):
    """An ordered set of letters; token i is letters[i], the mask token is len(letters).

    Attributes:
        name: "dna", "rna", "protein" or "custom".
        letters: Upper-case A-Z, digits and *._ only, distinct, in token order.
        complement: letters' complements in the same order, or "" where there is no second strand.
        wildcards: Template letter to the letters it stands for (IUPAC codes; X for protein).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    letters: str
    complement: str = ""
    wildcards: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _letters_are_distinct(self) -> Alphabet:
        if len(self.letters) < 2 or len(set(self.letters)) != len(self.letters):
            raise ValueError("an alphabet needs at least two distinct letters")
        if not set(self.letters) <= _USABLE:
            raise ValueError("letters are upper-case A-Z, digits, '*', '.' or '_'")
        if self.complement and sorted(self.complement) != sorted(self.letters):
            raise ValueError("complement must be a permutation of letters")
        for code, meaning in self.wildcards.items():
            if len(code) != 1 or not meaning or not set(meaning) <= set(self.letters):
                raise ValueError(f"the wildcard '{code}' must be one letter that stands for some of {self.letters}")
        return self

    def __hash__(self) -> int:
        return hash((self.name, self.letters, self.complement, frozenset(self.wildcards.items())))

    @property
    def size(self) -> int:
        """Number of letters V."""
        return len(self.letters)

    @property
    def mask_token(self) -> int:
        """The token of the mask state, V."""
        return len(self.letters)

    def complement_tokens(self) -> NDArray[np.int64]:
        """Token of each letter's complement, (V,) int64.

        Raises:
            BadInputError: The alphabet has no second strand.
        """
        if not self.complement:
            raise BadInputError(f"the alphabet '{self.name}' has no complement", hint="use dna or rna")
        return np.array([self.letters.index(letter) for letter in self.complement], dtype=np.int64)

    def problem_in(self, sequence: str) -> str:
        """Why `sequence` is not written in this alphabet, with the position; "" where it is."""
        for position, letter in enumerate(sequence, start=1):
            if letter not in self.letters:
                return self._explain(letter, position)
        return ""

    def _explain(self, letter: str, position: int) -> str:
        where = f"at position {position}"
        if letter != letter.upper() and letter.upper() in self.letters:
            return f"lower-case '{letter}' {where}: write upper-case letters"
        swap = {
            ("dna", "U"): "RNA letter; use --alphabet rna or write T",
            ("rna", "T"): "DNA letter; use --alphabet dna or write U",
        }
        if (self.name, letter.upper()) in swap:
            return f"'{letter}' {where} is a {swap[self.name, letter.upper()]}"
        if letter.upper() in self.wildcards:
            return f"ambiguous '{letter}' {where} stands for {self.wildcards[letter.upper()]}: write one letter"
        return f"{letter!r} {where} is not one of {self.letters}"

    def encode(self, sequences: Sequence[str]) -> NDArray[np.int64]:
        """Tokens (n, L) int64 of equally long sequences.

        Raises:
            BadInputError: A foreign letter or another length; every bad item is named (items count from 1).
        """
        if not sequences:
            return np.zeros((0, 0), dtype=np.int64)
        length = len(sequences[0])
        table = np.full(0x110000 if any(not s.isascii() for s in sequences) else 128, -1, dtype=np.int64)
        for token, letter in enumerate(self.letters):
            table[ord(letter)] = token
        if all(len(s) == length for s in sequences):
            codes = np.frombuffer("".join(sequences).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
            tokens = table[codes].reshape(len(sequences), length)
            if not (tokens < 0).any():
                return tokens
        problems = [
            RowProblem(item, "sequence", s, self.problem_in(s) or f"length {len(s)}, expected {length}")
            for item, s in enumerate(sequences, start=1)
            if len(s) != length or self.problem_in(s)
        ]
        raise BadInputError(f"{len(problems)} of {len(sequences)} sequences cannot be read", problems=problems)

    def decode(self, tokens: NDArray[np.int64]) -> list[str]:
        """Sequences of tokens (n, L) int64; the mask token is written as '?'."""
        letters = np.array([*self.letters, "?"])
        return ["".join(row) for row in letters[np.asarray(tokens)]]


DNA = Alphabet(name="dna", letters="ACGT", complement="TGCA", wildcards=IUPAC_DNA)
RNA = Alphabet(name="rna", letters="ACGU", complement="UGCA", wildcards=IUPAC_RNA)
PROTEIN = Alphabet(
    name="protein",
    letters="ACDEFGHIKLMNPQRSTVWY",
    wildcards={
        **{letter: letter for letter in "ACDEFGHIKLMNPQRSTVWY"},
        "X": "ACDEFGHIKLMNPQRSTVWY",
        "B": "DN",
        "Z": "EQ",
        "J": "IL",
    },
)
_NAMED = {"dna": DNA, "rna": RNA, "protein": PROTEIN}


def find_alphabet(name: str) -> Alphabet:
    """The alphabet called `name`: dna, rna, protein, or custom:LETTERS (such as custom:01).

    Raises:
        BadInputError: Unknown name or unusable letters.
    """
    if name in _NAMED:
        return _NAMED[name]
    if name.startswith("custom:"):
        letters = name.removeprefix("custom:")
        try:
            return Alphabet(name="custom", letters=letters, wildcards={letter: letter for letter in letters})
        except ValidationError as error:
            raise BadInputError(f"unusable custom alphabet '{letters}': {first_reason(error)}") from error
    raise BadInputError(f"unknown alphabet '{name}'", hint="use dna, rna, protein or custom:LETTERS")
