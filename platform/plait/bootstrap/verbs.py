"""The verbs of the command line as Python objects: each a thin call of a use case over the home's ports.

Use cases are imported when they are called: looking at data loads no torch, and nothing here loads Ray or MLflow.
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plait.design.alphabets import find_alphabet
from plait.design.errors import BadInputError, NotFoundError, UsageError
from plait.design.records import Goal

if TYPE_CHECKING:
    from plait.bootstrap.home import Home
    from plait.campaign.config import CampaignConfig
    from plait.campaign.datasets import Import
    from plait.campaign.records import Campaign, DatasetVersion, Design, Model, Result, Round
    from plait.campaign.report_data import DataBenchmark
    from plait.lab.tables import MeasurementTable


class Verbs:
    """A group of verbs over one home."""

    def __init__(self, home: Home) -> None:
        self._home = home


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what; None: the table has none (replicate is looked for by its default name)."""

    sequence: str = "sequence"
    value: str = "value"
    replicate: str | None = None
    std: str | None = None
    batch: str | None = None


@dataclass(frozen=True)
class Check:
    """What a table holds, before anything is stored."""

    file: str
    num_rows: int
    num_sequences: int
    num_replicates: int
    length: int
    minimum: float
    median: float
    maximum: float
    columns: tuple[str, ...]
    notes: tuple[str, ...]


class Data(Verbs):
    """Datasets: check, import, list, show, benchmark."""

    def check(self, file: str | Path, *, alphabet: str, columns: Columns | None = None) -> Check:
        """Read a table and say what it holds; nothing is stored.

        Raises:
            BadInputError: Every bad row is named.
        """
        return check_table(read_table(file, alphabet, columns or Columns()))

    def import_(
        self,
        file: str | Path,
        *,
        dataset: str,
        alphabet: str,
        unit: str,
        goal: Goal = "maximize",
        append: bool = False,
        replace: bool = False,
        columns: Columns | None = None,
    ) -> Import:
        """Register a table as a dataset version; the same content twice is one version.

        Raises:
            BadInputError: Every bad row is named; nothing is stored.
            WrongStateError: The dataset exists with other content and neither append nor replace was asked for.
        """
        from plait.campaign.config import NAME_PATTERN
        from plait.campaign.datasets import import_dataset
        from plait.campaign.records import Upload

        check_name(dataset, NAME_PATTERN, "dataset")
        if append and replace:
            raise UsageError("--append and --replace exclude each other")
        table = read_table(file, alphabet, columns or Columns())
        return import_dataset(
            self._home.registry,
            table.readings,
            dataset=dataset,
            alphabet=alphabet,
            unit=unit,
            goal=goal,
            mode="append" if append else "replace" if replace else "new",
            actor=self._home.settings.actor,
            upload=Upload(table.filename, table.sha256, table.num_bytes),
        )

    def list(self) -> list[DatasetVersion]:
        """The latest version of every dataset."""
        with self._home.registry.begin() as uow:
            return uow.datasets()

    def show(self, name: str) -> builtins.list[DatasetVersion]:
        """All versions of a dataset, oldest first."""
        with self._home.registry.begin() as uow:
            uow.dataset_version(name)
            return uow.dataset_versions(name)

    def benchmark(self, name: str, *, seed: int = 0) -> DataBenchmark:
        """What the dataset can teach: noise ceiling, held-out Spearman, coverage, and a warning where it is little."""
        from plait.campaign.assays import of_campaign
        from plait.campaign.campaigns import resolve_space
        from plait.campaign.config import CampaignConfig
        from plait.campaign.data_benchmark import benchmark

        with self._home.registry.begin() as uow:
            version = uow.dataset_version(name)
            readings = uow.readings(version.id)
        config = CampaignConfig(name="benchmark", dataset=name)
        space, _ = resolve_space(config, version, readings.sequences)
        (assay,) = of_campaign(config, space, 0, [(version, readings)])
        return benchmark(assay, algorithm=config.reward.algorithm, settings={}, seed=seed, scorers={})


def read_table(file: str | Path, alphabet: str, columns: Columns) -> MeasurementTable:
    """Read a measurement table; no home is needed.

    Raises:
        NotFoundError: No such file.
        BadInputError: Every bad row is named.
    """
    from plait.lab.tables import read_measurements

    return read_measurements(
        Path(file),
        find_alphabet(alphabet),
        sequence_column=columns.sequence,
        value_column=columns.value,
        replicate_column=columns.replicate,
        std_column=columns.std,
        batch_column=columns.batch,
    )


