"""What every sampler owes: designs in the space, one seed the same designs, a prior left alone, a clear refusal."""

import pytest
import torch
from plait.campaign.catalog import algorithms
from plait.design.alphabets import DNA
from plait.design.errors import ConfigError, RunFailedError
from plait.design.space import DesignSpace
from plait.rewards.conservatism import ObjectiveValue

SAMPLERS = algorithms("samplers")
SPACE = DesignSpace.from_template(DNA, "NNGYN")
TAUGHT = {"num_train_steps": 5, "train_batch_size": 32}
BRED = {"generations": 2, "num_islands": 3, "population_size": 20, "num_children": 30}
LEARNT = {"num_rollouts": 64, "num_value_updates": 20, "value_width": 8, "num_proposals": 3}
FAST = {
    "cfg": TAUGHT,
    "ddom": TAUGHT,
    "genetic": BRED,
    "neutral_drift": BRED,
    "svdd_mc": LEARNT,
    "svdd_pm": {"num_proposals": 3},
    "svdd_r": {"num_proposals": 3},
}
"""Small settings of the samplers that train, or judge many proposals."""
TAUGHT_BY_DATA = {"cfg", "ddom", "genetic", "neutral_drift"}
SAME_EVERY_TIME = {"exhaustive"}
MODES = [{"num_steps": 4}, {"unmasking": "one_by_one"}]

each = pytest.mark.parametrize("name", SAMPLERS)


@pytest.fixture(name="ready")
def _ready(make_prior, make_objective, make_dataset, prepare):
    def ready(name, prior=None, is_differentiable=True, **given):
        dataset = make_dataset(SPACE) if name in TAUGHT_BY_DATA else None
        objective = make_objective(SPACE, is_differentiable, assay_std=5.0)
        inputs = {"prior": prior or make_prior(SPACE), "objective": objective, "dataset": dataset, **given}
        return prepare(SAMPLERS[name], **inputs, **FAST.get(name, {}))

    return ready


def test_every_file_is_found():
    assert set(SAMPLERS) >= {"ancestral", "best_of_n", "exhaustive", "svdd_pm", "smc", "tds", "classifier_guidance"}
    assert set(SAMPLERS) >= {"cfg", "ddom", "svdd_mc", "svdd_r", "genetic", "neutral_drift"}
    assert not [name for name in SAMPLERS if name.startswith("_") or name == "base"]


@each
@pytest.mark.parametrize("settings", MODES)
def test_designs_lie_in_the_space_and_one_seed_gives_the_same(name, settings, generator, make_prior, ready):
    sampler = SAMPLERS[name]
    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)  # of no consequence
        drawn.append(sampler.sample(ready(name, make_prior(SPACE, **settings)), 20, generator(3)))
    one, two = drawn
    assert one.tokens.shape == (20, 5)
    assert one.tokens.dtype == torch.int64
    assert one.log_weights.shape == (20,)
    assert SPACE.is_feasible(one.tokens.numpy()).all()
    assert torch.equal(one.tokens, two.tokens)
    assert torch.equal(one.log_weights, two.log_weights)
    assert (one.num_forwards, one.log_evidence) == (two.num_forwards, two.log_evidence)
    assert not one.tokens.requires_grad
    assert not one.log_weights.requires_grad


@each
def test_another_seed_gives_others_and_one_state_serves_many_calls(name, generator, ready):
    sampler, state = SAMPLERS[name], ready(name)
    first, other, again = (sampler.sample(state, 20, generator(seed)).tokens for seed in (1, 2, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name in SAME_EVERY_TIME)


@each
@pytest.mark.parametrize("n", [0, 1])
def test_none_or_one_can_be_asked_for(name, n, generator, ready):
    drawn = SAMPLERS[name].sample(ready(name), n, generator())
    assert drawn.tokens.shape == (n, 5)
    assert drawn.tokens.dtype == torch.int64
    assert drawn.log_weights.shape == (n,)


@each
def test_the_prior_is_left_alone(name, generator, make_prior, ready):
    prior = make_prior(SPACE)
    before = {k: v.clone() for k, v in prior.network.state_dict().items()}
    flags = [p.requires_grad for p in prior.network.parameters()]
    SAMPLERS[name].sample(ready(name, prior), 6, generator())
    assert all(torch.equal(v, before[k]) for k, v in prior.network.state_dict().items())
    assert [p.requires_grad for p in prior.network.parameters()] == flags
    assert all(p.grad is None for p in prior.network.parameters())


@each
def test_progress_is_told_and_stays_within_its_total(name, generator, ready):
    told = []
    SAMPLERS[name].sample(ready(name), 10, generator(), lambda *event: told.append(event))
    assert told
    assert all(task and 0 <= done <= total for task, done, total, _ in told)
    assert [done for _, done, _, _ in told] == sorted(done for _, done, _, _ in told)


@each
def test_config_is_frozen_documented_and_closed(name):
    config = SAMPLERS[name].Config()
    for field in type(config).model_fields.values():
        assert field.description
        assert not field.is_required()
    with pytest.raises(ValueError, match="extra"):
        type(config)(unknown=1)
    for key, value in config.model_dump().items():
        with pytest.raises(ValueError, match="frozen"):
            setattr(config, key, value)


@each
def test_a_missing_reward_or_dataset_is_named(name, generator, ready):
    sampler = SAMPLERS[name]
    if sampler.needs_reward:
        with pytest.raises(ConfigError, match="reward"):
            ready(name, objective=None)
    else:
        assert sampler.sample(ready(name, objective=None), 3, generator()).tokens.shape == (3, 5)
    if name in TAUGHT_BY_DATA:
        with pytest.raises(ConfigError, match=r"data|measured"):
            ready(name, dataset=None)


@each
def test_a_black_box_is_refused_where_a_gradient_is_needed_and_serves_elsewhere(name, generator, ready):
    sampler = SAMPLERS[name]
    if sampler.needs_gradient:
        with pytest.raises(ConfigError, match="differentiable"):
            ready(name, is_differentiable=False)
    else:
        drawn = sampler.sample(ready(name, is_differentiable=False), 10, generator())
        assert SPACE.is_feasible(drawn.tokens.numpy()).all()


@pytest.mark.parametrize("name", sorted({"best_of_n", "exhaustive"} & set(SAMPLERS)))
def test_a_reward_that_is_no_number_is_told(name, generator, make_objective, ready):
    class Broken:
        scale, assay_std, has_uncertainty, is_differentiable = 0.0, 1.0, False, False

        def __init__(self, bad):
            self.bad = bad

        def __call__(self, x):
            value = make_objective(SPACE)(x).mean.masked_fill(x[:, 0] < 2, self.bad)
            return ObjectiveValue(value, value, value)

    with pytest.raises(RunFailedError, match="NaN"):
        SAMPLERS[name].sample(ready(name, objective=Broken(float("nan"))), 20, generator())
    hopeless = SAMPLERS[name].sample(ready(name, objective=Broken(-float("inf"))), 20, generator())
    assert hopeless.tokens.shape == (20, 5)
