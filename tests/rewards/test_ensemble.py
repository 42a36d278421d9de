from dataclasses import replace

import numpy as np
import pydantic
import pytest
import torch
from plait.design.bundles import TENSORS, load_bundle, save_bundle
from plait.design.errors import BadInputError, CorruptArtifactError
from plait.metrics.ranks import spearman
from plait.rewards import ensemble
from plait.rewards._networks import LetterPerceptron, PositionalConvolution, WideConvolution
from torch.nn import functional

SMALL = ensemble.Config(members=2, steps=60, filters=8, hidden=16, learning_rate=0.02)


def tokens_of(dataset, n=40):
    return torch.as_tensor(dataset.tokens[:n])


def member(network, index):
    """The index-th member of a network, as its plain formula."""

    def forward(x):
        hidden = x.flatten(1)
        if isinstance(network, WideConvolution):
            part = slice(index * network.filters, (index + 1) * network.filters)
            kernel = network.kernel[:, part].reshape(network.width, x.shape[2], network.filters).permute(2, 1, 0)
            bias, pad = network.kernel_bias[part], network.width // 2
            mapped = functional.conv1d(x.transpose(1, 2), kernel, bias, padding=pad).relu()
            pooled = torch.cat([mapped.max(-1).values, mapped.mean(-1)], 1)
            hidden = torch.cat([pooled, hidden], 1) if isinstance(network, PositionalConvolution) else pooled
        for weight, bias in zip(network.head.weights, network.head.biases, strict=True):
            hidden = (hidden @ weight[index] + bias[index]).relu()
        return (hidden @ network.read_out[index] + network.offset[index])[:, 0]

    return forward


@pytest.mark.parametrize("kind", [WideConvolution, PositionalConvolution, LetterPerceptron])
def test_members_computed_at_once_equal_members_computed_alone(kind):
    generator = torch.Generator().manual_seed(1)
    sizes = {"filters": 5, "kernel": 3} if kind is not LetterPerceptron else {}
    network = kind(members=3, length=6, letters=4, hidden=7, generator=generator, **sizes)
    x = torch.rand(9, 6, 4, generator=generator)
    together = network(x)
    assert together.shape == (3, 9)
    for index in range(3):
        torch.testing.assert_close(together[index], member(network, index)(x))


def test_it_learns_and_reports_in_the_assays_unit(dataset, model):
    prediction = model.predict(torch.as_tensor(dataset.tokens))
    assert prediction.unit == "log10 PSI"
    assert prediction.members.shape == (6, len(dataset))
    assert abs(float(prediction.mean.mean()) - dataset.values.mean()) < 0.2
    assert spearman(prediction.mean.numpy(), dataset.values) > 0.8


def test_one_hot_simplex_equals_tokens(dataset, model):
    tokens = tokens_of(dataset)
    by_tokens = model.predict(tokens).members
    by_simplex = model.predict(functional.one_hot(tokens, 4).float()).members
    torch.testing.assert_close(by_tokens, by_simplex)


def test_gradients_flow_to_a_simplex_and_not_to_the_model(dataset, model):
    x = functional.one_hot(tokens_of(dataset), 4).float().requires_grad_()
    model.predict(x).mean.sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in model.networks.parameters())


def test_a_prediction_does_not_depend_on_its_company(dataset, model):
    tokens = tokens_of(dataset)
    alone = torch.cat([model.predict(row[None]).members for row in tokens], 1)
    torch.testing.assert_close(alone, model.predict(tokens).members)


def test_chunks_do_not_change_predictions(dataset, model):
    tokens = tokens_of(dataset).repeat(60, 1)
    members = model.predict(tokens).members
    torch.testing.assert_close(members[:, :40], members[:, -40:])


