"""Verbs of schedulers and of people who tell them what to do: run, status, pause, resume, cancel, queue, limit."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from plait.bootstrap.verbs import Verbs

if TYPE_CHECKING:
    from plait.bootstrap.scheduler import Step
    from plait.campaign.schedules import Holding, Schedule, Standing


class Scheduling(Verbs):
    """When campaigns run, and whether."""

    def run(
        self,
        *,
        once: bool = False,
        max_campaigns: int | None = None,
        max_failures: int = 3,
        backoff: float = 30.0,
        options: dict[str, Any] | None = None,
    ) -> list[Step]:
        """Take due campaigns up to the human gate, until interrupted, or once: until nothing more is due.

        Args:
            once: End when nothing is due now; failures wait for another time.
            max_campaigns: Rounds at a time; by default as the settings say.
            max_failures: In a row, until a campaign is given up.
            backoff: Seconds before the second try, doubled after each failure, an hour at most.
            options: Settings given explicitly, for the processes of the rounds.
        """
        from plait.bootstrap.scheduler import Scheduler
        from plait.campaign.schedules import Retrying

        number = max_campaigns or self._home.settings.max_campaigns
        retrying = Retrying(max_failures, first_pause=backoff)
        return Scheduler(self._home, options or {}, number, retrying).run(is_once=once)

    def status(self) -> dict[str, Any]:
        """Campaigns, queue, schedulers and leases, from the registry alone."""
        from plait.campaign.overview import overview

        return overview(self._home.registry)

    def pause(self, name: str, *, reason: str = "") -> tuple[Schedule, Holding | None]:
        """Stop a campaign where it is; checkpoints stay. How it stands, and who still runs it after half a minute."""
        from plait.campaign.schedules import Standing

        changed, holder = self._stop(name, Standing.PAUSED, reason)
        self._tell_mlflow()
        return changed, holder

    def resume(self, name: str) -> Schedule:
        """Let a paused or failed campaign go on; failures are forgotten."""
        from plait.campaign.schedules import Standing
        from plait.campaign.scheduling import change_standing

        return change_standing(self._home.registry, name, Standing.ACTIVE, self._home.settings.actor)

    def cancel(self, name: str, *, reason: str = "") -> tuple[Schedule, Holding | None]:
        """End a campaign for ever; what was measured stays, unfinished work does not.

        Returns:
            How it stands, and who still runs it after half a minute.
        """
        from plait.campaign.schedules import Standing

        changed, holder = self._stop(name, Standing.CANCELLED, reason)
        if holder is None:
            self._drop_unfinished(name)
        self._tell_mlflow()
        return changed, holder

    def _stop(self, name: str, standing: Standing, reason: str) -> tuple[Schedule, Holding | None]:
        from plait.campaign.scheduling import change_standing, wait_until_stopped

        changed = change_standing(self._home.registry, name, standing, self._home.settings.actor, reason)
        return changed, wait_until_stopped(self._home.registry, name, self._home.progress)

    def queue(self, name: str, **changes: Any) -> Schedule:
        """Change when a campaign's rounds begin; see plait.campaign.scheduling.queue.

        Raises:
            BadInputError: A rhythm that cannot be read.
        """
        from plait.campaign.schedules import check_every
        from plait.campaign.scheduling import queue
        from plait.design.errors import BadInputError

        if changes.get("every") is not None:
            try:
                changes["every"] = check_every(changes["every"])
            except ValueError as error:
                raise BadInputError(f"--every '{changes['every']}' {error}") from error
        return queue(self._home.registry, name, self._home.settings.actor, **changes)

    def limit(self, number: int | None) -> None:
        """Rounds that all schedulers together run at a time; None for no limit."""
        with self._home.registry.begin() as uow:
            uow.set_max_running(number, self._home.settings.actor)

    def _drop_unfinished(self, name: str) -> None:
        from plait.campaign.proposing import drop_unfinished
        from plait.campaign.records import RoundState

        with self._home.registry.lease(f"campaign/{name}", lambda text: None):
            with self._home.registry.read() as uow:
                campaign, rounds = uow.campaign(name), uow.rounds(name)
            if rounds and rounds[-1].state is RoundState.RUNNING:
                drop_unfinished(self._home.artifacts, campaign, rounds[-1].number)

    def _tell_mlflow(self) -> None:
        """What finished stages have for MLflow, if there is anything; MLflow is not loaded for nothing."""
        with self._home.registry.read() as uow:
            is_waiting = bool(uow.outbox())
        if is_waiting:
            from plait.campaign.stage_runs import tell_if_possible

            tell_if_possible(self._home.ports)


def as_document(schedule: Schedule, holder: Holding | None) -> dict[str, Any]:
    """A change for --json."""
    return {**asdict(schedule), "still_running": None if holder is None else asdict(holder)}
