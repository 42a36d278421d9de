"""Soft value-based decoding against its exact law, and what it costs."""

import dataclasses

import pytest
import torch
from plait.benchmarks.exact import ExactChain, sampling_floor, total_variation
from plait.design.alphabets import DNA
from plait.design.errors import ConfigError, RunFailedError
from plait.design.records import no_progress
from plait.design.space import DesignSpace
from plait.rewards.conservatism import ConservativeReward, default_kl_weight
from plait.samplers import _rollout_values, svdd_mc, svdd_pm, svdd_r
from scipy.stats import chisquare

SPACE = DesignSpace.from_template(DNA, "NNNN")
SAMPLERS = [svdd_pm, svdd_mc, svdd_r]
QUICK = {"num_rollouts": 64, "num_value_updates": 20, "value_width": 8}


def settings_of(sampler, **settings):
    return settings if sampler is svdd_pm else {**QUICK, **settings}


class BlackBox:
    """An objective of tokens only that keeps what it was asked; `change` may spoil its values."""

    is_differentiable, has_uncertainty, scale = False, False, 0.0

    def __init__(self, objective, change=lambda x, value: value):
        self.objective, self.assay_std, self.change, self.asked = objective, objective.assay_std, change, []

    def __call__(self, x):
        assert x.dtype == torch.int64
        self.asked.append(x)
        value = self.objective(x)
        return dataclasses.replace(value, conservative=self.change(x, value.conservative))


class ExactValue:
    """temperature * log E[exp(reward / temperature) | state] by enumeration."""

    is_timeless = False

    def __init__(self, chain, worth, temperature):
        self.chain, self.table = chain, chain.value(worth, temperature)

    def __call__(self, transition, rows, step, generator):
        return self.table[step][self.chain.state_index(transition.state[rows])]


class Watched:
    """A value that notes which states it was asked for."""

    is_timeless = True

    def __init__(self, value):
        self.value, self.seen = value, []

    def __call__(self, transition, rows, step, generator):
        self.seen.append(transition.state[rows])
        return self.value(transition, rows, step, generator)


