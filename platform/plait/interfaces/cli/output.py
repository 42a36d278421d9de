"""Results as text: one JSON document, or lines and tables; plain where nobody looks or no colour is wanted."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any, TextIO, TypeAlias

Table: TypeAlias = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Headers and rows, all text."""
Block: TypeAlias = str | Table


def plain(value: Any) -> Any:
    """A value as JSON knows it: records as mappings, times as ISO text, what is not finite as None.

    Raises:
        TypeError: Nothing JSON can hold.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy
        return plain(value.tolist())
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} is no JSON")


def json_text(document: Any) -> str:
    """The document as JSON in ASCII: valid under every locale."""
    return json.dumps(plain(document), indent=2, allow_nan=False) + "\n"


def write(stream: TextIO, text: str) -> None:
    """Write and flush; a reader that has gone (`| head`) is no error, and nothing more is sent to it."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def is_fancy(stream: TextIO) -> bool:
    """Whether boxes and colours are welcome."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_blocks(stream: TextIO, blocks: Iterable[Block]) -> None:
    """Print lines and tables, in order."""
    for block in blocks:
        if isinstance(block, str):
            write(stream, f"{block}\n")
        elif is_fancy(stream):
            _print_box(stream, block)
        else:
            write(stream, aligned(block))


def aligned(table: Table) -> str:
    """A table as columns that are two blanks apart; never cut, however narrow the terminal."""
    headers, rows = table[0], [[one_line(cell) for cell in row] for row in table[1]]
    widths = [max(len(row[i]) for row in [headers, *rows]) for i in range(len(headers))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [headers, *rows]]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _print_box(stream: TextIO, table: Table) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Box
    from rich.text import Text

    headers, rows = table
    box = Box(*headers, box=SIMPLE_HEAD, header_style="bold")
    for row in rows:
        box.add_row(*(Text(one_line(cell)) for cell in row))
    Console(file=stream).print(box)


def facts(**values: object) -> str:
    """Name and value, one a line, aligned; empty values are left out."""
    told = {name.replace("_", " "): one_line(str(value)) for name, value in values.items() if value not in (None, "")}
    width = max(map(len, told), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in told.items())


def one_line(text: str) -> str:
    """Text that somebody else wrote, safe on a terminal."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def number(value: float | None) -> str:
    """Four digits; a dash where there is nothing."""
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"


def when(time: date) -> str:
    """A time (UTC) to the minute."""
    return time.strftime("%Y-%m-%d %H:%M")


def notes(texts: Iterable[str]) -> list[str]:
    """Notes as lines."""
    return [f"note: {text}" for text in texts]


def plural(count: int, what: str) -> str:
    """1 design, 2 designs."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
