"""The verbs of sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from plait.bootstrap.verbs import Verbs
from plait.design.errors import BadInputError

if TYPE_CHECKING:
    from plait.campaign.sweep_results import SweepResult


class Sweeps(Verbs):
    """Sweeps: show."""

    def show(
        self,
        campaign: str,
        *,
        round: int | None = None,  # noqa: A002
        figure: str | Path | None = None,
    ) -> SweepResult:
        """The sweep of a round, of the latest that swept by default; drawn into `figure` (.png, .svg, .pdf) if given.

        Raises:
            NotFoundError: No such campaign.
            WrongStateError: No such round, or it has swept nothing.
            BadInputError: The picture cannot be written.
        """
        from plait.campaign.sweeps import show

        found = show(self._home.ports, campaign, round)
        if figure is not None:
            from plait.reporting.sweep_plots import write_figure

            try:
                write_figure(found, Path(figure))
            except (OSError, ValueError) as error:
                reason = str(error).split("\n")[0]
                raise BadInputError(
                    f"{figure} cannot be written: {reason}", hint="choose another --figure, such as sweep.png"
                ) from error
        return found
