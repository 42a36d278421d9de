"""Walking through states in place of steps: the law, the visits, and rows that are equal."""

import weakref

import pytest
import torch
from plait.benchmarks.exact import ExactChain
from plait.design.alphabets import DNA
from plait.design.space import DesignSpace
from plait.priors import masked_diffusion
from plait.priors._backbones import DilatedCnn
from plait.priors._rows import distinct_rows
from scipy.stats import chisquare
from torch import Generator, nn

SPACE = DesignSpace.from_template(DNA, "NGYN")


def generator(seed=0):
    return Generator().manual_seed(seed)


def make_prior(space=SPACE, **settings):
    prior = masked_diffusion.init(masked_diffusion.Config(**{"width": 16, **settings}), space, generator(1))
    with torch.no_grad():
        prior.network.backbone.leave.weight.normal_(0, 0.7, generator=generator(2))
    prior.network.requires_grad_(False)
    return prior


def counts_of(tokens, designs):
    return torch.tensor([int((tokens == design).all(1).sum()) for design in designs]).numpy()


@pytest.mark.parametrize("settings", [{"unmasking": "one_by_one"}, {"num_steps": 2}, {"num_steps": 7}])
def test_drawn_designs_follow_the_chain(settings):
    prior = make_prior(**settings)
    chain = ExactChain(prior)
    drawn = counts_of(prior.draw(20_000, generator(3)), chain.designs)
    law = chain.law().numpy()
    assert drawn.sum() == 20_000
    assert chisquare(drawn, law / law.sum() * 20_000).pvalue > 1e-3


@pytest.mark.parametrize("settings", [{"unmasking": "one_by_one"}, {"num_steps": 5}])
def test_a_walk_that_stops_stands_where_steps_would(settings):
    prior = make_prior(**settings)
    *_, last = prior.walk(20_000, 2, generator(4))
    state = prior.init_state(20_000)
    for step in range(2):
        state = prior.transition(state, step).sample(generator(10 + step))
    states = ExactChain(prior).states
    walked, stepped = (counts_of(tokens, states) / 20_000 for tokens in (last.transition.state, state))
    assert walked.sum() == pytest.approx(1)
    assert abs(walked - stepped).sum() / 2 < 0.03
    assert last.step == 2
    assert last.chains.tolist() == list(range(20_000))


@pytest.mark.parametrize("settings", [{"unmasking": "one_by_one"}, {"num_steps": 9}])
def test_visits_hold_each_state_once_and_their_kl_adds_up(settings):
    prior, policy = make_prior(**settings), make_prior(**settings)
    policy.network.backbone.leave.weight.neg_()
    total = torch.zeros(4000)
    for visit in policy.walk(4000, prior.num_steps, generator(5)):
        if visit.step < prior.num_steps:
            other = prior.transition(visit.transition.state, visit.step)
            total.index_add_(0, visit.chains, visit.weight * visit.transition.kl(other))
    path = torch.zeros(4000)
    state = policy.init_state(4000)
    draw = generator(6)
    for step in range(prior.num_steps):
        now = policy.transition(state, step)
        path += now.kl(prior.transition(state, step))
        state = now.sample(draw)
    error = float((total.var() + path.var()) / 4000) ** 0.5
    assert float(path.mean()) > 0.1
    assert abs(float(total.mean() - path.mean())) < 4 * error


def test_a_walk_forwards_full_batches_and_no_state_twice():
    prior = make_prior(DesignSpace.from_template(DNA, "N" * 12), num_steps=400)
    sizes = [len(visit.chains) for visit in prior.walk(100, 400, generator())]
    assert sizes[0] == sizes[-1] == 100
    assert 10 < len(sizes) <= 13
    before = prior.rows_forwarded
    prior.draw(100, generator(7))
    assert prior.rows_forwarded - before <= 1 + 11 * 100
    assert prior.draw(0, generator()).shape == (0, 12)


def test_distinct_rows_are_those_of_a_sort():
    rows = torch.randint(3, (500, 4), generator=generator())
    distinct, which = distinct_rows(rows)
    assert torch.equal(distinct[which], rows)
    assert len(distinct) == len(torch.unique(rows, dim=0)) < 500
    assert distinct_rows(distinct)[0] is distinct
    assert distinct_rows(rows[:0])[0].shape == (0, 4)


def test_rows_whose_hashes_meet_are_told_apart():
    odd = pow(6364136223846793005, -1, 2**64)  # the hash of (1, 0) and of (0, odd) is the first power
    odd = odd - 2**64 if odd >= 2**63 else odd
    rows = torch.tensor([[1, 0], [0, odd], [1, 0]])
    distinct, which = distinct_rows(rows)
    assert len(distinct) == 2
    assert torch.equal(distinct[which], rows)


@pytest.mark.parametrize("length", [1, 6, 40])
def test_convolutions_without_taps_beyond_the_design_are_the_padded_ones(length):
    network = DilatedCnn(length, 4, 8, 9, (1, 4, 16, 64))
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.2, generator=generator(len(parameter)))
    x = torch.rand((3, length, 5), generator=generator(1))
    hidden = network.enter(x.transpose(1, 2)).relu() + network.position
    for norm, convolution in zip(network.norms, network.convolutions, strict=True):
        hidden = hidden + convolution(norm(hidden)).relu()
    expected = network.leave(network.mix(hidden).relu()).transpose(1, 2)
    assert torch.allclose(network(x), expected, atol=1e-4)


def test_drawing_holds_no_visit_but_the_last():
    prior, visits, most = make_prior(DesignSpace.from_template(DNA, "N" * 12)), [], 0
    walk = prior.walk

    def watched(*args):
        nonlocal most
        for visit in walk(*args):
            visits.append(weakref.ref(visit))
            yield visit
            del visit
            most = max(most, sum(known() is not None for known in visits))

    prior.walk = watched
    prior.draw(8, generator())
    assert len(visits) > 8
    assert most <= 2
