"""The Gaussian process: its posterior, its hyperparameters, what it learns, and its bundle."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from plait.design.errors import BadInputError, CorruptArtifactError
from plait.metrics.ranks import spearman
from plait.rewards import gaussian_process
from plait.rewards._marginal_likelihood import tune
from plait.rewards._sequence_kernels import SequenceKernel
from torch import Generator


def generator(seed=0):
    return Generator().manual_seed(seed)


@pytest.fixture(scope="module", name="process")
def _process(dataset):
    return gaussian_process.fit(gaussian_process.Config(), dataset, generator())


def fresh(dataset, n=200, seed=5):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 4, (n, dataset.space.length)))


def test_the_mean_is_the_posterior_of_a_dense_solve(process, dataset):
    x, items = fresh(dataset), torch.from_numpy(dataset.tokens)
    kernels = [SequenceKernel(process.space, k, rho) for k, rho in process.kernels]
    terms = list(zip(kernels, process.weights, strict=True))
    gram = sum(w * kernel.gram(items, items).double() for kernel, w in terms)
    cross = sum(w * kernel.gram(x, items).double() for kernel, w in terms)
    z = torch.from_numpy((dataset.values - dataset.values.mean()) / dataset.values.std())
    solved = torch.linalg.solve(gram + process.noise * torch.eye(len(items), dtype=torch.float64), z)
    expected = cross @ solved * dataset.values.std() + dataset.values.mean()
    torch.testing.assert_close(process.predict(x).mean.double(), expected, rtol=1e-4, atol=1e-3)


def test_the_std_is_the_posteriors_where_every_item_is_a_landmark_and_above_it_where_few_are(dataset):
    x = torch.cat([fresh(dataset), torch.zeros(1, 10, dtype=torch.int64)])  # the last repeats itself
    stds = []
    for num_landmarks in (20, len(dataset)):
        process = gaussian_process.train(gaussian_process.Config(num_landmarks=num_landmarks), dataset, generator())
        stds.append(process.predict(x).std / process.scale)
    kernels = [SequenceKernel(process.space, k, rho) for k, rho in process.kernels]

    def gram(a, b):
        return sum(w * kernel.gram(a, b).double() for kernel, w in zip(kernels, process.weights, strict=True))

    items = process.items
    cross = gram(x, items)
    solved = torch.linalg.solve(
        gram(items, items) + process.noise * torch.eye(len(items), dtype=torch.float64), cross.T
    )
    exact = (gram(x, x).diagonal() - (cross * solved.T).sum(1)).sqrt()
    torch.testing.assert_close(stds[1].double(), exact, rtol=2e-3, atol=2e-3)
    assert (stds[0] >= stds[1] - 1e-4).all()
    assert stds[0].mean() > 1.01 * stds[1].mean()


def test_it_learns_and_says_how_well(process, dataset, truth):
    x = fresh(dataset)
    skill = spearman(process.predict(x).mean.double().numpy(), truth(x.numpy()))
    assert skill > 0.75
    assert process.calibration is not None
    assert abs(process.calibration.spearman - skill) < 0.2


def test_tuning_raises_the_likelihood(dataset):
    tokens = torch.from_numpy(dataset.tokens)
    z = torch.from_numpy((dataset.values - dataset.values.mean()) / dataset.values.std())
    grams = torch.stack([SequenceKernel(dataset.space, 10, rho).gram(tokens, tokens).double() for rho in (0.1, 0.6)])

    def log_likelihood(shares, noise):
        covariance = torch.einsum("j,jnm->nm", torch.as_tensor(shares), grams) + noise * torch.eye(len(z)).double()
        law = torch.distributions.MultivariateNormal(torch.zeros_like(z), covariance)
        return float(law.log_prob(z))

    ones = torch.ones(len(z), dtype=torch.float64)
    values = [log_likelihood(*tune(grams, z, ones, steps)) for steps in (1, 10, 60)]
    assert values[0] < values[1] < values[2]


def test_predictions_of_tokens_and_simplex_agree_and_carry_gradients(process, dataset):
    x = fresh(dataset, 20)
    corners = torch.nn.functional.one_hot(x, 4).float().requires_grad_()
    soft = process.predict(corners)
    torch.testing.assert_close(soft.members, process.predict(x).members, rtol=1e-4, atol=1e-4)
    soft.mean.sum().backward()
    assert corners.grad.abs().sum() > 0


def test_whole_spaces_and_long_ones_take_different_ways_to_one_mean(process, dataset, monkeypatch):
    x = fresh(dataset)
    direct = process.predict(x).mean
    monkeypatch.setattr(gaussian_process, "_ENUMERATED", 1 << 21)
    torch.testing.assert_close(process.predict(x).mean, direct, rtol=1e-4, atol=1e-4)


def test_strands_are_one_item(symmetric):
    process = gaussian_process.train(gaussian_process.Config(), symmetric, generator())
    x = fresh(symmetric)
    twins = torch.from_numpy(symmetric.space.alphabet.complement_tokens())[x.flip(1)]
    torch.testing.assert_close(process.predict(x).mean, process.predict(twins).mean, rtol=1e-4, atol=1e-4)


def test_past_max_items_the_best_stay(dataset):
    process = gaussian_process.train(gaussian_process.Config(max_items=100), dataset, generator())
    kept = {row.tobytes() for row in process.items.numpy()}
    best = dataset.tokens[np.argsort(-dataset.values)[:50]]
    assert len(kept) == 100
    assert all(row.tobytes() in kept for row in best)


def test_one_seed_one_model(dataset):
    config = gaussian_process.Config(num_tuning=50, num_landmarks=20)
    a, b = (gaussian_process.train(config, dataset, generator(3)) for _ in range(2))
    assert torch.equal(a.alpha, b.alpha)
    assert torch.equal(a.landmarks, b.landmarks)


def test_a_bundle_comes_back_and_damage_is_told(process, dataset, tmp_path):
    process.save(tmp_path / "model")
    again = gaussian_process.load(tmp_path / "model")
    assert torch.equal(again.predict(fresh(dataset)).members, process.predict(fresh(dataset)).members)
    assert again.calibration == process.calibration
    replace(process, alpha=process.alpha[:-1]).save(tmp_path / "short")
    with pytest.raises(CorruptArtifactError, match="no usable Gaussian process"):
        gaussian_process.load(tmp_path / "short")


def test_what_teaches_nothing_is_refused(dataset):
    with pytest.raises(BadInputError, match="cannot be fitted"):
        gaussian_process.fit(gaussian_process.Config(), dataset.take(np.arange(5)), generator())
