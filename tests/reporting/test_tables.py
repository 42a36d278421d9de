"""The numbers behind the page: tables, verdicts and the opening sentences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from plait.campaign.report_data import FurtherAssay
from plait.reporting.html import render_report
from plait.reporting.logos import consensus, information
from plait.reporting.outcomes import compare, over_optimised
from plait.reporting.summary import summary_sentences
from plait.reporting.tables import further_table, method_table, rejected_table, round_table
from plait.reporting.theme import decimals_for, number, percent


def simple(data, name, *, outcome, proxy=None, **changes):
    method = next(m for m in data.methods if m.method == name)
    proxy = outcome if proxy is None else proxy
    sequences = ("ACGT",) * len(outcome)
    return replace(
        method,
        sequences=sequences,
        measured=tuple(outcome),
        judged=tuple(proxy),
        proxy=tuple(proxy),
        is_collapsed=False,
        **changes,
    )


def test_method_table_counts_only_measured_designs(report):
    method = simple(report, "drakes", outcome=[1.0, None, 3.0, 2.0], proxy=[2.0, 50.0, 4.0, 3.5])
    headers, [row] = method_table(replace(report, methods=(method,)))
    cells = dict(zip(headers, row, strict=True))
    assert cells["measured"] == "3 of 4"
    assert float(cells["median"]) == 2.0
    assert float(cells["best"]) == 3.0
    assert float(cells["gap (proxy - measured)"]) == 1.0


def test_minimise_turns_best_and_gap(make):
    data = make(goal="minimize")
    method = simple(data, "drakes", outcome=[1.0, 3.0, 2.0], proxy=[0.0, 2.0, 1.0])
    headers, [row] = method_table(replace(data, methods=(method,)))
    cells = dict(zip(headers, row, strict=True))
    assert float(cells["best"]) == 1.0
    assert float(cells["gap (measured - proxy)"]) == 1.0


def test_method_table_has_methods_in_order_and_prints_collapse_as_failure(report):
    headers, rows = method_table(replace(report, methods=report.methods[::-1]))
    assert [row[0] for row in rows] == [
        "Offline best", "Prior", "Best-of-N", "STRL", "DRAKES", "BRAID-Boot", "BRAID-Bonus", "Exhaustive",
    ]  # fmt: skip
    assert all(len(row) == len(headers) for row in rows)
    assert [row[headers.index("unique")] for row in rows][2:5] == ["93%", "11% COLLAPSED", "93%"]


def test_without_truth_the_judge_is_in_the_table(report):
    method = simple(report, "drakes", outcome=[1.0, 2.0, 3.0], proxy=[5.0, 6.0, 7.0])
    headers, [row] = method_table(replace(report, has_truth=False, methods=(replace(method, measured=None),)))
    assert headers[1] == "judged"
    assert float(row[headers.index("median")]) == 6.0


def test_round_table_counts_designs_that_beat_offline(report):
    summary = replace(
        report.rounds[0],
        sequences=("A", "C", "G"),
        predicted_mean=(1.0, 2.0, 3.0),
        predicted_std=(1.0,) * 3,
        measured=(5.0, None, 1.0),
    )
    headers, [row] = round_table(replace(report, rounds=(summary,), offline_best=2.0))
    cells = dict(zip(headers, row, strict=True))
    assert (cells["measured"], cells["beat offline best"], cells["approved by"]) == ("2 of 3", "1", "mara")
    assert cells["unique samples"] == "81%"
    collapsed = replace(report, rounds=(replace(summary, unique_fraction=0.1),))
    assert "10% COLLAPSED" in round_table(collapsed)[1][0]
    headers, [row] = round_table(replace(report, goal="minimize", rounds=(summary,), offline_best=2.0))
    assert dict(zip(headers, row, strict=True))["best"] == "1.00"


def test_rejected_reasons_are_summed_and_sorted(report):
    headers, rows = rejected_table(report)
    assert headers == ["reason", "round 1", "round 2", "round 3"]
    assert rows[0] == ["3-mer GGG was never measured", "6,101", "3,050", "2,033"]


def test_collapsed_methods_do_not_win(report):
    good = np.linspace(0, 1, 20)
    strl = replace(simple(report, "strl", outcome=good + 9), is_collapsed=True)
    drakes, boot = simple(report, "drakes", outcome=good + 2), simple(report, "braid_boot", outcome=good + 1)
    contest = compare(replace(report, methods=(strl, drakes, boot)))
    assert contest.winner is drakes
    assert contest.is_clear
    text = " ".join(summary_sentences(replace(report, methods=(strl, drakes, boot))))
    assert "BRAID does not win here" in text
    assert "Collapsed: STRL" in text


@pytest.mark.parametrize(("lead", "clear"), [(0.05, False), (1.0, True)])
def test_a_small_lead_is_not_called(report, lead, clear):
    good = np.linspace(0, 1, 20)
    methods = (simple(report, "braid_boot", outcome=good + lead), simple(report, "exhaustive", outcome=good))
    contest = compare(replace(report, methods=methods))
    assert contest.winner is methods[0]
    assert contest.is_clear is clear


def test_over_optimisation_is_seen_only_where_it_is(report):
    assert [case.method for case in over_optimised(report)] == ["strl"]
    rising = tuple(replace(point, measured=point.proxy) for point in report.trajectories)
    assert over_optimised(replace(report, trajectories=rising)) == []
    assert "was not seen" in summary_sentences(replace(report, trajectories=rising))[-1]


def test_summary_admits_that_nothing_beat_offline(report):
    text = " ".join(summary_sentences(replace(report, offline_best=99.0)))
    assert "no design beat the best offline sequence" in text


def test_information_content_of_known_columns():
    table = information(("AC", "AG", "AT", "AA"), "ACGT")
    assert table.loc[1, "A"] == pytest.approx(0.85 * 1.1524, abs=1e-3)
    assert information(("AC",) * 400, "ACGT").loc[1, ["C", "G", "T"]].sum() == 0.0
    assert table.loc[2].sum() == pytest.approx(0.0, abs=1e-9)
    assert consensus(("AC", "AG", "AG")) == "AG"


def test_numbers_as_text():
    assert [decimals_for(spread) for spread in (0.5, 30.0, 0.004, 0.0, float("nan"))] == [2, 0, 4, 3, 3]
    assert [number(-0.0001, 2), number(None, 2), number(float("nan"), 1), number(12345.6, 0)] == [
        "0.00",
        "–",
        "–",
        "12,346",
    ]
    assert [percent(0.001), percent(0.5), percent(0.999), percent(1.0), percent(None)] == [
        "<1%",
        "50%",
        ">99%",
        "100%",
        "–",
    ]


def with_further(data, **changes):
    assay = FurtherAssay("kd", "nM", "minimize", (3.0, 2.0, 9.0), (1.0, 1.0, 1.0), (4.0, None, 8.0), 0.5, None)
    rounds = [replace(r, further=(replace(assay, **changes),)) for r in data.rounds[:2]]
    return replace(data, rounds=tuple(rounds))


def test_further_assays_have_a_table_of_their_own(report):
    headers, rows = further_table(with_further(report))
    assert [row[:2] for row in rows] == [["1", "kd"], ["2", "kd"]]
    cells = dict(zip(headers, rows[0], strict=True))
    assert (cells["measured"], cells["unit"], cells["goal"]) == ("2 of 3", "nM", "minimize")
    assert [float(cells[c]) for c in ("median", "best", "predicted median")] == [6.0, 4.0, 3.0]
    assert (cells["Spearman measured"], cells["in 90% interval"]) == ("0.50", "–")
    assert (
        float(dict(zip(headers, further_table(with_further(report, goal="maximize"))[1][0], strict=True))["best"])
        == 8.0
    )


def test_an_open_further_assay_shows_dashes_and_a_single_one_no_table(report, strip):
    headers, [row, _] = further_table(with_further(report, measured=(None,) * 3, measured_spearman=None))
    cells = dict(zip(headers, row, strict=True))
    assert (cells["measured"], cells["median"], cells["best"]) == ("0 of 3", "–", "–")
    assert further_table(report)[1] == []
    assert "The further assays" in render_report(with_further(strip(report)))
