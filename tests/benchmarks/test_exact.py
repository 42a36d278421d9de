"""The exact chain against the transition's own log_prob and against draws; the transition against the exact chain."""

import math

import pytest
import torch
from plait.benchmarks.exact import ExactChain, sampling_floor, tabular_policy, total_variation
from plait.design.alphabets import DNA, find_alphabet
from plait.design.errors import UsageError
from plait.design.space import DesignSpace
from plait.priors import masked_diffusion
from scipy.stats import chisquare
from torch import Generator

SPACE = DesignSpace.from_template(DNA, "NYGN")
TRIPLE = DesignSpace(alphabet=find_alphabet("custom:012"), allowed=("012",) * 3)
INDEPENDENT = [{"num_steps": 1}, {"num_steps": 2}, {"num_steps": 5}]
ONE_BY_ONE = {"unmasking": "one_by_one"}
MODES = [{"num_steps": 3}, ONE_BY_ONE]


def generator(seed=0):
    return Generator().manual_seed(seed)


def perturbed(space=SPACE, seed=1, scale=0.5, **settings):
    """A model far from uniform: its output layer drawn at random."""
    model = masked_diffusion.init(masked_diffusion.Config(**{"width": 16, **settings}), space, generator(seed))
    with torch.no_grad():
        for parameter in model.network.backbone.leave.parameters():
            parameter.normal_(0, scale, generator=generator(seed + 100))
    model.network.requires_grad_(False)
    return model


def without_context(**settings):
    """Letters that do not depend on the other positions."""
    model = perturbed(**settings)
    model.network.backbone.leave.weight.zero_()
    return model


def worth(chain, seed=7):
    return torch.randn(len(chain.designs), generator=generator(seed))


def follows(tokens, chain, law):
    counts, expected = (len(tokens) * share / share.sum() for share in (chain.empirical(tokens), law))
    rare = expected < 5
    pooled = [torch.cat([c[~rare], c[rare].sum(0, keepdim=True)]).numpy() for c in (counts, expected)]
    return chisquare(*[c[pooled[1] > 0] for c in pooled], sum_check=False).pvalue > 1e-3


def matrices(model, states):
    """The law of every next state from every state, (S, S) float64 per step, by the transition's log_prob."""
    every = states.repeat(len(states), 1)
    start = states.repeat_interleave(len(states), 0)
    steps = range(model.num_steps)
    return [model.transition(start, s).log_prob(every).double().exp().view(len(states), len(states)) for s in steps]


@pytest.mark.parametrize("space", [SPACE, TRIPLE])
@pytest.mark.parametrize("settings", [*INDEPENDENT, ONE_BY_ONE])
def test_laws_and_values_are_what_log_prob_says(space, settings):
    model = perturbed(space, **settings)
    chain = ExactChain(model)
    moves = matrices(model, chain.states)
    laws = chain.laws()
    assert len(laws) == model.num_steps + 1
    for move, before, after in zip(moves, laws[:-1], laws[1:], strict=True):
        can_be = before > 0
        assert torch.allclose(move[can_be].sum(1), torch.ones(int(can_be.sum()), dtype=torch.float64), atol=1e-5)
        assert torch.allclose(before @ move, after, atol=1e-6)
    finished = (chain.states != model.mask_token).all(1)
    assert torch.equal(chain.designs, chain.states[finished])
    assert torch.equal(chain.law(), laws[-1][finished])
    assert float(chain.law().sum()) == pytest.approx(1, abs=1e-12)
    values, goal = chain.value(worth(chain), 0.5), worth(chain).double()
    assert torch.equal(values[-1][finished], goal)
    for move, before, after, law in zip(moves, values[:-1], values[1:], laws[:-1], strict=True):
        expected = 0.5 * (move @ (after / 0.5).exp()).log()
        assert torch.allclose(before[law > 0], expected[law > 0], atol=1e-5)
    start = chain.state_index(model.init_state(1))
    assert float(values[0][start]) == pytest.approx(0.5 * chain.log_evidence(goal, 0.5))
    by_hand = float((chain.law() * (goal / 0.5).exp()).sum())
    assert chain.log_evidence(goal, 0.5) == pytest.approx(math.log(by_hand))
    assert torch.allclose(chain.target(goal, 0.5), chain.law() * (goal / 0.5).exp() / by_hand)


