"""Computing a round: its stages in order, up to PROPOSED. The only use case of rounds that loads torch."""

from __future__ import annotations

from typing import Any

from plait.campaign.assays import of_campaign
from plait.campaign.config import CampaignConfig
from plait.campaign.fingerprints import derive_seed
from plait.campaign.ports import Ports
from plait.campaign.race import EXHAUSTIVE, POLICY, Readings
from plait.campaign.records import Campaign, Design, Round, RoundState
from plait.campaign.repository import Lease, UnitOfWork
from plait.campaign.rounds import NEXT_STEP
from plait.campaign.stage_runs import flush_outbox, run_stage, scratch_key
from plait.campaign.stages import NUM_ATTEMPTS, STAGES
from plait.campaign.turns import Turn
from plait.design.errors import WrongStateError
from plait.design.space import DesignSpace


def propose(ports: Ports, name: str) -> Round:
    """Runs the next round up to PROPOSED. Safe to repeat: a round that waits for a person is returned as it is.

    Raises:
        NotFoundError: No such campaign.
        WrongStateError: The round before is not closed, or all rounds are done.
        RunFailedError: A stage failed; finished stages are kept.
    """
    with ports.repository.begin() as uow:
        uow.campaign(name)
    with ports.repository.lease(f"campaign/{name}", lambda text: ports.progress("waiting", 0, 0, text)) as lease:
        with ports.repository.begin() as uow:
            turn_round = _next_round(uow, ports, name)
        if turn_round.state is RoundState.RUNNING:
            turn_round = _run_stages(ports, name, turn_round, lease)
    flush_outbox(ports)
    return turn_round


def _next_round(uow: UnitOfWork, ports: Ports, name: str) -> Round:
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


def _run_stages(ports: Ports, name: str, current: Round, lease: Lease) -> Round:
    outputs: dict[str, dict[str, Any]] = {}
    with ports.repository.begin() as uow:
        turn = open_turn(ports, uow, name, current, outputs)
    for stage, function in STAGES.items():
        run_stage(turn, stage, function, outputs, lease)
    designs = [
        Design(campaign=name, round=current.number, **row)
        for row in ports.artifacts.get_json(outputs["select"]["designs"])
    ]
    screening = outputs["select"]["screening"]
    lease.check()
    with ports.repository.begin() as uow:
        uow.add_designs(name, current.number, designs)
        uow.add_screening(
            name, current.number, screening["tool"], screening["version"], [(d.design_id, True, "") for d in designs]
        )
        proposed = uow.move_round(name, current.number, RoundState.PROPOSED, ports.actor)
    for stage in ("prior", "fit_reward", *(f"finetune-{attempt}" for attempt in range(NUM_ATTEMPTS))):
        ports.artifacts.drop_scratch(scratch_key(name, current.number, stage))
    return proposed
