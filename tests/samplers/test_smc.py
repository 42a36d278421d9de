"""Particle filters against enumeration, against a Gaussian chain in closed form, and their parts one by one."""

import itertools
import math
from dataclasses import dataclass, replace

import pytest
import torch
from plait.benchmarks.exact import ExactChain, sampling_floor, total_variation
from plait.design.alphabets import DNA
from plait.design.errors import ConfigError, RunFailedError
from plait.design.records import no_progress
from plait.design.space import DesignSpace
from plait.rewards.conservatism import ObjectiveValue
from plait.samplers import _smc, smc, tds
from plait.samplers._gradients import slopes
from torch import nn

SPACE = DesignSpace.from_template(DNA, "NNYN")
TEMPERATURE = 0.75


class Motif:
    """An Objective in closed form: letters and neighbouring pairs, a quarter of an assay standard deviation each."""

    scale, assay_std, has_uncertainty = 0.0, 4.0, False

    def __init__(self, length, is_differentiable=True):
        draw = torch.Generator().manual_seed(0)
        self.single, self.pair = torch.randn((length, 4), generator=draw), torch.randn((4, 4), generator=draw)
        self.is_differentiable, self.rows_of_calls = is_differentiable, []

    def __call__(self, x):
        self.rows_of_calls.append(len(x))
        letters = x if x.is_floating_point() else nn.functional.one_hot(x, 4).float()
        value = (letters * self.single).sum((1, 2))
        value = value + torch.einsum("nla,ab,nlb->n", letters[:, :-1], self.pair, letters[:, 1:])
        return ObjectiveValue(value, value, torch.zeros_like(value))


class Forbidding(Motif):
    """Half of all designs are worth -inf, and so are many likeliest completions of good states."""

    is_differentiable = False

    def __call__(self, x):
        value = super().__call__(x).conservative.masked_fill(x[:, 0] >= 2, -torch.inf)
        return ObjectiveValue(value, value, value)


@pytest.fixture(name="exact", scope="module")
def _exact():
    """(prior, chain, values of its designs in assay standard deviations), computed once per way of unmasking."""
    known = {}

    def exact(make_prior, unmasking="independent"):
        if unmasking not in known:
            prior = make_prior(SPACE, unmasking=unmasking, num_steps=None if unmasking == "one_by_one" else 3)
            chain = ExactChain(prior)
            known[unmasking] = prior, chain, Motif(4)(chain.designs).conservative.double() / 4.0
        return known[unmasking]

    return exact


FILTERS = {
    "smc": (smc, {}),
    "smc always resampled": (smc, {"ess_threshold": 1.0}),
    "tds": (tds, {}),
    "tds too strong": (tds, {"scale": 1.5}),
    "tds against the gradient": (tds, {"scale": -0.5, "ess_threshold": 0.9}),
}


@pytest.mark.parametrize("unmasking", ["independent", "one_by_one"])
@pytest.mark.parametrize("name", FILTERS)
def test_evidence_and_weighted_sums_are_unbiased(name, unmasking, exact, generator, make_prior, prepare):
    sampler, settings = FILTERS[name]
    prior, chain, value = exact(make_prior, unmasking)
    state = prepare(
        sampler, prior, Motif(4), temperature=TEMPERATURE, is_resampled=False, population_size=20, **settings
    )
    tilted = chain.law() * (value / TEMPERATURE).exp()
    tests = torch.stack([torch.ones(len(value)), chain.designs[:, 0] == 1, chain.designs[:, 3] == 2]).double()
    expected = tests @ tilted
    found = []
    for seed in range(24):
        drawn = sampler.sample(state, 1010, generator(seed))
        each = (drawn.log_weights.double() + drawn.log_evidence).exp()
        found.append((tests[:, chain.index(drawn.tokens)] * each).mean(1))
        assert float(found[-1][0]) == pytest.approx(math.exp(drawn.log_evidence), rel=1e-4)
    found = torch.stack(found)
    standard_error = found.std(0) / math.sqrt(len(found))
    print(f"{name}, {unmasking}: evidence {found.mean(0)[0] / expected[0]:.4f} of the exact one")  # noqa: T201
    assert float((standard_error / expected).max()) < 0.1
    assert bool(((found.mean(0) - expected).abs() < 4 * standard_error).all())


