"""What jobs say of items and of the shares of workers."""

import numpy as np
import pytest
import torch
from plait.campaign.jobs import FinetuneJob, PretrainJob, item_elbo
from plait.design.alphabets import DNA
from plait.design.errors import ConfigError
from plait.design.space import DesignSpace
from plait.priors import masked_diffusion
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


def test_workers_share_the_batch():
    space = DesignSpace.from_template(DNA, "NNN")
    corpus = np.stack(np.unravel_index(np.arange(64), (4, 4, 4)), 1).astype(np.int64)
    job = PretrainJob("masked_diffusion", {"batch_size": 33, "width": 8}, space, corpus, 0)
    assert job.start(1, 2, generator())._state.config.batch_size == 17
