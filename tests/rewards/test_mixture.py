"""The mixture: weights follow skill, the mean follows the mixed score, and its bundle comes back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from plait.design.errors import BadInputError, ConfigError, CorruptArtifactError
from plait.metrics.ranks import spearman
from plait.rewards import ensemble, gaussian_process, mixture
from plait.rewards.base import Prediction
from torch import Generator


def generator(seed=0):
    return Generator().manual_seed(seed)


CONFIG = mixture.Config(families=("gaussian_process", "mlp"), members=2)


@pytest.fixture(scope="module", name="mixed")
def _mixed(dataset):
    return mixture.fit(CONFIG, dataset, generator())


def fresh(dataset, n=200):
    return torch.from_numpy(np.random.default_rng(5).integers(0, 4, (n, dataset.space.length)))


def test_it_learns(mixed, dataset, truth):
    x = fresh(dataset)
    assert spearman(mixed.predict(x).mean.double().numpy(), truth(x.numpy())) > 0.75
    assert mixed.predict(x).mean.std() == pytest.approx(truth(x.numpy()).std(), rel=0.5)


def test_weights_follow_the_skills(mixed):
    expected = torch.softmax(10 * torch.tensor(list(mixed.skills.values())), 0)
    torch.testing.assert_close(mixed.weights, expected.float())
    assert set(mixed.skills) == {"gaussian_process", "mlp"}


def test_without_refitting_the_trial_stays(dataset):
    trial = mixture.fit(CONFIG.model_copy(update={"is_refitted": False}), dataset, generator())
    final = mixture.fit(CONFIG, dataset, generator())
    assert trial.skills == final.skills
    assert len(trial.parts["gaussian_process"].items) < len(final.parts["gaussian_process"].items) == len(dataset)


def test_a_family_that_knows_nothing_is_left_out(dataset, monkeypatch):
    class Ignorant:
        is_differentiable = True

        def predict(self, x):
            noise = torch.rand(1, len(x), generator=generator(1))
            return Prediction(noise, torch.ones(1))

    monkeypatch.setattr(ensemble, "train", lambda *_: Ignorant())
    mixed = mixture.fit(CONFIG, dataset, generator())
    assert list(mixed.parts) == ["gaussian_process"]
    assert mixed.skills["mlp"] < 0.4


def test_the_mean_rises_with_the_mixed_score_whatever_the_doubts(mixed, dataset):
    x = fresh(dataset)
    scores, mean = mixed._scores(x).mean, mixed.predict(x).mean
    order = scores.argsort()
    assert (mean[order].diff() >= 0).all()


def test_a_simplex_carries_gradients_and_agrees_at_its_corners(mixed, dataset):
    x = fresh(dataset, 10)
    corners = torch.nn.functional.one_hot(x, 4).float().requires_grad_()
    soft = mixed.predict(corners)
    torch.testing.assert_close(soft.mean, mixed.predict(x).mean, rtol=1e-3, atol=1e-3)
    soft.mean.sum().backward()
    assert corners.grad.abs().sum() > 0


def test_families_without_gradients_are_silent_on_a_simplex_and_never_alone(dataset):
    mixed = mixture.fit(replace_families("sparse", "gaussian_process", min_say=0.9), dataset, generator())
    assert mixed.is_differentiable
    assert "gaussian_process" in mixed.parts
    corners = torch.nn.functional.one_hot(fresh(dataset, 5), 4).float()
    alone = replace(mixed, parts={"gaussian_process": mixed.parts["gaussian_process"]}, weights=torch.ones(1))
    torch.testing.assert_close(mixed.predict(corners).mean, alone.predict(corners).mean)


def replace_families(*families, **settings):
    return CONFIG.model_copy(update={"families": families, **settings})


def test_features_are_those_of_a_network_and_refused_where_there_is_none(mixed, dataset):
    x = fresh(dataset, 4)
    assert torch.equal(mixed.features(x), mixed.parts["mlp"].features(x))
    process = gaussian_process.train(gaussian_process.Config(), dataset, generator())
    alone = replace(mixed, parts={"gaussian_process": process}, weights=torch.ones(1))
    assert torch.equal(alone.features(x), process.features(x))
    with pytest.raises(ConfigError, match="needs features"):
        replace(mixed, parts={"sparse": process}, weights=torch.ones(1)).features(x)


def test_short_and_long_spaces_have_their_own_families(mixed):
    assert "gaussian_process" in mixture.SHORT
    assert "motifs" not in mixture.SHORT
    assert {"motifs", "sparse"} < set(mixture.LONG)


def test_a_bundle_comes_back_and_damage_is_told(mixed, dataset, tmp_path):
    mixed.save(tmp_path / "model")
    again = mixture.load(tmp_path / "model")
    assert torch.equal(again.predict(fresh(dataset)).members, mixed.predict(fresh(dataset)).members)
    assert torch.equal(again.predict(fresh(dataset)).weights, mixed.predict(fresh(dataset)).weights)
    assert again.skills == mixed.skills
    assert again.calibration == mixed.calibration
    replace(mixed, weights=torch.ones(3)).save(tmp_path / "odd")
    with pytest.raises(CorruptArtifactError, match="no usable mixture"):
        mixture.load(tmp_path / "odd")


@pytest.mark.parametrize("order", [("mlp", "gaussian_process"), ("gaussian_process", "mlp")])
def test_a_bundle_keeps_each_family_s_weight(mixed, dataset, tmp_path, order):
    parts = {family: mixed.parts[family] for family in order}
    uneven = replace(mixed, parts=parts, weights=torch.tensor([0.9, 0.1]))
    uneven.save(tmp_path / "model")
    x = fresh(dataset)
    assert torch.equal(mixture.load(tmp_path / "model").predict(x).mean, uneven.predict(x).mean)
    assert tuple(mixture.load(tmp_path / "model").parts) == order


def test_what_teaches_nothing_is_refused(dataset):
    with pytest.raises(BadInputError, match="cannot be fitted"):
        mixture.fit(CONFIG, dataset.take(np.arange(5)), generator())
