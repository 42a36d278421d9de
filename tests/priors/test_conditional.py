"""Conditions and adapters: nothing until they are trained, then the same folded in as not."""

import numpy as np
import pytest
import torch
from plait.benchmarks.exact import ExactChain, tabular_policy
from plait.design.alphabets import DNA
from plait.design.errors import ConfigError
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.priors import masked_diffusion
from plait.priors._conditional import Conditional, both_strands, quantile_bins, value_conditions
from torch import Generator

SPACE = DesignSpace.from_template(DNA, "NYN")


def generator(seed=0):
    return Generator().manual_seed(seed)


def model(backbone):
    prior = masked_diffusion.init(masked_diffusion.Config(width=8, kernel=3, backbone=backbone), SPACE, generator(1))
    with torch.no_grad():
        prior.network.backbone.leave.weight.normal_(0, 0.7, generator=generator(2))
    return prior


def trained(backbone, rank):
    """Embeddings and adapters, or all weights, somewhere else than at their start."""
    conditional = Conditional(model(backbone), 3, rank, seed=4)
    with torch.no_grad():
        for number, parameter in enumerate(conditional.trained()):
            parameter.add_(torch.randn(parameter.shape, generator=generator(number)) * 0.3)
    return conditional


@pytest.mark.parametrize("backbone", ["mlp", "cnn"])
@pytest.mark.parametrize("rank", [0, 2])
def test_untrained_it_is_exactly_the_prior(backbone, rank):
    prior = model(backbone)
    law = ExactChain(prior).law()
    conditional = Conditional(prior, 3, rank)
    for condition in range(4):
        assert torch.equal(ExactChain(conditional.fold(condition)).law(), law)
        assert torch.equal(ExactChain(conditional.given(condition)).law(), law)


@pytest.mark.parametrize("backbone", ["mlp", "cnn"])
@pytest.mark.parametrize("rank", [0, 2])
def test_folded_in_equals_the_forward_with_embedding_and_adapters(backbone, rank):
    conditional = trained(backbone, rank)
    states = ExactChain(conditional.model).states
    letters = [conditional.fold(y).log_letters(states) for y in range(4)]
    for y in range(4):
        assert torch.allclose(conditional.given(y).log_letters(states), letters[y], atol=1e-5)
    assert not torch.allclose(letters[0], letters[1], atol=1e-2)
    # A condition for each row; number 3 is none.
    mixed = torch.arange(len(states)) % 4
    each = conditional.given(mixed).log_letters(states)
    expected = torch.stack(letters)[mixed, torch.arange(len(states))]
    assert torch.allclose(each, expected, atol=1e-5)


def test_no_condition_has_no_embedding():
    conditional = Conditional(model("mlp"), 2)
    with torch.no_grad():
        conditional.embedding.normal_(generator=generator())
    assert not torch.equal(ExactChain(conditional.fold(1)).law(), ExactChain(model("mlp")).law())
    assert torch.equal(ExactChain(conditional.fold(conditional.none)).law(), ExactChain(model("mlp")).law())


@pytest.mark.parametrize("backbone", ["mlp", "cnn"])
def test_adapters_train_and_the_prior_below_them_does_not(backbone):
    conditional = trained(backbone, rank=2)
    policy = conditional.given(1)
    tokens = torch.tensor([[0, 1, 2], [3, 3, 3]])
    policy.denoising_log_likelihood(tokens, generator()).sum().backward()
    assert all(float(p.grad.abs().max()) > 0 for p in conditional.trained())
    assert {id(p) for p in policy.network.parameters() if p.requires_grad} == {id(p) for p in conditional.trained()}
    assert all(p.grad is None for p in conditional.network.parameters())
    assert (conditional.embedding.grad.flatten(1).abs().sum(1) > 0).tolist() == [False, True, False]
    # Convolutions and linear layers of every place are adapted, the last one too.
    assert conditional.adapters.names[0] == "backbone.enter.weight"
    assert conditional.adapters.names[-1] == "backbone.leave.weight"