def test_the_generator_alone_decides(dataset):
    fits = [ensemble.fit(SMALL, dataset, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    first, again, other = (fit.predict(tokens_of(dataset)).members for fit in fits)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_bootstrap_members_see_different_items(dataset):
    config = SMALL.model_copy(update={"is_bootstrap": True})
    plain = ensemble.fit(SMALL, dataset, torch.Generator().manual_seed(0)).predict(tokens_of(dataset))
    boot = ensemble.fit(config, dataset, torch.Generator().manual_seed(0)).predict(tokens_of(dataset))
    assert not torch.allclose(plain.members, boot.members)


def test_family_weights_follow_held_out_skill(model):
    assert model.weights.shape == (6,)
    assert float(model.weights.sum()) == pytest.approx(1.0)
    assert torch.equal(model.weights[0::2], model.weights[1::2])
    assert model.calibration.num_held_out > 20
    assert 0.3 < model.calibration.spearman <= 1.0


def test_families_without_skill_are_left_out(tmp_path, dataset):
    motif = ((dataset.tokens[:, :-1] == 2) & (dataset.tokens[:, 1:] == 0)).any(1).astype(float)
    config = SMALL.model_copy(update={"sharpness": 1000.0, "families": ("mlp", "wide_conv")})
    model = ensemble.fit(config, replace(dataset, values=motif), torch.Generator().manual_seed(0))
    assert list(model.networks) == ["wide_conv"]
    assert model.predict(tokens_of(dataset)).members.shape == (2, 40)
    model.save(tmp_path)
    assert list(ensemble.load(tmp_path).networks) == ["wide_conv"]


def test_equal_say_without_sharpness(dataset):
    config = SMALL.model_copy(update={"sharpness": 0.0, "steps": 2})
    assert torch.allclose(ensemble.fit(config, dataset, torch.Generator()).weights, torch.full((6,), 1 / 6))


def test_both_strands_of_an_item_get_one_value(symmetric):
    config = SMALL.model_copy(update={"steps": 5})
    model = ensemble.fit(config, symmetric, torch.Generator().manual_seed(0))
    tokens = tokens_of(symmetric)
    twins = 3 - tokens.flip(1)
    torch.testing.assert_close(model.predict(tokens).members, model.predict(twins).members)
    torch.testing.assert_close(model.features(tokens), model.features(twins))


def test_noisy_items_count_less(dataset):
    values = dataset.values.copy()
    values[:150] = np.random.default_rng(0).permutation(values[:150])
    noise = np.where(np.arange(len(values)) < 150, 100.0, 0.01)
    told = ensemble.fit(SMALL, replace(dataset, values=values, noise_std=noise), torch.Generator().manual_seed(0))
    untold = ensemble.fit(
        SMALL, replace(dataset, values=values, noise_std=np.full(len(values), np.nan)), torch.Generator().manual_seed(0)
    )
    truth = dataset.values[:150]
    skill = [spearman(m.predict(torch.as_tensor(dataset.tokens[:150])).mean.numpy(), truth) for m in (told, untold)]
    assert skill[0] > skill[1] + 0.1


def test_save_and_load_predict_the_same(tmp_path, dataset, model):
    first = model.save(tmp_path / "a")
    loaded = ensemble.load(tmp_path / "a")
    assert torch.equal(loaded.predict(tokens_of(dataset)).members, model.predict(tokens_of(dataset)).members)
    assert torch.equal(loaded.weights, model.weights)
    assert loaded.calibration == model.calibration
    assert loaded.space == model.space
    assert loaded.save(tmp_path / "b") == first


def test_tampering_is_refused(tmp_path, model):
    model.save(tmp_path)
    content = bytearray((tmp_path / TENSORS).read_bytes())
    content[-1] ^= 1
    (tmp_path / TENSORS).write_bytes(content)
    with pytest.raises(CorruptArtifactError, match="SHA-256"):
        ensemble.load(tmp_path)


def test_a_bundle_whose_tensors_do_not_fit_is_refused(tmp_path, model):
    model.save(tmp_path / "a")
    description, tensors = load_bundle(tmp_path / "a", "reward")
    tensors.pop(next(name for name in tensors if name.endswith("read_out")))
    save_bundle(tmp_path / "b", description.pop("kind"), description, tensors)
    with pytest.raises(CorruptArtifactError, match="no usable ensemble"):
        ensemble.load(tmp_path / "b")


def test_what_cannot_be_fitted_is_refused(dataset):
    with pytest.raises(BadInputError, match="5 items"):
        ensemble.fit(SMALL, dataset.take(np.arange(5)), torch.Generator())
    with pytest.raises(BadInputError, match="1 distinct"):
        ensemble.fit(SMALL, replace(dataset, values=np.ones(len(dataset))), torch.Generator())


@pytest.mark.parametrize(
    "wrong", [{"members": 0}, {"families": []}, {"families": ["forest"]}, {"kernle": 3}, {"kernel": 4}]
)
def test_config_is_bounded(wrong):
    with pytest.raises(pydantic.ValidationError):
        ensemble.Config(**wrong)