@pytest.fixture(name="tiny")
def _tiny(make_prior, make_objective):
    """Prior, objective (its yardstick the spread of the prior's designs), chain, worth of each design."""

    def make(**settings):
        prior = make_prior(SPACE, **{"num_steps": 6, **settings})
        chain, reward = ExactChain(prior), make_objective(SPACE).reward
        values, law = reward.predict(chain.designs).mean.double(), chain.law()
        spread = float(((law * values**2).sum() - (law * values).sum() ** 2).sqrt())
        return prior, ConservativeReward(reward, None, 0.0, spread), chain, values / spread

    return make


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_seed_gives_the_same_designs_in_the_space(sampler, generator, make_prior, make_objective, prepare):
    space = DesignSpace.from_template(DNA, "NNGYN")
    prior, goal = make_prior(space), make_objective(space)
    one, two = (
        sampler.sample(
            prepare(sampler, prior, goal, **settings_of(sampler, batch_size=7, temperature=1)), 20, generator(3)
        )
        for _ in range(2)
    )
    assert torch.equal(one.tokens, two.tokens)
    assert one.tokens.shape == (20, 5)
    assert space.is_feasible(one.tokens.numpy()).all()
    assert one.num_forwards == two.num_forwards > 0
    assert torch.equal(one.log_weights, torch.zeros(20))
    assert (one.log_evidence is not None) == (sampler is svdd_r)
    other = sampler.sample(prepare(sampler, prior, goal, **settings_of(sampler, temperature=1)), 20, generator(4))
    assert not torch.equal(one.tokens, other.tokens)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_designs_can_be_asked_for(sampler, generator, make_prior, make_objective, prepare):
    state = prepare(sampler, make_prior(SPACE), make_objective(SPACE), **settings_of(sampler))
    assert sampler.sample(state, 0, generator()).tokens.shape == (0, 4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_cannot_be_decoded_by_is_refused(sampler, make_prior, make_objective, prepare):
    prior = make_prior(SPACE)
    with pytest.raises(ConfigError, match="reward"):
        prepare(sampler, prior, None)
    with pytest.raises(ConfigError, match="standard deviation"):
        prepare(sampler, prior, dataclasses.replace(make_objective(SPACE), assay_std=0.0))


def test_temperature_zero_is_refused_where_it_has_no_meaning(make_prior, make_objective, prepare):
    with pytest.raises(ValueError, match="greater than 0"):
        svdd_r.Config(temperature=0)
    with pytest.raises(ConfigError, match="soft"):
        prepare(svdd_mc, make_prior(SPACE), make_objective(SPACE), temperature=0)
    state = prepare(svdd_mc, make_prior(SPACE), make_objective(SPACE), temperature=0, target="mean", **QUICK)
    assert state.temperature == 0


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_reward_call_a_step_and_each_distinct_design_once(sampler, generator, make_prior, make_objective, prepare):
    prior, goal = make_prior(SPACE, num_steps=12), BlackBox(make_objective(SPACE))
    state = prepare(sampler, prior, goal, **settings_of(sampler))
    goal.asked.clear()
    drawn = sampler.sample(state, 30, generator(1))
    assert len(goal.asked) <= prior.num_steps + 1
    for designs in goal.asked:
        assert len(torch.unique(designs, dim=0)) == len(designs)
    assert set(map(tuple, drawn.tokens.tolist())) <= set(map(tuple, torch.cat(goal.asked).tolist()))
    if sampler is svdd_mc:
        assert len(goal.asked) == 1


def test_steps_without_a_move_ask_the_reward_nothing(generator, make_prior, make_objective, prepare):
    prior, goal = make_prior(SPACE, num_steps=400), BlackBox(make_objective(SPACE))
    svdd_pm.sample(prepare(svdd_pm, prior, goal, num_proposals=3), 2, generator(1))
    assert 3 <= len(goal.asked) < 40


@pytest.mark.parametrize("across", [False, True])
def test_only_proposals_that_move_are_forwarded_and_the_winner_not_again(
    across, generator, make_prior, make_objective, prepare
):
    space = DesignSpace.from_template(DNA, "N" * 12)
    prior, goal = make_prior(space, num_steps=40), make_objective(space)
    state = prepare(svdd_pm, prior, goal, num_proposals=5, temperature=0.2)
    watched = Watched(state.value)
    before = prior.rows_forwarded
    drawn = svdd_pm.sample(dataclasses.replace(state, value=watched, is_across=across), 20, generator(1))
    unfinished = [states[(states == prior.mask_token).any(1)] for states in watched.seen]
    distinct = sum(len(torch.unique(states, dim=0)) for states in unfinished)
    assert drawn.num_forwards == prior.rows_forwarded - before == distinct
    print(f"rows: published loop {20 * 40 * 6}, here {distinct}")  # noqa: T201
    assert distinct < 20 * 40 * 6 / 2


def test_values_by_a_network_forward_winners_only(generator, make_prior, make_objective, prepare):
    prior = make_prior(SPACE, num_steps=60)
    drawn = svdd_mc.sample(prepare(svdd_mc, prior, make_objective(SPACE), **QUICK), 200, generator())
    assert drawn.num_forwards <= 200 * 5


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_at_infinite_temperature_designs_follow_the_prior(sampler, tiny, generator, prepare):
    prior, goal, chain, _ = tiny()
    state = prepare(sampler, prior, goal, **settings_of(sampler, num_proposals=3, temperature=1e6, batch_size=5000))
    share, law = chain.empirical(sampler.sample(state, 20_000, generator(2)).tokens), chain.law()
    likely = law * 20_000 > 5
    observed, expected = ([*p[likely].tolist(), float(p[~likely].sum())] for p in (share, law))
    scale = 20_000 / sum(observed)
    assert chisquare([20_000 * o for o in observed], [scale * sum(observed) * e for e in expected]).pvalue > 1e-3


@pytest.mark.parametrize("unmasking", ["independent", "one_by_one"])
def test_with_the_exact_value_the_target_is_met_as_proposals_grow(unmasking, tiny, generator, prepare):
    prior, goal, chain, worth = tiny(unmasking=unmasking, num_steps=4 if unmasking == "one_by_one" else 6)
    temperature, n = 0.5, 6000
    target = chain.target(worth, temperature)
    distances = []
    for num in (1, 4, 32):
        state = prepare(svdd_pm, prior, goal, num_proposals=num, temperature=temperature, batch_size=n)
        state = dataclasses.replace(state, value=ExactValue(chain, worth, temperature))
        distances.append(total_variation(chain.empirical(svdd_pm.sample(state, n, generator(5)).tokens), target))
    floor = sampling_floor(target, n)
    print(f"{unmasking}: total variation at M = 1, 4, 32: {distances}, of as many exact draws: {floor:.3f}")  # noqa: T201
    assert distances[0] > 0.4
    assert distances[0] > 1.5 * distances[1] > 1.5**2 * distances[2]
    assert distances[2] < floor + 0.05


@pytest.mark.parametrize("value", ["likeliest", "drawn", "mean"])
def test_across_chains_any_value_meets_the_target_and_the_evidence(value, tiny, generator, prepare):
    prior, goal, chain, worth = tiny()
    target = chain.target(worth, 0.5)
    state = prepare(svdd_r, prior, goal, value=value, temperature=0.5, num_proposals=4, batch_size=6000, **QUICK)
    drawn = svdd_r.sample(state, 6000, generator(5))
    distance = total_variation(chain.empirical(drawn.tokens), target)
    print(f"svdd_r {value}: total variation {distance:.3f}, floor {sampling_floor(target, 6000):.3f}")  # noqa: T201
    assert distance < 0.12
    assert drawn.log_evidence == pytest.approx(chain.log_evidence(worth, 0.5), abs=0.1)


def test_the_evidence_is_unbiased_for_few_chains_in_uneven_batches(tiny, generator, prepare):
    prior, goal, chain, worth = tiny()
    state = prepare(svdd_r, prior, goal, temperature=1.0, num_proposals=2, batch_size=6, **QUICK)
    exact = chain.log_evidence(worth, 1.0)
    seeds = generator(9)
    ratio = torch.tensor([svdd_r.sample(state, 11, seeds).log_evidence - exact for _ in range(100)]).exp()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / 100**0.5 < 0.5


def test_what_the_other_values_aim_at_is_printed(tiny, generator, prepare):
    prior, goal, chain, worth = tiny()
    settings = {"temperature": 0.5, "batch_size": 2000}
    for sampler, more in (
        (svdd_pm, {"completion": "likeliest"}),
        (svdd_pm, {"completion": "drawn"}),
        (svdd_mc, {"target": "mean"}),
    ):
        state = prepare(sampler, prior, goal, num_proposals=10, **settings, **more)
        tokens = sampler.sample(state, 2000, generator(5)).tokens
        distance = total_variation(chain.empirical(tokens), chain.target(worth, 0.5))
        print(f"{sampler.__name__} {more}: total variation {distance:.3f}")  # noqa: T201
    assert total_variation(chain.law(), chain.target(worth, 0.5)) > 0.3


@pytest.mark.parametrize("target", ["soft", "mean"])
def test_the_network_learns_the_value_it_is_named_for(target, tiny, generator):
    prior, goal, chain, worth = tiny(num_steps=4)
    config = _rollout_values.RegressionConfig(num_rollouts=4000, num_value_updates=300, value_learning_rate=3e-3)
    value = _rollout_values.fit(config, prior, goal, target, 1.0, generator(1), no_progress)
    assert value.held_out_loss < value.constant_loss
    exact = {"soft": chain.value(worth, 1.0), "mean": chain.value(worth, 1e6)}
    errors = dict.fromkeys(exact, 0.0)
    for step in range(1, prior.num_steps):
        law = chain.laws()[step]
        rows = (law > 0).nonzero()[:, 0]
        said = value(prior.transition(chain.states, step), rows, step, generator()).double()
        for name, values in exact.items():
            errors[name] += float((law[rows] * (said - values[step][rows]) ** 2).sum()) / (prior.num_steps - 1)
    print(f"{target}: mean squared error against the soft value and the mean: {errors}")  # noqa: T201
    assert errors[target] < 0.03
    assert errors[target] < min(e for name, e in errors.items() if name != target) / 3


def test_decoding_beats_the_prior_and_more_proposals_help(tiny, generator, prepare):
    prior, goal, chain, worth = tiny()
    plain = float((chain.law() * worth).sum())
    for sampler in SAMPLERS:
        more = (
            {} if sampler is svdd_pm else {"num_rollouts": 512, "num_value_updates": 100, "value_learning_rate": 5e-3}
        )
        first, means = prepare(sampler, prior, goal, temperature=0.5, **more), []
        for num in (1, 3, 12):
            state = dataclasses.replace(first, config=first.config.model_copy(update={"num_proposals": num}))
            means.append(float(worth[chain.index(sampler.sample(state, 600, generator(1)).tokens)].mean()))
        print(f"{sampler.__name__}: mean worth {means}, of the prior {plain:.2f}")  # noqa: T201
        if sampler is svdd_r:
            assert min(means) > plain + 0.7
        else:
            assert means[0] == pytest.approx(plain, abs=0.2)
            assert means[2] > means[1] + 0.05 > plain + 0.4


def test_at_temperature_zero_one_step_is_best_of_m(tiny, generator, prepare):
    prior, goal, chain, worth = tiny(num_steps=1)
    order, law = worth.argsort(), chain.law()
    below = law[order].cumsum(0)
    expected = torch.zeros_like(law)
    expected[order] = below**4 - (below - law[order]).clamp(min=0) ** 4
    drawn = svdd_pm.sample(prepare(svdd_pm, prior, goal, num_proposals=4, temperature=0), 8000, generator(2))
    assert total_variation(chain.empirical(drawn.tokens), expected) < 1.3 * sampling_floor(expected, 8000)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_designs_of_reward_minus_infinity_lose_and_nan_is_named(
    sampler, generator, make_prior, make_objective, prepare
):
    prior = make_prior(SPACE)
    gate = BlackBox(make_objective(SPACE), lambda x, value: value.masked_fill(x[:, 1] < 2, -torch.inf))
    drawn = sampler.sample(prepare(sampler, prior, gate, **settings_of(sampler)), 200, generator(1))
    assert len(drawn.tokens) == 200
    if sampler is not svdd_mc:
        assert int((drawn.tokens[:, 1] < 2).sum()) <= 2
    else:  # A network of 20 updates leads into dead ends; the mean of minus infinity is none at all.
        with pytest.raises(RunFailedError, match="not finite"):
            prepare(sampler, prior, gate, target="mean", **QUICK)
    broken = BlackBox(make_objective(SPACE), lambda x, value: value.masked_fill(x[:, 1] < 2, torch.nan))
    with pytest.raises(RunFailedError, match="NaN"):
        sampler.sample(prepare(sampler, prior, broken, **settings_of(sampler)), 200, generator(1))


def test_the_default_temperature_is_the_law_all_methods_share(make_prior, make_objective, prepare):
    state = prepare(svdd_pm, make_prior(SPACE), make_objective(SPACE))
    assert state.temperature == default_kl_weight(4) == 0.2
