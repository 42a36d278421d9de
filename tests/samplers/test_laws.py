"""The samplers' laws against enumeration on a space that can be written out."""

import itertools

import numpy as np
import pytest
import torch
from plait.design.alphabets import DNA
from plait.design.constraints import GcWindow
from plait.design.errors import ConfigError
from plait.design.space import DesignSpace
from plait.samplers import ancestral, best_of_n, exhaustive
from scipy.stats import chisquare

SPACE = DesignSpace.from_template(DNA, "NYGN")


def exact_law(prior):
    """Law of the T-step chain over finished designs, by dynamic programming over all partly masked states."""
    mask = prior.mask_token
    choices = [np.flatnonzero(row) for row in prior.space.allowed_mask()]
    choices = [c if len(c) == 1 else [*c, mask] for c in choices]
    states = torch.tensor(np.array(list(itertools.product(*choices))))
    with torch.no_grad():
        letters = prior.log_letters(states).exp().double()
    law = (states == prior.init_state(1)).all(1).double()
    for step in range(prior.num_steps):
        release = 1 / (prior.num_steps - step)
        following = torch.zeros_like(law)
        for weight, state, probability in zip(law, states, letters, strict=True):
            if weight > 0:
                each = torch.ones_like(law)
                for i, token in enumerate(state.tolist()):
                    target = states[:, i]
                    filled = release * probability[i][target.clamp(max=mask - 1)]
                    moved = torch.where(target == mask, 1 - release, filled)
                    each *= moved if token == mask else (target == token).double()
                following += weight * each
        law = following
    finished = (states != mask).all(1)
    assert float(law[finished].sum()) == pytest.approx(1)
    return states[finished], law[finished] / law[finished].sum()


def counts_of(tokens, designs):
    return np.array([int((tokens == design).all(1).sum()) for design in designs])


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_ancestral_sampling_follows_the_chain(steps, generator, make_prior, prepare):
    prior = make_prior(SPACE, num_steps=steps)
    designs, law = exact_law(prior)
    drawn = ancestral.sample(prepare(ancestral, prior, None, batch_size=6000), 20_000, generator(1))
    assert chisquare(counts_of(drawn.tokens, designs), law.numpy() * 20_000).pvalue > 1e-3
    uniform = np.full(len(designs), 20_000 / len(designs))
    assert chisquare(counts_of(drawn.tokens, designs), uniform).pvalue < 1e-9


def test_ancestral_sampling_forwards_only_rows_that_change(generator, make_prior, prepare):
    prior = make_prior(SPACE, num_steps=60)
    drawn = ancestral.sample(prepare(ancestral, prior, None), 500, generator())
    assert 100 < drawn.num_forwards <= 3 * 500


@pytest.mark.parametrize("num", [1, 4])
def test_best_of_n_follows_its_order_statistics(num, generator, make_prior, make_objective, prepare):
    prior, goal = make_prior(SPACE, num_steps=3), make_objective(SPACE)
    designs, law = exact_law(prior)
    value = goal(designs).conservative
    order = value.argsort()
    below = law[order].cumsum(0)
    expected = torch.zeros_like(law)
    expected[order] = below**num - (below - law[order]).clamp(min=0) ** num
    state = prepare(best_of_n, prior, goal, num_candidates=num)
    goal.reward.calls = 0
    drawn = best_of_n.sample(state, 8000, generator(2))
    assert goal.reward.calls == 1
    assert float(expected.sum()) == pytest.approx(1)
    share = torch.from_numpy(counts_of(drawn.tokens, designs)) / 8000
    assert float((share - expected).abs().sum() / 2) < 0.03
    likely = (expected * 8000 > 5).numpy()
    observed = np.append(counts_of(drawn.tokens, designs)[likely], counts_of(drawn.tokens, designs)[~likely].sum())
    wanted = np.append(expected.numpy()[likely], expected.numpy()[~likely].sum()) * 8000
    assert chisquare(observed[wanted > 0], wanted[wanted > 0]).pvalue > 1e-3


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
