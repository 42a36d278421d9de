"""Workers do together what one alone would: sizes, weights, and what is refused."""

import numpy as np
import pytest
import torch
from plait.campaign.catalog import algorithms, configure
from plait.campaign.config import parse_config
from plait.campaign.shares import OnCpu, check_training, share_of, weighted
from plait.design.errors import ConfigError
from plait.rewards.conservatism import ObjectiveValue

TUNERS = algorithms("finetune")
BASE = {"name": "c", "dataset": "d"}


@pytest.mark.parametrize("num_workers", [1, 2, 3, 5])
@pytest.mark.parametrize("name", TUNERS)
def test_sizes_are_divided_without_loss_and_items_count_alike(name, num_workers):
    whole, divided = configure("finetune", name, {}), TUNERS[name].divided
    shares = [share_of("finetune", name, {}, rank, num_workers) for rank in range(num_workers)]
    for field in type(whole).model_fields:
        parts = [getattr(config, field) for config, _ in shares]
        if field in divided:
            assert sum(parts) == getattr(whole, field)
            assert max(parts) - min(parts) <= 1
        else:
            assert set(parts) == {getattr(whole, field)}
    counts = np.array([getattr(config, divided[-1]) for config, _ in shares])
    assert np.array([weight for _, weight in shares]) / num_workers == pytest.approx(counts / counts.sum())


def test_the_weighted_mean_over_workers_is_the_mean_over_the_batch():
    items = torch.randn((33, 4), generator=torch.Generator().manual_seed(0))
    means = []
    for rank, part in enumerate(items.split([17, 16])):
        config, weight = share_of("priors", "masked_diffusion", {"batch_size": 33}, rank, 2)
        assert config.batch_size == len(part)
        parameter = torch.nn.Parameter(torch.zeros(4))
        (part @ parameter).mean().backward()
        weighted(lambda parameters: means.append(parameters[0].grad), weight)([parameter])
    assert torch.allclose(sum(means) / 2, items.mean(0), atol=1e-6)


def test_workers_that_cannot_share_a_batch_are_refused_at_the_door():
    check_training(parse_config(BASE | {"workers": 32}))
    with pytest.raises(ConfigError, match=r"33 workers cannot share batch_size 32: .*batch_size"):
        check_training(parse_config(BASE | {"workers": [1, 33]}))
    with pytest.raises(ConfigError, match="129 workers cannot share batch_size 128"):
        check_training(parse_config(BASE | {"workers": [129, 1], "finetune": {"settings": {"batch_size": 4096}}}))
    ppo = {"algorithm": "ppo", "settings": {"batch_size": 16, "num_minibatches": 8}}
    with pytest.raises(ConfigError, match=r"3 workers cannot share batch_size 16: .*num_minibatches 8"):
        check_training(parse_config(BASE | {"workers": 3, "finetune": ppo}))


def test_fewest_workers_are_no_more_than_there_are():
    check_training(parse_config(BASE | {"workers": 2, "training": {"min_workers": 2}}))
    with pytest.raises(ConfigError, match=r"training.min_workers is 2, and round 2 has 1 workers"):
        check_training(parse_config(BASE | {"workers": [2, 1], "training": {"min_workers": 2}}))


def test_an_objective_on_the_cpu_passes_values_and_gradients_on():
    class Sum:
        scale, assay_std, has_uncertainty, is_differentiable = 1.0, 2.0, True, True

        def __call__(self, x):
            total = x.sum((1, 2))
            return ObjectiveValue(total, 2 * total, 0 * total)

    objective = OnCpu(Sum())
    x = torch.ones((2, 3, 4), requires_grad=True)
    value = objective(x)
    value.conservative.sum().backward()
    assert value.mean.tolist() == [24.0, 24.0]
    assert torch.equal(x.grad, torch.ones_like(x))
    assert (objective.scale, objective.assay_std) == (1.0, 2.0)
    assert objective.has_uncertainty
    assert objective.is_differentiable
