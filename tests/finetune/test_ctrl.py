"""ctrl: only what is added to the prior is trained, conditions are met more often, a black box is only reported."""

import math

import numpy as np
import pytest
import torch
from plait.benchmarks.exact import ExactChain, total_variation
from plait.design.alphabets import DNA
from plait.design.errors import BadInputError, ConfigError, RunFailedError
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.finetune import ctrl
from plait.priors import masked_diffusion
from plait.rewards.conservatism import ObjectiveValue
from torch import Generator

SPACE = DesignSpace.from_template(DNA, "NNNN")


def generator(seed=0):
    return Generator().manual_seed(seed)


def holds_t(tokens):
    return (tokens[:, 1] == 3).float()


class BlackBox:
    """Sees tokens only; 5 for a design with T at position 1, less 1 where it is to be conservative."""

    scale, assay_std, has_uncertainty, is_differentiable = 0.0, 1.0, False, False

    def __call__(self, x):
        assert x.dtype == torch.int64
        value = 5 * holds_t(x)
        return ObjectiveValue(value - 1, value, torch.ones_like(value))


def measured(is_noise=False):
    tokens = torch.cartesian_prod(*[torch.arange(4)] * 4)[torch.randperm(256, generator=generator(3))[:200]]
    noise = np.random.default_rng(0).standard_normal(200)
    values = noise if is_noise else holds_t(tokens).double().numpy() + 0.1 * noise
    return Dataset(SPACE, tokens.numpy(), values, np.ones(200, dtype=np.int64), np.full(200, np.nan))


def make_prior(**settings):
    """A model off the uniform law, in particular with T at position 1 less often than in the data."""
    prior = masked_diffusion.init(masked_diffusion.Config(**{"width": 32, **settings}), SPACE, generator(1))
    with torch.no_grad():
        prior.network.backbone.leave.weight.normal_(0, 0.1, generator=generator(2))
        if prior.network.backbone.leave.bias.numel() == 16:
            prior.network.backbone.leave.bias.view(4, 4)[1, 3] = -0.7
    return prior.clone(is_trainable=False)


@pytest.fixture(name="begin", scope="module")
def _begin():
    prior, data = make_prior(), measured()

    def begin(seed=0, objective=None, **settings):
        config = ctrl.Config(**{"batch_size": 64, "num_updates": 60, "learning_rate": 1e-2, **settings})
        return ctrl.init(config, prior, objective or BlackBox(), data, generator(seed))

    return begin


def log_fit(state, policy):
    """Exact E[log p(y | x)] over a policy's designs at the condition asked for."""
    chain = ExactChain(policy)
    return float((chain.law() * state.classifier.log_prob(chain.designs)[:, state.condition]).sum())


def test_the_policy_meets_its_condition_more_often_and_the_prior_stays(begin):
    state = begin()
    prior = state.prior
    frozen = {name: tensor.clone() for name, tensor in state.conditional.network.state_dict().items()}
    assert torch.equal(ExactChain(state.policy).law(), ExactChain(prior).law())
    infos = []
    while not state.is_finished:
        infos.append(ctrl.step(state))
    assert log_fit(state, state.policy) > log_fit(state, prior) + 0.5
    assert all(torch.equal(t, frozen[name]) for name, t in state.conditional.network.state_dict().items())
    assert infos[0].kl == pytest.approx(0, abs=1e-6)
    kl = ExactChain(state.policy).path_kl(ExactChain(prior))
    assert kl > 0.2
    assert np.mean([i.kl for i in infos[-10:]]) == pytest.approx(kl, rel=0.6)
    # The campaign's objective is told of the designs at the condition, as tokens.
    assert np.mean([i.reward for i in infos[-10:]]) > np.mean([i.reward for i in infos[:5]]) + 1
    assert all(i.conservative == pytest.approx(i.reward - 1) for i in infos)
    assert all(math.isfinite(i.loss) and 0 < i.unique_fraction <= 1 for i in infos)
    told = state.classifier
    print(f"held out: {told.log_loss:.3f} nats, chance {told.chance:.3f}, accuracy {told.accuracy:.2f}")  # noqa: T201
    chain = ExactChain(prior)
    for y in range(4):
        goal = chain.target(told.log_prob(chain.designs)[:, y], 1.0)
        start, end = (total_variation(c.law(), goal) for c in (chain, ExactChain(state.conditional.fold(y))))
        print(f"condition {y}: total variation to prior p(y|x) from {start:.3f} to {end:.3f}")  # noqa: T201


def test_other_conditions_are_learnt_beside_it(begin):
    state = begin(condition=0)
    for _ in range(40):
        ctrl.step(state)
    low, high = (ExactChain(state.conditional.fold(y)) for y in (0, 3))
    has = holds_t(low.designs).double()
    assert float((high.law() * has).sum()) > float((low.law() * has).sum()) + 0.2
    assert torch.equal(ExactChain(state.policy).law(), low.law())


