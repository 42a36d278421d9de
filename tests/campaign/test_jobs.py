"""What jobs say of items and of the shares of workers."""

import numpy as np
import pytest
import torch
from plait.campaign.jobs import FinetuneJob, PretrainJob, item_elbo
from plait.campaign.sections import TrainingConfig
from plait.design.alphabets import DNA
from plait.design.errors import ConfigError
from plait.design.space import DesignSpace
from plait.priors import masked_diffusion
from plait.priors.base import keep_gradients
from torch import Generator


def generator(seed=0):
    return Generator().manual_seed(seed)


def test_the_elbo_of_an_item_is_that_of_both_strands():
    space = DesignSpace.from_template(DNA, "NNNN", strand_symmetric=True)
    prior = masked_diffusion.init(masked_diffusion.Config(width=16), space, generator())
    with torch.no_grad():
        prior.network.backbone.leave.weight.normal_(0, 1, generator=generator(1))
    tokens = torch.from_numpy(space.encode(["ACCC", "GGGT", "ACGT"]))
    each = prior.elbo(tokens, generator(), 0)[0]
    found = item_elbo(prior, tokens, generator(), 0)
    both = torch.logaddexp(each[0], each[1])
    assert torch.allclose(found, torch.stack([both, both, each[2]]), atol=1e-6)
    one_strand = prior.restrict(DesignSpace.from_template(DNA, "NNNN"))
    assert torch.allclose(item_elbo(one_strand, tokens, generator(), 0), each, atol=1e-6)


def test_a_batch_too_small_for_the_workers_is_named():
    job = FinetuneJob("ppo", {"batch_size": 2}, "masked_diffusion", None, None)
    with pytest.raises(ConfigError, match="batch_size"):
        job.start(0, 2, generator())


CORPUS = np.stack(np.unravel_index(np.arange(64), (4, 4, 4)), 1).astype(np.int64)
SPACE = DesignSpace.from_template(DNA, "NNN")


def pretraining(**more):
    return PretrainJob(
        "masked_diffusion", {"batch_size": 33, "width": 8, "num_pretrain_steps": 30}, SPACE, CORPUS, 0, **more
    )


def weights(run):
    return [p.detach().clone() for p in run._state.prior.network.parameters()]


def test_workers_share_the_batch():
    assert [pretraining().start(rank, 2, generator())._state.config.batch_size for rank in (0, 1)] == [17, 16]


@pytest.mark.parametrize("accumulation", [4, 33, 100])
def test_in_pieces_a_batch_of_pre_training_has_the_same_gradient(accumulation):
    found, figures = [], []
    for training in (TrainingConfig(), TrainingConfig(accumulation=accumulation)):
        run = pretraining(training=training).start(0, 1, generator(1))
        run.step(lambda parameters: found.append([p.grad.clone() for p in parameters]))
        figures.append(run.step(keep_gradients))
    assert figures[0] == pytest.approx(figures[1], abs=1e-4)
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_bfloat16_is_the_networks_alone_and_is_not_saved(tmp_path):
    exact = pretraining().start(0, 1, generator(1))
    half = pretraining(training=TrainingConfig(precision="bfloat16")).start(0, 1, generator(1))
    for _ in range(30):
        first, second = exact.step(keep_gradients), half.step(keep_gradients)
    assert first["loss"] == pytest.approx(second["loss"], abs=0.05)
    assert any(not torch.equal(a, b) for a, b in zip(weights(exact), weights(half), strict=True))
    assert {p.dtype for p in weights(half)} == {torch.float32}
    assert half._state.average.network.precision == "bfloat16"
    half.save(tmp_path / "prior")
    assert masked_diffusion.load(tmp_path / "prior").network.precision == "float32"
