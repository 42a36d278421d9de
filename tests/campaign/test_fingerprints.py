import numpy as np
from plait.campaign.fingerprints import content_hash, derive_seed
from plait.design.records import Readings


def _readings(order, values=(1.0, 2.0, 3.0)):
    sequences, replicates = ("AC", "AC", "GT"), ("1", "2", "1")
    return Readings(
        tuple(sequences[i] for i in order), np.array([values[i] for i in order]), tuple(replicates[i] for i in order)
    )


def _hash(readings, **change):
    return content_hash(readings, **{"alphabet": "dna", "unit": "u", "goal": "maximize"} | change)


def test_the_hash_does_not_see_row_order():
    assert _hash(_readings([0, 1, 2])) == _hash(_readings([2, 0, 1]))


def test_the_hash_sees_values_units_and_goals():
    base = _hash(_readings([0, 1, 2]))
    assert base != _hash(_readings([0, 1, 2], (1.0, 2.0, np.nextafter(3.0, 4.0))))
    assert base != _hash(_readings([0, 1, 2]), unit="v")
    assert base != _hash(_readings([0, 1, 2]), goal="minimize")
    assert base != _hash(_readings([0, 1]))


def test_seeds_differ_by_stage_round_and_campaign():
    seeds = {derive_seed(s, r, n) for s in range(3) for r in range(3) for n in ("prior", "sample")}
    assert len(seeds) == 18
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, 1, "sample") == derive_seed(0, 1, "sample")
