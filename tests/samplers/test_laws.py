"""The samplers' laws against enumeration on a space that can be written out."""

import numpy as np
import pytest
import torch
from plait.benchmarks.exact import ExactChain, total_variation
from plait.design.alphabets import DNA
from plait.design.constraints import GcWindow
from plait.design.errors import ConfigError
from plait.design.space import DesignSpace
from plait.samplers import ancestral, best_of_n, exhaustive
from scipy.stats import chisquare

SPACE = DesignSpace.from_template(DNA, "NYGN")


@pytest.mark.parametrize(
    "settings", [{"num_steps": 1}, {"num_steps": 2}, {"num_steps": 5}, {"unmasking": "one_by_one"}]
)
def test_ancestral_sampling_follows_the_chain(settings, generator, make_prior, prepare):
    prior = make_prior(SPACE, **settings)
    chain = ExactChain(prior)
    drawn = ancestral.sample(prepare(ancestral, prior, None, batch_size=6000), 20_000, generator(1))
    counts, law = (20_000 * chain.empirical(drawn.tokens)).numpy(), chain.law().numpy()
    assert chisquare(counts, law / law.sum() * 20_000, sum_check=False).pvalue > 1e-3
    assert chisquare(counts, sum_check=False).pvalue < 1e-9


def test_ancestral_sampling_forwards_only_rows_that_change(generator, make_prior, prepare):
    prior = make_prior(SPACE, num_steps=60)
    drawn = ancestral.sample(prepare(ancestral, prior, None), 500, generator())
    assert 0 < drawn.num_forwards <= 3 * 43  # three positions to fill, 43 states that still hold a mask


@pytest.mark.parametrize("num", [1, 4])
def test_best_of_n_follows_its_order_statistics(num, generator, make_prior, make_objective, prepare):
    prior, goal = make_prior(SPACE, num_steps=3), make_objective(SPACE)
    chain = ExactChain(prior)
    expected = chain.best_of(goal(chain.designs).conservative, num)
    assert float(expected.sum()) == pytest.approx(1)
    state = prepare(best_of_n, prior, goal, num_candidates=num)
    goal.reward.calls = 0
    drawn = best_of_n.sample(state, 8000, generator(2))
    assert goal.reward.calls == 1
    share = chain.empirical(drawn.tokens)
    assert total_variation(share, expected) < 0.03
    likely = expected * 8000 > 5
    observed, wanted = (
        torch.cat([s[likely], s[~likely].sum(0, keepdim=True)]).numpy() * 8000 for s in (share, expected)
    )
    assert chisquare(observed[wanted > 0], wanted[wanted > 0], sum_check=False).pvalue > 1e-3


@pytest.mark.parametrize("chunk_size", [3, 1000])
def test_exhaustive_finds_the_best_feasible_items(chunk_size, generator, make_prior, make_objective, prepare):
    space = SPACE.model_copy(update={"constraints": (GcWindow(maximum=0.5),)})
    prior, goal = make_prior(space), make_objective(space)
    every = torch.from_numpy(np.concatenate(list(space.enumerate())))
    values = goal(every).conservative
    best = exhaustive.sample(prepare(exhaustive, prior, goal, chunk_size=chunk_size), 7, generator())
    assert torch.equal(best.tokens, every[values.argsort(descending=True)[:7]])
    assert best.num_forwards == 0
    everything = exhaustive.sample(prepare(exhaustive, prior, goal), 10_000, generator())
    assert len(everything.tokens) == len(every) < SPACE.size


def test_exhaustive_refuses_a_space_that_is_too_large(make_prior, make_objective, prepare):
    space = DesignSpace.from_template(DNA, "N" * 12)
    with pytest.raises(ConfigError, match="16,777,216"):
        prepare(exhaustive, make_prior(space), make_objective(space))
