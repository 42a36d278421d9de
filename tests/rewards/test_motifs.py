"""The motif model: the same law for tokens and simplex, moved sites, strands, what it learns, and its bundle."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from plait.design.alphabets import DNA
from plait.design.errors import BadInputError, CorruptArtifactError
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.metrics.ranks import spearman
from plait.rewards import motifs
from torch import Generator
from torch.nn import functional

SPACE = DesignSpace.from_template(DNA, "N" * 24)
SITES = ([0, 1, 1, 2], [3, 3, 0, 2])
CONFIG = motifs.Config(members=2, num_motifs=4, width=6, steps=300)


def generator(seed=0):
    return Generator().manual_seed(seed)


def truth(tokens):
    """The best site of each of two motifs, by the share of its letters that are there, multiplied."""
    value = np.ones(len(tokens))
    for site in SITES:
        windows = np.lib.stride_tricks.sliding_window_view(tokens, len(site), axis=1)
        value *= (windows == site).mean(2).max(1)
    return value


def as_dataset(space, tokens, values):
    n = len(tokens)
    return Dataset(space, tokens, values, np.ones(n, dtype=np.int64), np.full(n, np.nan), "units")


@pytest.fixture(scope="module", name="data")
def _data():
    tokens = np.random.default_rng(0).integers(0, 4, (600, 24))
    return as_dataset(SPACE, tokens, truth(tokens))


@pytest.fixture(scope="module", name="model")
def _model(data):
    return motifs.fit(CONFIG, data, generator())


def test_it_learns_motifs_wherever_they_stand(model):
    unseen = np.random.default_rng(1).integers(0, 4, (2000, 24))
    assert spearman(model.predict(torch.from_numpy(unseen)).mean.double().numpy(), truth(unseen)) > 0.8
    best = unseen[:50].copy()
    for start in (2, 13):
        best[:, start : start + 8] = [*SITES[1], *SITES[0]]
    ranks = model.predict(torch.from_numpy(np.concatenate([best, unseen]))).mean.argsort(descending=True)[:50]
    assert (ranks < 50).float().mean() > 0.8


def test_tokens_and_their_one_hot_simplex_say_the_same_and_gradients_flow(model, data):
    tokens = torch.from_numpy(data.tokens[:40])
    simplex = functional.one_hot(tokens, 4).float().requires_grad_()
    said = model.predict(simplex)
    assert torch.allclose(said.members, model.predict(tokens).members, atol=1e-4)
    (gradient,) = torch.autograd.grad(said.mean.sum(), simplex)
    assert gradient.abs().sum() > 0
    assert said.unit == "units"


def test_a_site_may_stand_on_either_strand_where_they_are_one_item(data):
    space = SPACE.model_copy(update={"strand_symmetric": True})
    tokens = np.unique(space.canonical(data.tokens), axis=0)
    model = motifs.fit(CONFIG.model_copy(update={"steps": 5}), as_dataset(space, tokens, truth(tokens)), generator())
    some = torch.from_numpy(tokens[:30])
    twins = 3 - some.flip(1)
    assert torch.allclose(model.predict(some).members, model.predict(twins).members, atol=1e-5)
    simplex = functional.one_hot(twins, 4).float()
    assert torch.allclose(model.predict(some).members, model.predict(simplex).members, atol=1e-4)


@pytest.mark.parametrize("is_bootstrap", [False, True])
def test_one_seed_gives_one_model_and_another_gives_another(data, is_bootstrap):
    config = CONFIG.model_copy(update={"steps": 5, "is_bootstrap": is_bootstrap})
    some = torch.from_numpy(data.tokens[:20])
    one, same, other = (motifs.fit(config, data, generator(seed)).predict(some).members for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_width_follows_the_length_and_never_exceeds_it():
    def width(length, **settings):
        return motifs.Config(**settings).width_in(DesignSpace.from_template(DNA, "N" * length))

    assert [width(6), width(50), width(128), width(50, width=5)] == [6, 12, 20, 5]


def test_a_bundle_comes_back_as_it_was(model, data, tmp_path):
    model.save(tmp_path / "m")
    again = motifs.load(tmp_path / "m")
    some = torch.from_numpy(data.tokens[:50])
    assert torch.equal(again.predict(some).members, model.predict(some).members)
    assert (again.calibration, again.scale, again.link) == (model.calibration, model.scale, model.link)
    assert model.predict(some[:0]).members.shape == (2, 0)


def test_a_product_far_above_the_readings_stays_finite_in_a_bundle_too(data, tmp_path):
    steep = as_dataset(SPACE, data.tokens, np.exp(3.0 * (data.tokens == 1).sum(1)))
    trained = motifs.fit(CONFIG.model_copy(update={"steps": 5}), steep, generator())
    assert trained.link.ceiling is not None
    replace(trained, shift=1e3).save(tmp_path / "m")
    said = motifs.load(tmp_path / "m").predict(torch.from_numpy(data.tokens[:20])).members
    assert said.isfinite().all()
    assert said.max() < 1e5 * steep.values.max()


def test_a_bundle_that_does_not_fit_is_refused(model, tmp_path):
    replace(model, config=CONFIG.model_copy(update={"num_motifs": 5})).save(tmp_path / "m")
    with pytest.raises(CorruptArtifactError, match="motif model"):
        motifs.load(tmp_path / "m")


def test_readings_that_teach_nothing_are_refused(data):
    for useless in (replace(data, values=np.ones(len(data))), data.take(np.arange(9))):
        with pytest.raises(BadInputError, match="fitted"):
            motifs.fit(CONFIG, useless, generator())
