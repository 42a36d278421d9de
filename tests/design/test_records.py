import numpy as np
import pytest
from plait.design.alphabets import DNA
from plait.design.errors import BadInputError
from plait.design.records import Readings, to_dataset
from plait.design.space import DesignSpace

SPACE = DesignSpace.from_template(DNA, "NNN")
BOTH_STRANDS = DesignSpace.from_template(DNA, "NNN", strand_symmetric=True)


def readings(pairs, stds=None):
    sequences, values = zip(*pairs, strict=True)
    return Readings(sequences, np.array(values, dtype=float), tuple(map(str, range(len(pairs)))), stds)


def test_replicates_are_folded_in_order_of_first_reading():
    dataset = to_dataset(readings([("TTT", 1.0), ("AAC", 2.0), ("TTT", 3.0)]), SPACE, unit="au")
    assert SPACE.decode(dataset.tokens) == ["TTT", "AAC"]
    assert dataset.values.tolist() == [2.0, 2.0]
    assert dataset.counts.tolist() == [2, 1]
    assert dataset.unit == "au"
    assert np.isnan(dataset.noise_std).all()


def test_minimising_turns_the_sign():
    table = readings([("AAA", 1.0), ("CCC", -2.0)])
    assert to_dataset(table, SPACE, "minimize").values.tolist() == [-1.0, 2.0]


def test_both_strands_are_one_item_where_the_space_says_so():
    table = readings([("AAC", 1.0), ("GTT", 3.0)])
    assert len(to_dataset(table, SPACE)) == 2
    merged = to_dataset(table, BOTH_STRANDS)
    assert BOTH_STRANDS.decode(merged.tokens) == ["AAC"]
    assert (merged.values.tolist(), merged.counts.tolist()) == ([2.0], [2])


def test_noise_is_pooled_within_items():
    rng = np.random.default_rng(0)
    items = [s for tokens in SPACE.enumerate() for s in SPACE.decode(tokens)]
    means = dict(zip(items, rng.normal(0, 5, len(items)), strict=True))
    table = readings([(s, means[s] + rng.normal(0, 0.3)) for s in items * 8])
    dataset = to_dataset(table, SPACE)
    by_item = table.values.reshape(8, len(items))
    assert dataset.noise_std == pytest.approx(np.sqrt(by_item.var(axis=0, ddof=1).mean()))
    assert dataset.noise_std == pytest.approx(0.3, rel=0.15)
    assert np.ptp(dataset.noise_std) == 0


def test_noise_falls_back_to_the_files_own_stds():
    dataset = to_dataset(readings([("AAA", 1.0), ("AAA", 2.0), ("CCC", 3.0)], np.array([3.0, 4.0, 1.0])), SPACE)
    np.testing.assert_allclose(dataset.noise_std, [np.sqrt(12.5), 1.0])


def test_take_keeps_columns_together():
    dataset = to_dataset(readings([("AAA", 1.0), ("CCC", 2.0), ("GGG", 3.0)]), SPACE)
    assert SPACE.decode(dataset.take(np.array([2, 0])).tokens) == ["GGG", "AAA"]
    assert dataset.take(dataset.values > 1.5).values.tolist() == [2.0, 3.0]


def test_nothing_is_a_dataset_too():
    empty = Readings((), np.zeros(0), ())
    assert len(to_dataset(empty, SPACE)) == 0
    assert len(to_dataset(empty, BOTH_STRANDS)) == 0


def test_columns_of_other_lengths_and_sequences_outside_are_refused():
    with pytest.raises(ValueError, match="per sequence"):
        Readings(("AAA",), np.zeros(2), ("1",))
    with pytest.raises(ValueError, match="per sequence"):
        Readings(("AAA",), np.zeros(1), ("1",), stds=np.zeros(2))
    with pytest.raises(BadInputError, match="another length"):
        to_dataset(readings([("AAAA", 1.0)]), SPACE)
