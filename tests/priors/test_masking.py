"""The transition and the ELBO of masked diffusion against enumeration on tiny spaces."""

import itertools
import math

import pytest
import torch
from plait.benchmarks.exact import ExactChain
from plait.design.alphabets import DNA, find_alphabet
from plait.design.errors import UsageError
from plait.design.space import DesignSpace
from plait.priors import masked_diffusion
from plait.priors._masking import MaskedDiffusion
from torch import Generator, nn


def generator(seed=0):
    return Generator().manual_seed(seed)


def perturbed(space, seed, scale=1.0, **settings):
    """A model far from uniform: its output layer drawn at random."""
    model = masked_diffusion.init(masked_diffusion.Config(**{"width": 16, **settings}), space, generator(seed))
    leave = model.network.backbone.leave
    with torch.no_grad():
        leave.weight.normal_(0, scale, generator=generator(seed + 100))
        leave.bias.normal_(0, scale, generator=generator(seed + 200))
    model.network.requires_grad_(False)
    return model


def tiny(letters="012", length=3):
    return DesignSpace(alphabet=find_alphabet(f"custom:{letters}"), allowed=(letters,) * length)


def test_kl_counts_masked_positions_not_settled_ones():
    policy, prior = perturbed(tiny(), 1, num_steps=3), perturbed(tiny(), 2, num_steps=3)
    masked, settled = policy.init_state(1), torch.tensor([[0, 1, 2]])
    assert float(policy.transition(masked, 0).kl(prior.transition(masked, 0))) > 0.01
    assert float(policy.transition(settled, 0).kl(prior.transition(settled, 0))) == 0
    soft = policy.one_hot(masked)
    hard_kl = policy.transition(masked, 1).kl(prior.transition(masked, 1))
    assert torch.allclose(policy.transition(soft, 1).kl(prior.transition(soft, 1)), hard_kl)
    with pytest.raises(UsageError, match="same step"):
        policy.transition(masked, 0).kl(prior.transition(masked, 1))


@pytest.mark.parametrize("is_tilted", [False, True])
def test_log_prob_is_a_law_and_sample_follows_it(is_tilted):
    model = perturbed(tiny(), 3, num_steps=3)
    states = ExactChain(model).states
    start = torch.tensor([[3, 1, 3]])
    transition = model.transition(start.repeat(20_000, 1), 1)
    one = model.transition(start.repeat(len(states), 1), 1)
    if is_tilted:
        weights = torch.randn((1, 3, 3), generator=generator(4))
        transition, one = transition.tilt(weights.expand(20_000, -1, -1)), one.tilt(weights.expand(len(states), -1, -1))
    law = one.log_prob(states).exp()
    assert float(law.sum()) == pytest.approx(1, abs=1e-5)
    drawn = transition.sample(generator(5))
    counts = torch.stack([(drawn == s).all(1).float().mean() for s in states])
    assert float((counts - law).abs().sum() / 2) < 0.015
    assert float((counts[law == 0]).sum()) == 0


def test_cached_and_lazy_samples_agree():
    model = perturbed(tiny(), 3, num_steps=3)
    state = model.init_state(50)
    lazy, cached = model.transition(state, 0), model.transition(state, 0)
    assert cached.log_letters.shape == (50, 3, 3)
    assert torch.equal(lazy.sample(generator(1)), cached.sample(generator(1)))


def test_only_rows_that_change_are_forwarded_and_equal_ones_once():
    model = perturbed(tiny(), 3, num_steps=50)
    state = model.init_state(200)
    before = model.rows_forwarded
    transition = model.transition(state, 0)
    following = transition.sample(generator())
    assert model.rows_forwarded - before == 1
    ahead = transition.follow(following)
    ahead.complete()
    is_changed = (following != state).any(1)
    distinct = len(torch.unique(following[is_changed], dim=0))
    assert 1 < distinct < int(is_changed.sum())
    assert model.rows_forwarded - before == 1 + distinct + int(not transition._kept.is_known[~is_changed].all())
    several = model.transition(state, 0).sample(generator(), num=4)
    assert several.shape == (200, 4, 3)
    assert not torch.equal(several[:, 0], several[:, 1])


def test_template_is_respected_and_no_mask_is_left():
    space = DesignSpace.from_template(DNA, "NGYRN")
    model = perturbed(space, 1, scale=5.0, num_steps=3)
    start = model.init_state(300)
    assert (start[:, 1] == 2).all()
    assert (start[:, [0, 2, 3, 4]] == model.mask_token).all()
    state, soft = start, start
    for step in range(3):
        state = model.transition(state, step).sample(generator(step))
        soft = model.transition(soft, step).rsample(generator(step), 1.0)
    for tokens in (state, model.decode(soft)):
        assert space.is_feasible(tokens.numpy()).all()
    assert torch.isneginf(model.log_letters(start)[:, 2, [0, 2]]).all()
    assert model.transition(state, 2).log_prob(state).tolist() == [0.0] * 300
    assert torch.isneginf(model.transition(start, 2).log_prob(start)).all()


