"""Writes the stored Ehrlich problems and their reference values, and checks ours against pytorch-holo value for value.

pytorch-holo needs numpy 1, so it runs in an environment of its own, beside the checkout:

    python3.11 -m venv /tmp/holo
    /tmp/holo/bin/pip install pytorch-holo==0.0.5 'numpy<2' torch pydantic
    PYTHONPATH=platform /tmp/holo/bin/python tests/benchmarks/build_ehrlich.py

Writes platform/plait/benchmarks/data/ehrlich.json (transition matrices, motifs and gaps that pytorch-holo draws) and
tests/benchmarks/data/ehrlich.json (200 sequences per problem over all values that the check has met).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from holo.test_functions.closed_form import Ehrlich as HoloEhrlich
from numpy.typing import NDArray
from plait.benchmarks.ehrlich import LETTERS, Ehrlich, read_ehrlich

PROBLEMS = ((32, 32, 4, 4, 4, 0), (32, 64, 4, 4, 4, 0), (4, 50, 4, 8, 8, 1), (4, 64, 8, 8, 8, 1), (4, 128, 8, 8, 8, 1))
COARSE = ((6, 20, 2, 4, 2, 3), (8, 40, 3, 8, 4, 5))
"""Problems whose quantisation is below the motif length: for the test only."""
SOURCE = (
    "Stanton et al. 2024, Closed-Form Test Functions for Biophysical Sequence Design Benchmarking (arXiv 2407.00236); "
    "problems drawn by pytorch-holo 0.0.5, Copyright (c) 2024 Prescient Design, MIT licence"
)
NUM_CHECKED, NUM_KEPT = 24_000, 200


def draw(problem: tuple[int, ...]) -> tuple[HoloEhrlich, dict[str, Any]]:
    """Theirs, and what we store of it."""
    num_states, length, num_motifs, motif_length, quantisation, seed = problem
    theirs = HoloEhrlich(num_states, length, num_motifs, motif_length, quantisation, random_seed=seed)
    record = {
        "length": length,
        "quantisation": quantisation,
        "seed": seed,
        "motifs": [motif.tolist() for motif in theirs.motifs],
        "spacings": [spacing.tolist() for spacing in theirs.spacings],
        "transitions": [[float(f"{p:.9g}") for p in row] for row in theirs.transition_matrix.tolist()],
    }
    return theirs, record


def sequences(ours: Ehrlich, generator: np.random.Generator) -> NDArray[np.int64]:
    """A quarter each: uniform; of the chain; the optimum mutated; pieces of chain and shifted optimum, (n, L) int64."""
    n, length = NUM_CHECKED // 4, ours.length
    uniform = generator.integers(ours.num_states, size=(n, length))
    chain = ours.sample(n, generator)
    rate = generator.uniform(0, 0.2, size=(n, 1))
    best = np.broadcast_to(ours.optimum(), (n, length))
    mutated = np.where(generator.random((n, length)) < rate, uniform, best)
    cuts = generator.random((n, length)) < 3 / length
    is_chain = (cuts.cumsum(1) + generator.integers(2, size=(n, 1))) % 2 == 1
    shift = generator.integers(-3, 4, size=(n, 1))
    shifted = ours.optimum()[np.clip(np.arange(length) + shift, 0, length - 1)]
    return np.concatenate([uniform, chain, mutated, np.where(is_chain, chain, shifted)])


def keep(values: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Indices of NUM_KEPT sequences, (k,) int64: the last, a fifth as they come, the rest one of each value in turn.

    Rare values come first.
    """
    order = generator.permutation(len(values) - 1)
    _, group = np.unique(values[order], return_inverse=True)
    turn = np.zeros(len(order), dtype=np.int64)
    for number in range(group.max() + 1):
        turn[group == number] = np.arange((group == number).sum())
    by_value = order[np.lexsort((np.bincount(group)[group], turn))]
    chosen = [len(values) - 1, *order[: NUM_KEPT // 5], *by_value]
    return np.sort(list(dict.fromkeys(chosen))[:NUM_KEPT])


def check(problem: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The stored record and the reference values of one problem, after comparing both functions on every sequence."""
    theirs, record = draw(problem)
    ours, generator = read_ehrlich(record), np.random.default_rng(0)
    tokens = np.concatenate([sequences(ours, generator), theirs.initial_solution(500).numpy(), ours.optimum()[None]])
    expected = theirs._evaluate_true(torch.as_tensor(tokens)).double().numpy()
    got = np.where(ours.is_feasible(tokens), ours.value(tokens), -np.inf)
    if not np.array_equal(got, expected) or expected[-1] != 1.0:
        raise SystemExit(f"{problem}: {(got != expected).sum()} of {len(got)} values differ")
    levels, feasible = len(np.unique(expected[np.isfinite(expected)])), np.isfinite(expected).mean()
    sys.stdout.write(f"{problem}: {len(tokens):,} values equal, {levels} different ones, {feasible:.0%} feasible\n")
    kept = keep(expected, generator)
    reference = {
        "problem": problem,
        "sequences": ["".join(LETTERS[t] for t in row) for row in tokens[kept]],
        "values": [value if np.isfinite(value) else None for value in expected[kept].tolist()],
    }
    return record, reference


def write(path: Path, source: str, problems: list[dict[str, Any]]) -> None:
    """JSON with one line for each problem."""
    lines = ",\n".join(json.dumps(problem, separators=(",", ":")) for problem in problems)
    path.write_text(f'{{"source": {json.dumps(source)},\n"problems": [\n{lines}\n]}}\n')


def main() -> None:
    """Write both files."""
    here = Path(__file__).parent
    stored, references = zip(*(check(problem) for problem in PROBLEMS), strict=True)
    write(here.parents[1] / "platform/plait/benchmarks/data/ehrlich.json", SOURCE, list(stored))
    coarse = [{**reference, "record": record} for record, reference in map(check, COARSE)]
    note = "values of pytorch-holo 0.0.5 (MIT licence), null where infeasible; made by ../build_ehrlich.py"
    write(here / "data/ehrlich.json", note, [*references, *coarse])


if __name__ == "__main__":
    main()
