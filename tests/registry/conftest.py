"""Every test of the registry runs on SQLite and on a real PostgreSQL."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plait.campaign.fingerprints import content_hash
from plait.campaign.records import DatasetVersion, Design, RoundState
from plait.design.records import Readings
from plait.registry.store import Registry


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without a registry."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'plait.db'}"
    return request.getfixturevalue("new_database")("template0")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that holds an empty registry."""
    file = tmp_path_factory.mktemp("sqlite") / "template.db"
    Registry.create(f"sqlite:///{file}").close()
    return file


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with an empty registry."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "plait.db")
        return f"sqlite:///{tmp_path / 'plait.db'}"
    return request.getfixturevalue("new_database")("template_plait")


@pytest.fixture
def other_url(url: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the same kind as `url`, without a registry."""
    if url.startswith("sqlite"):
        return f"sqlite:///{tmp_path / 'other.db'}"
    return request.getfixturevalue("new_database")("template0")


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    """An empty registry."""
    opened = Registry.open(url)
    yield opened
    opened.close()


@pytest.fixture
def readings() -> Readings:
    """Four readings of three sequences, with stds (one unknown) and batches (one without)."""
    return Readings(
        ("ACGT", "ACGA", "ACGT", "TTTT"),
        np.array([0.1, -2.5, 1 / 3, 7e300]),
        ("1", "1", "2", "1"),
        np.array([0.1, 0.2, 0.3, np.nan]),
        ("a", "a", "b", ""),
    )


Add = Callable[..., DatasetVersion]


@pytest.fixture
def add(registry: Registry) -> Add:
    """Registers readings by their own hash; other arguments as in add_dataset_version."""

    def add_version(readings: Readings, dataset: str = "brca2", **other: Any) -> DatasetVersion:
        fixed: dict[str, Any] = {"alphabet": "dna", "unit": "PSI", "goal": "maximize"}
        fixed |= {key: other.pop(key) for key in fixed if key in other}
        key = content_hash(readings, **fixed)
        with registry.begin() as uow:
            return uow.add_dataset_version(dataset, readings, content_hash=key, actor="ada", **fixed, **other)

    return add_version


@pytest.fixture
def version(add: Add, readings: Readings) -> DatasetVersion:
    """The first version of the dataset brca2."""
    return add(readings)


@pytest.fixture
def campaign(registry: Registry, version: DatasetVersion) -> str:
    """A campaign whose first round is running."""
    with registry.begin() as uow:
        uow.add_campaign(
            "c1",
            dataset_version_id=version.id,
            config={"name": "c1", "dataset": "brca2"},
            space={"allowed": ["ACGT"]},
            notes=["a note"],
            actor="ada",
        )
        uow.add_round("c1", 1, version.id, "ada")
    return "c1"


def batch_of(campaign: str) -> list[Design]:
    predicted = {"predicted_mean": 1.0, "predicted_std": 0.5, "conservative": 0.1 + 0.2, "source": "policy"}
    return [
        Design(f"{campaign}-r1-{rank}", campaign, 1, rank, sequence, **predicted, details={"kl": rank / 3})
        for rank, sequence in enumerate(("GGGG", "CCCC", "ACGT"), start=1)
    ]


@pytest.fixture
def designs() -> list[Design]:
    """The batch of round 1 of the campaign c1."""
    return batch_of("c1")


@pytest.fixture
def ordered(registry: Registry, campaign: str, designs: list[Design]) -> str:
    """A campaign whose first round, of three designs, is ordered."""
    with registry.begin() as uow:
        uow.add_designs(campaign, 1, designs)
        for state in (RoundState.PROPOSED, RoundState.APPROVED, RoundState.ORDERED):
            uow.move_round(campaign, 1, state, "grace", "looks good")
    return campaign


@pytest.fixture
def affinity(add: Add) -> DatasetVersion:
    """The first version of the dataset kd: another assay over such sequences, less is better."""
    readings = Readings(("ACGT", "GGGA"), np.array([30.0, 4.0]), ("1", "1"))
    return add(readings, "kd", unit="nM", goal="minimize")


@pytest.fixture
def paired(registry: Registry, version: DatasetVersion, affinity: DatasetVersion) -> str:
    """A campaign of two assays, brca2 and kd, whose first round, of three designs, is ordered."""
    with registry.begin() as uow:
        uow.add_campaign(
            "c2",
            dataset_version_id=version.id,
            config={"name": "c2", "dataset": "brca2"},
            space={"allowed": ["ACGT"]},
            notes=[],
            actor="ada",
            further=[("kd", affinity.id)],
        )
        uow.add_round("c2", 1, version.id, "ada", [("kd", affinity.id)])
        uow.add_designs("c2", 1, batch_of("c2"))
        for state in (RoundState.PROPOSED, RoundState.APPROVED, RoundState.ORDERED):
            uow.move_round("c2", 1, state, "grace")
    return "c2"
