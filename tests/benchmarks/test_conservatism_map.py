import itertools

import numpy as np
import pyarrow.parquet
import pytest
import torch
from plait.benchmarks import conservatism_map
from plait.benchmarks._map_policies import KL_WEIGHTS, Landscape, loosest_row, optimal_policy, policy_row
from plait.benchmarks._map_tables import chosen, write_tables
from plait.benchmarks.real_tasks import tasks
from plait.rewards import ensemble

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    found = {t.name: t for t in tasks(tmp_path_factory.mktemp("cache"))}
    return found["splice6"]


def small_land(n=50):
    rng = np.random.default_rng(0)
    log_prior = rng.standard_normal(n)
    log_prior -= np.logaddexp.reduce(log_prior)
    yes = np.ones(n, dtype=bool)
    return Landscape(np.zeros((n, 1), dtype=np.int64), rng.standard_normal(n), log_prior, yes, yes, ~yes, 0.0, 1.0, 1.0)


def test_the_closed_form_is_the_optimum():
    land, weight = small_land(), 0.3
    value = np.random.default_rng(1).standard_normal(50)

    def objective(law):
        return float(law @ value - weight * law @ (np.log(law) - land.log_prior))

    best = optimal_policy(value, land.log_prior, weight, land.is_supported)
    assert objective(best) == pytest.approx(weight * np.logaddexp.reduce(value / weight + land.log_prior))
    rng = np.random.default_rng(2)
    for _ in range(50):
        other = best * np.exp(0.3 * rng.standard_normal(50))
        assert objective(other / other.sum()) < objective(best)


def test_the_ends_of_the_leash():
    land = small_land()
    mean, std = np.random.default_rng(1).standard_normal(50), np.zeros(50)
    free = policy_row(land, "none", 0.0, mean, std, 0.0, False)
    assert free.proxy == pytest.approx(mean.max())
    assert free.kl == pytest.approx(-land.log_prior[mean.argmax()])
    assert free.unique == pytest.approx(1 / 96, rel=1e-6)
    tight = policy_row(land, "none", 0.0, mean, std, 1e9, False)
    assert tight.kl == pytest.approx(0.0, abs=1e-9)
    assert tight.truth == pytest.approx(float(np.exp(land.log_prior) @ land.truth))
    rows = [policy_row(land, "none", 0.0, mean, std, weight, False) for weight in KL_WEIGHTS]
    assert all(a.proxy >= b.proxy - 1e-9 for a, b in itertools.pairwise(rows))


def test_settings_are_compared_at_the_same_diversity():
    land = small_land(2000)
    mean, std = np.random.default_rng(1).standard_normal((2, 2000))
    rows = [loosest_row(land, "some", scale, mean, np.abs(std)) for scale in (0.0, 1.0)]
    assert [row.unique for row in rows] == pytest.approx([0.5, 0.5], abs=0.001)


def test_a_cell_is_whole_and_read_again(task, tmp_path, monkeypatch):
    monkeypatch.setattr(conservatism_map, "SITUATIONS", {"base": conservatism_map.Situation(size=300)})
    config = ensemble.Config(members=1, families=("mlp",), steps=20, hidden=8)
    cells = conservatism_map.run(tmp_path, [task], ["base"], 1, config)
    cell = cells[0]
    assert {"elliptical", "rarity", "bootstrap_spread", "distance", "unlikeliness"} == set(cell.correlations)
    assert all(-1 <= value <= 1 for value in cell.correlations.values())
    assert any((row.uncertainty, row.scale) == chosen(cell) for row in cell.batches)
    assert max(row.truth for row in cell.batches) <= 1.0 + 1e-9
    files = {path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert conservatism_map.run(tmp_path, [task], ["base"], 1, config) == cells
    assert files == {path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    write_tables(tmp_path, cells)
    assert pyarrow.parquet.read_table(tmp_path / "policies.parquet").num_rows == len(cell.policies) + len(cell.loosest)
    conservatism_map.write_figures(tmp_path, cells)
    assert (tmp_path / "figures" / "auto.png").stat().st_size > 1000
    text = (tmp_path / "map.md").read_text()
    assert "best in hindsight" in text


def test_situations_change_the_offline_set(task):
    base = conservatism_map.offline_set(task, conservatism_map.Situation(size=200), 0)
    whole = conservatism_map.offline_set(task, conservatism_map.Situation(percentile=100, size=200), 0)
    noisy = conservatism_map.offline_set(task, conservatism_map.Situation(size=200, noise=1.0), 0)
    assert len(base) == len(whole) == 200
    assert whole.values.max() > base.values.max()
    assert noisy.values.std() == pytest.approx(base.values.std() * 2**0.5, rel=0.2)
    np.testing.assert_array_equal(noisy.tokens, base.tokens)
