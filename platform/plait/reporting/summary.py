"""The report's opening: what was asked and what came out, in sentences that follow from the numbers alone."""

from __future__ import annotations

import numpy as np

from plait.campaign.report_data import MethodResult, ReportData
from plait.reporting.assay_summary import assay_rounds, learnt_from, wanted
from plait.reporting.outcomes import (
    CONSERVATIVE,
    best_designs,
    compare,
    direction,
    finite,
    is_clearly_apart,
    outcome_word,
    outcomes_of,
    over_optimised,
    value_decimals,
)
from plait.reporting.theme import method_name, number, percent


def with_unit(data: ReportData, value: float) -> str:
    """A value as text with the assay's unit."""
    return f"{number(value, value_decimals(data))} {data.unit}".rstrip()


def summary_sentences(data: ReportData) -> list[str]:
    """The summary, one paragraph per entry."""
    rounds = assay_rounds(data) if data.aims and data.rounds else [_rounds(data)]
    contest = [_of_own(data, part) for part in (_contest(data), _braid(data))]
    parts = [_asked(data), *rounds, *contest, _collapse(data), _of_own(data, _over_optimisation(data))]
    return [part for part in parts if part]


def _of_own(data: ReportData, text: str) -> str:
    """A sentence that knows only the campaign's own assay, which says so where there are others."""
    return f"By {data.assay} alone: {text}" if data.aims and text else text


def _asked(data: ReportData) -> str:
    size = f"{data.space_size:,}" if data.space_size < 10**9 else f"about 10^{len(str(data.space_size)) - 1}"
    if data.aims:
        return (
            f"The campaign looks for sequences{_form(data)} with {wanted(data)}. It learnt from measured sequences, "
            f"{learnt_from(data)}; the design space holds {size} sequences."
        )
    high = "high" if data.goal == "maximize" else "low"
    return (
        f"The campaign looks for sequences{_form(data)} with a {high} {data.assay}. It learnt from "
        f"{data.benchmark.num_items:,} measured sequences, whose best reads {with_unit(data, data.offline_best)} and "
        f"whose median is {with_unit(data, data.offline_median)}; the design space holds {size} sequences."
    )


def _form(data: ReportData) -> str:
    if not data.template:
        return ""
    is_free = len(set(data.template)) == 1 and data.template[0] not in data.alphabet_letters
    return f" of {len(data.template)} letters" + ("" if is_free else f" of the form {data.template}")


def _rounds(data: ReportData) -> str:
    if not data.rounds:
        return "No round has been proposed yet."
    proposed = sum(len(summary.sequences) for summary in data.rounds)
    measured = np.concatenate([finite(summary.measured) for summary in data.rounds])
    rounds = f"{len(data.rounds)} round{'s' if len(data.rounds) > 1 else ''}"
    if len(measured) == 0:
        return f"In {rounds}, {proposed:,} designs were proposed; no measurement has come back yet."
    sign = direction(data)
    beat = int((sign * (measured - data.offline_best) > 0).sum())
    best = best_designs(data, 1)[0]
    text = f"In {rounds}, {proposed:,} designs were proposed and {len(measured):,} of them measured. "
    text += f"The best design reads {with_unit(data, best.measured)} ({best.sequence}, round {best.round})"
    if beat == 0:
        return f"{text}: no design beat the best offline sequence ({with_unit(data, data.offline_best)})."
    share = percent(beat / len(measured))
    noun = "design beats" if beat == 1 else "designs beat"
    text += f"; {beat:,} {noun} the best offline sequence ({with_unit(data, data.offline_best)})"
    return f"{text}, {share} of those measured."


def _median(data: ReportData, method: MethodResult) -> str:
    return with_unit(data, float(np.median(outcomes_of(data, method))))


def _contest(data: ReportData) -> str:
    if not data.methods:
        return ""
    contest, word = compare(data), outcome_word(data)
    if contest.winner is None:
        return "The methods cannot be compared: no method that did not collapse has a measured design."
    text = (
        f"Of the methods compared on round 1's data, {method_name(contest.winner.method)} has the best {word} median, "
    )
    text += _median(data, contest.winner)
    if contest.rival is not None and contest.is_clear:
        text += f", clearly ahead of {method_name(contest.rival.method)} ({_median(data, contest.rival)})"
    elif contest.rival is not None:
        text += f", too close to {method_name(contest.rival.method)} ({_median(data, contest.rival)}) to call"
    offline = next((m for m in data.methods if m.method == "offline" and len(outcomes_of(data, m))), None)
    if offline is not None:
        lead = direction(data) * (
            float(np.median(outcomes_of(data, contest.winner))) - float(np.median(outcomes_of(data, offline)))
        )
        verb = "have" if lead > 0 else "are not beaten: they have"
        text += f"; the best offline sequences {verb} {_median(data, offline)}"
    if not data.has_truth:
        text += ". The true values are unknown here, so a judge model that the optimiser never saw stands in for them"
    return text + ". This is one run; another seed may order close methods differently."


def _braid(data: ReportData) -> str:
    contest = compare(data)
    if contest.winner is None:
        return ""
    text = ""
    if contest.winner.method == "exhaustive":
        verb = "wins" if contest.is_clear else "is at least as good as the rest"
        text = (
            f"Scoring every sequence of the space (exhaustive) {verb}: where a space is small enough for that, it is "
            "the honest baseline, and fine-tuning a generative model is not needed."
        )
    tried = [m for m in data.methods if m.method in CONSERVATIVE]
    if contest.braid is None or contest.winner.method in CONSERVATIVE:
        return (
            text if contest.braid is not None or not tried else f"{text} BRAID has no result that counts here.".strip()
        )
    verdict = "does not win" if is_clearly_apart(data, contest.winner, contest.braid) else "does not clearly win"
    text += f" BRAID {verdict} here: its better variant, {method_name(contest.braid.method)}, has a "
    return f"{text}{outcome_word(data)} median of {_median(data, contest.braid)}.".strip()


def _collapse(data: ReportData) -> str:
    if not data.methods:
        return ""
    collapsed = [m for m in data.methods if m.is_collapsed]
    if not collapsed:
        return "No method collapsed: in each, at least half of the samples drawn were different sequences."
    names = ", ".join(
        f"{method_name(m.method)} ({percent(m.unique_fraction)} of its samples were different)" for m in collapsed
    )
    return f"Collapsed: {names}. A collapsed method repeats a few sequences and counts as failed, whatever its score."


def _over_optimisation(data: ReportData) -> str:
    if not data.trajectories:
        return ""
    found, word = over_optimised(data), outcome_word(data)
    if not found:
        return f"Over-optimisation was not seen: in no fine-tuning did the {word} value fall while the prediction held."
    cases = "; ".join(
        f"in {method_name(case.method)} the prediction went from {number(case.proxy_at_peak, value_decimals(data))} to "
        f"{number(case.proxy_at_end, value_decimals(data))} while the {word} value went from "
        f"{number(case.outcome_at_peak, value_decimals(data))} to {with_unit(data, case.outcome_at_end)}"
        for case in found
    )
    return f"Over-optimisation was seen: {cases}. The model promised more while the designs got worse."
