"""Our Ehrlich functions: equal to the published ones, an optimum that can be reached, tasks that keep their word."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from plait.benchmarks.ehrlich import LETTERS, Ehrlich, EhrlichTask, draw_ehrlich, drawn_task, read_ehrlich, tasks
from plait.benchmarks.tasks import find_task
from plait.design.errors import BadInputError, UsageError

REFERENCES = json.loads((Path(__file__).parent / "data" / "ehrlich.json").read_text())["problems"]
NAMES = ["ehrlich-s32-l32", "ehrlich-s32-l64", "ehrlich-s4-l50", "ehrlich-s4-l64", "ehrlich-s4-l128"]
SIZES = [(4, 50, 4, 8, 8), (32, 32, 4, 4, 4), (6, 20, 2, 4, 2), (2, 8, 2, 4, 4), (20, 30, 1, 5, 1), (5, 12, 4, 3, 3)]


def _name(reference: dict[str, Any]) -> str:
    return "-".join(map(str, reference["problem"]))


def _problem(reference: dict[str, Any]) -> Ehrlich:
    if "record" in reference:
        return read_ehrlich(reference["record"])
    num_states, length, *_ = reference["problem"]
    return next(task.problem for task in tasks() if task.name == f"ehrlich-s{num_states}-l{length}")


@pytest.mark.parametrize("reference", REFERENCES, ids=_name)
def test_equals_the_published_function_value_for_value(reference: dict[str, Any]) -> None:
    problem = _problem(reference)
    tokens = np.array([[LETTERS.index(letter) for letter in row] for row in reference["sequences"]])
    expected = np.array([np.nan if value is None else value for value in reference["values"]])
    assert len(tokens) == 200
    assert 1.0 in expected
    assert 10 < np.isnan(expected).sum() < 190
    assert_array_equal(problem.is_feasible(tokens), ~np.isnan(expected))
    assert_array_equal(problem.value(tokens), np.nan_to_num(expected))


def test_stored_problems_are_the_reference_problems() -> None:
    stored = [reference for reference in REFERENCES if "record" not in reference]
    assert [task.name for task in tasks()] == NAMES
    for reference, task in zip(stored, tasks(), strict=True):
        num_states, length, num_motifs, motif_length, quantisation, _ = reference["problem"]
        assert (task.problem.num_states, task.problem.length) == (num_states, length)
        assert task.problem.motifs.shape == task.problem.offsets.shape == (num_motifs, motif_length)
        assert task.problem.quantisation == quantisation


def _by_definition(problem: Ehrlich, row: list[int]) -> float:
    """The formula read letter by letter."""
    if any(problem.transitions[a, b] == 0 for a, b in pairwise(row)):
        return 0.0
    product, (_, motif_length) = 1.0, problem.motifs.shape
    for motif, offsets in zip(problem.motifs.tolist(), problem.offsets.tolist(), strict=True):
        counts = [
            sum(row[start + offset] == letter for letter, offset in zip(motif, offsets, strict=True))
            for start in range(problem.length - offsets[-1])
        ]
        product *= max(counts) * problem.quantisation // motif_length / problem.quantisation
    return product


@pytest.mark.parametrize("size", SIZES)
def test_new_problems_follow_the_formula_and_reach_one(size: tuple[int, int, int, int, int]) -> None:
    for seed in range(5):
        problem, generator = draw_ehrlich(*size, seed=seed), np.random.default_rng(seed)
        best = problem.optimum()
        assert problem.value(best[None]).tolist() == [1.0]
        mutated = np.where(
            generator.random((40, len(best))) < 0.05, generator.integers(size[0], size=(40, len(best))), best
        )
        tokens = np.concatenate([problem.sample(40, generator), mutated])
        assert_allclose(problem.value(tokens), [_by_definition(problem, row) for row in tokens.tolist()], rtol=1e-12)


def test_new_problems_ban_transitions_and_stay_connected() -> None:
    for seed in range(20):
        for num_states, num_banned in ((4, 1), (32, 7)):
            transitions = draw_ehrlich(num_states, 32, 2, 4, 4, seed).transitions
            assert ((transitions == 0).sum(1) == num_banned).all()
            assert (transitions.diagonal() > 0).all()
            assert (np.linalg.matrix_power(transitions, num_states) > 0).all()
    first, again, other = (draw_ehrlich(4, 32, 2, 4, 4, seed) for seed in (0, 0, 1))
    assert_array_equal(first.transitions, again.transitions)
    assert_array_equal(first.offsets, again.offsets)
    assert not np.array_equal(first.transitions, other.transitions)


def test_a_new_problem_is_a_task_by_its_numbers() -> None:
    task, again, other = (find_task(f"ehrlich-6-20-2-4-2-{seed}") for seed in (3, 3, 4))
    assert isinstance(task, EhrlichTask)
    tokens = task.problem.sample(500, np.random.default_rng(0))
    assert (task.name, task.suite, task.space.size) == ("ehrlich-6-20-2-4-2-3", "ehrlich", 6**20)
    assert_array_equal(task.truth(tokens), draw_ehrlich(6, 20, 2, 4, 2, 3).value(tokens))
    assert_array_equal(task.truth(tokens), again.truth(tokens))
    assert not np.array_equal(task.truth(tokens), other.truth(tokens))
    assert task.measure(task.space.decode(task.problem.optimum()[None]), 0) == [1.0]
    assert drawn_task("ehrlich-6-20-2-4-2") is None
    with pytest.raises(UsageError):
        find_task("ehrlich-6-20-4-8-8-0")


def test_values_do_not_depend_on_the_batch() -> None:
    problem = tasks()[3].problem
    tokens = problem.sample(5_000, np.random.default_rng(0))  # more than one block
    values = problem.value(tokens)
    assert_array_equal(values[4_000:4_200], problem.value(tokens[4_000:4_200]))
    assert problem.value(tokens[:0]).shape == (0,)


def test_chain_starts_and_stays_in_its_stationary_law_and_moves_by_its_matrix() -> None:
    problem = tasks()[2].problem
    tokens = problem.sample(20_000, np.random.default_rng(0))
    assert problem.is_feasible(tokens).all()
    for position in (0, 1, 49):
        frequency = np.bincount(tokens[:, position], minlength=4) / len(tokens)
        assert_allclose(frequency, problem.stationary(), atol=0.02)  # 5 standard errors
    pairs = np.zeros((4, 4))
    np.add.at(pairs, (tokens[:, :-1].ravel(), tokens[:, 1:].ravel()), 1)
    assert_allclose(pairs / pairs.sum(1, keepdims=True), problem.transitions, atol=0.01)


@pytest.mark.parametrize("size", [(4, 31, 4, 8, 8), (4, 50, 4, 8, 3), (1, 50, 4, 8, 8), (37, 50, 4, 8, 8)])
def test_impossible_problems_are_refused(size: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(UsageError):
        draw_ehrlich(*size, seed=0)


@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)
def test_task_starts_from_distinct_feasible_sequences_far_from_the_optimum(task: EhrlichTask) -> None:
    readings = task.offline(0)
    tokens = task.space.encode(readings.sequences)
    assert len(set(readings.sequences)) == len(readings) == 1_000
    assert task.problem.is_feasible(tokens).all()
    assert_array_equal(readings.values, task.truth(tokens))
    assert 0 < readings.values.max() < 0.5
    assert task.offline(0).sequences == readings.sequences != task.offline(1).sequences
    assert task.corpus() == ()
    assert task.everything() is None


@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)
def test_lab_reads_the_truth_and_zero_where_infeasible(task: EhrlichTask) -> None:
    best = task.problem.optimum()
    broken = best.copy()
    state, banned = np.argwhere(task.problem.transitions == 0)[0]
    broken[-2:] = state, banned
    assert task.measure(task.space.decode(np.stack([best, broken, best])), seed=7) == [1.0, 0.0, 1.0]
    with pytest.raises(BadInputError):
        task.measure(["?" * task.problem.length], seed=0)


def test_spaces_tell_no_designer_what_is_feasible() -> None:
    for task in tasks():
        assert not task.space.constraints
        assert not task.space.strand_symmetric
        assert not task.space.alphabet.complement
        assert task.space.num_free == task.problem.length
        assert task.space.allowed_mask().all()
