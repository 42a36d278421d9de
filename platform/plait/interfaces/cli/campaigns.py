"""plait campaign, plait round, plait results, plait report: the loop."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.interfaces.cli import scheduling
from plait.interfaces.cli.homes import outcome_document, outcome_tables
from plait.interfaces.cli.output import Block, Table, facts, notes, number, plural, when
from plait.interfaces.cli.session import Session, command, make_group

if TYPE_CHECKING:
    from plait.bootstrap.home import Home
    from plait.campaign.records import Design, Result, Round

NUM_DESIGNS_SHOWN = 10

Name = Annotated[str, typer.Argument(metavar="NAME", help="A campaign.")]
CampaignName = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="A campaign.")]
RoundNumber = Annotated[int | None, typer.Option("--round", metavar="N", min=1, help="Round [the latest].")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept with the decision.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = make_group("campaign", "Campaigns: rounds of design on a dataset.")
    command(group, "create", example="plait campaign create campaign.yaml")(create)
    command(group, "list", example="plait campaign list")(list_)
    command(group, "show", example="plait campaign show sites-1")(show)
    command(group, "run", example="plait campaign run sites-1 --rounds 2 --lab splice")(run)
    scheduling.register_with(group)
    app.add_typer(group)
    group = make_group("round", "Rounds: propose, decide, order, close.")
    command(group, "propose", example="plait round propose sites-1")(propose)
    command(group, "show", example="plait round show sites-1 --round 1")(show_round)
    command(group, "approve", example="plait round approve sites-1 --reason 'looks sound'")(approve)
    command(group, "reject", example="plait round reject sites-1 --reason 'too alike'")(reject)
    command(group, "export", example="plait round export sites-1 --output order.csv")(export)
    command(group, "close", example="plait round close sites-1")(close)
    app.add_typer(group)
    group = make_group("results", "Results: readings that come back from the lab.")
    command(group, "import", example="plait results import sites-1 plate.csv")(import_results)
    app.add_typer(group)
    command(app, "report", example="plait report sites-1 --output report.html")(report)


def create(
    session: Session,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Needs at least name and dataset.")],
) -> None:
    """Register a campaign; what was decided for you is said aloud."""
    with session.open() as home:
        made = home.campaign.create(config)
        step = _next(home, made.name)
    session.show(
        {**asdict(made), "next": step},
        f"campaign {made.name} on dataset {made.dataset}",
        *notes(made.notes),
        f"next: {step}",
    )


def list_(session: Session) -> None:
    """All campaigns."""
    with session.open() as home:
        found = home.campaign.list()
    rows = [[c.name, c.dataset, c.state, when(c.created_at), c.created_by] for c in found]
    table: Block = (["campaign", "dataset", "state", "created", "by"], rows)
    session.show(found, table if found else "no campaign yet; see: plait campaign create --help")


def show(session: Session, name: Name) -> None:
    """A campaign, its rounds and the next step."""
    with session.open() as home:
        found = home.campaign.show(name)
    rounds = found["rounds"]
    rows = [[str(r["number"]), str(r["state"]), when(r["created_at"])] for r in rounds]
    table: Block = (["round", "state", "created"], rows)
    session.show(
        found,
        facts(
            campaign=name,
            dataset=found["dataset"],
            created=when(found["created_at"]),
            by=found["created_by"],
            **scheduling.special(found["schedule"]),
        ),
        *notes(found["notes"]),
        *([table] if rounds else ["no round yet"]),
        f"next: {found['next']}",
    )


def run(
    session: Session,
    name: Name,
    rounds: Annotated[int | None, typer.Option(metavar="N", help="Whole rounds, with --lab [all left].")] = None,
    lab: Annotated[
        str | None, typer.Option(metavar="SCENARIO", help="A simulated lab: it approves by itself, on record.")
    ] = None,
) -> None:
    """Go on up to your decision, or, with a simulated lab, to the end."""
    with session.open() as home:
        done = home.campaign.run(name, rounds=rounds, lab=lab)
        step = _next(home, name)
    lines = [f"round {r.number} of {name} is {r.state}" for r in done] or [f"no round of {name} is left"]
    session.show({"campaign": name, "rounds": done, "next": step}, *lines, f"next: {step}")


def propose(session: Session, campaign: CampaignName) -> None:
    """Run the next round up to a proposed batch; safe to repeat."""
    with session.open() as home:
        proposed = home.round.propose(campaign)
        designs = home.round.designs(campaign, round=proposed.number)
        results = home.results.list(campaign, round=proposed.number)
        found = home.campaign.show(campaign)
    _show_round(session, found, asdict(proposed), designs, results, NUM_DESIGNS_SHOWN)


def show_round(session: Session, campaign: CampaignName, number: RoundNumber = None) -> None:
    """The designs of a round, and what was measured of them."""
    with session.open() as home:
        designs = home.round.designs(campaign, round=number)
        found = home.campaign.show(campaign)
        numbered = {r["number"]: r for r in found["rounds"]}
        shown = numbered[number if number is not None else max(numbered)]
        results = home.results.list(campaign, round=shown["number"])
    _show_round(session, found, shown, designs, results, len(designs))


def _show_round(
    session: Session,
    campaign: dict[str, Any],
    of: dict[str, Any],
    designs: list[Design],
    results: list[Result],
    num_shown: int,
) -> None:
    assays = [campaign["dataset"], *(assay["dataset"] for assay in campaign["further"])]
    more = len(designs) - num_shown
    session.show(
        {"round": of, "designs": designs, "results": results, "next": campaign["next"]},
        f"round {of['number']} of {of['campaign']} is {of['state']}: {plural(len(designs), 'design')}",
        *([_design_table(designs[:num_shown], results, assays)] if designs else []),
        *([f"and {more:,} more; see: plait round show {of['campaign']}"] if more > 0 else []),
        f"next: {campaign['next']}",
    )


def _design_table(designs: list[Design], results: list[Result], assays: list[str]) -> Table:
    """What is predicted of designs, and once results came in, what was measured; with several assays, of each."""
    columns: dict[str, list[str]] = {
        "rank": [str(d.rank) for d in designs],
        "design": [d.design_id for d in designs],
        "sequence": [d.sequence for d in designs],
    }
    if len(assays) == 1:
        columns["predicted"] = [number(d.predicted_mean) for d in designs]
        columns["std"] = [number(d.predicted_std) for d in designs]
        columns["conservative"] = [number(d.conservative) for d in designs]
    else:
        for assay in assays:
            columns[f"{assay} predicted"] = [number(_predicted(d, assay)) for d in designs]
        for key in ("objective", "feasibility"):
            if any(key in d.details for d in designs):
                columns[key] = [number(d.details.get(key)) for d in designs]
    readings: dict[tuple[str, str], list[float | None]] = {}
    for r in results:
        readings.setdefault((r.design_id, r.assay), []).append(r.value)
    for assay in assays if results else ():
        name = "measured" if len(assays) == 1 else f"{assay} measured"
        columns[name] = [_measured(readings.get((d.design_id, assay), [])) for d in designs]
    columns["source"] = [d.source for d in designs]
    return list(columns), list(zip(*columns.values(), strict=True))


def _predicted(design: Design, assay: str) -> float:
    """The predicted mean in one of several assays; those beside the campaign's own are in the details."""
    further = design.details.get("assays", {})
    return float(further[assay]["predicted_mean"] if assay in further else design.predicted_mean)