@pytest.mark.parametrize("backbone", ["mlp", "cnn"])
def test_over_an_untrained_prior_conditions_have_a_gradient_and_the_law_is_the_prior_s(backbone):
    """Zero embeddings below a zero output layer would be a saddle point."""
    uniform = masked_diffusion.init(masked_diffusion.Config(width=8, kernel=3, backbone=backbone), SPACE, generator(1))
    conditional = Conditional(uniform, 2)
    assert torch.equal(ExactChain(conditional.fold(0)).law(), ExactChain(uniform).law())
    # All letters equally often, but each under a condition of its own: only a network that hears it gets a gradient.
    tokens = torch.tensor([[0, 1, 0], [3, 3, 3]])
    conditions = torch.tensor([0, 1])
    likelihood = conditional.given(conditions).log_likelihood(tokens, torch.ones(2, 3, dtype=torch.bool))
    likelihood.sum().backward()
    optimiser = torch.optim.SGD(conditional.trained(), lr=0.1, maximize=True)
    optimiser.step()
    first, second = (conditional.fold(y).transition(uniform.init_state(1), 0).log_letters[0, 0] for y in (0, 1))
    assert float(first[0]) > float(second[0]) + 1e-3


def test_workers_draw_the_same_adapters():
    one, two = (Conditional(model("mlp"), 2, 3, seed=9) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.trained(), two.trained(), strict=True))
    other = Conditional(model("mlp"), 2, 3, seed=8)
    assert not torch.equal(one.adapters.down[0], other.adapters.down[0])


@pytest.mark.parametrize("backbone", ["mlp", "cnn"])
def test_a_folded_policy_saves_and_loads_as_any_other(backbone, tmp_path):
    policy = trained(backbone, rank=2).fold(1)
    policy.save(tmp_path / "policy", "policy")
    loaded = masked_diffusion.load(tmp_path / "policy")
    assert torch.equal(ExactChain(loaded).law(), ExactChain(policy).law())
    assert not any(p.requires_grad for p in policy.network.parameters())


def test_the_prior_is_copied_and_a_fold_stays_as_it_was():
    prior = model("mlp")
    conditional = Conditional(prior, 2)
    fold = conditional.fold(0)
    with torch.no_grad():
        for parameter in conditional.trained():
            parameter.add_(1.0)
    law = ExactChain(model("mlp")).law()
    assert torch.equal(ExactChain(prior).law(), law)
    assert torch.equal(ExactChain(fold).law(), law)


def test_a_network_that_hears_no_condition_is_refused():
    with pytest.raises(ConfigError, match="condition"):
        Conditional(tabular_policy(model("mlp")), 2)


def test_quantile_bins_are_even_and_equal_values_share_one():
    values = np.array([5.0, 1.0, 2.0, 8.0, 3.0, 4.0, 7.0, 6.0])
    assert quantile_bins(values, 4).tolist() == [2, 0, 0, 3, 1, 1, 3, 2]
    assert quantile_bins(np.array([0.0] * 6 + [1.0, 2.0]), 4).tolist() == [0] * 6 + [1, 1]
    assert quantile_bins(np.array([0.0, 1.0, 1.0, 1.0, 1.0, 1.0]), 3).tolist() == [0, 1, 1, 1, 1, 1]
    assert quantile_bins(np.ones(5), 3).tolist() == [0] * 5


def dataset(n, is_flat=False):
    tokens = SPACE.encode([f"{a}{b}{c}" for a in "ACGT" for b in "CT" for c in "ACGT"][:n])
    values = np.zeros(n) if is_flat else np.arange(n, dtype=float)
    return Dataset(SPACE, tokens, values, np.ones(n, dtype=np.int64), np.full(n, np.nan))


@pytest.mark.parametrize(
    ("data", "reason"), [(None, "none are given"), (dataset(19), "19 items"), (dataset(30, True), "of 1 values")]
)
def test_data_without_conditions_in_them_are_refused(data, reason):
    with pytest.raises(ConfigError, match=reason):
        value_conditions(data, 4, "cfg")
    assert value_conditions(dataset(32), 4, "cfg")[1].tolist() == sorted([0, 1, 2, 3] * 8)


def test_both_strands_where_they_are_one_item():
    space = DesignSpace.from_template(DNA, "NNN", strand_symmetric=True)
    tokens = torch.from_numpy(space.encode(["AAC", "TGA"]))
    assert space.decode(both_strands(space, tokens).numpy()) == ["AAC", "TGA", "GTT", "TCA"]
    plain = DesignSpace.from_template(DNA, "NNN")
    assert torch.equal(both_strands(plain, tokens), tokens)
