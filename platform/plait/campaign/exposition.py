"""How campaigns stand, as figures in the text format that Prometheus reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from plait.campaign.records import RoundState
from plait.campaign.schedules import Holding, Standing
from plait.campaign.scheduling import Outlook

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NEW = "new"
"""Stands for the state of a campaign's newest round before there is one."""

Sample = tuple[str, Mapping[str, str], float]


def exposition(
    outlooks: Iterable[Outlook], holdings: Iterable[Holding], stage_seconds: Mapping[str, tuple[int, float]]
) -> str:
    """The figures of one registry.

    Args:
        outlooks: Every campaign's.
        holdings: Every lease that is held.
        stage_seconds: How many stages of each name were finished, and the seconds they took together.
    """
    outlooks, living = list(outlooks), [h.name for h in holdings if h.is_living]
    standings, states = Counter(o.schedule.standing for o in outlooks), Counter(o.state for o in outlooks)
    families = [
        _family(
            "plait_campaigns",
            "gauge",
            "Campaigns by how they stand.",
            [("", {"standing": s}, standings[s]) for s in Standing],
        ),
        _family(
            "plait_campaign_rounds",
            "gauge",
            "Campaigns by the state of their newest round.",
            [("", {"state": s}, states[s]) for s in (NEW, *RoundState)],
        ),
        _family(
            "plait_queue_length", "gauge", "Rounds that are due and not running.", [("", {}, _queue(outlooks, living))]
        ),
        _family("plait_rounds_running", "gauge", "Rounds that run.", [("", {}, _count(living, "campaign/"))]),
        _family("plait_schedulers", "gauge", "Schedulers that live.", [("", {}, _count(living, "scheduler/"))]),
        _family(
            "plait_campaign_failures",
            "gauge",
            "Failures in a row of a campaign's round.",
            [("", {"campaign": o.campaign}, o.schedule.num_failures) for o in outlooks],
        ),
        _family(
            "plait_stage_seconds",
            "summary",
            "Seconds of finished stages.",
            [
                sample
                for stage, (count, seconds) in sorted(stage_seconds.items())
                for sample in (("_count", {"stage": stage}, count), ("_sum", {"stage": stage}, seconds))
            ],
        ),
    ]
    return "".join(families)


def _queue(outlooks: list[Outlook], living: list[str]) -> int:
    running = {name.partition("/")[2] for name in living if name.startswith(("campaign/", "claim/"))}
    return sum(o.is_due and o.campaign not in running for o in outlooks)


def _count(names: list[str], prefix: str) -> int:
    return sum(name.startswith(prefix) for name in names)


def _family(name: str, kind: str, about: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{suffix}{_labels(labels)} {value:.12g}" for suffix, labels, value in samples]
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: Mapping[str, str]) -> str:
    pairs = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