@pytest.mark.parametrize("name", ["smc", "tds", "tds against the gradient"])
def test_the_weighted_law_nears_the_target_like_one_over_root_n(name, exact, generator, make_prior, prepare):
    sampler, settings = FILTERS[name]
    prior, chain, value = exact(make_prior)
    target = chain.target(value, TEMPERATURE)
    settings = {"temperature": TEMPERATURE, "is_resampled": False, "population_size": None, **settings}
    state = prepare(sampler, prior, Motif(4), **settings)

    def distance(n, repeats):
        drawn = [sampler.sample(state, n, generator(seed)) for seed in range(repeats)]
        return sum(total_variation(chain.empirical(s.tokens, s.log_weights), target) for s in drawn) / repeats

    distances = [distance(100, 30), distance(400, 20), distance(1600, 12)]
    print(f"{name}: total variation {distances}, prior {total_variation(chain.law(), target):.3f}")  # noqa: T201
    assert all(1.5 < more / less < 2.7 for more, less in itertools.pairwise(distances))
    assert 3.0 < distances[0] / distances[2] < 5.5
    assert distances[2] < 3 * sampling_floor(target, 1600)


@pytest.mark.parametrize("sampler", [smc, tds])
def test_the_final_draw_makes_all_designs_count_alike(sampler, exact, generator, make_prior, prepare):
    prior, chain, value = exact(make_prior)
    target = chain.target(value, TEMPERATURE)
    state = prepare(sampler, prior, Motif(4), temperature=TEMPERATURE, population_size=None)
    drawn = sampler.sample(state, 4000, generator(1))
    assert float(drawn.log_weights.abs().max()) < 1e-6
    assert total_variation(chain.empirical(drawn.tokens), target) < 0.1
    assert total_variation(chain.empirical(drawn.tokens[:2000]), target) < 0.12
    weighted = replace(state, config=state.config.model_copy(update={"is_resampled": False}))
    assert sampler.sample(weighted, 4000, generator(1)).log_evidence == drawn.log_evidence
    small = sampler.sample(prepare(sampler, prior, Motif(4), temperature=TEMPERATURE), 4000, generator(2))
    assert 125 < len(small.log_weights.unique()) <= 250
    assert float(small.log_weights.double().logsumexp(0)) == pytest.approx(math.log(4000), abs=1e-4)
    assert total_variation(chain.empirical(small.tokens, small.log_weights), target) < 0.1


def test_without_resampling_it_is_importance_sampling_from_the_prior(exact, generator, make_prior, prepare):
    prior, chain, value = exact(make_prior)
    settings = {"temperature": 0.05, "is_resampled": False, "population_size": None}
    plain = smc.sample(prepare(smc, prior, Motif(4), ess_threshold=0.0, **settings), 3000, generator(2))
    expected = value[chain.index(plain.tokens)] / 0.05 - plain.log_evidence
    assert torch.allclose(plain.log_weights.double(), expected, atol=1e-4)
    assert total_variation(chain.empirical(plain.tokens), chain.law()) < 1.5 * sampling_floor(chain.law(), 3000)
    resampled = smc.sample(prepare(smc, prior, Motif(4), **settings), 3000, generator(2))
    means = [float(value[chain.index(drawn.tokens)].mean()) for drawn in (plain, resampled)]
    assert means[0] == pytest.approx(float(chain.law() @ value), abs=0.05)
    assert means[1] > means[0] + 0.3


def test_populations_count_by_their_evidence(exact, generator, make_prior, prepare):
    prior, chain, value = exact(make_prior)
    target = chain.target(value, TEMPERATURE)
    state = prepare(smc, prior, Motif(4), temperature=TEMPERATURE, is_resampled=False, population_size=7)
    drawn = smc.sample(state, 9000, generator(3))
    assert total_variation(chain.empirical(drawn.tokens, drawn.log_weights), target) < 0.08
    assert total_variation(chain.empirical(drawn.tokens), target) > 0.12


def test_population_sizes_differ_by_one_at_most():
    rows = _smc.populations(23, 5)
    assert rows.sum(1).tolist() == [5, 5, 5, 4, 4]
    assert _smc.populations(3, 10).tolist() == [[True] * 3]
    assert _smc.populations(3, 1).sum(1).tolist() == [1, 1, 1]


