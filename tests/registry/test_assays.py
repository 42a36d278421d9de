import numpy as np
import pytest
from plait.campaign.fingerprints import content_hash
from plait.campaign.records import AssayVersion, NewResult, RoundState
from plait.design.errors import NotFoundError, WrongStateError
from plait.design.records import Readings
from plait.registry import tables as t
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError


def events(registry, action):
    table = t.audit_event
    with registry.begin() as uow:
        return [row.details for row in uow.rows(select(table).where(table.c.action == action).order_by(table.c.id))]


def joined(readings, unit, goal, *rows):
    """The readings with (sequence, value, replicate) rows behind them, and their content hash."""
    sequences, values, replicates = zip(*rows, strict=True)
    combined = Readings(
        readings.sequences + sequences,
        np.append(readings.values, values),
        readings.replicates + replicates,
        None if readings.stds is None else np.append(readings.stds, [np.nan] * len(rows)),
        None if readings.batches is None else readings.batches + ("",) * len(rows),
    )
    return content_hash(combined, alphabet="dna", unit=unit, goal=goal)


def test_a_campaign_and_its_rounds_know_their_further_assays(registry, paired, ordered, version, affinity):
    with registry.begin() as uow:
        campaign, [first] = uow.campaign(paired), uow.rounds(paired)
        single = uow.campaign(ordered)
        assert [c.further for c in uow.campaigns()] == [campaign.further, single.further]
        assert uow.rounds(ordered)[0].further == ()
    assert (campaign.dataset, campaign.dataset_version_id) == ("brca2", version.id)
    assert campaign.further == first.further == (AssayVersion("kd", affinity.id, None),)
    assert (campaign.assays, single.assays, single.further) == (("brca2", "kd"), ("brca2",), ())
    assert first.dataset_version_id == version.id
    plain, told = {"dataset_version": version.id}, {"dataset_version": version.id, "further": {"kd": affinity.id}}
    assert events(registry, "campaign.created") == [told, plain]
    assert events(registry, "round.started") == [told, plain]


def test_a_move_keeps_the_further_assays(registry, paired, affinity):
    with registry.begin() as uow:
        assert uow.move_round(paired, 1, RoundState.MEASURING, "ada").further == (AssayVersion("kd", affinity.id),)


def test_assays_that_share_a_dataset_or_do_not_exist_are_refused(registry, version, affinity):
    common = {"dataset_version_id": version.id, "config": {}, "space": {}, "notes": [], "actor": "ada"}
    kd = ("kd", affinity.id)
    for further in ([("brca2", version.id)], [kd, kd]):
        with registry.begin() as uow, pytest.raises(WrongStateError, match="a dataset of its own"):
            uow.add_campaign("c3", **common, further=further)
    for further in ([("kd", version.id)], [("ki", affinity.id)]):
        with pytest.raises(NotFoundError, match="no dataset version"), registry.begin() as uow:
            uow.add_campaign("c3", **common, further=further)
    with registry.begin() as uow:
        assert uow.campaigns() == []


def test_a_round_has_every_assay_of_its_campaign(registry, paired, ordered, version, affinity):
    for campaign, further in ((paired, []), (paired, [("brca2", version.id)]), (ordered, [("kd", affinity.id)])):
        with registry.begin() as uow, pytest.raises(WrongStateError, match="the further assays of"):
            uow.add_round(campaign, 2, version.id, "ada", further)
    with registry.begin() as uow:
        assert [len(uow.rounds(c)) for c in (paired, ordered)] == [1, 1]


def test_a_design_is_measured_once_in_each_assay(registry, paired):
    own, kd = NewResult("c2-r1-1", 0.5), NewResult("c2-r1-1", 12.0, assay="kd")
    named = NewResult("c2-r1-1", 0.5, assay="brca2")
    with registry.begin() as uow:
        assert uow.add_results(paired, 1, [own, kd, NewResult("c2-r1-2", None, "1", "kd")], "lab", None) == 3
        assert uow.add_results(paired, 1, [named, kd], "lab", None) == 0
        assert uow.add_results(paired, 1, [NewResult("c2-r1-1", 12.0, "2", "kd")], "lab", None) == 1
        found = [(r.design_id, r.assay, r.replicate, r.value) for r in uow.results(paired)]
    assert found == [
        ("c2-r1-1", "brca2", "1", 0.5),
        ("c2-r1-1", "kd", "1", 12.0),
        ("c2-r1-2", "kd", "1", None),
        ("c2-r1-1", "kd", "2", 12.0),
    ]
    assert events(registry, "results.added") == [
        {"num_new": 3, "num_failed": 1, "num_new_by_assay": {"brca2": 1, "kd": 2}},
        {"num_new": 1, "num_failed": 0, "num_new_by_assay": {"kd": 1}},
    ]
    with (
        registry.begin() as uow,
        pytest.raises(WrongStateError, match="replicate 1 is registered as 12 in kd, not"),
    ):
        uow.add_results(paired, 1, [NewResult("c2-r1-1", 0.5, assay="kd")], "lab", None)


