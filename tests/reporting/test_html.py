"""The page as a document: self-contained, safe, repeatable, complete, and silent about what it does not have."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from plait.design.alphabets import PROTEIN
from plait.reporting.html import render_report
from plait.reporting.logos import information

EVIL = "<script>alert('x')</script> \"quoted\" & $50 ü 配列"


class Reader(HTMLParser):
    """Collects figures, links, ids, scripts and unbalanced tags."""

    VOID = frozenset({"meta", "br", "link", "image", "use", "path"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.labels: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [found[name] for name in ("href", "src", "xlink:href") if name in found]
        if tag == "svg":
            assert found["role"] == "img"
            self.labels.append(found["aria-label"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def page(report):
    return render_report(report)


def test_page_needs_nothing_from_outside(page):
    reader = read(page)
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    assert {"script", "link", "iframe"}.isdisjoint(reader.tags)
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in reader.addresses)
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    assert len(page.encode()) < 3_000_000


def test_every_reference_inside_the_page_finds_one_target(page):
    reader = read(page)
    assert len(reader.ids) == len(set(reader.ids))
    targets = {address[1:] for address in reader.addresses if address.startswith("#")}
    targets |= set(re.findall(r"url\(#([^)]+)\)", page))
    assert targets <= set(reader.ids)


def test_every_figure_has_alt_text_and_a_caption(page):
    reader = read(page)
    assert len(reader.labels) == reader.tags.count("svg") == reader.tags.count("figure") == 10
    assert reader.tags.count("figcaption") == 10
    assert min(len(label) for label in reader.labels) > 40
    assert len(set(reader.labels)) == 10


def test_same_data_same_bytes(report, page):
    assert render_report(report) == page


def test_colours_follow_light_and_dark(page):
    style = page[page.index("<style>") : page.index("</style>")]
    assert "prefers-color-scheme: dark" in style
    used = set(re.findall(r"var\((--c[0-9a-f]{6})\)", page))
    assert used <= set(re.findall(r"(--c[0-9a-f]{6}): #", style))
    figures = "".join(re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL))
    assert "fill: #" not in figures
    assert "stroke: #" not in figures


def test_names_from_users_are_text(report):
    first = replace(report.rounds[0], actor=EVIL, rejected={EVIL: 3}, conservatism=EVIL)
    evil = replace(
        report, campaign=EVIL, assay=EVIL, unit=EVIL, dataset=EVIL, notes=(EVIL,), rounds=(first,), trajectories=(),
        benchmark=replace(report.benchmark, warning=EVIL),
    )  # fmt: skip
    reader = read(render_report(evil))
    assert "script" not in reader.tags
    assert "".join(reader.text).count("alert('x')") >= 10


def test_bare_campaign_leaves_sections_out(report, strip):
    page = render_report(strip(report))
    reader = read(page)
    assert "no measurement has come back yet" in page
    assert "not measured yet" in page
    assert {"summary", "benchmark", "rounds", "sequences", "selection", "notes"} <= set(reader.ids)
    assert "methods" not in reader.ids
    assert "Why candidates were rejected" not in page
    assert "figure-rounds-calibration" not in reader.ids
    assert reader.tags.count("svg") == 5
    assert "nan" not in "".join(reader.text).split()


def test_campaign_without_rounds(report, strip):
    page = render_report(replace(strip(report), rounds=(), logo_offline=(), logo_designs=(), notes=()))
    reader = read(page)
    assert {"rounds", "sequences", "selection", "notes"}.isdisjoint(reader.ids)
    assert "No round has been proposed yet." in page


def test_running_round_without_designs(report):
    running = replace(
        report.rounds[0],
        number=4,
        state="running",
        sequences=(),
        predicted_mean=(),
        predicted_std=(),
        measured=(),
        funnel=(),
    )
    assert "running" in render_report(replace(report, methods=(), trajectories=(), rounds=(*report.rounds, running)))


def test_judge_stands_in_where_there_is_no_truth(report):
    methods = tuple(replace(method, measured=None, top_share=None) for method in report.methods)
    points = tuple(replace(point, measured=None) for point in report.trajectories)
    page = render_report(replace(report, has_truth=False, top_threshold=None, methods=methods, trajectories=points))
    assert "No truth is known here." in page
    assert "judged (no truth known)" in page
    assert "Lines of predicted and judged value" in page


def test_noise_warning_is_shown(report, page):
    assert 'class="warning"' not in page
    noisy = replace(
        report, methods=(), benchmark=replace(report.benchmark, warning="labels are mostly noise: add replicates")
    )
    assert "Labels are mostly noise: add replicates" in render_report(noisy)


def test_minimise_says_lower_is_better(make):
    page = render_report(make(goal="minimize"))
    assert "lower is better" in page
    assert "higher is better" not in page.replace("(nats, higher is more natural)", "")
    assert "go further to the left" in page


@pytest.mark.parametrize(
    ("options", "rows"), [({"template": "N" * 60}, 6), ({"template": "XXMXXKXXXX" * 6, "alphabet": PROTEIN}, 6)]
)
def test_long_sequences_and_proteins_fit(make, options, rows):
    page = render_report(make(**options, rounds=2))
    read(page)
    assert len(page.encode()) < 3_000_000
    logo = page[page.index('id="figure-logos"') :]
    assert logo[: logo.index("</figure>")].count(">bits<") == rows


def test_sequences_without_a_common_letter_have_an_empty_logo(report):
    spread = tuple("".join("ACGT"[(i + p) % 4] for p in range(len(report.template))) for i in range(40))
    assert not information(spread, "ACGT").to_numpy().any()
    page = render_report(replace(report, logo_offline=spread))
    assert 'id="figure-logos"' in page