def test_soft_steps_keep_mass_and_end_without_mask():
    model = perturbed(tiny(), 1, num_steps=4)
    state = model.init_state(30)
    mask_mass = [float(model.one_hot(state)[..., -1].mean())]
    for step in range(4):
        state = model.transition(state, step).rsample(generator(step), 0.7)
        assert torch.allclose(state.sum(-1), torch.ones(30, 3), atol=1e-5)
        mask_mass.append(float(state[..., -1].mean()))
    assert mask_mass == sorted(mask_mass, reverse=True)
    assert mask_mass[-1] == 0
    with pytest.raises(UsageError, match="relaxed"):
        model.transition(state, 3).sample(generator())


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_soft_steps_unmask_at_the_pace_of_hard_ones(temperature):
    model = perturbed(tiny(), 1, num_steps=20)
    state = model.init_state(4000)
    for step in range(10):
        state = model.transition(state, step).rsample(generator(step), temperature)
    masks = state[..., -1]
    assert ((masks == 0) | (masks == 1)).all()
    assert float(masks.mean()) == pytest.approx(0.5, abs=0.02)
    letters = model.transition(model.init_state(1), 19).log_letters.exp()[0]
    last = model.transition(model.init_state(20_000), 19).rsample(generator(3), temperature)
    share = nn.functional.one_hot(model.decode(last), model.mask_token).float().mean(0)
    assert torch.allclose(share, letters, atol=0.02)


def any_order_law(model):
    """log p(x) averaged over orders of filling, and the mean of its log, for every design."""
    designs = torch.tensor(list(itertools.product(range(model.mask_token), repeat=model.space.length)))
    orders = list(itertools.permutations(range(model.space.length)))
    logs = torch.zeros(len(designs), len(orders))
    for column, order in enumerate(orders):
        state = model.init_state(len(designs)).clone()
        for position in order:
            letters = model.log_letters(state)[:, position]
            logs[:, column] += letters.gather(1, designs[:, position, None])[:, 0]
            state[:, position] = designs[:, position]
    return designs, logs.logsumexp(1) - math.log(len(orders)), logs.mean(1)


def test_elbo_is_the_mean_over_orders_and_bounds_log_p():
    model = perturbed(tiny("012", 4), 7)
    designs, log_p, mean_log = any_order_law(model)
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-4)
    exact, error = model.elbo(designs, generator(), num_draws=0)
    assert torch.allclose(exact, mean_log, atol=1e-4)
    assert (error == 0).all()
    assert (exact <= log_p + 1e-4).all()
    assert torch.equal(model.elbo(designs, generator(), num_draws=16)[0], exact)


def test_drawn_elbo_agrees_with_the_exact_one_within_its_error():
    model = perturbed(DesignSpace.from_template(DNA, "NNNGNNNN"), 7)
    designs = model.init_state(100).masked_fill(model.init_state(100) == 4, 0)
    designs[:, :3] = torch.randint(4, (100, 3), generator=generator(1))
    exact, _ = model.elbo(designs, generator(), num_draws=0)
    drawn, error = model.elbo(designs, generator(2), num_draws=64)
    z = (drawn - exact) / error
    assert abs(float(z.mean())) < 0.4
    assert 0.7 < float(z.square().mean().sqrt()) < 1.4


def test_elbo_refuses_what_it_cannot_do_and_rejects_outsiders():
    model = perturbed(DesignSpace.from_template(DNA, "NGN"), 1)
    bound, error = model.elbo(torch.tensor([[0, 2, 0], [0, 1, 0]]), generator())
    assert math.isfinite(bound[0])
    assert math.isinf(bound[1])
    assert error.tolist() == [0, 0]
    assert len(model.elbo(torch.zeros((0, 3), dtype=torch.long), generator())[0]) == 0
    with pytest.raises(UsageError, match="1 draws"):
        model.elbo(torch.tensor([[0, 2, 0]]), generator(), num_draws=1)
    long = masked_diffusion.init(masked_diffusion.Config(), DesignSpace.from_template(DNA, "N" * 17), generator())
    with pytest.raises(UsageError, match="17 free"):
        long.elbo(torch.zeros((1, 17), dtype=torch.long), generator(), num_draws=0)


def test_predict_clean_keeps_settled_letters():
    model = perturbed(tiny(), 1)
    state = torch.tensor([[3, 1, 3]])
    clean = model.predict_clean(state, 0)
    assert torch.allclose(clean.sum(-1), torch.ones(1, 3), atol=1e-5)
    assert clean[0, 1].tolist() == [0, 1, 0]
    assert isinstance(model, MaskedDiffusion)
