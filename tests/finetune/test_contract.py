"""What every fine-tuner owes: a better reward, resuming, workers that agree, refusal of what its name forbids."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch
from plait.campaign.catalog import algorithms
from plait.design.errors import ConfigError, RunFailedError
from plait.finetune import drakes
from plait.finetune.base import Info
from torch import Generator, nn

TUNERS = algorithms("finetune")
TAUGHT_BY_DATA = {"ctrl"}
DRAWS_ON_THE_WAY = {"reward_weighted_mle"}
"""Pieces of the batch draw other numbers than the whole: the same gradient only in the mean."""
WORKER_TOLERANCE = 0.2
"""Of the gain in mean reward: how far two workers may end from one with the same batch."""

each = pytest.mark.parametrize("name", TUNERS)


def generator(seed=0):
    return Generator().manual_seed(seed)


def mean_reward(policy, objective):
    return float(objective(policy.decode(policy.draw(600, generator(4)))).conservative.mean())


def trained(state):
    """Every parameter that a fine-tuner trains, wherever its state keeps it."""
    networks = [n for v in vars(state).values() if isinstance(n := getattr(v, "network", v), nn.Module)]
    networks += [v for v in vars(state).values() if isinstance(v, nn.Module)]
    return {id(p) for network in networks for p in network.parameters() if p.requires_grad}


class Lockstep:
    """AverageGradients of workers that are threads: each waits until all gradients are there."""

    def __init__(self, num):
        self.barrier, self.gradients, self.seen = threading.Barrier(num, timeout=120), [[]] * num, [set()] * num

    def averager(self, rank):
        def average(parameters):
            self.seen[rank] = self.seen[rank] | {id(p) for p in parameters}
            self.gradients[rank] = [p.grad.clone() for p in parameters]
            self.barrier.wait()
            means = [torch.stack(pair).mean(0) for pair in zip(*self.gradients, strict=True)]
            self.barrier.wait()
            for parameter, mean in zip(parameters, means, strict=True):
                parameter.grad.copy_(mean)

        return average

    def run(self, tuner, states):
        """All updates of all workers; their Infos, worker by worker."""

        def work(rank):
            try:
                return [tuner.step(states[rank], self.averager(rank)) for _ in range(states[rank].config.num_updates)]
            except BaseException:
                self.barrier.abort()
                raise

        with ThreadPoolExecutor(len(states)) as pool:
            return list(pool.map(work, range(len(states))))


@pytest.fixture(name="runs", scope="module")
def _runs():
    """Whole runs of one worker, each made once."""

    @cache
    def run(begin, make_prior, name):
        prior = make_prior()
        before = {k: v.clone() for k, v in prior.network.state_dict().items()}
        state, infos = begin(TUNERS[name], prior=prior, batch_size=32), []
        while not state.is_finished:
            infos.append(TUNERS[name].step(state))
        assert all(torch.equal(v, before[k]) for k, v in prior.network.state_dict().items())
        assert all(p.grad is None for p in prior.network.parameters())
        return prior, state, infos

    return run


def test_every_file_is_found():
    assert set(TUNERS) >= {"braid", "drakes", "strl", "ppo", "reward_weighted_mle", "path_consistency", "ctrl", "seiko"}


@each
def test_tuning_raises_the_reward_of_hard_samples_and_spares_the_prior(name, runs, begin, make_prior, make_objective):
    prior, state, infos = runs(begin, make_prior, name)
    objective = make_objective(TUNERS[name])
    assert len(infos) == state.step == 40
    assert mean_reward(state.policy, objective) > mean_reward(prior, objective) + 1.0
    assert prior.space.is_feasible(state.policy.draw(100, generator()).numpy()).all()
    assert infos[0].kl == pytest.approx(0, abs=1e-5)
    assert infos[-1].kl > 0.1
    assert all(isinstance(i, Info) and 0 < i.unique_fraction <= 1 for i in infos)
    assert all(math.isfinite(v) for i in infos for v in vars(i).values())


@each
def test_a_resumed_run_equals_an_unbroken_one(name, begin):
    tuner = TUNERS[name]
    whole, resumed = begin(tuner), begin(tuner, seed=5)
    for _ in range(2):
        tuner.step(whole)
    saved = whole.state_dict()
    expected = [tuner.step(whole) for _ in range(2)]
    resumed.load_state_dict(saved)
    assert [tuner.step(resumed) for _ in range(2)] == expected
    assert resumed.step == whole.step == 4
    for a, b in zip(*(s.policy.network.parameters() for s in (whole, resumed)), strict=True):
        assert torch.equal(a, b)


@each
def test_two_workers_agree_and_end_where_one_with_their_batch_does(name, runs, begin, make_prior, make_objective):
    tuner, objective = TUNERS[name], make_objective(TUNERS[name])
    prior, alone, _ = runs(begin, make_prior, name)
    halves = {size: getattr(alone.config, size) // 2 for size in tuner.divided}
    workers = [begin(tuner, seed, **halves) for seed in (1, 2)]
    lockstep = Lockstep(2)
    infos = lockstep.run(tuner, workers)
    for worker, seen in zip(workers, lockstep.seen, strict=True):
        assert trained(worker) == seen
    for a, b in zip(*(w.policy.network.parameters() for w in workers), strict=True):
        assert torch.equal(a, b)
    assert [i.grad_norm for i in infos[0]] == [i.grad_norm for i in infos[1]]
    assert [i.reward for i in infos[0]] != [i.reward for i in infos[1]]
    plain, one, two = (mean_reward(p, objective) for p in (prior, alone.policy, workers[0].policy))
    assert abs(one - two) < WORKER_TOLERANCE * (one - plain)


@each
def test_one_optimiser_serves_the_whole_run_and_gradients_are_averaged_before_each_of_its_updates(name, begin):
    state, calls = begin(TUNERS[name]), []
    optimiser = state.optimiser
    for _ in range(3):
        TUNERS[name].step(state, calls.append)
    assert state.optimiser is optimiser
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    assert {id(p) for p in parameters} == trained(state)
    assert {int(optimiser.state[p]["step"]) for p in parameters} == {len(calls)}


def gradient(tuner, state, num_pieces):
    """The first gradient of an update, before it is clipped."""
    found = []
    tuner.step(state, lambda parameters: found.append([p.grad.clone() for p in parameters]), num_pieces)
    return found[0]


@each
def test_in_pieces_the_gradient_is_that_of_the_whole_batch(name, begin):
    """The same where nothing is drawn on the way, or that of as many rollouts of a piece each; else in the mean."""
    tuner, rollouts = TUNERS[name], {"batch_size": 27}
    if "accumulation" in tuner.Config.model_fields:
        rollouts = {"batch_size": 9, "accumulation": 3}
    many = {"fit_size": 4096} if name in DRAWS_ON_THE_WAY else {}
    first = gradient(tuner, begin(tuner, **rollouts, **many), 1)
    second = gradient(tuner, begin(tuner, batch_size=27, **many), 3)
    scale = torch.cat([g.flatten() for g in first]).norm()
    distance = torch.cat([(a - b).flatten() for a, b in zip(first, second, strict=True)]).norm()
    assert distance < (0.3 if many else 1e-4) * scale


@each
def test_in_more_pieces_than_there_are_designs_each_has_its_own(name, begin):
    info = TUNERS[name].step(begin(TUNERS[name], batch_size=4), num_pieces=100)
    assert all(math.isfinite(v) for v in vars(info).values())


@each
def test_config_is_frozen_documented_and_closed(name):
    config = TUNERS[name].Config()
    assert {"num_updates", "batch_size", *TUNERS[name].divided} <= set(type(config).model_fields)
    for field in type(config).model_fields.values():
        assert field.description
        assert not field.is_required()
    with pytest.raises(ValueError, match="extra"):
        type(config)(unknown=1)
    for key, value in config.model_dump().items():
        with pytest.raises(ValueError, match="frozen"):
            setattr(config, key, value)


@each
def test_a_black_box_is_refused_where_a_gradient_is_needed_and_serves_elsewhere(name, make_objective, begin):
    tuner = TUNERS[name]
    goal = make_objective(tuner, is_differentiable=False)
    if tuner.needs_gradient:
        with pytest.raises(ConfigError, match="differentiable"):
            begin(tuner, goal=goal)
    else:
        assert math.isfinite(tuner.step(begin(tuner, goal=goal)).reward)


@each
def test_missing_data_and_readings_that_do_not_vary_are_named(name, make_prior, make_objective, initialise):
    tuner = TUNERS[name]
    if name in TAUGHT_BY_DATA:
        with pytest.raises(ConfigError, match=r"data|measured"):
            initialise(tuner, tuner.Config(), make_prior(), make_objective(tuner), None)
        return
    for std in (0.0, math.nan):
        with pytest.raises(ConfigError, match="standard deviation"):
            initialise(tuner, tuner.Config(), make_prior(), make_objective(tuner, assay_std=std), None)


@pytest.mark.parametrize(
    ("name", "goal"),
    [("drakes", "braid"), ("strl", "braid"), ("braid", "drakes"), ("braid", "seiko"), ("seiko", "drakes")],
)
def test_an_objective_that_contradicts_the_name_is_refused(name, goal, make_prior, make_objective, initialise):
    with pytest.raises(ConfigError, match=name):
        initialise(TUNERS[name], TUNERS[name].Config(), make_prior(), make_objective(TUNERS[goal]), None)


@pytest.mark.parametrize(("name", "weight"), [("drakes", 0), ("braid", 0), ("strl", 0.1)])
def test_a_kl_weight_that_contradicts_the_name_is_refused(name, weight):
    with pytest.raises(ValueError, match="kl_weight"):
        TUNERS[name].Config(kl_weight=weight)


def test_divergence_is_a_failure_and_not_a_policy(begin):
    state = begin(drakes)
    state.objective.reward.single.fill_(math.nan)
    with pytest.raises(RunFailedError, match="diverged"):
        drakes.step(state)
