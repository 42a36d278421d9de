"""Order files: what is sent to the lab, the same bytes at every export."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from plait.design.errors import BadInputError

COLUMNS = ("design_id", "sequence", "predicted_mean", "predicted_std", "conservative", "rank")
ASSAYS, ASSAY_SEPARATOR = "assays", ";"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class OrderRow(Protocol):
    """A design as an order lists it; predictions in the assay's unit and direction."""

    @property
    def design_id(self) -> str:
        """Unique name."""
        ...

    @property
    def sequence(self) -> str:
        """Letters to make."""
        ...

    @property
    def predicted_mean(self) -> float:
        """Mean over the reward ensemble."""
        ...

    @property
    def predicted_std(self) -> float:
        """Its uncertainty."""
        ...

    @property
    def conservative(self) -> float:
        """The figure that it was ranked by."""
        ...

    @property
    def rank(self) -> int:
        """1 is the first choice."""
        ...


def order_bytes(rows: Iterable[OrderRow], assays: Sequence[str] = ()) -> bytes:
    r"""The order as CSV: UTF-8, LF, by rank, numbers in the shortest form that reads back exactly.

    Several assays stand in every row, in a last column `assays`, separated by semicolons: each is to be run on every
    design, and results name the one that they belong to. One assay needs no column.

    A text cell that a spreadsheet would execute (it starts with = + - @ TAB or CR) gets an apostrophe in front, which
    spreadsheets take as "this is text". Numbers are written by us and stay numbers, also negative ones.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    told = [_as_text(ASSAY_SEPARATOR.join(assays))] if len(assays) > 1 else []
    writer.writerow([*COLUMNS, *([ASSAYS] if told else [])])
    for row in sorted(rows, key=lambda row: (row.rank, row.design_id)):
        numbers = [repr(float(number)) for number in (row.predicted_mean, row.predicted_std, row.conservative)]
        writer.writerow([_as_text(row.design_id), _as_text(row.sequence), *numbers, int(row.rank), *told])
    return text.getvalue().encode()


def write_order(path: Path | str, rows: Iterable[OrderRow], assays: Sequence[str] = ()) -> str:
    """Write the order (see order_bytes) to `path`, all of it or nothing, and return the hex SHA-256 of its bytes.

    Raises:
        BadInputError: `path` cannot be written, or is no ordinary file (a device would be replaced by one).
    """
    path, content = Path(path), order_bytes(rows, assays)
    try:
        if path.exists() and not path.is_file():
            raise BadInputError(f"{path} cannot be written: it is no ordinary file", hint="choose another file")
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise BadInputError(f"{path} cannot be written: {error.strerror}", hint="does its folder exist?") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)  # mkstemp makes private files; an order is as readable as any other
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise BadInputError(f"{path} cannot be written: {error.strerror}") from error
    return hashlib.sha256(content).hexdigest()


def _as_text(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell
