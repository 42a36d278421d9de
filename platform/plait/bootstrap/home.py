"""A home: the one place where concrete adapters are built from settings."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.bootstrap.database import Database
from plait.bootstrap.scheduling import Scheduling
from plait.bootstrap.sweeps import Sweeps
from plait.bootstrap.verbs import Campaigns, Data, Models, Priors, Results, Rounds
from plait.design.errors import BadInputError, NotFoundError, WrongStateError
from plait.design.records import Progress, no_progress
from plait.settings import SETTINGS_FILE, Settings, load_settings, save_settings

if TYPE_CHECKING:
    from plait.bootstrap.scoring_pool import PoolScores
    from plait.campaign.models import Drawn
    from plait.campaign.ports import ArtifactStore, Executor, Ports, Scorers
    from plait.campaign.report_data import ReportData
    from plait.registry.store import Registry


DENY_LIST = "deny_list.json"
"""A team's own list of what must not be made, in the home; used together with the one that comes with Plait."""


class SystemClock:
    """The wall clock, UTC."""

    def now(self) -> datetime:
        """The time."""
        return datetime.now(UTC)


def use_threads(count: int) -> None:
    """Let torch use `count` threads in this process, without importing it where it may never be needed."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(count)


def home_path(home: str | Path | None) -> Path:
    """The folder meant: the argument, else PLAIT_HOME, else .plait in the working directory."""
    return Path(home or os.environ.get("PLAIT_HOME") or ".plait").expanduser().absolute()


def create_home(home: str | Path | None = None, *, database_url: str | None = None, **options: Any) -> Home:
    """Make a home, or bring an existing one up to date; both are safe to repeat.

    Raises:
        NotFoundError: The folder cannot be made.
        WrongStateError: The home exists with another database, or was written by a newer Plait.
    """
    from plait.registry.store import Registry

    path = home_path(home)
    is_used = (path / SETTINGS_FILE).exists() or (path / "plait.db").exists()
    if database_url and is_used and load_settings(path).database_url != database_url:
        raise WrongStateError(f"{path} already uses another database", hint="choose another --home")
    made = Home(path, database_url=database_url, **options)
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise NotFoundError(f"{path} cannot be made: {error.strerror}", hint="choose another --home") from error
    Registry.create(made.settings.database_url).close()
    if database_url:
        save_settings(path, database_url=database_url)
    return made


def open_home(home: str | Path | None = None, *, create: bool = False, **options: Any) -> Home:
    """Open a home; see plait.open."""
    path = home_path(home)
    if create:
        return create_home(path, **options)
    if not path.is_dir():
        raise NotFoundError(f"there is no home at {path}", hint="run: plait init (or plait demo), or give --home")
    opened = Home(path, **options)
    opened.registry.check_version()
    return opened


class Home:
    """An opened home, with the verbs of the command line as attributes.

    Attributes:
        path: The folder.
        settings: What was read from file, environment and arguments.
        data: Datasets.
        campaign: Campaigns.
        round: Rounds.
        results: Readings that come back.
        model: Registered models.
        prior: Priors trained outside campaigns.
        sweep: What the sweeps of rounds found.
        scheduling: When campaigns run, and whether.
        database: Registry and artifacts as a whole.
    """

    def __init__(
        self, path: Path, *, progress: Progress = no_progress, scorers: Scorers | None = None, **options: Any
    ) -> None:
        self.path, self.progress, self._scorers = path, progress, scorers or {}
        self.settings: Settings = load_settings(path, **options)
        use_threads(self.settings.torch_threads)
        self.data, self.campaign, self.round = Data(self), Campaigns(self), Rounds(self)
        self.results, self.model, self.prior = Results(self), Models(self), Priors(self)
        self.sweep = Sweeps(self)
        self.scheduling, self.database = Scheduling(self), Database(self)

    @cached_property
    def registry(self) -> Registry:
        """The SQL registry."""
        from plait.registry.store import Registry

        return Registry.open(self.settings.database_url, lambda text: self.progress("waiting", 0, 0, text))

    @cached_property
    def artifacts(self) -> ArtifactStore:
        """Where models and documents are kept."""
        from plait.registry.remote_artifacts import open_artifacts

        return open_artifacts(self.settings.artifact_root, self.settings.cache)

    @cached_property
    def executor(self) -> Executor:
        """Where trainings run."""
        from plait.execution.ray_train import RayExecutor

        return RayExecutor(self.settings)

    @cached_property
    def ports(self) -> Ports:
        """Everything use cases may reach."""
        from plait.campaign.ports import Ports
        from plait.lab.corpus import read_corpus
        from plait.lab.screening import DenyListScreener
        from plait.rewards.scorers import make_scorers
        from plait.tracking.mlflow_tracker import MlflowTracker

        own_list = self.path / DENY_LIST
        return Ports(
            repository=self.registry,
            artifacts=self.artifacts,
            executor=self.executor,
            tracker=MlflowTracker(self.settings.mlflow_tracking_uri, self.settings.mlflow_artifacts),
            screener=DenyListScreener(own_list if own_list.exists() else None),
            read_corpus=read_corpus,
            clock=SystemClock(),
            actor=self.settings.actor,
            progress=self.progress,
            scorers=make_scorers(self.settings.scorers, self._scorers),
        )

    def sample(
        self,
        model: str,
        n: int,
        *,
        sampler: str = "ancestral",
        settings: dict[str, Any] | None = None,
        seed: int = 0,
        reward: str | None = None,
        dataset: str | None = None,
    ) -> Drawn:
        """Draw designs from a registered prior or policy; see plait.campaign.models.sample."""
        from plait.campaign import models

        return models.sample(
            self.ports,
            model,
            num=n,
            sampler=sampler,
            settings=settings or {},
            seed=seed,
            reward=reward,
            dataset=dataset,
        )

    def score(self, source: str | Path, output: str | Path, **options: Any) -> PoolScores:
        """Score every sequence of a file with a registered reward; see plait.bootstrap.scoring_pool.score_pool."""
        from plait.bootstrap.scoring_pool import score_pool

        return score_pool(self, source, output, **options)

    def report(self, campaign: str, output: str | Path, *, lab: str | None = None) -> ReportData:
        """Write the report of a campaign as one HTML file and return what it shows.

        Args:
            campaign: Its name.
            output: The file.
            lab: A simulated lab that knows the truth; by default the one that measured the campaign, if any.
        """
        from plait.campaign.gather import gather
        from plait.reporting.html import render_report

        data = gather(self.ports, campaign, find_lab(lab or self._lab_of(campaign)))
        write_text(Path(output), render_report(data))
        return data

    def _lab_of(self, campaign: str) -> str | None:
        from plait.campaign.simulation import lab_of

        with self.registry.begin() as uow:
            return lab_of(uow, campaign)

    def close(self) -> None:
        """Let go of the database and of an embedded Ray."""
        for name in ("executor", "registry"):
            if name in self.__dict__:
                self.__dict__[name].close()

    def __enter__(self) -> Home:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def find_lab(name: str | None) -> Any:
    """The simulated lab of this name, None for None.

    Raises:
        NotFoundError: There is none.
    """
    if name is None:
        return None
    from plait.lab.scenarios import find_scenario

    return find_scenario(name)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        BadInputError: Its folder does not exist or cannot be written, or it is no ordinary file (a device would be
            replaced by one).
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and not path.is_file():
            raise BadInputError(f"{path} cannot be written: it is no ordinary file", hint="choose another --output")
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise BadInputError(f"{path} cannot be written: {error.strerror}", hint="choose another --output") from error
