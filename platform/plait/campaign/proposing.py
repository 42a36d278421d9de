"""Computing a round: its stages in order, up to PROPOSED. The only use case of rounds that loads torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plait.campaign.assays import of_campaign
from plait.campaign.config import CampaignConfig
from plait.campaign.fingerprints import derive_seed
from plait.campaign.ports import ArtifactStore, Ports
from plait.campaign.race import EXHAUSTIVE, POLICY, Readings
from plait.campaign.records import Campaign, Design, Round, RoundState
from plait.campaign.repository import Lease, UnitOfWork
from plait.campaign.rounds import NEXT_STEP, latest_round
from plait.campaign.schedules import refuse_stopped
from plait.campaign.scheduling import note_success
from plait.campaign.stage_runs import flush_outbox, run_stage, scratch_key, tell_if_possible
from plait.campaign.stages import NUM_ATTEMPTS, STAGES
from plait.campaign.stopping import stoppable
from plait.campaign.turns import Turn
from plait.design.errors import StoppedError, WrongStateError
from plait.design.space import DesignSpace


def propose(ports: Ports, name: str) -> Round:
    """Runs the next round up to PROPOSED. Safe to repeat: a round that waits for a person is returned as it is.

    Raises:
        NotFoundError: No such campaign.
        WrongStateError: The round before is not closed, or all rounds are done.
        StoppedError: The campaign is, or was meanwhile, paused or cancelled; finished stages and checkpoints are kept.
        RunFailedError: A stage failed; finished stages are kept.
    """
    ports.repository.transact(lambda uow: uow.campaign(name))
    try:
        with ports.repository.lease(f"campaign/{name}", lambda text: ports.progress("waiting", 0, 0, text)) as lease:
            turn_round = ports.repository.transact(lambda uow: _next_round(uow, ports, name))
            if turn_round.state is RoundState.RUNNING:
                with stoppable(ports.repository, name) as check:
                    turn_round = _run_stages(ports, name, turn_round, lease, check)
    except StoppedError:
        tell_if_possible(ports)
        raise
    flush_outbox(ports)
    return turn_round


def _next_round(uow: UnitOfWork, ports: Ports, name: str) -> Round:
    refuse_stopped(uow.schedule(name))
    campaign, rounds = uow.campaign(name), uow.rounds(name)
    config = CampaignConfig.model_validate(campaign.config)
    if not rounds:
        first = [(a.dataset, a.version_id) for a in campaign.further]
        return uow.add_round(name, 1, campaign.dataset_version_id, ports.actor, first)
    last = rounds[-1]
    if last.state in (RoundState.RUNNING, RoundState.PROPOSED):
        return last
    if last.state not in (RoundState.CLOSED, RoundState.REJECTED):
        raise WrongStateError(
            f"round {last.number} of '{name}' is {last.state}, not closed",
            hint=f"next: {NEXT_STEP[last.state].format(name)}",
        )
    num_closed = sum(r.state is RoundState.CLOSED for r in rounds)
    if num_closed >= config.rounds:
        raise WrongStateError(
            f"all {config.rounds} rounds of '{name}' are closed", hint=f"see: plait report {name} --output report.html"
        )
    latest = [(a.dataset, a.next_version_id or a.version_id) for a in last.further]
    return uow.add_round(name, last.number + 1, last.next_version_id or last.dataset_version_id, ports.actor, latest)


def open_turn(ports: Ports, uow: UnitOfWork, name: str, of: Round, outputs: dict[str, dict[str, Any]]) -> Turn:
    """The turn of a round: what its stages may see."""
    campaign = uow.campaign(name)
    config, space = CampaignConfig.model_validate(campaign.config), DesignSpace.model_validate(campaign.space)
    learnt_from = [(campaign.dataset, of.dataset_version_id), *((a.dataset, a.version_id) for a in of.further)]
    versions = [uow.dataset_version_by_id(version_id, dataset) for dataset, version_id in learnt_from]
    data = [(version, uow.readings(version.id)) for version in versions]
    assays = of_campaign(config, space, derive_seed(config.seed, 0, "judge"), data)
    return Turn(
        ports,
        campaign,
        of,
        assays,
        taken=tuple(sorted({d.sequence for d in uow.designs(name) if d.round < of.number})),
        outputs=outputs,
        previous_policy=_previous_policy(uow, name, of.number),
        history=_history(uow, campaign, of.number, assays[0].sign),
    )


def _history(uow: UnitOfWork, campaign: Campaign, number: int, sign: float) -> tuple[Readings, ...]:
    """Readings of the rounds before one, by the arm that proposed the design, higher is better."""
    source = {d.design_id: d for d in uow.designs(campaign.name) if d.round < number}
    rounds: dict[int, dict[str, list[float]]] = {}
    for result in uow.results(campaign.name):
        design = source.get(result.design_id)
        if design is not None and result.value is not None and result.assay == campaign.dataset:
            arm = POLICY if design.source == EXHAUSTIVE else design.source
            rounds.setdefault(design.round, {}).setdefault(arm, []).append(sign * result.value)
    return tuple(rounds[of] for of in sorted(rounds))


def _previous_policy(uow: UnitOfWork, name: str, number: int) -> str | None:
    """The artifact of the last policy before a round."""
    before = [s for s in uow.stages(name) if s.stage == "finetune" and s.round < number]
    return str(max(before, key=lambda s: s.round).outputs["policy"]) if before else None


def _run_stages(ports: Ports, name: str, current: Round, lease: Lease, check: Callable[[], None]) -> Round:
    outputs: dict[str, dict[str, Any]] = {}
    turn = ports.repository.transact(lambda uow: open_turn(ports, uow, name, current, outputs))
    ports.executor.require(turn.config.workers_of(current.number))
    for stage, function in STAGES.items():
        check()
        run_stage(turn, stage, function, outputs, lease)
    designs = [
        Design(campaign=name, round=current.number, **row)
        for row in ports.artifacts.get_json(outputs["select"]["designs"])
    ]
    screening = outputs["select"]["screening"]

    def hand_over(uow: UnitOfWork) -> Round:
        uow.fence(lease)
        return _hand_over(uow, current, designs, screening, ports.actor)

    proposed = ports.repository.transact(hand_over)
    drop_unfinished(ports.artifacts, turn.campaign, current.number)
    return proposed


def drop_unfinished(artifacts: ArtifactStore, campaign: Campaign, number: int) -> None:
    """Remove what the stages of a round kept to go on from: it is proposed, or never will be."""
    for stage in ("prior", "sweep", *(f"finetune-{attempt}" for attempt in range(NUM_ATTEMPTS))):
        artifacts.drop_scratch(scratch_key(campaign, number, stage))


def _hand_over(uow: UnitOfWork, of: Round, designs: list[Design], screening: dict[str, Any], actor: str) -> Round:
    """The batch into the registry, and the round to a person; done already if an answer was lost."""
    known = latest_round(uow, of.campaign, of.number)
    if known.state is not RoundState.RUNNING:
        return known
    uow.add_designs(of.campaign, of.number, designs)
    verdicts = [(d.design_id, True, "") for d in designs]
    uow.add_screening(of.campaign, of.number, screening["tool"], screening["version"], verdicts)
    note_success(uow, of.campaign)
    return uow.move_round(of.campaign, of.number, RoundState.PROPOSED, actor)
