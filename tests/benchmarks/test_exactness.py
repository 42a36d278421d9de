"""The table of distances at a small scale: every method stands in it, and those that owe the target are near it."""

import pytest
import torch
from plait.benchmarks import exactness
from plait.benchmarks.exact import ExactChain, total_variation
from plait.campaign.catalog import algorithms

LEARNT = {"num_rollouts": 128, "num_value_updates": 30, "value_width": 8}
SMALL = {
    **exactness.SETTINGS,
    "cfg": {"num_train_steps": 5},
    "ddom": {"num_train_steps": 5},
    "svdd_mc": LEARNT,
}


@pytest.fixture(name="given", scope="module")
def _given():
    return exactness.problem("NNNYN", num_readings=400)


def test_the_problem_is_not_trivial_and_its_two_priors_share_one_law(given):
    value = given.objective(given.chain.designs).mean
    assert float(value.mean()) == pytest.approx(0, abs=1e-5)
    assert float(value.std()) == pytest.approx(1, abs=1e-5)
    letters = torch.nn.functional.one_hot(given.chain.designs, 4).flatten(1).double()
    fitted = letters @ torch.linalg.lstsq(letters, value.double()[:, None], driver="gelsd").solution
    assert float((value - fitted[:, 0]).std()) > 0.3
    assert torch.allclose(given.objective(torch.eye(4)[given.chain.designs]).mean, value, atol=1e-5)
    assert total_variation(given.chain.law(), given.target) > 0.3
    table = ExactChain(given.table)
    assert total_variation(table.law(), given.chain.law()) < 1e-6
    assert table.path_kl(given.chain) > 0.01


def test_every_sampler_has_a_row_and_those_that_owe_the_target_are_near_it(given):
    rows = {row.name: row for row in exactness.samplers(given, 3000, SMALL)}
    assert set(rows) == set(algorithms("samplers"))
    for row in rows.values():
        assert 0 < row.distance <= 1
        assert row.seconds > 0
        if row.owes == "the target as n grows":
            assert row.distance < 3 * row.floor
    assert rows["ancestral"].distance > 5 * rows["ancestral"].floor


def test_every_fine_tuner_has_a_row(given):
    few = {name: {"num_updates": 2, "num_conditions": 2} for name in algorithms("finetune")}
    rows = list(exactness.tuners(given, few))
    assert [row.name for row in rows] == list(algorithms("finetune"))
    assert all(0 < row.distance < 1 and row.floor == 0 for row in rows)