def check_table(table: MeasurementTable) -> Check:
    """The summary of a table that was read."""
    readings = table.readings
    return Check(
        file=table.filename,
        num_rows=len(readings),
        num_sequences=len(set(readings.sequences)),
        num_replicates=len(set(readings.replicates)),
        length=len(readings.sequences[0]),
        minimum=float(readings.values.min()),
        median=float(np.median(readings.values)),
        maximum=float(readings.values.max()),
        columns=table.columns,
        notes=table.notes,
    )


def check_name(name: str, pattern: str, what: str) -> None:
    """Names are short and safe in files, addresses and shells.

    Raises:
        BadInputError: This one is not.
    """
    import re

    if not re.match(pattern, name):
        raise BadInputError(
            f"'{name}' cannot name a {what}",
            hint="use letters, digits, '.', '_' and '-', at most 64, a letter or digit first",
        )


class Campaigns(Verbs):
    """Campaigns: create, list, show, run, compare."""

    def create(self, config: str | Path | dict[str, Any] | CampaignConfig) -> Campaign:
        """Register a campaign from a YAML file, a mapping or a checked configuration."""
        from plait.campaign.campaigns import create
        from plait.campaign.config import CampaignConfig, parse_config, read_config

        if isinstance(config, dict):
            checked = parse_config(config)
        else:
            checked = config if isinstance(config, CampaignConfig) else read_config(Path(config))
        return create(self._home.ports, checked)

    def list(self) -> list[Campaign]:
        """All, oldest first."""
        with self._home.registry.begin() as uow:
            return uow.campaigns()

    def show(self, name: str) -> dict[str, Any]:
        """A campaign, its rounds and the next step."""
        from plait.campaign.rounds import describe

        with self._home.registry.begin() as uow:
            return describe(uow.campaign(name), uow.rounds(name), uow.schedule(name))

    def run(self, name: str, *, rounds: int | None = None, lab: str | None = None) -> builtins.list[Round]:
        """Up to the human gate, or, with a simulated lab, through whole rounds (approvals are on record)."""
        from plait.bootstrap.home import find_lab
        from plait.campaign.simulation import run

        if rounds is not None and (rounds < 1 or lab is None):
            raise UsageError("--rounds counts whole rounds from 1: it needs --lab")
        orders = self._home.path / "orders"
        return run(self._home.ports, name, rounds, find_lab(lab), lambda r, designs: _write_order(orders, r, designs))

    def compare(self, name: str, *, settings: dict[str, Any] | None = None) -> None:
        """Give round 1's data to every method once; the report shows them side by side."""
        from plait.campaign.comparison import compare

        compare(self._home.ports, name, settings)


def _write_order(folder: Path, of: Round, designs: list[Design]) -> str:
    from plait.lab.orders import write_order

    folder.mkdir(exist_ok=True)
    return write_order(folder / f"{of.campaign}-r{of.number}.csv", designs)


class Rounds(Verbs):
    """Rounds: propose, approve, reject, export, close."""

    def propose(self, campaign: str) -> Round:
        """Run the next round up to PROPOSED; safe to repeat."""
        from plait.campaign.proposing import propose

        return propose(self._home.ports, campaign)

    def approve(self, campaign: str, *, round: int | None = None, reason: str = "") -> Round:  # noqa: A002
        """Let a proposed round go to the lab."""
        from plait.campaign.records import RoundState
        from plait.campaign.rounds import decide

        return decide(self._home.ports, campaign, RoundState.APPROVED, round, reason)

    def reject(self, campaign: str, *, round: int | None = None, reason: str = "") -> Round:  # noqa: A002
        """Stop a proposed round."""
        from plait.campaign.records import RoundState
        from plait.campaign.rounds import decide

        return decide(self._home.ports, campaign, RoundState.REJECTED, round, reason)

    def designs(self, campaign: str, *, round: int | None = None) -> list[Design]:  # noqa: A002
        """The batch of a round (the latest by default), by rank."""
        from plait.campaign.rounds import latest_round

        with self._home.registry.begin() as uow:
            return uow.designs(campaign, latest_round(uow, campaign, round).number)

    def export(self, campaign: str, output: str | Path) -> tuple[Round, int]:
        """Write the approved round's order as CSV, the same bytes each time; the round and its number of designs."""
        from plait.campaign.rounds import mark_ordered, order
        from plait.lab.orders import write_order

        chosen, designs = order(self._home.ports, campaign)
        with self._home.registry.begin() as uow:
            assays = uow.campaign(campaign).assays
        sha = write_order(Path(output), designs, assays)
        return mark_ordered(self._home.ports, campaign, chosen.number, sha), len(designs)

    def close(self, campaign: str) -> tuple[Round, DatasetVersion, dict[str, int]]:
        """Close the measured round; the round, its own dataset's new version, and open wells that failed by assay."""
        from plait.campaign.rounds import close

        return close(self._home.ports, campaign)


