"""The registry's figures for Prometheus, read anew each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plait.campaign.exposition import exposition
from plait.campaign.scheduling import survey

if TYPE_CHECKING:
    from plait.bootstrap.home import Home


class Metrics:
    """Figures of one home's registry; asked again and again, it sees which processes stand still."""

    def __init__(self, home: Home) -> None:
        self._registry = home.registry
        self._board = home.registry.lease_board()

    def text(self) -> str:
        """The figures as Prometheus reads them.

        Raises:
            UnreachableError: The database does not answer.
        """
        with self._registry.read() as uow:
            outlooks, stage_seconds = survey(uow), uow.stage_seconds()
        return exposition(outlooks, self._board.look(), stage_seconds)