def _measured(readings: list[float | None]) -> str:
    """The mean of a design's readings, "failed" where no well gave one, a dash where none came in."""
    values = [value for value in readings if value is not None]
    if readings and not values:
        return "failed"
    return number(sum(values) / len(values) if values else None)


def approve(session: Session, campaign: CampaignName, number: RoundNumber = None, reason: Reason = "") -> None:
    """Let a proposed round go to the lab; who does it is recorded."""
    with session.open() as home:
        _show_state(session, home, home.round.approve(campaign, round=number, reason=reason))


def reject(session: Session, campaign: CampaignName, number: RoundNumber = None, reason: Reason = "") -> None:
    """Stop a proposed round; who does it is recorded."""
    with session.open() as home:
        _show_state(session, home, home.round.reject(campaign, round=number, reason=reason))


def export(
    session: Session,
    campaign: CampaignName,
    output: Annotated[Path, typer.Option(metavar="FILE", help="CSV file for the lab.")],
) -> None:
    """Write the order of an approved round as CSV."""
    with session.open() as home:
        ordered, num_designs = home.round.export(campaign, output)
        said = f"{plural(num_designs, 'design')} written to {output}"
        _show_state(session, home, ordered, said, output=output, num_designs=num_designs)


def import_results(
    session: Session,
    campaign: CampaignName,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV: design_id,value[,assay][,replicate][,status ok|failed].")
    ],
) -> None:
    """Register readings of the ordered round; they may come in parts.

    With several assays, the column assay names the dataset that each reading belongs to.
    """
    with session.open() as home:
        of, num_new, said = home.results.import_(campaign, file)
        _show_state(session, home, of, plural(num_new, "new reading"), *notes(said), num_new=num_new, notes=said)


def close(session: Session, campaign: CampaignName) -> None:
    """Close a round whose results came in; open wells become failed.

    The readings join the dataset of their assay.
    """
    with session.open() as home:
        closed, own, num_open = home.round.close(campaign)
        versions = [own]
        for assay in closed.further:
            versions += [v for v in home.data.show(assay.dataset) if v.id == assay.next_version_id]
        lines = []
        for version in versions:
            where = f" in {version.dataset}" if closed.further else ""
            if num := num_open[version.dataset]:
                lines.append(f"{plural(num, 'well')} without a reading{where} became failed")
            lines.append(f"{version.dataset} version {version.number}: {plural(version.num_measurements, 'reading')}")
        facts_: dict[str, Any] = {"num_failed_open_wells": sum(num_open.values()), "dataset_version": own}
        if closed.further:
            facts_ |= {"num_failed_open_wells_by_assay": num_open, "further_versions": versions[1:]}
        _show_state(session, home, closed, *lines, **facts_)


def report(
    session: Session,
    campaign: CampaignName,
    output: Annotated[Path, typer.Option(metavar="FILE", help="HTML file.")],
) -> None:
    """Write a campaign's report as one self-contained HTML file."""
    with session.open() as home:
        data = home.report(campaign, output)
    session.show(
        {"campaign": campaign, "report": output.absolute(), **outcome_document(data)},
        *outcome_tables(data),
        f"report: {output.absolute()}",
    )


def _next(home: Home, campaign: str) -> str:
    return str(home.campaign.show(campaign)["next"])


def _show_state(session: Session, home: Home, of: Round, *lines: str, **facts_: Any) -> None:
    step = _next(home, of.campaign)
    session.show(
        {"round": of, **facts_, "next": step},
        f"round {of.number} of {of.campaign} is {of.state}",
        *lines,
        f"next: {step}",
    )