def test_systematic_draws_are_floor_or_ceil_and_right_on_average(generator):
    share = torch.rand((6, 40), generator=generator(), dtype=torch.float64) ** 4
    share[2, 7:] = 0.0
    share[3] = torch.zeros(40).index_fill(0, torch.tensor([11]), 1.0)
    share = share / share.sum(1, keepdim=True)
    lengths = torch.tensor([40, 1, 40, 40, 1000, 39])
    offsets = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    total = torch.zeros_like(share)
    for offset in offsets:
        counts = _smc.systematic(share, lengths, offset.expand(6))
        expected = lengths[:, None] * share
        assert torch.equal(counts.sum(1), lengths)
        assert bool(((counts >= (expected - 1e-9).floor()) & (counts <= (expected + 1e-9).ceil())).all())
        total += counts
    assert torch.allclose(total / 4000, lengths[:, None] * share, atol=1e-3)


def test_only_a_population_under_the_threshold_is_resampled(generator):
    members = _smc.populations(8, 4)
    log_weights = torch.tensor([0.1, 0.2, 0.1, 0.0, 0.3, 0.0, 0.0, 0.0], dtype=torch.float64)
    twist = torch.tensor([1.0, 1.1, 1.0, 1.2, 9.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    index, new = _smc.resample(log_weights, twist, members, 0.5, generator())
    assert index[:4].tolist() == [0, 1, 2, 3]
    assert torch.equal(new[:4], log_weights[:4])
    assert index[4:].tolist() == [4, 4, 4, 4]
    priority = (log_weights + twist)[4:]
    assert torch.allclose(new[4:], priority.logsumexp(0) - math.log(4) - twist[index[4:]])
    assert _smc.resample(log_weights, twist, members, 0.0, generator())[0] is None
    even = torch.zeros(8, dtype=torch.float64)
    assert _smc.resample(even, twist[:1].expand(8), members, 0.99, generator())[0] is None


def test_resampling_keeps_every_weighted_sum_even_under_a_hopeless_twist(generator):
    log_weights = torch.randn(12, generator=generator(), dtype=torch.float64)
    twist = torch.randn(12, generator=generator(1), dtype=torch.float64)
    twist[::3] = -torch.inf
    total, draws = torch.zeros(12, dtype=torch.float64), generator(2)
    for _ in range(2000):
        index, new = _smc.resample(log_weights, twist, _smc.populations(12, 6), 1.0, draws)
        total.index_add_(0, index, new.exp())
    assert torch.allclose(total / 2000, log_weights.exp(), rtol=0.15)
    index, new = _smc.resample(
        log_weights, torch.full_like(twist, -torch.inf), members := _smc.populations(12, 6), 1, draws
    )
    assert len(index) == len(new) == int(members.sum())
    assert bool(new.isfinite().all())


@pytest.mark.parametrize("sampler", [smc, tds])
@pytest.mark.parametrize("temperature", [1e-3, 100.0])
def test_extreme_temperatures_neither_overflow_nor_lose_all(
    sampler, temperature, exact, generator, make_prior, prepare
):
    prior, chain, value = exact(make_prior)
    state = prepare(sampler, prior, Motif(4), temperature=temperature, is_resampled=False)
    drawn = sampler.sample(state, 300, generator(1))
    assert bool((drawn.log_weights < 7).all())
    assert float(drawn.log_weights.double().logsumexp(0)) == pytest.approx(math.log(300), abs=1e-3)
    assert math.isfinite(drawn.log_evidence)
    if temperature > 1:
        assert drawn.log_evidence == pytest.approx(chain.log_evidence(value, temperature), abs=0.01)
    else:
        assert drawn.log_evidence == pytest.approx(float(value.max()) / temperature, rel=0.3)


def test_designs_worth_minus_infinity_are_never_drawn_and_bias_nothing(exact, generator, make_prior, prepare):
    prior, chain, _ = exact(make_prior)
    value = Forbidding(4)(chain.designs).conservative.double() / 4.0
    state = prepare(smc, prior, Forbidding(4), temperature=TEMPERATURE, ess_threshold=1.0, population_size=50)
    log_evidence = [smc.sample(state, 100, generator(seed)).log_evidence for seed in range(100)]
    found = torch.tensor(log_evidence).exp()
    expected = math.exp(chain.log_evidence(value, TEMPERATURE))
    assert abs(float(found.mean()) - expected) < 4 * float(found.std()) / 10
    assert float(found.std()) / 10 < 0.05 * expected
    drawn = smc.sample(state, 2000, generator())
    assert bool((drawn.tokens[:, 0] < 2).all())
    drawn_law = chain.empirical(drawn.tokens, drawn.log_weights)
    assert total_variation(drawn_law, chain.target(value, TEMPERATURE)) < 0.1


class Constant(Motif):
    """All designs are worth the same."""

    def __init__(self, value, is_differentiable=True):
        super().__init__(4, is_differentiable)
        self.value = value

    def __call__(self, x):
        value = torch.full((len(x),), self.value) + 0 * super().__call__(x).conservative
        return ObjectiveValue(value, value, value)


def test_a_hopeless_reward_is_told_and_a_senseless_one_refused(exact, generator, make_prior, prepare):
    prior, _, _ = exact(make_prior)
    drawn = smc.sample(prepare(smc, prior, Constant(-math.inf)), 20, generator())
    assert drawn.log_evidence == -math.inf
    assert bool(drawn.log_weights.isneginf().all())
    assert drawn.tokens.shape == (20, 4)
    for sampler in (smc, tds):
        assert sampler.sample(
            prepare(sampler, prior, Constant(0.3), temperature=0.1), 20, generator()
        ).log_evidence == (pytest.approx(0.75))
        for value in (math.nan, math.inf):
            with pytest.raises(RunFailedError, match="reward"):
                sampler.sample(prepare(sampler, prior, Constant(value)), 20, generator())


def test_the_reward_is_called_once_a_step_for_distinct_new_designs_only(generator, make_prior, prepare):
    prior, goal = make_prior(SPACE, num_steps=5), Motif(4, is_differentiable=False)
    smc.sample(prepare(smc, prior, goal), 500, generator())
    assert len(goal.rows_of_calls) <= 6
    assert goal.rows_of_calls[0] == 1
    assert max(goal.rows_of_calls) <= SPACE.size
    patient, goal = make_prior(SPACE, num_steps=90), Motif(4, is_differentiable=False)
    drawn = smc.sample(prepare(smc, patient, goal), 1, generator())
    assert sum(goal.rows_of_calls) <= 5
    assert drawn.num_forwards <= 4


def test_tds_asks_the_network_of_a_state_once_plain_and_once_for_the_gradient(generator, make_prior, prepare):
    prior, goal = make_prior(SPACE, num_steps=90), Motif(4)
    drawn = tds.sample(prepare(tds, prior, goal, ess_threshold=0.0, temperature=1.0), 50, generator())
    assert drawn.num_forwards <= 2 * (1 + 4 * 50)
    assert sum(goal.rows_of_calls) <= 1 + 4 * 50 + 50
    alone = tds.sample(prepare(tds, prior, goal), 1, generator(1))
    assert 8 <= alone.num_forwards <= 10  # the start and four fillings, but that of the last step
    assert all(parameter.grad is None for parameter in prior.network.parameters())


@pytest.mark.parametrize("sampler", [smc, tds])
def test_seeds_progress_and_no_designs_at_all(sampler, exact, generator, make_prior, prepare):
    prior, _, _ = exact(make_prior)
    state, told = prepare(sampler, prior, Motif(4)), []
    one = sampler.sample(state, 50, generator(4), lambda *args: told.append(args[1:3]))
    two, other = sampler.sample(state, 50, generator(4)), sampler.sample(state, 50, generator(5))
    assert torch.equal(one.tokens, two.tokens)
    assert one.log_evidence == two.log_evidence != other.log_evidence
    assert told == [(0, 3), (1, 3), (2, 3)]
    assert sampler.sample(state, 0, generator()).tokens.shape == (0, 4)


def test_only_smc_takes_a_black_box(exact, generator, make_prior, prepare):
    prior, _, _ = exact(make_prior)
    with pytest.raises(ConfigError, match="not differentiable") as refusal:
        prepare(tds, prior, Motif(4, is_differentiable=False))
    assert "smc" in refusal.value.hint
    assert smc.sample(prepare(smc, prior, Motif(4, is_differentiable=False)), 9, generator()).tokens.shape == (9, 4)
    for sampler in (smc, tds):
        with pytest.raises(ConfigError, match="reward"):
            prepare(sampler, prior, None)


@dataclass
class WalkStep:
    """x' = decay x + noise: a Transition over real vectors (n, d)."""

    prior: "Walk"
    state: torch.Tensor
    step: int
    push: torch.Tensor | float = 0.0

    @property
    def mean(self):
        return self.prior.decay * self.state + self.push

    def sample(self, generator, num=1):
        assert num == 1
        return self.mean + self.prior.std * torch.randn(self.state.shape, generator=generator)

    def log_prob(self, next_state):
        return torch.distributions.Normal(self.mean, self.prior.std).log_prob(next_state).sum(1)

    def guided(self, gradient):
        return replace(self, push=self.push + self.prior.std**2 * gradient)

    def complete(self, generator=None):
        return self.prior.decay ** (self.prior.num_steps - self.step) * self.state

    def follow(self, next_state):
        return WalkStep(self.prior, next_state, self.step + 1)

    def take(self, index):
        push = self.push if isinstance(self.push, float) else self.push[index]
        return WalkStep(self.prior, self.state[index], self.step, push)


@dataclass
class Walk:
    """A diffusion prior over real vectors, from the origin: at the end normal with variance `variance`."""

    decay: float = 1.0
    std: float = 0.5
    num_steps: int = 5
    num_axes: int = 2
    rows_forwarded: int = 0

    @property
    def variance(self):
        return self.std**2 * sum(self.decay ** (2 * k) for k in range(self.num_steps))

    def init_state(self, n):
        return torch.zeros(n, self.num_axes)

    def transition(self, state, step):
        return WalkStep(self, state, step)

    def relax(self, state):
        return state

    def predict_clean(self, state, step):
        return state * self.decay ** (self.num_steps - step)

    def decode(self, state):
        return state


class Well:
    """Worth -|x - centre|^2 / 2."""

    scale, assay_std, has_uncertainty, is_differentiable = 0.0, 1.0, False, True
    centre = torch.tensor([1.5, -0.5])

    def __call__(self, x):
        value = -((x - self.centre) ** 2).sum(1) / 2
        return ObjectiveValue(value, value, torch.zeros_like(value))


def test_what_was_seen_goes_with_its_particle(generator):
    walk, well, draws = Walk(), Well(), generator()

    def look(transition, seen):
        return slopes(walk, well, transition.state, transition.step, seen)

    def propose(transition, seen):
        assert torch.equal(seen.states, transition.state)
        assert torch.equal(seen.values, well(transition.state).conservative.double())
        assert torch.equal(seen.gradients, well.centre - transition.state)
        return transition.sample(draws), torch.zeros(len(seen.values))

    config = smc.Config(temperature=0.1, ess_threshold=1.0)
    transition, log_weights, _ = _smc.run(walk, 60, config, look, propose, draws, no_progress)
    assert len(transition.state) == len(log_weights) == 60
    assert len(log_weights.unique()) > 4


@pytest.mark.parametrize(
    ("sampler", "settings", "decay"),
    [(smc, {}, 0.8), (smc, {"ess_threshold": 1.0}, 1.0), (tds, {}, 1.0), (tds, {"scale": -0.3}, 1.0), (tds, {}, 0.8)],
)
def test_nothing_assumes_tokens(sampler, settings, decay, generator, prepare):
    walk, well, temperature = Walk(decay), Well(), 1.0
    precision = 1 / walk.variance + 1 / temperature
    mean, spread = well.centre / temperature / precision, precision**-0.5
    each = -0.5 * math.log1p(walk.variance / temperature) - well.centre**2 / 2 / (walk.variance + temperature)
    state = prepare(sampler, walk, well, temperature=temperature, is_resampled=False, population_size=None, **settings)
    drawn = [sampler.sample(state, 1000, generator(seed)) for seed in range(20)]
    means = torch.stack([s.log_weights.softmax(0) @ s.tokens for s in drawn])
    evidence = torch.tensor([s.log_evidence - float(each.sum()) for s in drawn]).exp()
    assert float(means.std(0).max()) < 0.15
    assert bool(((means.mean(0) - mean).abs() < 4 * means.std(0) / 20**0.5 + 1e-3).all())
    assert abs(float(evidence.mean()) - 1) < 4 * float(evidence.std()) / 20**0.5 + 1e-3
    pooled, weights = torch.cat([s.tokens for s in drawn]), torch.cat([s.log_weights for s in drawn]).softmax(0)
    assert torch.allclose(weights @ (pooled - mean) ** 2, torch.full((2,), spread**2), rtol=0.1)
