"""How a policy is looked at after it is fine-tuned."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from plait.campaign import stages
from plait.design.alphabets import DNA
from plait.design.space import DesignSpace
from torch import Generator


class TwoStrands:
    """Draws 40 items, each on both of its strands in turn."""

    rows_forwarded = 0

    def __init__(self, space):
        items = np.concatenate(list(space.enumerate()))[:40]
        self.tokens = torch.from_numpy(np.concatenate([items, DNA.complement_tokens()[items[:, ::-1]]]))

    def init_state(self, n):
        return self.tokens[:n]

    def draw(self, n, generator):
        return self.tokens[:n]

    def decode(self, state):
        return state


@pytest.mark.parametrize(("strand_symmetric", "expected"), [(False, 1.0), (True, 0.5)])
def test_both_strands_of_one_item_are_one_design(strand_symmetric, expected, monkeypatch):
    space = DesignSpace.from_template(DNA, "NNNNNN", strand_symmetric=strand_symmetric)
    policy = TwoStrands(DesignSpace.from_template(DNA, "ANNNNC", strand_symmetric=False))
    monkeypatch.setattr(stages, "load_prior", lambda *args: policy)
    turn = SimpleNamespace(
        outputs={"prior": {"algorithm": "masked_diffusion"}},
        ports=SimpleNamespace(artifacts=SimpleNamespace(path=str), progress=lambda *args: None),
        space=space,
        generator=lambda stage: Generator().manual_seed(0),
        config=SimpleNamespace(batch=SimpleNamespace(size=80)),
    )
    assert stages._unique_fraction(turn, "sha") == pytest.approx(expected)
