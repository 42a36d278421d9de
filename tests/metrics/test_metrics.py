import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plait.metrics.diversity import kmer_correlation, kmer_frequencies, mean_pairwise_distance, novelty, unique_fraction
from plait.metrics.intervals import coverage, interval_scale
from plait.metrics.noise import label_warning, noise_ceiling, replicate_ceiling
from plait.metrics.ranks import pearson, quantile_summary, spearman
from scipy.stats import spearmanr

TOKENS = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]])


def test_spearman_by_hand_and_with_ties():
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0])) == pytest.approx(0.5)
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 60).astype(float), rng.integers(0, 5, 60).astype(float)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert pearson(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])


def test_ranks_of_what_does_not_vary_are_zero():
    assert spearman(np.ones(5), np.arange(5.0)) == 0.0
    assert spearman(np.array([1.0]), np.array([2.0])) == 0.0


def test_quantile_summary():
    summary = quantile_summary(np.arange(11.0))
    assert summary == {"q10": 1.0, "median": 5.0, "q90": 9.0, "mean": 5.0, "best": 10.0}
    assert quantile_summary(np.array([])) == {}


def test_coverage_by_hand():
    measured, mean, std = np.array([0.0, 1.6, 1.7, -5.0]), np.zeros(4), np.ones(4)
    assert coverage(measured, mean, std) == 0.5
    assert interval_scale(np.arange(1.0, 20.0), np.zeros(19), np.ones(19)) == pytest.approx(18 / 1.6448536)


def test_mean_pairwise_distance_by_hand():
    assert mean_pairwise_distance(TOKENS) == pytest.approx((1 / 4 + 4 / 4 + 3 / 4) / 3)
    assert mean_pairwise_distance(TOKENS[:1]) == 0.0


@given(st.integers(2, 12), st.integers(1, 6), st.integers(0, 1000))
def test_mean_pairwise_distance_equals_all_pairs(n, length, seed):
    tokens = np.random.default_rng(seed).integers(0, 4, (n, length))
    pairs = [(tokens[i] != tokens[j]).mean() for i in range(n) for j in range(i)]
    assert mean_pairwise_distance(tokens) == pytest.approx(np.mean(pairs))


def test_unique_fraction():
    assert unique_fraction(TOKENS[[0, 0, 1, 2]]) == 0.75
    assert unique_fraction(TOKENS[:0]) == 0.0


def test_novelty_by_hand_and_against_all_pairs():
    assert novelty(np.array([[0, 0, 1, 1], [1, 1, 1, 1]]), TOKENS).tolist() == [1, 0]
    assert novelty(TOKENS, TOKENS[:0]).tolist() == [4, 4, 4]
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, (1500, 7)), rng.integers(0, 5, (40, 7))
    assert np.array_equal(novelty(a, b), (a[:, None] != b[None]).sum(-1).min(1))


def test_kmers_by_hand():
    found = kmer_frequencies(np.array([[0, 1, 0]]), 2, 2)
    assert found.tolist() == [0.0, 0.5, 0.5, 0.0]
    assert kmer_frequencies(np.array([[0, 1]]), 2, 3).sum() == 0.0
    assert kmer_correlation(TOKENS, TOKENS, 4) == pytest.approx(1.0)
    assert kmer_correlation(TOKENS[:1], TOKENS[2:], 2, 2) == pytest.approx(-1 / 3)


def test_noise_ceiling_by_hand():
    values, counts = np.array([0.0, 2.0, 0.0, 2.0]), np.array([1, 1, 2, 2])
    ceiling = noise_ceiling(values, np.full(4, math.sqrt(0.4)), counts)
    assert ceiling.reliability == pytest.approx(1 - 0.3)
    assert ceiling.pearson == pytest.approx(math.sqrt(0.7))
    assert noise_ceiling(values, np.full(4, np.nan), counts) is None
    assert noise_ceiling(values, np.full(4, 9.0), counts).reliability == 0.0


def test_the_ceiling_is_what_the_truth_attains():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(20_000)
    first, second = (truth + 0.8 * rng.standard_normal(20_000) for _ in range(2))
    known = noise_ceiling(first, np.full(20_000, 0.8), np.ones(20_000, dtype=np.int64))
    for ceiling in (known, replicate_ceiling(first, second)):
        assert ceiling.pearson == pytest.approx(pearson(truth, first), abs=0.02)
        assert ceiling.spearman == pytest.approx(spearman(truth, first), abs=0.02)


def test_label_warning_speaks_only_where_it_must():
    clean = replicate_ceiling(np.arange(9.0), np.arange(9.0))
    noisy = replicate_ceiling(np.array([0.0, 1, 2, 3]), np.array([2.0, 0, 3, 1]))
    assert label_warning(clean, 0.6) == ""
    assert label_warning(None, 0.6) == ""
    assert "mostly noise" in label_warning(noisy, 0.6)
    assert "Spearman 0.05" in label_warning(None, 0.05)