@pytest.mark.parametrize("settings", [*INDEPENDENT, ONE_BY_ONE])
def test_masks_fall_evenly_from_all_to_none(settings):
    model = perturbed(**settings)
    chain = ExactChain(model)
    masks = (chain.states == model.mask_token).sum(1).double()
    expected = [len(model.free) * (1 - step / model.num_steps) for step in range(model.num_steps + 1)]
    assert [float(law @ masks) for law in chain.laws()] == pytest.approx(expected, abs=1e-9)
    state = model.init_state(4000)
    for step, mean in enumerate(expected[1:]):
        state = model.transition(state, step).sample(generator(step))
        assert float((state == model.mask_token).sum(1).double().mean()) == pytest.approx(mean, abs=0.1)
    assert int((state == model.mask_token).sum()) == 0


@pytest.mark.parametrize("settings", [*INDEPENDENT, ONE_BY_ONE])
def test_draws_and_steps_follow_the_exact_law(settings):
    model = perturbed(**settings)
    chain = ExactChain(model)
    law, state = chain.law(), model.init_state(8000)
    for step in range(model.num_steps):
        state = model.transition(state, step).sample(generator(step))
    assert follows(state, chain, law)
    assert follows(model.draw(8000, generator(9)), chain, law)
    assert not follows(state, chain, torch.full_like(law, 1 / len(law)))
    assert total_variation(chain.empirical(state), law) < 2 * sampling_floor(law, 8000)


def test_shares_and_floor_are_by_hand():
    chain = ExactChain(perturbed())
    tokens, weights = chain.designs[[3, 3, 5]], torch.tensor([0.0, math.log(2), 0.0])
    assert chain.empirical(tokens, weights)[[3, 5]].tolist() == pytest.approx([0.75, 0.25])
    assert torch.equal(chain.index(chain.designs), torch.arange(len(chain.designs)))
    assert total_variation(torch.tensor([0.5, 0.5, 0]), torch.tensor([0.1, 0.5, 0.4])) == pytest.approx(0.4)
    law = chain.law()
    draws = torch.multinomial(law.expand(400, -1), 50, replacement=True, generator=generator(1))
    mean = sum(total_variation(torch.bincount(d, minlength=len(law)) / 50, law) for d in draws) / 400
    assert sampling_floor(law, 50) == pytest.approx(mean, rel=0.02)
    with pytest.raises(UsageError, match="mask"):
        chain.index(torch.tensor([[4, 1, 2, 0]]))
    with pytest.raises(UsageError, match="outside"):
        chain.state_index(torch.tensor([[0, 1, 1, 0]]))
    with pytest.raises(UsageError, match="too many"):
        ExactChain(perturbed(DesignSpace.from_template(DNA, "N" * 8)))


@pytest.mark.parametrize("settings", MODES)
def test_path_kl_is_the_mean_over_chains_and_bounds_that_of_designs(settings):
    policy, prior = perturbed(seed=1, **settings), perturbed(seed=2, **settings)
    mine, theirs = ExactChain(policy), ExactChain(prior)
    state = policy.init_state(4000)
    kl, ratio = torch.zeros(4000), torch.zeros(4000)
    for step in range(policy.num_steps):
        now, reference = policy.transition(state, step), prior.transition(state, step)
        state = now.sample(generator(step))
        kl += now.kl(reference)
        ratio += now.log_prob(state) - reference.log_prob(state)
    exact = mine.path_kl(theirs)
    every = [policy.transition(mine.states, s).kl(prior.transition(mine.states, s)) for s in range(policy.num_steps)]
    laws = torch.stack(mine.laws()[:-1])
    assert float((laws * torch.stack(every)).sum()) == pytest.approx(exact, rel=1e-5)
    for estimate in (kl, ratio):
        assert abs(float(estimate.mean()) - exact) < 4 * float(estimate.std()) / math.sqrt(4000)
    assert float(kl.std()) < float(ratio.std())
    assert exact > 0.1
    assert mine.path_kl(mine) == 0
    of_designs = float((mine.law() * (mine.law() / theirs.law()).log()).sum())
    assert 0 < of_designs < exact


