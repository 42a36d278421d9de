"""Which sequences of a pool a model can score, judged by numpy over all rows at once; only bad rows meet Python."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from plait.design.errors import RowProblem
from plait.design.space import DesignSpace
from plait.lab.delimited import shorten

NO_LETTER = 255


class SequenceCheck:
    """What a design space says of cells of text.

    Args:
        space: Length, letters and the letters allowed at each position; its constraints are not asked here.
    """

    def __init__(self, space: DesignSpace) -> None:
        self.space = space
        mask = space.allowed_mask()
        self._token_of = np.full(256, NO_LETTER, dtype=np.uint8)
        self._token_of[list(space.alphabet.letters.encode())] = np.arange(space.alphabet.size, dtype=np.uint8)
        self._forbidden: NDArray[np.bool_] | None = None
        if not mask.all():
            padded = np.vstack([mask.T, np.zeros((256 - space.alphabet.size, space.length), dtype=bool)])
            self._forbidden = ~padded[self._token_of]  # (256 bytes, L)

    def fitting(self, cells: pa.BinaryArray) -> NDArray[np.bool_]:
        """(n,) bool: cells that the model can score."""
        right_length = pc.equal(pc.binary_length(cells), self.space.length)
        fits: NDArray[np.bool_] = np.array(pc.fill_null(right_length, False))
        letters = letters_of(cells if fits.all() else cells.filter(pa.array(fits)), self.space.length)
        if self._forbidden is None:
            wrong = (self._token_of[letters] == NO_LETTER).any(1)
        else:
            wrong = np.zeros(len(letters), dtype=bool)
            for position in range(self.space.length):
                wrong |= self._forbidden[letters[:, position], position]
        fits[np.flatnonzero(fits)[wrong]] = False
        return fits

    def tokens(self, cells: pa.Array) -> NDArray[np.uint8]:
        """Tokens (n, L) uint8 of cells that fit."""
        return self._token_of[letters_of(cells, self.space.length)]

    def problems(self, cells: pa.Array, rows: NDArray[np.int64], column: str) -> Iterator[RowProblem]:
        """Why each of these cells, none of which fits, cannot be scored."""
        for row, cell in zip(rows.tolist(), cells.to_pylist(), strict=True):
            text = (cell or b"").decode("utf-8", "backslashreplace")
            yield RowProblem(row, column, shorten(text), self._why(text))

    def _why(self, text: str) -> str:
        if not text:
            return "empty cell"
        if reason := self.space.alphabet.problem_in(text):
            return reason
        if len(text) != self.space.length:
            return f"length {len(text)}, expected {self.space.length}"
        pairs = enumerate(zip(text, self.space.allowed, strict=True), start=1)
        position, letter, allowed = next((p, c, a) for p, (c, a) in pairs if c not in a)
        return f"'{letter}' at position {position}: allowed {allowed}"


def letters_of(cells: pa.Array, length: int) -> NDArray[np.uint8]:
    """The bytes of text or binary cells that are all `length` bytes long and not null, (n, length); no copy."""
    if len(cells) == 0:
        return np.zeros((0, length), dtype=np.uint8)
    _, offsets, data = cells.buffers()
    first = int(np.frombuffer(offsets, dtype=np.int32)[cells.offset])
    return np.frombuffer(data, dtype=np.uint8, count=len(cells) * length, offset=first).reshape(len(cells), length)
