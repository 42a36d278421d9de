"""Tilted normal scores: the map rises, comes back, and tilts where some readings stand out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plait.rewards._warp import fit_warp
from scipy.stats import norm

READINGS = st.lists(st.integers(-50, 50), min_size=2, max_size=200).filter(lambda v: len(set(v)) > 1)


@settings(deadline=None)
@given(READINGS, st.sampled_from([None, 0.0, 1.0, 3.0]))
def test_the_map_rises_and_comes_back(values, tilt):
    values = np.array(values, dtype=np.float64)
    warp = fit_warp(values, tilt)
    asked = torch.linspace(float(values.min()) - 20, float(values.max()) + 20, 301, dtype=torch.float64)
    scores = warp.to_scores(asked)
    assert (scores.diff() > 0).all()
    torch.testing.assert_close(warp.to_readings(scores), asked)


def test_scores_are_normal_quantiles_of_ranks_and_their_exponential():
    values = np.random.default_rng(0).gamma(2.0, size=60)
    expected = norm.ppf((np.argsort(np.argsort(values)) + 0.5) / 60)
    for tilt, shape in ((0.0, lambda s: s), (1.0, np.exp)):
        scores = fit_warp(values, tilt).to_scores(torch.from_numpy(values))
        np.testing.assert_allclose(scores, shape(expected), atol=0.08)


@pytest.mark.parametrize(("high", "is_tilted"), [(4.0, True), (None, False)])
def test_readings_tilt_only_where_some_stand_out(high, is_tilted):
    values = np.random.default_rng(0).normal(size=2_000)
    values = values[values < np.quantile(values, 0.6)]
    if high is not None:
        values = np.concatenate([values, np.full(60, high) + np.arange(60) / 100])
    warp = fit_warp(values, None)
    is_skewed = warp.scores[-1] - np.median(warp.scores) > 3 * (np.median(warp.scores) - warp.scores[0])
    assert is_skewed == is_tilted


def test_gradients_flow_and_noise_is_scaled(dataset):
    warp = fit_warp(dataset.values, 1.0)
    x = torch.tensor([float(np.median(dataset.values))], requires_grad=True)
    warp.to_scores(x).sum().backward()
    assert x.grad.item() > 0
    scored = warp.of_dataset(replace(dataset, noise_std=np.full(len(dataset), 0.5)))
    np.testing.assert_allclose(scored.noise_std, 0.5 * scored.values.std() / dataset.values.std())
