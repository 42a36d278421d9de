"""The plain loops that speed is measured against do the same as Plait's methods, on the same network."""

import pytest
import torch
from plait.benchmarks import _ensemble_speed, _published_loops
from plait.benchmarks._published_loops import conv1d_network
from plait.benchmarks.exact import ExactChain, total_variation
from plait.design.alphabets import DNA
from plait.design.space import DesignSpace
from plait.priors import masked_diffusion
from torch import Generator

SPACE = DesignSpace.from_template(DNA, "NNN")


def generator(seed=0):
    return Generator().manual_seed(seed)


def make_prior(seed, **settings):
    config = masked_diffusion.Config(backbone="cnn", width=8, **{"num_steps": 4, **settings})
    prior = masked_diffusion.init(config, SPACE, generator(1))
    with torch.no_grad():
        prior.network.backbone.leave.weight.normal_(0, 0.7, generator=generator(seed))
    return prior


def test_the_published_network_is_ours():
    prior = make_prior(2)
    x = torch.rand((5, 3, 5), generator=generator())
    assert torch.allclose(conv1d_network(prior.network)(x), prior.network(x), atol=1e-5)


def test_the_plain_sampler_follows_the_chain():
    prior = make_prior(2)
    start = prior.one_hot(prior.init_state(10_000))
    drawn = _published_loops.ancestral(prior.network, start, 4, generator(1))
    chain = ExactChain(prior)
    assert total_variation(chain.empirical(drawn), chain.law()) < 0.04


def test_the_plain_decoder_finds_what_is_worth_more():
    prior = make_prior(2)
    start = prior.one_hot(prior.init_state(200))
    drawn = _published_loops.svdd_pm(prior.network, lambda x: (x == 2).sum(1).float(), start, 4, 8, 0.05, generator(1))
    plain = _published_loops.ancestral(prior.network, start, 4, generator(1))
    assert float((drawn == 2).float().mean()) > 2 * float((plain == 2).float().mean())


def test_the_plain_loss_has_the_exact_path_kl():
    policy, prior = make_prior(2), make_prior(3)
    start = prior.one_hot(prior.init_state(20_000))
    with torch.no_grad():
        loss = _published_loops.drakes_loss(
            policy.network, prior.network, lambda x: x.sum((1, 2)), start, 4, 1, 1.0, generator(1)
        )
    # The designs are one-hot, so their values are 3; the last step, soft, starts from hard states.
    assert float(loss) + 3 == pytest.approx(ExactChain(policy).path_kl(ExactChain(prior)), rel=0.03)


@pytest.mark.parametrize("family", ["wide_conv", "positional_conv", "mlp"])
def test_every_way_to_predict_says_the_same(family):
    model = _ensemble_speed.untrained((family,), 12, "cpu")
    for batch in (3, 100):
        times = _ensemble_speed._times(model, family, torch.randint(4, (batch, 12), generator=generator()), 1)
        assert len(times) >= 3
        assert min(times.values()) >= 0
