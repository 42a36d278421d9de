"""plait scheduler, plait status, plait campaign pause|resume|cancel|queue: when campaigns run, and whether."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.interfaces.cli.output import Block, when
from plait.interfaces.cli.session import Session, command, make_group

if TYPE_CHECKING:
    from plait.campaign.schedules import Holding, Schedule

Name = Annotated[str, typer.Argument(metavar="NAME", help="A campaign.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept with the change.")]
NONE = "none"
FAILED = 5
MOST_AT_A_TIME = 1024


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = make_group("scheduler", "Schedulers: they run due campaigns up to your decision.")
    command(group, "run", example="plait scheduler run --once")(run)
    command(group, "limit", example="plait scheduler limit 2")(limit)
    app.add_typer(group)
    command(app, "status", example="plait status")(status)


def register_with(campaign: typer.Typer) -> None:
    """Add what belongs to the group `plait campaign`."""
    command(campaign, "pause", example="plait campaign pause sites-1 --reason 'freezer down'")(pause)
    command(campaign, "resume", example="plait campaign resume sites-1")(resume)
    command(campaign, "cancel", example="plait campaign cancel sites-1 --reason 'target dropped'")(cancel)
    command(campaign, "queue", example="plait campaign queue sites-1 --every 'monday 09:00' --when results-complete")(
        queue
    )


def run(
    session: Session,
    once: Annotated[bool, typer.Option("--once", help="End when nothing more is due now.")] = False,
    max_campaigns: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=MOST_AT_A_TIME, help="Rounds at a time [setting max_campaigns]."),
    ] = None,
    max_failures: Annotated[
        int, typer.Option(metavar="N", min=1, max=100, help="In a row, until a campaign is given up.")
    ] = 3,
    backoff: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, max=3600, help="Before the second try; doubled after each failure."),
    ] = 30.0,
) -> None:
    """Run due campaigns, each round in a process of its own, up to your decision; several schedulers may run."""
    with session.open() as home:
        done = home.scheduling.run(
            once=once,
            max_campaigns=max_campaigns,
            max_failures=max_failures,
            backoff=backoff,
            options=session.options,
        )
    rows = [[s.campaign, "-" if s.round is None else str(s.round), s.outcome, s.reason] for s in done]
    table: Block = (["campaign", "round", "outcome", "reason"], rows)
    session.show([asdict(step) for step in done], table if done else "nothing is due; see: plait status")
    if any(step.outcome == "failed" for step in done):
        raise typer.Exit(FAILED)


def limit(
    session: Session,
    number: Annotated[str, typer.Argument(metavar="N", help="Rounds at a time over all schedulers, or none.")],
) -> None:
    """Limit how many rounds all schedulers of this home run at a time."""
    most = _parsed(number, _limit, "N", f"a whole number from 1 to {MOST_AT_A_TIME}, or none")
    with session.open() as home:
        home.scheduling.limit(most)
    session.show({"max_running": most}, f"rounds at a time: {'no limit' if most is None else most}")


def status(session: Session) -> None:
    """Campaigns, what is next, schedulers and what they run, as the registry knows them."""
    with session.open() as home:
        found = home.scheduling.status()
    blocks: list[Block] = [_campaign_table(found["campaigns"]) if found["campaigns"] else "no campaign yet"]
    if found["queue"]:
        rows = [[q["campaign"], q["action"], q["why_not"] or "due now"] for q in found["queue"]]
        blocks += ["", "Queue", (["campaign", "next", "when"], rows)]
    holders = [h for h in found["leases"] if not h["name"].startswith("claim/")]
    if holders:
        blocks += ["", "At work", (["lease", "process", "host", "since", "heard of"], [_holder(h) for h in holders])]
    if not any(scheduler["is_living"] for scheduler in found["schedulers"]):
        blocks += ["", "no scheduler runs; start one: plait scheduler run"]
    if found["max_running"] is not None:
        blocks += ["", f"at most {found['max_running']} at a time over all schedulers"]
    session.show(found, *blocks)


def special(schedule: dict[str, Any]) -> dict[str, object]:
    """What is not as with any other campaign, for `facts`."""
    said: dict[str, object] = {name: schedule[name] for name in ("every", "when", "not_before")}
    said |= {"priority": schedule["priority"] or None, "reason": schedule["reason"] or schedule["failure"]}
    if schedule["standing"] == "active":
        return said
    return {"standing": f"{schedule['standing']} by {schedule['by']} at {when(schedule['since'])}", **said}


def _campaign_table(campaigns: list[dict[str, Any]]) -> Block:
    rows = []
    for c in campaigns:
        said = c["reason"] or c["failure"]
        if c["stage"]:
            said = f"{c['stage']} since {when(c['stage_since'])}, process {c['pid']} on {c['host']}"
        number = "-" if c["round"] is None else str(c["round"])
        rows.append([c["campaign"], c["standing"], number, c["state"], said or c["why_not"]])
    return ["campaign", "standing", "round", "state", "what"], rows


def _holder(holding: dict[str, Any]) -> list[str]:
    heard = when(holding["heard_at"]) if holding["heard_at"] else "-"
    state = heard if holding["is_living"] else f"{heard}, gone"
    return [holding["name"], str(holding["pid"]), holding["host"], when(holding["since"]), state]


def pause(session: Session, name: Name, reason: Reason = "") -> None:
    """Stop a campaign within seconds, wherever it runs; it goes on from its checkpoints after resume."""
    with session.open() as home:
        changed, holder = home.scheduling.pause(name, reason=reason)
    _show_stopped(session, changed, holder, f"next: plait campaign resume {name}")


def resume(session: Session, name: Name) -> None:
    """Let a campaign go on that was paused, or that schedulers gave up."""
    with session.open() as home:
        changed = home.scheduling.resume(name)
        step = home.campaign.show(name)["next"]
    session.show({**asdict(changed), "next": step}, f"{name} is {changed.standing}", f"next: {step}")


def cancel(session: Session, name: Name, reason: Reason = "") -> None:
    """End a campaign for ever: no new designs; results of an ordered round may still come in."""
    with session.open() as home:
        changed, holder = home.scheduling.cancel(name, reason=reason)
        step = home.campaign.show(name)["next"]
    _show_stopped(session, changed, holder, f"next: {step}")


def _show_stopped(session: Session, changed: Schedule, holder: Holding | None, *lines: str) -> None:
    from plait.bootstrap.scheduling import as_document

    still = [] if holder is None else [f"process {holder.pid} on {holder.host} has not stopped yet; see: plait status"]
    session.show(as_document(changed, holder), f"{changed.campaign} is {changed.standing}", *still, *lines)


def queue(
    session: Session,
    name: Name,
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="TIME", help="Rounds begin then (UTC): monday 09:00, day, 12 hours; none."),
    ] = None,
    event: Annotated[
        str | None,
        typer.Option("--when", metavar="EVENT", help="results-complete: schedulers close a measured round; none."),
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="No round begins earlier: 2026-12-01T09:00 (UTC); none.")
    ] = None,
    priority: Annotated[int | None, typer.Option(metavar="N", min=-1000, max=1000, help="Higher goes first.")] = None,
) -> None:
    """Say when schedulers begin a campaign's rounds; what is not given stays as it is."""
    changes: dict[str, Any] = {}
    if every is not None:
        changes["every"] = None if every.lower() == NONE else every
    if event is not None:
        changes["when"] = _parsed(event, _event, "--when", "results-complete or none")
    if at is not None:
        changes["not_before"] = _parsed(at, _moment, "--at", "a time such as 2026-12-01T09:00 (UTC), or none")
    if priority is not None:
        changes["priority"] = priority
    with session.open() as home:
        changed = home.scheduling.queue(name, **changes)
        told = next(c for c in home.scheduling.status()["campaigns"] if c["campaign"] == name)
    session.show(asdict(changed), f"{name}: {told['why_not'] or 'due now'}")


def _limit(text: str) -> int:
    if not 1 <= (number := int(text)) <= MOST_AT_A_TIME:
        raise ValueError
    return number


def _event(text: str) -> str:
    from plait.campaign.schedules import RESULTS_COMPLETE

    if text != RESULTS_COMPLETE:
        raise ValueError
    return text


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _parsed(text: str, parse: Any, option: str, wanted: str) -> Any:
    """A value, None for the word none.

    Raises:
        UsageError: It cannot be read.
    """
    from plait.design.errors import UsageError

    try:
        return None if text.lower() == NONE else parse(text)
    except ValueError as error:
        raise UsageError(f"{option} '{text}' must be {wanted}") from error
