"""plait score: a pool of sequences through a reward model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plait.interfaces.cli.output import facts, notes, plural
from plait.interfaces.cli.session import Session, command

if TYPE_CHECKING:
    from plait.bootstrap.scoring_pool import PoolScores


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    example = "plait score --model sites-1-reward --input pool.parquet --output scored.parquet"
    command(app, "score", example=example)(score)


def score(
    session: Session,
    input: Annotated[  # noqa: A002
        Path, typer.Option("--input", metavar="FILE", help="CSV, TSV or FASTA, each also .gz, or Parquet.")
    ],
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help=".parquet or .csv.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="NAME, NAME@ALIAS or NAME@VERSION of a reward [the champion, or the newest]."
        ),
    ] = None,
    conservatism: Annotated[
        str | None,
        typer.Option(
            metavar="KIND[:SCALE]", help="none, boot, bonus or rarity, and how many std to subtract [boot:0.5]."
        ),
    ] = None,
    sequence_column: Annotated[str, typer.Option(metavar="NAME", help="Column of sequences in a table.")] = "sequence",
    members: Annotated[bool, typer.Option("--members", help="Add every member's own prediction.")] = False,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Leave bad rows out and list them in OUTPUT.rejected.csv.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=0, max=4096, help="Processes on Ray [its CPUs]; 0 scores in this one.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1_000_000, help="Sequences of one forward.")] = 4096,
) -> None:
    """Score a file of sequences with a reward model: mean, std and a conservative value for each, in its order.

    Safe to stop: the same command goes on from the last finished part.
    """
    with session.open() as home:
        done = home.score(
            input,
            output,
            model=model,
            conservatism=conservatism,
            workers=workers,
            batch_size=batch_size,
            sequence_column=sequence_column,
            members=members,
            skip_bad_rows=skip_bad_rows,
        )
    session.show(
        {**asdict(done), "files": [done.output, *filter(None, [done.rejected])]}, _summary(done), *_notes(done)
    )


def _summary(done: PoolScores) -> str:
    kind, scale = done.conservatism
    return facts(
        model=done.model,
        conservatism=kind if kind == "none" else f"{kind}, {scale:g} std subtracted",
        rows=f"{done.num_rows:,}" + (f" ({done.num_resumed:,} scored before)" if done.num_resumed else ""),
        rate=f"{done.rate:,.0f} sequences/s" if done.rate else "",
        seconds=", ".join(f"{step} {seconds:.1f}" for step, seconds in done.seconds.items()),
        output=done.output,
        rejected=f"{plural(done.num_rejected, 'row')} in {done.rejected}" if done.rejected else "",
    )


def _notes(done: PoolScores) -> list[str]:
    return notes(done.notes)
