"""Driving a campaign: up to the human gate, or through whole rounds against a simulated lab."""

from __future__ import annotations

from collections.abc import Callable

from plait.campaign.config import CampaignConfig
from plait.campaign.ports import Laboratory, Ports
from plait.campaign.proposing import propose
from plait.campaign.records import Design, NewResult, Round, RoundState
from plait.campaign.repository import UnitOfWork
from plait.campaign.rounds import add_results, close, decide, mark_ordered, order
from plait.campaign.stage_runs import flush_outbox
from plait.design.errors import WrongStateError
from plait.design.space import DesignSpace

LAB_REASON = "approved automatically: simulated lab "
"""How an approval without a person begins; the lab's name follows."""


def run(
    ports: Ports,
    name: str,
    num_rounds: int | None,
    laboratory: Laboratory | None,
    write_order: Callable[[Round, list[Design]], str],
) -> list[Round]:
    """Go on with a campaign: up to the human gate, or, with a simulated lab, through whole rounds.

    Args:
        ports: The world.
        name: The campaign.
        num_rounds: Rounds to close in this call; all that are left by default.
        laboratory: A simulated lab that approves (on record), measures and closes; None stops at PROPOSED.
        write_order: Writes the order file of a round and returns its SHA-256.

    Raises:
        WrongStateError: Nothing can be done before a person acts (the hint says what), the lab measures something
            else, or the campaign has several assays (a simulated lab measures one).
    """
    if laboratory is None:
        return [propose(ports, name)]
    with ports.repository.begin() as uow:
        campaign = uow.campaign(name)
        config, space = CampaignConfig.model_validate(campaign.config), DesignSpace.model_validate(campaign.space)
        num_closed = sum(r.state is RoundState.CLOSED for r in uow.rounds(name))
    if campaign.further:
        raise WrongStateError(
            f"'{name}' has {len(campaign.assays)} assays ({', '.join(campaign.assays)}); a simulated lab measures one",
            hint="run without --lab and import what your labs measure",
        )
    if not laboratory.covers(space):
        raise WrongStateError(
            f"the simulated lab {laboratory.name} measures nothing of {space.template} ({space.alphabet.name})",
            hint="run without --lab and import what your own lab measures",
        )
    num_left = min(num_rounds or config.rounds, config.rounds - num_closed)
    done = [_whole_round(ports, name, laboratory, write_order) for _ in range(num_left)]
    flush_outbox(ports)
    return done


def lab_of(uow: UnitOfWork, campaign: str) -> str | None:
    """The simulated lab that measured a campaign, as its approvals tell; None where people did."""
    reasons = [a.reason for a in uow.approvals(campaign)]
    labs = {r.removeprefix(LAB_REASON) for r in reasons if r.startswith(LAB_REASON)}
    return labs.pop() if len(labs) == 1 and all(r.startswith(LAB_REASON) for r in reasons) else None


def _whole_round(
    ports: Ports, name: str, laboratory: Laboratory, write_order: Callable[[Round, list[Design]], str]
) -> Round:
    rounds = ports.repository.transact(lambda uow: uow.rounds(name))
    current = rounds[-1] if rounds else None
    if current is None or current.state in (
        RoundState.RUNNING,
        RoundState.PROPOSED,
        RoundState.CLOSED,
        RoundState.REJECTED,
    ):
        current = propose(ports, name)
        current = decide(ports, name, RoundState.APPROVED, reason=LAB_REASON + laboratory.name)
    if current.state is RoundState.APPROVED:
        chosen, designs = order(ports, name)
        current = mark_ordered(ports, name, chosen.number, write_order(chosen, designs))
    if current.state in (RoundState.ORDERED, RoundState.MEASURING):
        _, designs = order(ports, name)
        readings = laboratory.measure([d.sequence for d in designs])
        add_results(ports, name, [NewResult(d.design_id, v) for d, v in zip(designs, readings, strict=True)], None)
    closed, _, _ = close(ports, name)
    return closed