class Results(Verbs):
    """Readings that come back from the lab: import, list."""

    def import_(self, campaign: str, file: str | Path) -> tuple[Round, int, tuple[str, ...]]:
        """Register a results file of the ordered round; the round, how many readings were new, and notes.

        Raises:
            BadInputError: Every bad row is named; nothing is stored.
        """
        from plait.campaign.records import NewResult, Upload
        from plait.campaign.rounds import add_results, open_for_results
        from plait.lab.results import read_results

        with self._home.registry.begin() as uow:
            chosen = open_for_results(uow, campaign)
            known = {d.design_id for d in uow.designs(campaign)}
            ordered = {d.design_id for d in uow.designs(campaign, chosen.number)}
            results, assays = uow.results(campaign, chosen.number), uow.campaign(campaign).assays
        registered = {(r.design_id, r.assay, r.replicate): r.value for r in results}
        table = read_results(Path(file), assays, known, ordered, registered)
        rows = [NewResult(r.design_id, r.value, r.replicate, r.assay) for r in table.rows]
        upload = Upload(table.filename, table.sha256, table.num_bytes)
        of, num_new = add_results(self._home.ports, campaign, rows, upload)
        return of, num_new, table.notes

    def list(self, campaign: str, *, round: int | None = None) -> list[Result]:  # noqa: A002
        """The readings of a campaign, or of one of its rounds, oldest first; value None where the well failed."""
        with self._home.registry.begin() as uow:
            return uow.results(campaign, round)


class Models(Verbs):
    """Registered models."""

    def list(self) -> list[Model]:
        """All versions."""
        with self._home.registry.begin() as uow:
            return uow.models()

    def show(self, name: str) -> Model:
        """One by NAME, NAME@ALIAS or NAME@VERSION."""
        with self._home.registry.begin() as uow:
            return uow.model(name)

    def promote(self, name: str, *, alias: str) -> Model:
        """Point NAME@alias at this version."""
        from plait.campaign.config import NAME_PATTERN

        check_name(alias, NAME_PATTERN, "alias")
        with self._home.registry.begin() as uow:
            return uow.promote(name, alias, self._home.settings.actor)

    def import_(self, directory: str | Path, *, name: str | None = None) -> Model:
        """Register a model folder after its SHA-256 sums are checked; named after the folder by default."""
        from plait.campaign.config import NAME_PATTERN
        from plait.campaign.models import import_model

        path = Path(directory).absolute()
        if not path.is_dir():
            raise NotFoundError(f"there is no folder {path}")
        check_name(name or path.name, NAME_PATTERN, "model")
        return import_model(self._home.ports, path, name or path.name)


class Priors(Verbs):
    """Priors trained outside campaigns."""

    def train(
        self,
        name: str,
        *,
        dataset: str | None = None,
        corpus: str | Path | None = None,
        alphabet: str = "dna",
        template: str | None = None,
        settings: dict[str, Any] | None = None,
        seed: int = 0,
        workers: int = 0,
    ) -> Model:
        """Pre-train a masked diffusion prior on a dataset's sequences or a corpus file, and register it.

        Raises:
            UsageError: Not exactly one of dataset and corpus.
            BadInputError: The corpus cannot be read, mixes lengths or is too small.
        """
        from plait.campaign.config import NAME_PATTERN
        from plait.campaign.models import train_prior
        from plait.design.space import DesignSpace
        from plait.lab.corpus import read_corpus

        check_name(name, NAME_PATTERN, "model")
        if (dataset is None) == (corpus is None):
            raise UsageError("give --dataset NAME or --corpus FILE")
        version = None
        if dataset is not None:
            with self._home.registry.begin() as uow:
                version = uow.dataset_version(dataset)
                sequences = list(uow.readings(version.id).sequences)
            alphabet, source = version.alphabet, f"dataset {dataset}"
        else:
            source, sequences = str(corpus), read_corpus(Path(str(corpus)), find_alphabet(alphabet))
        letters = find_alphabet(alphabet)
        if template is None:
            space = DesignSpace(alphabet=letters, allowed=(letters.letters,) * len(sequences[0]))
        else:
            space = DesignSpace.from_template(letters, template)
        return train_prior(
            self._home.ports,
            name,
            space,
            sequences,
            algorithm="masked_diffusion",
            settings=settings or {},
            seed=seed,
            num_workers=workers,
            source=source,
            version=version,
        )
