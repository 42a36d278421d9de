"""plait model, plait prior, plait sample: what was learnt, and designs drawn from it."""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.interfaces.cli.output import Block, facts, notes, plural, when, write
from plait.interfaces.cli.session import Session, command, make_group

if TYPE_CHECKING:
    from plait.campaign.models import Drawn
    from plait.campaign.records import Model

Name = Annotated[str, typer.Argument(metavar="NAME", help="NAME, NAME@ALIAS or NAME@VERSION.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of the random numbers.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the algorithm; may be repeated.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = make_group("model", "Models: priors, rewards and policies.")
    command(group, "list", example="plait model list")(list_)
    command(group, "show", example="plait model show sites-1-policy")(show)
    command(group, "promote", example="plait model promote sites-1-policy --alias champion")(promote)
    command(group, "import", example="plait model import ./my-prior")(import_)
    app.add_typer(group)
    group = make_group("prior", "Priors: generative models of natural sequences.")
    command(group, "train", example="plait prior train --corpus natural.fasta --name natural")(train)
    app.add_typer(group)
    command(app, "sample", example="plait sample --model sites-1-policy --n 10 --output designs.txt")(sample)


def _row(model: Model) -> list[str]:
    aliases = ", ".join(model.aliases)
    return [model.name, str(model.version), model.kind, model.algorithm, aliases, when(model.created_at)]


def _show(session: Session, model: Model) -> None:
    session.show(
        model,
        facts(
            model=f"{model.name} version {model.version}",
            kind=f"{model.kind} ({model.algorithm})",
            aliases=", ".join(model.aliases),
            created=f"{when(model.created_at)} by {model.created_by}",
            artifact=model.artifact_sha256,
            MLflow_run=model.mlflow_run_id,
            **{key: value for key, value in model.details.items() if isinstance(value, str | int | float)},
        ),
    )


def list_(session: Session) -> None:
    """All models and their versions."""
    with session.open() as home:
        models = home.model.list()
    table: Block = (["model", "version", "kind", "algorithm", "aliases", "created"], [_row(m) for m in models])
    session.show(models, table if models else "no model yet; see: plait prior train --help")


def show(session: Session, name: Name) -> None:
    """A model and where it comes from."""
    with session.open() as home:
        found = home.model.show(name)
    _show(session, found)


def promote(
    session: Session, name: Name, alias: Annotated[str, typer.Option(metavar="NAME", help="Such as champion.")]
) -> None:
    """Point an alias at a model version; its history is kept."""
    with session.open() as home:
        found = home.model.promote(name, alias=alias)
    session.show(found, f"{found.name}@{alias} is version {found.version}")


def import_(
    session: Session,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A model folder with its manifest.")],
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name in the registry [the folder's].")] = None,
) -> None:
    """Register a model folder after its SHA-256 sums are checked."""
    with session.open() as home:
        found = home.model.import_(directory, name=name)
    _show(session, found)


def train(
    session: Session,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the prior.")],
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="Learn from a dataset's sequences.")] = None,
    corpus: Annotated[Path | None, typer.Option(metavar="FILE", help="Learn from a text, FASTA or CSV file.")] = None,
    alphabet: Annotated[str, typer.Option(help="Of the corpus.")] = "dna",
    template: Annotated[str | None, typer.Option(help="IUPAC template, such as NNNGYNNNN.")] = None,
    settings: Settings = None,
    seed: Seed = 0,
    workers: Annotated[int, typer.Option(min=0, max=1024, help="Ray Train workers; 0 trains in this process.")] = 0,
) -> None:
    """Train a prior on a dataset or a corpus file, and register it."""
    with session.open() as home:
        found = home.prior.train(
            name,
            dataset=dataset,
            corpus=corpus,
            alphabet=alphabet,
            template=template,
            settings=parse_settings(settings or []),
            seed=seed,
            workers=workers,
        )
    _show(session, found)


def sample(
    session: Session,
    model: Annotated[str, typer.Option(metavar="NAME", help="NAME, NAME@ALIAS or NAME@VERSION of a prior or policy.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Designs.")] = 10,
    sampler: Annotated[
        str, typer.Option(help="A sampler by name, such as ancestral, best_of_n, svdd_pm or smc.")
    ] = "ancestral",
    settings: Settings = None,
    reward: Annotated[str | None, typer.Option(metavar="NAME", help="If one is needed [the policy's own].")] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Measurements, if they are needed [the model's own].")
    ] = None,
    seed: Seed = 0,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="One sequence a line, or .csv [stdout].")] = None,
) -> None:
    """Draw designs from a prior or a policy."""
    from plait.bootstrap.home import write_text

    with session.open() as home:
        drawn = home.sample(
            model,
            n,
            sampler=sampler,
            settings=parse_settings(settings or []),
            seed=seed,
            reward=reward,
            dataset=dataset,
        )
    text = "".join(f"{sequence}\n" for sequence in drawn.sequences)
    is_table = output is not None and output.suffix.lower() == ".csv"
    if output is not None:
        write_text(output, _csv(drawn) if is_table else text)
    if not session.is_quiet:
        overlooked = _overlooked(drawn, has_weights=session.is_json or is_table)
        write(sys.stderr, "".join(f"{line}\n" for line in notes(overlooked)))
    if session.is_json or output is not None:
        said = f"{plural(len(drawn.sequences), 'design')} of {drawn.model} written to {output}"
        session.show({**asdict(drawn), "output": output}, said)
    else:
        write(session.stdout, text)


def _overlooked(drawn: Drawn, *, has_weights: bool) -> list[str]:
    """What is easily overlooked: designs that repeat, and weights that plain text has no place for."""
    said = []
    num, num_different = len(drawn.sequences), len(set(drawn.sequences))
    if 2 * num_different < num:
        said.append(f"only {num_different:,} of {plural(num, 'design')} differ: the rest repeat them")
    if any(drawn.log_weights) and not has_weights:
        said.append("the designs have weights: --json or --output FILE.csv tells them")
    return said


def _csv(drawn: Drawn) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["sequence", "log_weight"])
    writer.writerows(zip(drawn.sequences, drawn.log_weights, strict=True))
    return text.getvalue()


def parse_settings(texts: list[str]) -> dict[str, Any]:
    """KEY=VALUE texts as settings; values are read as YAML.

    Raises:
        UsageError: One has no "=" or no YAML value.
    """
    import yaml

    from plait.design.errors import UsageError

    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        try:
            settings[key] = yaml.safe_load(value)
        except (yaml.YAMLError, RecursionError):
            equals = ""
        if not key or not equals:
            raise UsageError(f"--set {text!r} is not KEY=VALUE")
    return settings
