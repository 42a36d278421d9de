"""How a policy is judged: by the judge's lower bound, of designs that pass, under floors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from plait.campaign import catalog
from plait.campaign.sections import SweepConfig
from plait.campaign.trials import NOT_DISTINCT, NOT_NATURAL, NOT_SUPPORTED, Judge, draw_with_kl, elbo_floor
from plait.design.alphabets import find_alphabet
from plait.design.space import DesignSpace
from plait.rewards.conservatism import ObjectiveValue
from plait.rewards.support_gate import SupportGate

SPACE = DesignSpace.from_template(find_alphabet("dna"), "NNNNNN")
DNA_SEED = 5


class CountsA:
    """A judge that counts A, with a spread of 0.5."""

    def build(self):
        return self

    def __call__(self, tokens):
        mean = (tokens == 0).sum(1).float()
        std = torch.full_like(mean, 0.5)
        return ObjectiveValue(mean - 2.0 * std, mean, std)


def make_prior(seed):
    algorithm = catalog.find("priors", "masked_diffusion")
    config = catalog.configure("priors", "masked_diffusion", {"width": 8, "num_pretrain_steps": 1})
    return algorithm.init(config, SPACE, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def prior():
    return make_prior(0)


@pytest.fixture(scope="module")
def judge():
    return Judge(CountsA(), CountsA(), (), SweepConfig(), None, DNA_SEED)


def test_the_score_is_the_judge_s_lower_bound_and_repeats_itself(judge, prior):
    look = judge.look(3, prior, prior)
    assert look.score == pytest.approx(look.judged - 1.0)
    assert look.judged == pytest.approx(6 / 4, abs=0.3)
    assert (look.update, look.kl, look.shortfall, look.missed, look.supported) == (3, 0.0, 0.0, (), 1.0)
    assert judge.look(3, prior, prior) == look
    assert 0 < look.judged_error < 0.2


def test_another_policy_is_some_way_from_the_prior(prior):
    policy = make_prior(1)
    with torch.no_grad():
        for weight in policy.network.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)))
    tokens, kl = draw_with_kl(policy, prior, 64, torch.Generator().manual_seed(0))
    assert tokens.shape == (64, 6)
    assert kl > 0.05


def test_floors_are_missed_by_name(judge, prior):
    section = SweepConfig(min_unique=1.0, num_samples=5_000)
    few = replace(judge, section=section).look(0, prior, prior)
    assert few.missed == (NOT_DISTINCT,)
    assert few.shortfall == pytest.approx(1 - few.unique)
    unnatural = replace(judge, min_elbo=few.elbo + 0.5).look(0, prior, prior)
    assert unnatural.missed == (NOT_NATURAL,)
    assert replace(judge, min_elbo=elbo_floor(prior, 0.05, 64, torch.Generator())).look(0, prior, prior).missed == ()


def test_designs_that_the_gate_rejects_do_not_count(judge, prior):
    def gate(seen):
        return SupportGate(SPACE.alphabet, 1, np.array(seen), np.ones((6, 4), dtype=bool))

    without_t = replace(judge, gates=(gate([True, True, True, False]),)).look(0, prior, prior)
    assert without_t.supported == pytest.approx(0.75**6, abs=0.12)
    assert without_t.judged == pytest.approx(6 / 3, abs=0.5)
    nothing = replace(judge, gates=(gate([False] * 4),)).look(0, prior, prior)
    assert (nothing.missed, nothing.supported) == ((NOT_SUPPORTED,), 0.0)
    strict = judge.section.model_copy(update={"min_supported": 0.9})
    few = replace(judge, gates=(gate([True, True, True, False]),), section=strict).look(0, prior, prior)
    assert few.missed == (NOT_SUPPORTED,)
    assert few.shortfall == pytest.approx(1 - few.supported / 0.9)


def test_a_judge_travels_without_its_models(judge, prior):
    import pickle

    judge.look(0, prior, prior)
    assert "_objectives" not in judge.__getstate__()
    assert pickle.loads(pickle.dumps(replace(judge, plan=None, proxy=None))).seed == DNA_SEED  # noqa: S301
