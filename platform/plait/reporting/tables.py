"""The report's tables as text, for the page and for the terminal."""

from __future__ import annotations

import numpy as np

from plait.campaign.report_data import FurtherAssay, MethodResult, ReportData, RoundSummary
from plait.reporting.outcomes import (
    best_designs,
    best_of,
    direction,
    finite,
    ordered_methods,
    outcome_word,
    outcomes_of,
    over_promise,
    value_decimals,
)
from plait.reporting.theme import decimals_for, method_name, number, percent

Table = tuple[list[str], list[list[str]]]

COLLAPSED = "COLLAPSED"


def method_table(data: ReportData) -> Table:
    """Headers and one row per method, all as text; outcomes are measured values, or the judge's without a truth.

    The gap is the median over designs of what the proxy promised beyond the outcome (positive: promised too much).
    A collapsed method's unique fraction says so.
    """
    word = outcome_word(data)
    gap = f"proxy - {word}" if data.goal == "maximize" else f"{word} - proxy"
    headers = ["method", word, "10%", "median", "90%", "best", "proxy median", f"gap ({gap})", "ELBO/token"]
    headers += ["3-mer corr.", "diversity", "novelty", "unique", "pass", "top 1%", "seconds"]
    decimals = value_decimals(data)
    return headers, [_method_row(data, method, decimals) for method in ordered_methods(data)]


def _method_row(data: ReportData, method: MethodResult, decimals: int) -> list[str]:
    outcomes = outcomes_of(data, method)
    low, middle, high = np.quantile(outcomes, [0.1, 0.5, 0.9]) if len(outcomes) else (None, None, None)
    proxy = finite(method.proxy)
    unique = percent(method.unique_fraction)
    return [
        method_name(method.method),
        f"{len(outcomes)} of {len(method.sequences)}",
        *(number(value, decimals) for value in (low, middle, high)),
        number(best_of(data, outcomes), decimals),
        number(float(np.median(proxy)) if len(proxy) else None, decimals),
        number(over_promise(data, method), decimals),
        number(method.elbo_per_token, 2),
        number(method.kmer_correlation, 2),
        number(method.diversity, 2),
        number(method.novelty, 1),
        f"{unique} {COLLAPSED}" if method.is_collapsed else unique,
        percent(method.pass_rate),
        percent(method.top_share),
        number(method.seconds, 1),
    ]


def round_table(data: ReportData) -> Table:
    """Headers and one row per round, all as text."""
    own = f" in {data.assay}" if data.aims else ""
    headers = ["round", "state", "measured", f"median{own}", f"best{own}", f"beat offline best{own}"]
    headers += [f"predicted median{own}"]
    headers += ["Spearman held out", "Spearman measured", "in 90% interval", "diversity", "novelty", "path KL (nats)"]
    headers += ["unique samples", "conservatism", "approved by"]
    decimals = value_decimals(data)
    return headers, [_round_row(data, summary, decimals) for summary in data.rounds]


def _round_row(data: ReportData, summary: RoundSummary, decimals: int) -> list[str]:
    measured, predicted = finite(summary.measured), finite(summary.predicted_mean)
    beat = int((direction(data) * (measured - data.offline_best) > 0).sum())
    return [
        str(summary.number),
        summary.state,
        f"{len(measured)} of {len(summary.sequences)}",
        number(float(np.median(measured)) if len(measured) else None, decimals),
        number(best_of(data, measured), decimals),
        str(beat) if len(measured) else "–",
        number(float(np.median(predicted)) if len(predicted) else None, decimals),
        number(summary.held_out_spearman, 2),
        number(summary.measured_spearman, 2),
        percent(summary.coverage_90),
        number(summary.diversity, 2),
        number(summary.novelty, 1),
        number(summary.kl, 2),
        f"{summary.unique_fraction:.0%}{' COLLAPSED' if summary.unique_fraction < 0.5 else ''}",
        summary.conservatism or "–",
        summary.actor or "–",
    ]


def further_table(data: ReportData) -> Table:
    """Headers and one row per round and further assay, all as text; no row where the campaign has one assay."""
    headers = ["round", "assay", "unit", "goal", "measured", "median", "best", "predicted median"]
    headers += ["Spearman measured", "in 90% interval"]
    return headers, [_further_row(summary.number, assay) for summary in data.rounds for assay in summary.further]


def _further_row(round_number: int, assay: FurtherAssay) -> list[str]:
    measured, predicted = finite(assay.measured), finite(assay.predicted_mean)
    everything = np.concatenate([measured, predicted])
    decimals = decimals_for(float(everything.std()) if len(everything) else 0.0)
    best = measured.max(initial=-np.inf) if assay.goal == "maximize" else measured.min(initial=np.inf)
    return [
        str(round_number),
        assay.name,
        assay.unit or "–",
        assay.goal,
        f"{len(measured)} of {len(assay.measured)}",
        number(float(np.median(measured)) if len(measured) else None, decimals),
        number(float(best), decimals),
        number(float(np.median(predicted)) if len(predicted) else None, decimals),
        number(assay.measured_spearman, 2),
        percent(assay.coverage_90),
    ]


def design_table(data: ReportData, count: int = 10) -> Table:
    """Headers and the best measured designs of all rounds (or the first ranks of the last round), all as text."""
    decimals = value_decimals(data)
    rows = [
        [
            str(design.round),
            str(design.rank),
            design.sequence,
            number(design.predicted, decimals),
            number(design.predicted_std, decimals),
            number(design.measured, decimals),
        ]
        for design in best_designs(data, count)
    ]
    return ["round", "rank", "sequence", "predicted", "predicted std", "measured"], rows


def rejected_table(data: ReportData) -> Table:
    """Headers and one row per reason: how many candidates the filters rejected in each round, most frequent first."""
    totals: dict[str, int] = {}
    for summary in data.rounds:
        for reason, count in summary.rejected.items():
            totals[reason] = totals.get(reason, 0) + count
    headers = ["reason", *(f"round {summary.number}" for summary in data.rounds)]
    reasons = sorted(totals, key=lambda reason: (-totals[reason], reason))
    return headers, [[r, *(f"{s.rejected.get(r, 0):,}" for s in data.rounds)] for r in reasons]
