"""plait data: check, import, list, show, benchmark."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from plait.interfaces.cli.output import Block, facts, notes, number, plural, when
from plait.interfaces.cli.session import Session, command, make_group

if TYPE_CHECKING:
    from plait.campaign.records import DatasetVersion

File = Annotated[Path, typer.Argument(metavar="FILE", help="CSV or TSV with a header.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A dataset.")]
Alphabet = Annotated[str, typer.Option("--alphabet", help="dna, rna, protein or custom:LETTERS.")]
SequenceColumn = Annotated[str, typer.Option("--sequence-column", metavar="NAME", help="Column of the sequences.")]
ValueColumn = Annotated[str, typer.Option("--value-column", metavar="NAME", help="Column of the readings.")]
ReplicateColumn = Annotated[
    str | None,
    typer.Option("--replicate-column", metavar="NAME", help="Column of replicate labels [replicate, if there]."),
]
StdColumn = Annotated[
    str | None, typer.Option("--std-column", metavar="NAME", help="Column of the readings' standard deviations.")
]
BatchColumn = Annotated[str | None, typer.Option("--batch-column", metavar="NAME", help="Column of batch labels.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = make_group("data", "Datasets: measured sequences.")
    command(group, "check", example="plait data check readings.csv --alphabet dna")(check)
    command(group, "import", example="plait data import readings.csv --dataset sites --alphabet dna --unit log10")(
        import_
    )
    command(group, "list", example="plait data list")(list_)
    command(group, "show", example="plait data show sites")(show)
    command(group, "benchmark", example="plait data benchmark sites")(benchmark)
    app.add_typer(group)


def check(
    session: Session,
    file: File,
    alphabet: Alphabet,
    sequence_column: SequenceColumn = "sequence",
    value_column: ValueColumn = "value",
    replicate_column: ReplicateColumn = None,
    std_column: StdColumn = None,
    batch_column: BatchColumn = None,
) -> None:
    """Read a table and say what it holds; no home is needed."""
    from plait.bootstrap.verbs import Columns, check_table, read_table

    columns = Columns(sequence_column, value_column, replicate_column, std_column, batch_column)
    found = check_table(read_table(file, alphabet, columns))
    session.show(
        found,
        facts(
            file=found.file,
            rows=f"{found.num_rows:,}",
            sequences=f"{found.num_sequences:,} of {found.length} letters",
            replicates=found.num_replicates,
            values=f"{number(found.minimum)} to {number(found.maximum)}, median {number(found.median)}",
        ),
        *notes(found.notes),
    )


def import_(
    session: Session,
    file: File,
    dataset: Annotated[str, typer.Option(metavar="NAME", help="The dataset.")],
    alphabet: Alphabet,
    unit: Annotated[str, typer.Option(help="Unit of the readings.")],
    goal: Annotated[Literal["maximize", "minimize"], typer.Option(help="Which readings are better.")] = "maximize",
    append: Annotated[bool, typer.Option("--append", help="Join these rows to a known dataset.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Make these rows a known dataset's new version.")] = False,
    sequence_column: SequenceColumn = "sequence",
    value_column: ValueColumn = "value",
    replicate_column: ReplicateColumn = None,
    std_column: StdColumn = None,
    batch_column: BatchColumn = None,
) -> None:
    """Register a table as a dataset version; safe to repeat."""
    from plait.bootstrap.verbs import Columns

    columns = Columns(sequence_column, value_column, replicate_column, std_column, batch_column)
    with session.open() as home:
        done = home.data.import_(
            file,
            dataset=dataset,
            alphabet=alphabet,
            unit=unit,
            goal=goal,
            append=append,
            replace=replace,
            columns=columns,
        )
    version = done.version
    what = f"{plural(done.num_added, 'reading')} added" if done.is_new else "this content was there already"
    session.show(
        done,
        f"{version.dataset} version {version.number}: {what}; "
        f"{plural(version.num_measurements, 'reading')} of {plural(version.num_sequences, 'sequence')}",
    )


def _table(versions: list[DatasetVersion]) -> Block:
    headers = [
        "dataset",
        "version",
        "readings",
        "sequences",
        "length",
        "alphabet",
        "unit",
        "goal",
        "created",
        "by",
        "id",
    ]
    return headers, [
        [
            v.dataset,
            str(v.number),
            f"{v.num_measurements:,}",
            f"{v.num_sequences:,}",
            str(v.length),
            v.alphabet,
            v.unit,
            v.goal,
            when(v.created_at),
            v.created_by,
            v.id[:12],
        ]
        for v in versions
    ]


def list_(session: Session) -> None:
    """The latest version of every dataset."""
    with session.open() as home:
        versions = home.data.list()
    session.show(versions, _table(versions) if versions else "no dataset yet; see: plait data import --help")


def show(session: Session, name: Name) -> None:
    """A dataset and all its versions."""
    with session.open() as home:
        versions = home.data.show(name)
    session.show({**asdict(versions[-1]), "versions": versions}, _table(versions))


def benchmark(session: Session, name: Name) -> None:
    """What a dataset can teach, and a warning where that is little."""
    with session.open() as home:
        found = home.data.benchmark(name)
    document: dict[str, Any] = {"dataset": name, **asdict(found)}
    session.show(
        document,
        facts(
            dataset=name,
            items=f"{found.num_items:,} ({found.num_readings:,} readings)",
            noise=f"{number(found.noise_std)} ({found.noise_source})" if found.noise_source else "unknown",
            best_attainable_Spearman=number(found.ceiling),
            held_out_Spearman=number(found.held_out_spearman),
            in_90_percent_interval=number(found.coverage_90),
        ),
        *([f"warning: {found.warning}"] if found.warning else []),
    )
