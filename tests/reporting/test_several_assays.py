"""A campaign of several assays: its front, its tables and its page, by readings that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from plait.campaign.report_data import AssayAim, FurtherAssay
from plait.reporting.assay_tables import assay_design_caption, assay_design_table, progress_note, progress_table
from plait.reporting.fronts import offline_readings, progress, ranked_designs, reference
from plait.reporting.html import render_report
from plait.reporting.summary import summary_sentences
from plait.reporting.tables import round_table

OFFLINE = {"psi": (0.0, 2.0, 1.0, None, 1.0), "kd": (4.0, 8.0, 6.0, 6.0, None)}
BATCHES = (
    {"sequences": ("AAA", "CCC", "GGG"), "psi": (3.0, 2.0, 0.0), "kd": (9.0, 7.0, 9.0)},
    {"sequences": ("TTT", "ACG"), "psi": (2.5, 9.0), "kd": (5.0, None)},
)


def several(report, *, psi=(1.0, None), kd=(1.0, None), batches=BATCHES):
    """Round by round, psi is to rise and kd to fall; psi and kd are (weight, threshold)."""
    rounds = []
    for batch, summary in zip(batches, report.rounds, strict=False):
        n = len(batch["sequences"])
        seen = ((0.5,) * n, (1.0,) * n)
        further = FurtherAssay("kd", "nM", "minimize", *seen, batch["kd"], None, None)
        rounds.append(
            replace(
                summary,
                sequences=batch["sequences"],
                predicted_mean=seen[0],
                predicted_std=seen[1],
                measured=batch["psi"],
                measured_spearman=None,
                coverage_90=None,
                further=(further,),
            )
        )
    aims = (
        AssayAim("psi", "3", "au", "maximize", *psi, OFFLINE["psi"]),
        AssayAim("kd", "2", "nM", "minimize", *kd, OFFLINE["kd"]),
    )
    return replace(report, assay="psi", unit="au", rounds=tuple(rounds), aims=aims, scalarisation="weighted_sum")


def box_union(points, floor):
    """The area that points dominate above a floor, on a grid fine enough to be exact to a thousandth."""
    axes = [np.linspace(low, points[:, i].max(), 2001) for i, low in enumerate(floor)]
    middles = [(a[1:] + a[:-1]) / 2 for a in axes]
    held = np.zeros((2000, 2000), dtype=bool)
    for x, y in points:
        held |= (middles[0][:, None] < x) & (middles[1][None] < y)
    return held.mean() * np.prod(points.max(0) - floor)


def test_hypervolume_is_the_area_above_the_stated_point(report):
    data = several(report)
    psi, kd = (np.array([v for v in OFFLINE[name] if v is not None]) for name in ("psi", "kd"))
    scale = np.array([psi.std(), -kd.std()])
    point = np.array(list(reference(data).values()))
    np.testing.assert_allclose(point, [0.0 - 0.1 * 2.0, 8.0 + 0.1 * 4.0])  # the front: (0, 4), (1, 6), (2, 8)
    known = offline_readings(data)[:3]
    added = [np.zeros((0, 2)), np.array([[3.0, 9.0], [2.0, 7.0]]), np.array([[2.5, 5.0]])]
    for step, new in zip(progress(data), added, strict=True):
        known = np.concatenate([known, new])
        inside = known[((known - point) / scale > 0).all(1)]
        assert step.hypervolume == pytest.approx(box_union((inside - point) / scale, np.zeros(2)), rel=2e-3)
    headers, rows = progress_table(data)
    assert [row[:2] for row in rows] == [["offline", "3 of 5"], ["1", "3 of 3"], ["2", "1 of 2"]]
    cells = dict(zip(headers, rows[1], strict=True))
    assert (cells["median psi (au)"], cells["median kd (nM)"]) == ("2.00", "9.0")
    assert rows[0][-1] == "–"
    assert 0 < float(rows[1][-1].strip("+%")) < float(rows[2][-1].strip("+%"))
    assert "psi -0.20 au, kd 8.4 nM" in progress_note(data)


def test_best_designs_are_ranked_by_all_assays_and_the_front_is_marked(report):
    data = several(report)
    headers, rows = assay_design_table(data)
    assert [row[2] for row in rows] == ["TTT", "AAA", "CCC", "GGG"]  # ACG was not measured in kd
    marks = [row[headers.index("non-dominated among")] for row in rows]
    assert marks == ["all measured", "all measured", "–", "–"]
    beaten = replace(data.aims[1], offline=(4.0, 4.0, *OFFLINE["kd"][2:]))
    beaten = replace(data, aims=(replace(data.aims[0], offline=(2.6, *OFFLINE["psi"][1:])), beaten))
    assert [row[headers.index("non-dominated among")] for row in assay_design_table(beaten)[1][:2]] == [
        "designs",
        "all measured",
    ]
    assert [d.design.sequence for d in ranked_designs(several(report, kd=(9.0, None)))][:2] == ["TTT", "AAA"]


def test_designs_that_miss_a_threshold_come_last(report):
    data = several(report, psi=(1.0, 2.0), kd=(0.0, 8.0))
    headers, rows = assay_design_table(data)
    assert [(row[2], row[headers.index("meets thresholds")]) for row in rows] == [
        ("TTT", "yes"), ("CCC", "yes"), ("AAA", "no"), ("GGG", "no"),
    ]  # fmt: skip
    assert "non-dominated among" not in headers  # one assay of weight 0: there is no front
    assert "by psi, the only assay with a weight" in assay_design_caption(data)
    headers, rows = progress_table(data)
    assert [row[headers.index("meets all thresholds")] for row in rows] == ["33%", "33%", "100%"]
    text = " ".join(summary_sentences(data))
    assert "a high psi (weight 1, at least 2.00 au) and a low kd (weight 0, at most 8.0 nM)" in text
    assert "50% of these designs meet all thresholds, 33% of the offline sequences do" in text


def test_the_story_is_of_all_assays(report):
    data = several(report)
    asked, came, best = summary_sentences(replace(data, methods=(), trajectories=()))
    assert "a high psi (weight 1, no threshold) and a low kd (weight 1, no threshold), joined by weighted sum" in asked
    assert "4 in psi and 4 in kd, 3 of them in every one" in asked
    assert "5 designs were proposed and 4 of them measured in every assay. 2 of them are on the front" in came
    assert "reads 2.50 au in psi and 5.0 nM in kd (TTT, round 2)" in best
    assert "psi 9.00 au (offline 2.00 au) and kd 5.0 nM (offline 4.0 nM)" in best
    assert "best in psi" in round_table(data)[0]
    assert "By psi alone: Of the methods compared" in " ".join(summary_sentences(data))
    data = several(replace(report, methods=(), trajectories=(), logo_offline=(), logo_prior=(), logo_designs=()))
    page = render_report(data)
    assert 'id="figure-assay-pairs"' in page
    assert "2 of the 3 sequences on the front of all measured are designs" in page
    assert "psi alone: Round over round" in page


def test_before_any_reading_the_page_promises_nothing(report, strip):
    nothing = ({"sequences": ("AAA", "CCC"), "psi": (1.0, None), "kd": (None, None)},)
    data = several(strip(report), batches=nothing)
    assert "no design has been measured in every assay yet" in " ".join(summary_sentences(data))
    assert assay_design_caption(data).startswith("First designs of the last round")
    assert progress_table(data)[1][1][-2:] == ["–", "–"]
    assert "no design measured in both" in render_report(data)


def test_one_assay_has_none_of_it(report, strip):
    page = render_report(strip(report))
    for words in ("figure-assay-pairs", "All assays at once", "alone", "Joined by", "ypervolume"):
        assert words not in page
