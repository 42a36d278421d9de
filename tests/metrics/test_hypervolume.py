import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plait.metrics.hypervolume import hypervolume_gains, non_dominated, pareto_ranks, reference_point

FRONT = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
ZERO = np.zeros(2)


@pytest.mark.parametrize(
    ("point", "gain"),
    [
        ((2.0, 2.0), 0.0),  # on the front
        ((1.0, 1.0), 0.0),  # dominated
        ((3.0, 3.0), 3.0),  # dominates all: 9 instead of 6
        ((2.5, 2.5), 1.25),
        ((4.0, 0.5), 0.5),  # beyond one end
        ((5.0, 0.0), 0.0),  # not above the reference point
        ((1.5, 2.5), 0.25),  # between two members
    ],
)
def test_gains_by_hand(point, gain):
    assert hypervolume_gains(np.array([point]), FRONT, ZERO) == pytest.approx([gain])


def test_without_a_front_the_gain_is_the_box():
    gains = hypervolume_gains(np.array([[2.0, 3.0], [-1.0, 3.0]]), np.zeros((0, 2)), np.array([0.0, 1.0]))
    assert gains.tolist() == [4.0, 0.0]


@given(st.integers(1, 4), st.integers(0, 12), st.integers(0, 10_000))
def test_gains_are_differences_of_hypervolumes(k, m, seed):
    rng = np.random.default_rng(seed)
    front, points, reference = rng.normal(size=(m, k)), rng.normal(size=(6, k)), rng.normal(size=k) - 1
    before = moocore.hypervolume(front, ref=reference, maximise=True) if m else 0.0
    after = [moocore.hypervolume(np.vstack([front, point]), ref=reference, maximise=True) for point in points]
    assert hypervolume_gains(points, front, reference) == pytest.approx(np.array(after) - before, abs=1e-9)


def test_ranks_fronts_and_reference_by_hand():
    points = np.vstack([FRONT, FRONT - 0.5, [[0.0, 0.0]], FRONT[:1]])
    assert pareto_ranks(points).tolist() == [0, 0, 0, 1, 1, 1, 2, 0]
    assert sorted(non_dominated(points).tolist()) == FRONT.tolist()
    assert reference_point(points) == pytest.approx([1 - 0.2, 1 - 0.2])
    assert reference_point(FRONT[:1]) == pytest.approx([0.9, 2.9])
    assert reference_point(FRONT[:0]).tolist() == [0.0, 0.0]
    assert len(non_dominated(FRONT[:0])) == len(pareto_ranks(FRONT[:0])) == 0
