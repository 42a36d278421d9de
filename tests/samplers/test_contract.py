"""What every sampler owes: designs in the space, one seed the same designs, its cost, a clear refusal."""

import pytest
import torch
from plait.design.alphabets import DNA
from plait.design.errors import ConfigError
from plait.design.space import DesignSpace
from plait.samplers import ancestral, best_of_n, exhaustive

SAMPLERS = [ancestral, best_of_n, exhaustive]
SPACE = DesignSpace.from_template(DNA, "NNGYN")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_designs_lie_in_the_space_and_one_seed_gives_the_same(sampler, generator, make_prior, make_objective, prepare):
    prior = make_prior(SPACE)
    state = prepare(sampler, prior, make_objective(SPACE))
    one, two = (sampler.sample(state, 20, generator(3)) for _ in range(2))
    assert one.tokens.shape == (20, 5)
    assert one.tokens.dtype == torch.int64
    assert one.log_weights.shape == (20,)
    assert SPACE.is_feasible(one.tokens.numpy()).all()
    assert torch.equal(one.tokens, two.tokens)
    assert one.num_forwards == two.num_forwards
    assert not one.tokens.requires_grad
    assert not one.log_weights.requires_grad


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_designs_can_be_asked_for(sampler, generator, make_prior, make_objective, prepare):
    assert sampler.sample(prepare(sampler, make_prior(SPACE), make_objective(SPACE)), 0, generator()).tokens.shape == (
        0,
        5,
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_config_is_frozen_documented_and_closed(sampler):
    for field in sampler.Config.model_fields.values():
        assert field.description
        assert not field.is_required()
    with pytest.raises(ValueError, match="extra"):
        sampler.Config(unknown=1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_missing_reward_is_named(sampler, generator, make_prior, prepare):
    if sampler.needs_reward:
        with pytest.raises(ConfigError, match="reward"):
            prepare(sampler, make_prior(SPACE), None)
    else:
        assert sampler.sample(prepare(sampler, make_prior(SPACE), None), 3, generator()).tokens.shape == (3, 5)
