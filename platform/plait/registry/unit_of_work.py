"""The registry's side of the campaign room's UnitOfWork: each method is a function of one open transaction."""

from __future__ import annotations

from plait.registry import (
    _campaigns,
    _closing,
    _datasets,
    _designs,
    _models,
    _results,
    _scheduling,
    _stages,
    audit,
    leases,
    references,
)
from plait.registry.transaction import Transaction


class SqlUnitOfWork(Transaction):
    """One transaction over the registry: all of it or none. Every change writes its audit event with it."""

    add_dataset_version = _datasets.add_dataset_version
    datasets = _datasets.datasets
    dataset_version = _datasets.dataset_version
    dataset_version_by_id = _datasets.dataset_version_by_id
    dataset_versions = _datasets.dataset_versions
    readings = _datasets.readings

    add_campaign = _campaigns.add_campaign
    campaigns = _campaigns.campaigns
    campaign = _campaigns.campaign
    add_round = _campaigns.add_round
    rounds = _campaigns.rounds
    move_round = _campaigns.move_round
    approvals = _campaigns.approvals
    close_round_into_version = _closing.close_round_into_version

    clock = _scheduling.clock
    schedules = _scheduling.schedules
    schedule = _scheduling.schedule
    put_schedule = _scheduling.put_schedule
    max_running = _scheduling.max_running
    set_max_running = _scheduling.set_max_running

    fence = leases.fence
    stage = _stages.stage
    stages = _stages.stages
    stage_seconds = _stages.stage_seconds
    finish_stage = _stages.finish_stage
    push_outbox = _stages.push_outbox
    outbox = _stages.outbox
    mark_sent = _stages.mark_sent

    add_model = _models.add_model
    models = _models.models
    model = _models.model
    promote = _models.promote

    add_designs = _designs.add_designs
    designs = _designs.designs
    add_screening = _designs.add_screening
    screenings = _designs.screenings
    add_order = _designs.add_order

    add_results = _results.add_results
    results = _results.results

    audit = audit.record
    referred = references.referred