def test_elbo_bounds_the_law_of_filling_one_by_one():
    model = perturbed(scale=2.0, **ONE_BY_ONE)
    chain = ExactChain(model)
    gap = chain.law().log() - model.elbo(chain.designs, generator(), num_draws=0)[0]
    assert float(gap.min()) > -1e-4
    assert float((chain.law() * gap).sum()) > 0.01


@pytest.mark.parametrize("settings", [{"num_steps": 1}, *MODES])
def test_elbo_is_the_law_where_letters_know_no_context(settings):
    model = without_context(**settings)
    chain = ExactChain(model)
    bound, _ = model.elbo(chain.designs, generator(), num_draws=0)
    assert torch.allclose(bound.double(), chain.law().log(), atol=1e-5)


@pytest.mark.parametrize("settings", MODES)
def test_a_table_starts_at_the_prior_or_at_a_law_and_can_be_trained(settings):
    prior = perturbed(**settings)
    chain = ExactChain(prior)
    policy = tabular_policy(prior)
    assert (policy.space, policy.num_steps, policy.settings) == (prior.space, prior.num_steps, prior.settings)
    inside = (chain.states == prior.mask_token)[..., None] & prior.network.allowed
    expected, found = prior.log_letters(chain.states), policy.log_letters(chain.states)
    assert torch.allclose(found[inside], expected[inside], atol=1e-6)
    assert torch.equal(policy.log_letters(policy.one_hot(chain.states) * 0.6 + 0.08), found)
    assert ExactChain(policy).path_kl(chain) < 1e-9
    trained = policy.clone(is_trainable=True)
    optimiser = torch.optim.Adam(trained.network.parameters(), lr=0.1)
    start = trained.init_state(1)
    trained.transition(start, 0).log_letters[..., 0].sum().backward()
    optimiser.step()
    assert ExactChain(trained).path_kl(chain) > 0
    assert ExactChain(policy).path_kl(chain) < 1e-9
    policy.network.load_state_dict(trained.network.state_dict())
    assert ExactChain(policy).path_kl(ExactChain(trained)) == 0


def test_a_table_filled_one_by_one_can_hold_any_law():
    prior = perturbed(**ONE_BY_ONE)
    chain = ExactChain(prior)
    target = chain.target(worth(chain), 0.3)
    assert total_variation(ExactChain(tabular_policy(prior, target)).law(), target) < 1e-6
    at_once = perturbed(num_steps=1)
    target = worth(chain).double().softmax(0)
    assert total_variation(ExactChain(tabular_policy(at_once, target)).law(), target) > 0.05


@pytest.mark.parametrize("settings", MODES)
def test_following_and_taking_carry_what_a_fresh_forward_says(settings):
    model = perturbed(**settings)
    state, step = model.init_state(40), 0
    transition = model.transition(state, 0)
    tilt = torch.randn((1, 4, 4), generator=generator(3))
    while step + 1 < model.num_steps:
        tilted = transition.tilt(tilt.expand(len(transition.state), -1, -1))
        following = tilted.sample(generator(step), num=3)
        forwarded = model.rows_forwarded
        ahead = tilted.follow(following)
        index = torch.randperm(len(ahead.state), generator=generator(step))[:40]
        transition, step = ahead.take(index), step + 1
        assert model.rows_forwarded == forwarded
        assert torch.equal(transition.state, following.reshape(-1, 4)[index])
        assert transition.step == step
        assert torch.allclose(transition.log_letters, model.transition(transition.state, step).log_letters, atol=1e-6)
    kept = transition.tilt(tilt.expand(40, -1, -1)).take(index[:5] % 40)
    assert torch.allclose(kept.log_letters, model.transition(kept.state, step).tilt(tilt).log_letters, atol=1e-6)


