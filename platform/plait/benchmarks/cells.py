"""A cell of the benchmark: one method on one task from one seed, a whole campaign; what it is to run, what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version as installed_version
from typing import Any

from pydantic import TypeAdapter

from plait.benchmarks.methods import merge, overrides_of, small_cuts
from plait.benchmarks.scoring import Scores
from plait.benchmarks.tasks import Task
from plait.campaign.config import parse_config
from plait.campaign.fingerprints import digest
from plait.design.alphabets import Alphabet
from plait.design.space import DesignSpace

CAMPAIGN, DATASET = "cell", "offline"


@dataclass(frozen=True)
class Cell:
    """What is to be run.

    Attributes:
        task: Name.
        method: Name.
        seed: Of the offline readings, the lab's noise and the campaign.
        config: The campaign's configuration; the corpus file, where the task has one, is added when it runs.
    """

    task: str
    method: str
    seed: int
    config: dict[str, Any]

    @property
    def key(self) -> str:
        """The cell's identity: another version of Plait, or another configuration (defaults included), is another."""
        config = parse_config(self.config).model_dump(mode="json")
        figures = [field.name for field in fields(Scores)]
        return digest([installed_version("plait"), self.task, self.method, self.seed, config, figures])


@dataclass(frozen=True)
class Row:
    """What came out of a cell.

    Attributes:
        task: Name.
        method: Name.
        seed: Of the cell.
        status: "done", "collapsed" (it mostly repeated itself: a failure) or "failed".
        error: Why it failed, "" where it did not.
        scores: None where it failed.
        cpu_seconds: Of the process that finished it.
        peak_memory_mb: Likewise.
        version: Plait's.
    """

    task: str
    method: str
    seed: int
    status: str
    error: str
    scores: Scores | None
    cpu_seconds: float
    peak_memory_mb: float
    version: str

    @property
    def final(self) -> float | None:
        """The figure by which methods are compared: the last batch's share in the true top 1 %, else the best truth."""
        if self.scores is None:
            return None
        return self.scores.best_so_far if self.scores.top_share is None else self.scores.top_share


def make_cell(task: Task, method: str, seed: int, suite: str, rounds: int | None = None) -> Cell:
    """A cell's specification.

    Raises:
        NotFoundError: There is no such method.
        ConfigError: The method contradicts the campaign's configuration.
    """
    base = {
        "name": CAMPAIGN,
        "dataset": DATASET,
        "seed": seed,
        "rounds": task.num_rounds,
        "space": {
            "template": task.space.template,
            "strand_symmetric": task.space.strand_symmetric,
            "constraints": [rule.model_dump(mode="json") for rule in task.space.constraints],
        },
        "batch": {"size": task.batch_size},
    }
    config = merge(base, overrides_of(method))
    if suite == "small":
        config = merge(config, small_cuts(parse_config(config)))
    config = merge(config, {} if rounds is None else {"rounds": rounds})
    parse_config(config, f"the configuration of {method}")
    return Cell(task.name, method, seed, config)


def failed(cell: Cell, error: str, cpu_seconds: float = 0.0, peak_memory_mb: float = 0.0) -> Row:
    """The row of a cell that failed."""
    version = installed_version("plait")
    return Row(cell.task, cell.method, cell.seed, "failed", error, None, cpu_seconds, peak_memory_mb, version)


def finished(cell: Cell, scores: Scores, cpu_seconds: float, peak_memory_mb: float) -> Row:
    """The row of a cell that ran to its end."""
    status = "collapsed" if scores.is_collapsed else "done"
    version = installed_version("plait")
    return Row(cell.task, cell.method, cell.seed, status, "", scores, cpu_seconds, peak_memory_mb, version)


def to_document(cell: Cell, row: Row) -> dict[str, Any]:
    """The row of a cell as JSON, with what it was made from."""
    return {"key": cell.key, "config": cell.config, "row": asdict(row)}


def from_document(document: dict[str, Any]) -> Row:
    """The row in a document of `to_document`."""
    return TypeAdapter(Row).validate_python(document["row"])


def alphabet_name(alphabet: Alphabet) -> str:
    """What find_alphabet knows an alphabet by."""
    return f"custom:{alphabet.letters}" if alphabet.name == "custom" else alphabet.name


@dataclass(frozen=True)
class TaskLaboratory:
    """The lab of a task, as campaigns know labs.

    Attributes:
        task: What it measures.
        seed: Of its noise.
    """

    task: Task
    seed: int

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task.name

    def measure(self, sequences: Sequence[str]) -> list[float | None]:
        """A reading for each sequence, None where the well failed."""
        return self.task.measure(sequences, self.seed)

    def covers(self, space: DesignSpace) -> bool:
        """Whether the task has sequences of this space."""
        return self.task.space.overlaps(space)

    def truth(self) -> dict[str, float]:
        """Every item that can be listed, with its truth."""
        everything = self.task.everything()
        if everything is None:
            return {}
        tokens, values = everything
        return dict(zip(self.task.space.decode(tokens), values.tolist(), strict=True))