def test_the_loss_is_the_mean_over_conditions_by_their_share(begin):
    """Untrained, the path KL is 0: what is left is minus gamma E_y E[log p(y | x)] over the prior's designs."""
    state = begin(batch_size=4000, gamma=2.0, num_soft_steps=1)
    info = ctrl.step(state)
    chain = ExactChain(state.prior)
    each = (chain.law()[:, None] * state.classifier.log_prob(chain.designs)).sum(0)
    assert info.loss == pytest.approx(-2 * float((each * state.classifier.shares).sum()), rel=0.05)


def test_a_resumed_run_equals_an_unbroken_one(begin):
    whole, broken, resumed = begin(), begin(), begin(seed=5)
    for _ in range(4):
        ctrl.step(whole)
    for _ in range(2):
        ctrl.step(broken)
    resumed.load_state_dict(broken.state_dict())
    for _ in range(2):
        ctrl.step(resumed)
    assert resumed.step == whole.step == 4
    for a, b in zip(whole.conditional.trained(), resumed.conditional.trained(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(whole.policy.network.parameters(), resumed.policy.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_two_workers_start_alike_and_average_all_that_is_trained(begin):
    settings = {"num_soft_steps": 2, "clip": 1e6}
    separate = []
    for seed in (1, 2):
        state = begin(seed, **settings)
        ctrl.step(state, lambda ps: separate.append([p.grad.clone() for p in ps]))
    assert len(separate[0]) == len(state.conditional.trained())
    assert any(not torch.equal(a, b) for a, b in zip(*separate, strict=True))
    means = [torch.stack(pair).mean(0) for pair in zip(*separate, strict=True)]

    def average(parameters):
        for parameter, mean in zip(parameters, means, strict=True):
            parameter.grad.copy_(mean)

    workers = [begin(seed, **settings) for seed in (1, 2)]
    for a, b in zip(*(w.classifier.network.parameters() for w in workers), strict=True):
        assert torch.equal(a, b)
    infos = [ctrl.step(worker, average) for worker in workers]
    assert infos[0].grad_norm == infos[1].grad_norm
    assert all(torch.equal(a, b) for a, b in zip(*(w.policy.network.parameters() for w in workers), strict=True))


@pytest.mark.parametrize("backbone", ["mlp", "cnn"])
def test_the_policy_saves_and_loads_as_any_other(backbone, tmp_path):
    prior = make_prior(backbone=backbone)
    state = ctrl.init(ctrl.Config(batch_size=16), prior, BlackBox(), measured(), generator())
    ctrl.step(state)
    state.policy.save(tmp_path / "policy", "policy")
    assert torch.equal(ExactChain(masked_diffusion.load(tmp_path / "policy")).law(), ExactChain(state.policy).law())


def test_the_classifier_tells_bins_and_sees_simplices(begin):
    classifier = begin().classifier
    assert classifier.log_loss < classifier.chance - 0.3
    designs = torch.cartesian_prod(*[torch.arange(4)] * 4)
    one_hot = torch.nn.functional.one_hot(designs, 4).float().requires_grad_()
    assert torch.allclose(classifier.log_prob(designs), classifier.log_prob(one_hot), atol=1e-5)
    assert torch.allclose(classifier.log_prob(designs).exp().sum(1), torch.ones(256), atol=1e-5)
    classifier.log_prob(one_hot)[:, 1].sum().backward()
    assert float(one_hot.grad.abs().max()) > 0


def test_what_cannot_work_is_named(begin):
    with pytest.raises(ConfigError, match="none are given"):
        ctrl.init(ctrl.Config(), make_prior(), BlackBox(), None, generator())
    with pytest.raises(ConfigError, match="bins 0 to 3"):
        begin(condition=4)
    with pytest.raises(BadInputError, match="do not tell"):
        ctrl.init(ctrl.Config(), make_prior(), BlackBox(), measured(is_noise=True), generator())


def test_divergence_is_a_failure_and_not_a_policy(begin):
    state = begin()
    with torch.no_grad():
        state.conditional.embedding.fill_(math.nan)
    with pytest.raises(RunFailedError, match="diverged"):
        ctrl.step(state)


def test_bfloat16_is_heard(begin):
    whole, half = (ctrl.step(begin(precision=precision)) for precision in ("float32", "bfloat16"))
    assert half.grad_norm != whole.grad_norm
    assert half.grad_norm == pytest.approx(whole.grad_norm, rel=0.3)
    assert half.loss == pytest.approx(whole.loss, abs=0.3)