def test_a_state_that_did_not_change_is_not_forwarded_again():
    model = perturbed(num_steps=5)
    transition = model.transition(model.init_state(50), 0)
    assert transition.log_letters.shape == (50, 4, 4)
    before = model.rows_forwarded
    following = transition.sample(generator())
    ahead = transition.follow(following)
    assert ahead.log_letters.shape == (50, 4, 4)
    is_new = (following != transition.state).any(1)
    assert 0 < int(is_new.sum()) < 50
    assert model.rows_forwarded - before == len(torch.unique(following[is_new], dim=0))


@pytest.mark.parametrize("settings", MODES)
def test_completion_is_the_likeliest_or_a_drawn_design(settings):
    model = perturbed(**settings)
    chain = ExactChain(model)
    some = chain.states[torch.randint(len(chain.states), (300,), generator=generator(1))]
    transition = model.transition(some, 0)
    is_masked = some == model.mask_token
    wanted = torch.where(is_masked, transition.log_letters.argmax(-1), some)
    assert torch.equal(transition.complete(), wanted)
    drawn = model.transition(model.init_state(8000), 0).complete(generator(2))
    letters = model.log_letters(model.init_state(1))[0].double()
    law = sum(letters[i][chain.designs[:, i]] for i in range(4) if i in model.free).exp()
    assert follows(drawn, chain, law)
    last = model.transition(chain.designs, model.num_steps)
    assert torch.equal(last.complete(), chain.designs)
    for use in (lambda: last.log_prob(chain.designs), lambda: last.release):
        with pytest.raises(UsageError, match="last step"):
            use()


def test_guidance_and_blends_are_their_formulas():
    model, other = perturbed(seed=1), perturbed(seed=2)
    state = model.init_state(3)
    state[1, 0] = 2
    mine, theirs = model.transition(state, 0), other.transition(state, 0)
    p, q = mine.log_letters.exp(), theirs.log_letters.exp()
    for weight in (0.0, 0.5, 1.0, 3.0):
        mixed = (p ** (1 - weight) * q**weight).nan_to_num(0.0).masked_fill(~model.network.allowed, 0.0)
        blended = mine.blend(theirs, weight).log_letters.exp()
        assert torch.allclose(blended, mixed / mixed.sum(-1, keepdim=True), atol=1e-6)
    gradient = torch.randn((3, 4, 5), generator=generator(5))
    moved = p * (gradient[..., :-1] - gradient[..., -1:]).exp()
    guided = mine.guided(gradient)
    assert torch.allclose(guided.log_letters.exp(), moved / moved.sum(-1, keepdim=True), atol=1e-6)
    again = mine.tilt(gradient[..., :-1]).tilt(-gradient[..., -1:].expand(-1, -1, 4))
    assert torch.allclose(again.log_letters, guided.log_letters, atol=1e-6)
    assert model.space.is_feasible(guided.complete(generator()).numpy()).all()


def test_one_by_one_fills_exactly_one_position():
    model = perturbed(DesignSpace.from_template(DNA, "NNGYNN"), **ONE_BY_ONE)
    assert model.num_steps == 5
    state, soft = model.init_state(200), model.init_state(200)
    first = torch.zeros(6)
    for step in range(5):
        following = model.transition(state, step).sample(generator(step))
        filled = following != state
        first += filled.sum(0) if step == 0 else 0
        assert (filled.sum(1) == 1).all()
        assert (state[filled] == model.mask_token).all()
        assert torch.isneginf(model.transition(state, step).log_prob(state)).all()
        state = following
        soft = model.transition(soft, step).rsample(generator(step), 0.5)
        assert torch.allclose(soft.sum(-1), torch.ones(200, 6), atol=1e-5)
    assert model.space.is_feasible(state.numpy()).all()
    assert chisquare(first[[0, 1, 3, 4, 5]].numpy()).pvalue > 1e-3
    assert float(soft[..., -1].max()) == 0
