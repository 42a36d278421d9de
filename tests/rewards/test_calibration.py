import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from plait.rewards.base import Prediction
from plait.rewards.calibration import Calibration, calibrate
from plait.rewards.weights import item_weights


def prediction(mean, std):
    """Two members whose weighted mean and standard deviation are given."""
    mean, std = torch.as_tensor(mean).float(), torch.as_tensor(std).float()
    return Prediction(torch.stack([mean - std, mean + std]), torch.tensor([0.5, 0.5]))


def test_honest_stds_need_no_scale(dataset):
    rng = np.random.default_rng(0)
    index = np.arange(len(dataset)).repeat(10)
    large = dataset.take(index)
    std = rng.uniform(0.5, 2.0, len(large))
    mean = large.values + std * rng.standard_normal(len(large))
    honest = calibrate(prediction(mean, std), large)
    assert honest.coverage_90 == pytest.approx(0.9, abs=0.02)
    assert honest.interval_scale == pytest.approx(1.0, abs=0.05)
    bold = calibrate(prediction(mean, std / 3), large)
    assert bold.interval_scale == pytest.approx(3 * honest.interval_scale, rel=1e-3)
    assert bold.coverage_90 < 0.5


def test_the_scale_makes_the_interval_hold_nine_in_ten(dataset, model):
    said = model.predict(torch.as_tensor(dataset.tokens))
    found = calibrate(said, dataset)
    scaled = replace(said, members=said.mean + found.interval_scale * (said.members - said.mean))
    assert calibrate(scaled, dataset).coverage_90 == pytest.approx(0.9, abs=0.01)
    assert found.rmse == pytest.approx(float(np.sqrt(((said.mean.numpy() - dataset.values) ** 2).mean())), rel=1e-5)


def test_a_calibration_survives_json(dataset, model):
    assert Calibration(**json.loads(json.dumps(asdict(model.calibration)))) == model.calibration
    assert model.calibration.noise_ceiling > 0.9
    unknown = replace(dataset, noise_std=np.full(len(dataset), np.nan))
    assert calibrate(model.predict(torch.as_tensor(dataset.tokens)), unknown).noise_ceiling is None


def test_item_weights_by_hand(dataset):
    four = dataset.take(np.arange(4))
    four = replace(four, values=np.array([0.0, 2.0, 0.0, 2.0]), counts=np.array([1, 1, 4, 1]))
    weights = item_weights(replace(four, noise_std=np.array([0.4, 0.4, 0.4, np.nan])))
    signal = 1.0 - (0.16 + 0.16 + 0.04 + 0.16) / 4
    expected = np.array([1 / (1 + 0.16 / signal)] * 2 + [1 / (1 + 0.04 / signal), 1 / (1 + 0.16 / signal)])
    assert weights == pytest.approx(expected / expected.mean(), rel=1e-5)
    assert item_weights(replace(four, noise_std=np.full(4, np.nan))).tolist() == [1.0] * 4
