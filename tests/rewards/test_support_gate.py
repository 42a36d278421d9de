from dataclasses import replace

import numpy as np
import pytest
from plait.design.alphabets import DNA, PROTEIN
from plait.design.records import Dataset
from plait.design.space import DesignSpace
from plait.rewards.support_gate import SupportGate


def offline(n=2000, length=12, forbid=None, seed=0):
    """Random items in which the letters `forbid` never follow each other."""
    rng = np.random.default_rng(seed)
    tokens = np.unique(rng.integers(0, 4, (n, length)), axis=0)
    if forbid:
        windows = np.lib.stride_tricks.sliding_window_view(tokens, len(forbid), axis=1)
        tokens = tokens[~(windows == np.array(forbid)).all(-1).any(-1)]
    ones = np.ones(len(tokens), dtype=np.int64)
    space = DesignSpace.from_template(DNA, "N" * length)
    return Dataset(space, tokens, np.zeros(len(tokens)), ones, np.full(len(tokens), np.nan))


def test_offline_items_are_supported():
    dataset = offline(forbid=(0, 1, 2))
    verdict = SupportGate.fit(dataset).judge(dataset.tokens)
    assert verdict.is_supported.all()
    assert set(verdict.reasons) == {""}


def test_an_unseen_kmer_is_named_with_its_position():
    dataset = offline(forbid=(0, 1, 2))
    gate = SupportGate.fit(dataset)
    assert gate.k == 3
    design = np.full((1, 12), 3)
    design[0, 4:7] = (0, 1, 2)
    verdict = gate.judge(np.concatenate([design, dataset.tokens[:1]]))
    assert verdict.is_supported.tolist() == [False, True]
    assert verdict.reasons == ["3-mer ACG at position 5 is never seen offline", ""]


def test_a_letter_unseen_at_its_position_is_named_and_can_be_let_through():
    dataset = offline()
    dataset = dataset.take(dataset.tokens[:, 2] != 3)
    design = np.array([[0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
    strict = SupportGate.fit(dataset).judge(design)
    assert strict.reasons == ["letter T at position 3 is never seen there offline"]
    assert SupportGate.fit(dataset, judges_positions=False).judge(design).is_supported.all()


def test_verdicts_equal_a_search_through_the_data():
    dataset = offline(n=400, forbid=(1, 1))
    gate = SupportGate.fit(dataset, judges_positions=False)
    texts = dataset.space.decode(dataset.tokens)
    designs = np.random.default_rng(5).integers(0, 4, (100, 12))
    for text, is_supported in zip(dataset.space.decode(designs), gate.judge(designs).is_supported, strict=True):
        pieces = [text[i : i + gate.k] for i in range(12 - gate.k + 1)]
        assert is_supported == all(any(piece in known for known in texts) for piece in pieces)


@pytest.mark.parametrize(("n", "k"), [(2000, 3), (33, 3), (30, 2), (8, 2), (6, 1)])
def test_small_data_judges_shorter_pieces(n, k):
    assert SupportGate.fit(offline(n=n)).k == k


def test_too_little_data_judges_nothing():
    gate = SupportGate.fit(offline(n=1))
    assert gate.k == 0
    assert gate.judge(np.random.default_rng(0).integers(0, 4, (50, 12))).is_supported.all()


def test_both_strands_count_as_seen_in_a_symmetric_space():
    dataset = offline(forbid=(0, 0, 1))
    dataset = dataset.take(
        ~(np.lib.stride_tricks.sliding_window_view(dataset.tokens, 3, axis=1) == (2, 3, 3)).all(-1).any(-1)
    )
    one = dataset.take(np.arange(500))
    tokens = one.tokens.copy()
    tokens[0] = [0, 0, 1, *[3] * 9]
    space = one.space.model_copy(update={"strand_symmetric": True})
    twin = np.full((1, 12), 0)
    twin[0, 4:7] = (2, 3, 3)
    assert (
        SupportGate.fit(replace(one, tokens=tokens, space=space), judges_positions=False).judge(twin).is_supported.all()
    )
    assert not SupportGate.fit(replace(one, tokens=tokens), judges_positions=False).judge(twin).is_supported.any()


def test_templates_are_no_reason_to_reject():
    rng = np.random.default_rng(0)
    space = DesignSpace.from_template(DNA, "NNNGYNNNN")
    tokens = rng.integers(0, 4, (2000, 9))
    tokens[:, 3], tokens[:, 4] = 2, np.where(rng.random(2000) < 0.5, 1, 3)
    dataset = Dataset(space, tokens[:1900], np.zeros(1900), np.ones(1900, dtype=np.int64), np.full(1900, np.nan))
    assert SupportGate.fit(dataset).judge(tokens[1900:]).is_supported.mean() > 0.95


@pytest.mark.parametrize(("rate", "k"), [(1.0, 3), (0.03, 2)])
def test_near_relatives_are_judged_by_shorter_pieces_than_random_sequences(rate, k):
    rng = np.random.default_rng(0)
    parent = rng.integers(0, 20, 55)
    tokens = np.unique(np.where(rng.random((2000, 55)) < rate, rng.integers(0, 20, (2000, 55)), parent), axis=0)
    ones = np.ones(len(tokens), dtype=np.int64)
    space = DesignSpace.from_template(PROTEIN, "X" * 55)
    assert SupportGate.fit(Dataset(space, tokens, np.zeros(len(tokens)), ones, ones * np.nan)).k == k


def test_a_letter_is_not_missed_where_others_are_as_rare():
    dataset = offline()
    tokens = dataset.tokens.copy()
    tokens[:, 2] = 0
    tokens[:3, 2] = 1
    gate = SupportGate.fit(replace(dataset, tokens=tokens))
    assert gate.seen_letters[2].all()
