"""What the report of several assays reads from the registry, on a home of its own; nothing is trained."""

import plait
import pytest
from plait.campaign.gather import aims_of
from plait.campaign.proposing import _next_round, open_turn


@pytest.fixture
def turn(tmp_path):
    """The first turn of a campaign that maximises psi and minimises kd; CCCCCC is not measured in kd."""
    sequences = [2 * (a + b + c) for a in "ACGT" for b in "ACGT" for c in "ACGT"]
    with plait.open(tmp_path / "home", create=True, actor="ada") as home:
        for name, goal, skipped in (("psi", "maximize", ""), ("kd", "minimize", "CCCCCC")):
            rows = [f"{s},{r},{i + r / 2}" for i, s in enumerate(sequences) for r in (0, 1) if s != skipped]
            table = tmp_path / f"{name}.csv"
            table.write_text("\n".join(["sequence,replicate,value", *rows]) + "\n")
            home.data.import_(table, dataset=name, alphabet="dna", unit=f"{name} unit", goal=goal)
        config = {"dataset": "psi", "objective": {"assay": "log PSI", "weight": 2.0}}
        home.campaign.create({"name": "c", **config, "assays": [{"dataset": "kd", "threshold": 4.0}]})
        with home.registry.begin() as uow:
            yield open_turn(home.ports, uow, "c", _next_round(uow, home.ports, "c"), {})


def test_readings_of_all_assays_meet_by_item_in_their_own_direction(turn):
    psi, kd = aims_of(turn.assays, "log PSI")
    assert (psi.assay, psi.unit, psi.goal, psi.weight, psi.threshold) == ("log PSI", "psi unit", "maximize", 2.0, None)
    assert (kd.assay, kd.unit, kd.goal, kd.weight, kd.threshold) == ("kd", "kd unit", "minimize", 1.0, 4.0)
    means = [i + 0.25 for i in range(64)]
    assert psi.offline == pytest.approx(means)
    assert kd.offline[21] is None
    assert kd.offline[:21] + kd.offline[22:] == pytest.approx(means[:21] + means[22:])