def test_an_assay_of_no_round_takes_no_results(registry, paired, ordered):
    for campaign, assay, known in ((paired, "ki", "brca2, kd"), (ordered, "kd", "brca2")):
        with registry.begin() as uow, pytest.raises(NotFoundError, match=f"called '{assay}'") as caught:
            uow.add_results(
                campaign,
                1,
                [NewResult(f"{campaign}-r1-1", 1.0, assay=assay)],
                "lab",
                None,
            )
        assert caught.value.hint == f"known: {known}"


def test_the_database_itself_tells_readings_apart_by_assay(registry, paired):
    with registry.begin() as uow:
        uow.add_results(paired, 1, [NewResult("c2-r1-1", 0.5), NewResult("c2-r1-1", 12.0, assay="kd")], "lab", None)
    columns = "assay_id, sequence_id, status, value, replicate, design_id, round_id, created_by, created_at"
    again = f"INSERT INTO measurement ({columns}) SELECT {columns} FROM measurement WHERE value = 12.0"
    with pytest.raises(IntegrityError), registry.begin() as uow:
        uow.connection.execute(text(again))


def test_closing_gives_every_assay_a_version(registry, paired, version, affinity, readings):
    results = [
        *(NewResult(f"c2-r1-{i}", value) for i, value in ((1, 0.5), (2, None), (3, 0.25))),
        *(NewResult(f"c2-r1-{i}", value, assay="kd") for i, value in ((1, None), (2, 7.0), (3, 8.0))),
        NewResult("c2-r1-3", 9.0, "2", "kd"),
    ]
    with registry.begin() as uow:
        uow.add_results(paired, 1, results, "lab", None)
        base = uow.readings(affinity.id)
        own = joined(readings, "PSI", "maximize", ("GGGG", 0.5, "1"), ("ACGT", 0.25, "1"))
        kd = joined(base, "nM", "minimize", ("CCCC", 7.0, "1"), ("ACGT", 8.0, "1"), ("ACGT", 9.0, "2"))
        rows = uow.connection.execute(text("SELECT count(*) FROM measurement")).scalar_one()
        new = uow.close_round_into_version(
            paired, 1, content_hash=own, dataset="brca2", actor="ada", further=[("kd", kd)]
        )
        beside, [closed] = uow.dataset_version("kd"), uow.rounds(paired)
        contents = [(uow.readings(v.id), v) for v in (new, beside)]
        assert (
            uow.connection.execute(text("SELECT count(*) FROM measurement")).scalar_one() == rows
        )  # linked, not copied
    for back, v in contents:
        assert content_hash(back, alphabet="dna", unit=v.unit, goal=v.goal) == v.id
    assert (new.id, new.dataset, new.number, new.parent_id, new.num_measurements) == (own, "brca2", 2, version.id, 6)
    assert (beside.id, beside.number, beside.parent_id) == (kd, 2, affinity.id)
    assert (beside.unit, beside.goal, beside.num_measurements, beside.num_sequences) == ("nM", "minimize", 5, 3)
    assert (closed.state, closed.next_version_id) == (RoundState.CLOSED, own)
    assert closed.further == (AssayVersion("kd", affinity.id, kd),)
    assert events(registry, "round.closed") == [{"from": "ordered", "dataset_version": own, "further": {"kd": kd}}]
    with registry.begin() as uow:
        second = uow.add_round(paired, 2, own, "ada", [("kd", kd)])
        assert second.further == (AssayVersion("kd", kd),)
        assert uow.campaign(paired).further == (AssayVersion("kd", affinity.id),)


def test_an_assay_without_a_reading_keeps_its_version(registry, paired, version, affinity):
    with registry.begin() as uow:
        failed = [NewResult(f"c2-r1-{i}", None, assay=assay) for i in (1, 2, 3) for assay in (None, "kd")]
        uow.add_results(paired, 1, failed, "lab", None)
        further = [("kd", affinity.id)]
        same = uow.close_round_into_version(
            paired, 1, content_hash=version.id, dataset="brca2", actor="ada", further=further
        )
        assert same == version
        assert [v.number for v in uow.datasets()] == [1, 1]
        assert uow.rounds(paired)[0].further == (AssayVersion("kd", affinity.id, affinity.id),)


def test_closing_asks_for_every_assay_and_else_changes_nothing(registry, paired, version, affinity):
    close = {"content_hash": version.id, "dataset": "brca2", "actor": "ada"}
    for further in ([], [("ki", affinity.id)], [("kd", affinity.id)] * 2):
        with registry.begin() as uow, pytest.raises(WrongStateError, match="the further assays of 'c2' are: kd"):
            uow.close_round_into_version(paired, 1, **close, further=further)
    with registry.begin() as uow:
        [still] = uow.rounds(paired)
    assert (still.state, still.next_version_id) == (RoundState.ORDERED, None)


def test_two_assays_may_begin_with_the_same_content(registry, add, readings):
    first, twin = add(readings), add(readings, "twin")
    assert first.id == twin.id
    with registry.begin() as uow:
        uow.add_campaign(
            "c4",
            dataset_version_id=first.id,
            config={"dataset": "brca2"},
            space={},
            notes=[],
            actor="ada",
            further=[("twin", twin.id)],
        )
        assert uow.campaign("c4").assays == ("brca2", "twin")
        assert uow.add_round("c4", 1, first.id, "ada", [("twin", twin.id)]).further == (AssayVersion("twin", twin.id),)
