"""One self-contained page per campaign: no network, no script, readable on paper and in the dark."""

from __future__ import annotations

from dataclasses import replace

from jinja2 import Environment, PackageLoader, StrictUndefined

from plait.campaign.report_data import ReportData
from plait.reporting._boxes import value_label
from plait.reporting.assay_plots import assay_pairs
from plait.reporting.assay_tables import (
    assay_design_caption,
    assay_design_table,
    assay_facts,
    progress_note,
    progress_table,
)
from plait.reporting.benchmark_plots import held_out_scatter, value_histogram
from plait.reporting.logos import logos
from plait.reporting.method_plots import method_variety, over_optimisation, rewards_by_method
from plait.reporting.outcomes import best_designs, better_word, finite, outcome_word, value_decimals
from plait.reporting.round_plots import funnel, measured_rounds, proxy_against_measured, round_over_round, round_variety
from plait.reporting.summary import summary_sentences, with_unit
from plait.reporting.sweep_plots import sweep_picture, sweep_table
from plait.reporting.tables import COLLAPSED, design_table, further_table, method_table, rejected_table, round_table
from plait.reporting.theme import Picture, css_palette, drawing_style, number, percent

_OF_OWN = ("values", "held-out", "methods-rewards", "over-optimisation", "rounds-values", "rounds-calibration")


def render_report(data: ReportData) -> str:
    """The report as one HTML document; the same data gives the same bytes.

    Names and sequences are escaped. Sections without content (a campaign without a comparison of methods, a round
    without readings) are left out.
    """
    environment = Environment(
        loader=PackageLoader("plait.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        data=data,
        summary=summary_sentences(data),
        facts=_facts(data),
        benchmark=_benchmark_facts(data),
        better=better_word(data),
        outcome=outcome_word(data),
        palette=css_palette(),
        collapsed=COLLAPSED,
        method_table=method_table(data),
        round_table=round_table(data),
        further_table=further_table(data),
        design_table=assay_design_table(data) if data.aims else design_table(data),
        design_caption=_design_caption(data),
        progress_table=progress_table(data) if data.aims else None,
        progress_note=progress_note(data) if data.aims else "",
        has_designs=bool(best_designs(data, 1)),
        rejected_table=rejected_table(data),
        sweeps=[(sweep, sweep_table(sweep)) for sweep in data.sweeps],
        pictures={picture.key: picture for picture in _pictures(data)},
    )


def _pictures(data: ReportData) -> list[Picture]:
    with drawing_style():
        pictures = []
        if len(finite(data.benchmark.values)):
            pictures.append(value_histogram(data))
        if data.benchmark.predicted:
            pictures.append(held_out_scatter(data))
        if data.methods:
            pictures += [rewards_by_method(data), method_variety(data)]
        if data.trajectories:
            pictures.append(over_optimisation(data))
        pictures += [sweep_picture(sweep) for sweep in data.sweeps]
        if data.aims:
            pictures.append(assay_pairs(data))
        if any(summary.sequences for summary in data.rounds):
            pictures += [round_over_round(data), round_variety(data)]
        if measured_rounds(data):
            pictures.append(proxy_against_measured(data))
        if data.logo_offline or data.logo_prior or data.logo_designs:
            pictures.append(logos(data))
        if any(summary.funnel for summary in data.rounds):
            pictures.append(funnel(data))
        return [_named(data, picture) for picture in pictures] if data.aims else pictures


def _named(data: ReportData, picture: Picture) -> Picture:
    """A picture of the campaign's own assay, which says so where there are others."""
    return replace(picture, title=f"{data.assay} alone: {picture.title}") if picture.key in _OF_OWN else picture


def _design_caption(data: ReportData) -> str:
    if data.aims:
        return assay_design_caption(data)
    return "The best measured designs" if measured_rounds(data) else "First designs of the last round, not measured yet"


def _facts(data: ReportData) -> list[tuple[str, str]]:
    own = [
        ("Assay", value_label(data)),
        ("Goal", better_word(data)),
        ("Data", f"{data.dataset}, version {data.dataset_version}"),
    ]
    return [
        *(assay_facts(data) if data.aims else own),
        ("Design space", f"{data.template or '–'} over {data.alphabet_letters}"),
        ("Made", f"{data.created_at}, Plait {data.plait_version}"),
    ]


def _benchmark_facts(data: ReportData) -> list[tuple[str, str, str]]:
    """Name, value and meaning of each figure of the data benchmark."""
    benchmark = data.benchmark
    noise = "unknown" if benchmark.noise_std is None else f"±{with_unit(data, benchmark.noise_std)}"
    source = (
        f"from the {benchmark.noise_source}"
        if benchmark.noise_source
        else "no replicates and no column of standard deviations tell it"
    )
    ceiling = "unknown" if benchmark.ceiling is None else number(benchmark.ceiling, 2)
    return [
        ("Sequences", f"{benchmark.num_items:,}", f"in {benchmark.num_readings:,} readings"),
        ("Noise of one reading", noise, f"standard deviation, {source}"),
        (
            "Noise ceiling",
            ceiling,
            "the best rank correlation (Spearman) that even a perfect model could reach on these readings",
        ),
        (
            "Held-out Spearman",
            number(benchmark.held_out_spearman, 2),
            "rank correlation on sequences hidden from the model: 1 perfect, 0 guessing",
        ),
        (
            "Calibration",
            percent(benchmark.coverage_90),
            "of hidden readings fall inside the model's 90% interval; 90% would be exact",
        ),
        (
            "Median and best",
            f"{number(data.offline_median, value_decimals(data))} and {with_unit(data, data.offline_best)}",
            "of the offline readings",
        ),
    ]
