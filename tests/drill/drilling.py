"""A campaign that processes of the command line run while the drill disturbs them, and what it must leave behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.registry.store import Registry
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    from plait.campaign.jobs import PretrainJob

PLAIT = Path(sys.executable).with_name("plait")
IS_LONG = os.environ.get("PLAIT_DRILL") == "long"
NAME = "drill"
CONFIG: dict[str, Any] = {
    "name": NAME,
    "dataset": "splice",
    "rounds": 3,
    "space": {"template": "NNNGYNNNN"},
    "prior": {"settings": {"num_pretrain_steps": 300, "num_steps": 6, "width": 16}},
    "reward": {"members": 2, "settings": {"steps": 30, "families": ["mlp"]}},
    "judge": {"settings": {"steps": 30, "members": 2, "families": ["mlp"]}},
    "finetune": {"settings": {"num_updates": 30, "batch_size": 16}},
    "batch": {"size": 8, "num_candidates": 256, "exhaustive_limit": 0},
    "arms": ["policy"],
    "workers": 0,
}


@dataclass(frozen=True)
class Facts:
    """What a campaign left behind, each as a bag: what must be there once is there once.

    Attributes:
        bags: Kind -> what there is of it.
        seconds: Between one recorded stage and the next, beginning with the first stage's own.
        first_batch: The sequences of round 1, by rank.
    """

    bags: dict[str, Counter[str]]
    seconds: list[float]
    first_batch: list[str]

    def lost(self, whole: Facts, skipped: Sequence[str] = ()) -> int:
        """How much of an uninterrupted campaign is not here."""
        return sum(lost.total() for lost, _ in self._compare(whole, skipped).values())

    def doubled(self, whole: Facts, skipped: Sequence[str] = ()) -> int:
        """How much is here that an uninterrupted campaign has not got, or has fewer of."""
        return sum(more.total() for _, more in self._compare(whole, skipped).values())

    def difference(self, whole: Facts, skipped: Sequence[str] = ()) -> str:
        """What is lost and what is doubled, for the reader of a red test."""
        kinds = self._compare(whole, skipped).items()
        return "\n".join(f"{kind}: lost {lost}, doubled {more}" for kind, (lost, more) in kinds if lost or more)

    def _compare(self, whole: Facts, skipped: Sequence[str]) -> dict[str, tuple[Counter[str], Counter[str]]]:
        kinds = [kind for kind in self.bags if kind not in skipped]
        return {kind: (whole.bags[kind] - self.bags[kind], self.bags[kind] - whole.bags[kind]) for kind in kinds}


@dataclass(frozen=True)
class Drilled:
    """A home with the campaign `drill`; its registry and MLflow's store may be elsewhere."""

    path: Path
    database_url: str
    mlflow_url: str
    environment: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @classmethod
    def at(cls, path: Path) -> Drilled:
        """A home on SQLite."""
        return cls(path, f"sqlite:///{path}/plait.db", f"sqlite:///{path}/mlflow.db")

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """A process of the command line; by default the campaign's, as far as it goes."""
        line = arguments or ("campaign", "run", NAME, "--lab", "splice", "--json")
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PLAIT_DATABASE_URL": self.database_url,
            "PLAIT_MLFLOW_TRACKING_URI": self.mlflow_url,
            **self.environment,
        }
        process = subprocess.Popen(
            [str(PLAIT), "--home", str(self.path), *map(str, line)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.path.parent,
            env=environment,
            preexec_fn=_hear_interrupts,
        )
        self.started.append(process)
        return process

    def close(self) -> None:
        """End what still runs, where a drill went wrong."""
        for process in self.started:
            kill(process)

    def run(self, *arguments: object) -> tuple[int, str, str]:
        """The same to its end: exit code, stdout, stderr."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=600)
        return process.returncode, out, err

    def finish(self) -> None:
        """Run the campaign to its end, which must be a good one."""
        code, out, err = self.run()
        assert code == 0, (code, out, err)

    def facts(self) -> Facts:
        """What the registry, MLflow and the artifact store know of the campaign, which the audit trail must confirm."""
        registry = Registry.open(self.database_url)
        try:
            registry.verify_audit()
            with registry.begin() as uow:
                designs, results, stages = uow.designs(NAME), uow.results(NAME), uow.stages(NAME)
                models = [m for m in uow.models() if m.name.startswith(NAME)]
                rounds, approvals, untold = uow.rounds(NAME), uow.approvals(NAME), uow.outbox()
                versions = [v for dataset in uow.datasets() for v in uow.dataset_versions(dataset.dataset)]
        finally:
            registry.close()
        bags = {
            "designs": [(d.design_id, d.sequence, d.predicted_mean, d.conservative) for d in designs],
            "results": [(r.design_id, r.assay, r.replicate, r.value) for r in results],
            "stage_runs": [(s.round, s.stage, s.input_hash, json.dumps(s.outputs, sort_keys=True)) for s in stages],
            "models": [(m.name, m.version, m.artifact_sha256) for m in models],
            "rounds": [(r.number, r.state, r.dataset_version_id, r.next_version_id) for r in rounds],
            "approvals": [(a.round, a.decision) for a in approvals],
            "dataset versions": [(v.dataset, v.number, v.id) for v in versions],
            "untold": [(m.key,) for m in untold],
            "MLflow runs": self._mlflow_runs(),
            "MLflow models": self._query("select name, version from {}model_versions where name like 'drill%'"),
            "artifacts": [(p.name,) for p in (self.path / "artifacts" / "kept").glob("[!.]*")],
            "orders": [(p.name, hashlib.sha256(p.read_bytes()).hexdigest()) for p in (self.path / "orders").glob("*")],
        }
        ends = [s.finished_at.timestamp() for s in stages]
        gaps = [s.seconds for s in stages[:1]] + [after - before for before, after in pairwise(ends)]
        first = [d.sequence for d in designs if d.round == 1]
        return Facts({kind: Counter(map(repr, rows)) for kind, rows in bags.items()}, gaps, first)

    def designed(self, campaign: str, number: int = 1) -> list[str]:
        """The sequences of a round, by rank."""
        registry = Registry.open(self.database_url)
        with registry.begin() as uow:
            sequences = [design.sequence for design in uow.designs(campaign, number)]
        registry.close()
        return sequences

    def _mlflow_runs(self) -> list[tuple[Any, ...]]:
        """(key, status) of each run of the campaign."""
        return self._query(
            "select tags.value, runs.status from {0}runs as runs left join {0}tags as tags "
            "on tags.run_uuid = runs.run_uuid and tags.key = 'plait.key' "
            "join {0}experiments as experiments on experiments.experiment_id = runs.experiment_id "
            "where experiments.name like 'drill%'"
        )

    def _query(self, query: str) -> list[tuple[Any, ...]]:
        is_sqlite = self.mlflow_url.startswith("sqlite")
        engine = create_engine(with_driver(self.mlflow_url))
        with engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(text(query.format("" if is_sqlite else "mlflow.")))]
        engine.dispose()
        return rows


def _hear_interrupts() -> None:
    """A suite that runs in the background ignores Ctrl-C, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def with_driver(url: str) -> str:
    """The URL as SQLAlchemy has it."""
    parsed = make_url(url)
    parsed = parsed if parsed.get_backend_name() == "sqlite" else parsed.set(drivername="postgresql+psycopg")
    return parsed.render_as_string(hide_password=False)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill -9 of the driver alone; its Ray, if any, has to notice by itself."""
    if process.returncode is None:
        process.kill()
        process.communicate()


def databases(short: str) -> list[str]:
    """Both, of which a short drill takes one."""
    return ["sqlite", "postgresql"] if IS_LONG else [short]


def write_inputs(folder: Path, num_readings: int = 400) -> tuple[Path, dict[str, Any]]:
    """Real splice-site readings as a table, and the campaign's configuration with its corpus."""
    from plait.lab.scenarios import find_scenario

    source = Path(__file__).parents[2] / "notebooks" / "splice_sites.csv"
    table = folder / "readings.csv"
    table.write_text("".join(source.read_text().splitlines(keepends=True)[: num_readings + 1]))
    corpus = folder / "corpus.txt"
    corpus.write_text("\n".join(find_scenario("splice").corpus()[::20]) + "\n")
    return table, {**CONFIG, "prior": {**CONFIG["prior"], "corpus": str(corpus)}}


def pretraining(num_steps: int) -> PretrainJob:
    """A real training that is not a moment's work: the prior on natural splice sites."""
    from plait.campaign.jobs import PretrainJob
    from plait.design.space import DesignSpace
    from plait.lab.scenarios import find_scenario

    scenario = find_scenario("splice")
    space = DesignSpace.from_template(scenario.alphabet, scenario.template)
    settings = {"num_pretrain_steps": num_steps, "num_steps": 6, "width": 16}
    return PretrainJob("masked_diffusion", settings, space, space.encode(scenario.corpus()[::20]), 3)
