import importlib
import pkgutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from plait.design.errors import ConfigError
from plait.rewards import uncertainty
from plait.rewards.base import Prediction
from plait.rewards.conservatism import ConservativeReward, lower_confidence_bound, minimum
from plait.rewards.uncertainty import bootstrap_spread, elliptical
from torch.nn import functional

FILES = [m.name for m in pkgutil.iter_modules(uncertainty.__path__) if not m.name.startswith("_")]


@pytest.mark.parametrize("name", FILES)
def test_every_uncertainty_keeps_the_contract(name, dataset, model):
    fitted = importlib.import_module(f"plait.rewards.uncertainty.{name}").fit(
        dataset, model, lambda x: -x.float().sum(1)
    )
    tokens = torch.as_tensor(dataset.tokens[:17])
    std = fitted.std(tokens, model.predict(tokens))
    assert std.shape == (17,)
    assert std.dtype == torch.float32
    assert bool((std >= 0).all())
    if fitted.is_differentiable:
        x = functional.one_hot(tokens, 4).float().requires_grad_()
        soft = fitted.std(x, model.predict(x))
        torch.testing.assert_close(soft, std, rtol=1e-3, atol=1e-5)
        soft.sum().backward()
        assert float(x.grad.abs().sum()) > 0


def test_bootstrap_spread_is_the_members_spread(dataset, model):
    tokens = torch.as_tensor(dataset.tokens[:9])
    prediction = model.predict(tokens)
    assert torch.equal(bootstrap_spread.fit(dataset, model, None).std(tokens, prediction), prediction.std)


def test_elliptical_is_its_closed_form(dataset, model):
    counts = np.random.default_rng(0).integers(1, 4, len(dataset))
    counted = replace(dataset, counts=counts)
    fitted = elliptical.fit(counted, model, None)
    phi = elliptical.with_one(model.features(torch.as_tensor(dataset.tokens))).double()
    gram = sum(c * torch.outer(row, row) for c, row in zip(counts.tolist(), phi, strict=True))
    inverse = torch.linalg.inv(gram + elliptical.RIDGE * torch.eye(phi.shape[1], dtype=torch.float64))
    expected = fitted.sigma * torch.sqrt(torch.einsum("ni,ij,nj->n", phi, inverse, phi))
    tokens = torch.as_tensor(dataset.tokens)
    torch.testing.assert_close(fitted.std(tokens, model.predict(tokens)), expected.float(), rtol=1e-3, atol=1e-5)


def test_elliptical_sigma_is_the_residual_of_one_reading(dataset, model):
    residual = model.predict(torch.as_tensor(dataset.tokens)).mean.double().numpy() - dataset.values
    assert elliptical.fit(dataset, model, None).sigma == pytest.approx(np.sqrt((residual**2).mean()), rel=1e-4)
    four = elliptical.fit(replace(dataset, counts=np.full(len(dataset), 4)), model, None)
    assert four.sigma == pytest.approx(2 * np.sqrt((residual**2).mean()), rel=1e-4)


def test_elliptical_shrinks_as_data_grows(dataset, model):
    tokens = torch.as_tensor(dataset.tokens[:50])
    prediction = model.predict(tokens)
    few = elliptical.fit(dataset, model, None)
    index = np.tile(np.arange(len(dataset)), 4)
    many = elliptical.fit(dataset.take(index), model, None)
    assert many.sigma == pytest.approx(few.sigma, rel=1e-5)
    assert bool((many.std(tokens, prediction) < few.std(tokens, prediction)).all())


def test_elliptical_needs_features(dataset, model):
    class Bare:
        space, unit, is_differentiable = model.space, model.unit, True
        predict, save = model.predict, model.save

    with pytest.raises(ConfigError, match="Bare has none"):
        elliptical.fit(dataset, Bare(), None)


def test_conservatism_by_hand():
    prediction = Prediction(torch.tensor([[1.0, 4.0], [3.0, 2.0]]), torch.tensor([0.75, 0.25]))
    assert torch.allclose(prediction.mean, torch.tensor([1.5, 3.5]))
    assert torch.allclose(prediction.std, torch.tensor([0.75**0.5, 0.75**0.5]))
    assert torch.allclose(lower_confidence_bound(prediction, torch.tensor([1.0, 0.5]), 2.0), torch.tensor([-0.5, 2.5]))
    assert torch.equal(minimum(prediction), torch.tensor([1.0, 2.0]))


def test_objective_subtracts_what_is_not_known(dataset, model):
    tokens = torch.as_tensor(dataset.tokens[:9])
    plain = ConservativeReward(model, None, 0.0, 1.0)(tokens)
    assert torch.equal(plain.conservative, plain.mean)
    assert torch.equal(plain.std, model.predict(tokens).std)
    bonus = elliptical.fit(dataset, model, None)
    careful = ConservativeReward(model, bonus, 2.0, 1.0)(tokens)
    torch.testing.assert_close(careful.conservative, plain.mean - 2.0 * bonus.std(tokens, model.predict(tokens)))
