"""plait sweep: what the trials of a round's sweep found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plait.interfaces.cli.session import Session, command, make_group


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = make_group("sweep", "Sweeps: the numbers of a fine-tuning that the judge chose.")
    command(group, "show", example="plait sweep show sites-1 --figure sweep.png")(show)
    app.add_typer(group)


def show(
    session: Session,
    campaign: Annotated[str, typer.Argument(metavar="CAMPAIGN", help="A campaign.")],
    number: Annotated[
        int | None, typer.Option("--round", metavar="N", min=1, help="Round [the latest that swept].")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", metavar="FILE", help="Picture: .png, .svg or .pdf.")
    ] = None,
) -> None:
    """The trials of a sweep, the chosen one, and why."""
    from plait.interfaces.cli.output import facts
    from plait.reporting.sweep_plots import sweep_table

    with session.open() as home:
        found = home.sweep.show(campaign, round=number, figure=figure)
    file = None if figure is None else figure.absolute()
    ranges = ", ".join(f"{place} {low:.3g} to {high:.3g}" for place, (low, high) in found.axes.items())
    floors = f"unique {found.min_unique:.0%}, pass {found.min_supported:.0%}"
    floors += "" if found.min_elbo is None else f", prior ELBO {found.min_elbo:.3f}"
    session.show(
        {"sweep": found, "figure": file},
        facts(
            campaign=campaign,
            round=found.round,
            fine_tuner=found.finetuner,
            ranges=ranges,
            floors=floors,
            unit=found.unit,
            figure=file,
        ),
        "",
        sweep_table(found),
        "",
        found.reason,
    )
