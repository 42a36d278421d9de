from datetime import UTC, datetime

from plait.campaign.exposition import exposition
from plait.campaign.records import RoundState
from plait.campaign.schedules import Holding, Schedule, Standing
from plait.campaign.scheduling import Outlook
from prometheus_client.parser import text_string_to_metric_families

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def outlook(name, state="new", action="propose", why_not="", **schedule):
    return Outlook(name, None, state, Schedule(name, **schedule), action, None, why_not)


def holding(name, is_living=True):
    return Holding(name, "host", 1, NOW, NOW, is_living)


def figures(*arguments):
    """Every sample by name and labels, as Prometheus's own reader sees them."""
    families = text_string_to_metric_families(exposition(*arguments))
    return {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}


def test_an_empty_registry_has_all_states_at_zero():
    found = figures([], [], {})
    assert {name[1] for name in found if name[0] == "plait_campaigns"} == {str(s) for s in Standing}
    assert {name[1] for name in found if name[0] == "plait_campaign_rounds"} == {"new", *map(str, RoundState)}
    assert set(found.values()) == {0.0}


def test_campaigns_are_counted_and_what_runs_does_not_queue():
    outlooks = [
        outlook("runs"),
        outlook("claimed"),
        outlook("waits", num_failures=2),
        outlook("later", why_not="due at 2027-01-01 00:00 UTC"),
        outlook("gate", "proposed", None, "waits for you"),
        outlook("broken", "running", None, standing=Standing.FAILED, num_failures=3),
    ]
    leases = [holding("campaign/runs"), holding("claim/claimed"), holding("scheduler/1")]
    found = figures(outlooks, [*leases, holding("scheduler/2", is_living=False), holding("campaign/waits", False)], {})
    assert found["plait_queue_length",] == 1
    assert found["plait_rounds_running",] == 1
    assert found["plait_schedulers",] == 1
    assert (found["plait_campaigns", "active"], found["plait_campaigns", "failed"]) == (5, 1)
    assert (found["plait_campaign_rounds", "new"], found["plait_campaign_rounds", "proposed"]) == (4, 1)
    assert (found["plait_campaign_failures", "waits"], found["plait_campaign_failures", "broken"]) == (2, 3)


def test_stages_are_a_count_and_a_sum():
    found = figures([], [], {"fit_reward": (3, 12.25), "sample": (1, 1e-3)})
    assert (found["plait_stage_seconds_count", "fit_reward"], found["plait_stage_seconds_sum", "fit_reward"]) == (
        3,
        12.25,
    )
    assert found["plait_stage_seconds_sum", "sample"] == 1e-3


def test_names_cannot_break_the_format():
    name = 'a"b\\c\nd'
    assert figures([outlook(name, num_failures=1)], [], {})["plait_campaign_failures", name] == 1
