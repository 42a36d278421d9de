from dataclasses import replace

import numpy as np
import pytest
from plait.campaign.fingerprints import content_hash
from plait.campaign.records import NewResult, RoundState, Upload
from plait.design.errors import BadInputError, NotFoundError, WrongStateError
from plait.design.records import Readings
from sqlalchemy import text


def test_a_batch_is_registered_once(registry, campaign, designs):
    with registry.begin() as uow:
        uow.add_designs(campaign, 1, designs[::-1])
        uow.add_designs(campaign, 1, designs)
        assert uow.designs(campaign) == uow.designs(campaign, 1) == designs
        assert uow.designs(campaign, 2) == []
        with pytest.raises(WrongStateError, match="another batch"):
            uow.add_designs(campaign, 1, designs[:2])


def test_a_prediction_that_is_no_number_is_refused(registry, campaign, designs):
    with pytest.raises(BadInputError, match="nan cannot be stored"), registry.begin() as uow:
        uow.add_designs(campaign, 1, [replace(designs[0], predicted_std=float("nan"))])


def test_screening_is_kept_and_not_doubled(registry, campaign, designs):
    verdicts = [("c1-r1-1", True, ""), ("c1-r1-2", False, "toxin")]
    with registry.begin() as uow:
        uow.add_designs(campaign, 1, designs)
        for _ in range(2):
            uow.add_screening(campaign, 1, "deny-list", "1", verdicts)
        uow.add_screening(campaign, 1, "deny-list", "2", verdicts[:1])
        assert uow.screenings(campaign, 1) == [
            ("deny-list", "1", "c1-r1-1", True, ""),
            ("deny-list", "1", "c1-r1-2", False, "toxin"),
            ("deny-list", "2", "c1-r1-1", True, ""),
        ]
        with pytest.raises(NotFoundError, match="c1-r1-9"):
            uow.add_screening(campaign, 1, "deny-list", "1", [("c1-r1-9", True, "")])


def test_an_order_file_exported_twice_is_one_file(registry, ordered):
    with registry.begin() as uow:
        for sha in ("a" * 64, "a" * 64, "b" * 64):
            uow.add_order(ordered, 1, sha, "ada")
        assert uow.connection.execute(text("SELECT count(*) FROM order_file")).scalar_one() == 2


def test_results_come_in_parts_and_count_once(registry, ordered):
    first = [NewResult("c1-r1-2", 0.1 + 0.2), NewResult("c1-r1-1", None)]
    rest = [*first, NewResult("c1-r1-2", 0.5, "2"), NewResult("c1-r1-3", -1.0)]
    upload = Upload("results.csv", "c" * 64, 99)
    with registry.begin() as uow:
        assert uow.add_results(ordered, 1, first, "lab", upload) == 2
        assert uow.add_results(ordered, 1, first, "lab", upload) == 0
        assert uow.add_results(ordered, 1, rest, "eve", None) == 2
        found = [(r.design_id, r.value, r.replicate, r.actor) for r in uow.results(ordered)]
        statuses = uow.connection.execute(
            text("SELECT status FROM measurement WHERE design_id IS NOT NULL ORDER BY id")
        ).scalars()
        assert list(statuses) == ["ok", "failed", "ok", "ok"]
        assert uow.results(ordered, 2) == []
    assert found == [
        ("c1-r1-2", 0.1 + 0.2, "1", "lab"),
        ("c1-r1-1", None, "1", "lab"),
        ("c1-r1-2", 0.5, "2", "eve"),
        ("c1-r1-3", -1.0, "1", "eve"),
    ]


@pytest.mark.parametrize(("before", "after"), [(1.0, 2.0), (None, 2.0), (1.0, None)])
def test_a_reading_that_contradicts_another_is_refused(registry, ordered, before, after):
    with registry.begin() as uow:
        uow.add_results(ordered, 1, [NewResult("c1-r1-1", before)], "lab", None)
    with registry.begin() as uow, pytest.raises(WrongStateError, match="c1-r1-1 replicate 1 is registered as"):
        uow.add_results(ordered, 1, [NewResult("c1-r1-2", 1.0), NewResult("c1-r1-1", after)], "lab", None)


def test_results_need_an_ordered_round_a_known_design_and_a_number(registry, campaign, designs):
    with registry.begin() as uow:
        uow.add_designs(campaign, 1, designs)
        with pytest.raises(WrongStateError, match="is running; it takes no results"):
            uow.add_results(campaign, 1, [NewResult("c1-r1-1", 1.0)], "lab", None)
        for state in (RoundState.PROPOSED, RoundState.APPROVED, RoundState.ORDERED):
            uow.move_round(campaign, 1, state, "ada")
        with pytest.raises(NotFoundError, match="c1-r2-1"):
            uow.add_results(campaign, 1, [NewResult("c1-r2-1", 1.0)], "lab", None)
    with pytest.raises(BadInputError, match="inf cannot be stored"), registry.begin() as uow:
        uow.add_results(campaign, 1, [NewResult("c1-r1-1", float("inf"))], "lab", None)


def test_closing_links_the_measured_rows_into_a_new_version(registry, ordered, version, readings):
    combined = Readings(
        (*readings.sequences, "CCCC", "ACGT"),
        np.append(readings.values, [2.0, 3.0]),
        (*readings.replicates, "1", "3"),
        np.append(readings.stds, [np.nan, np.nan]),
        (*readings.batches, "", ""),
    )
    key = content_hash(combined, alphabet="dna", unit="PSI", goal="maximize")
    with registry.begin() as uow:
        results = [NewResult("c1-r1-1", None), NewResult("c1-r1-2", 2.0), NewResult("c1-r1-3", 3.0, "3")]
        uow.add_results(ordered, 1, results, "lab", None)
        new = uow.close_round_into_version(ordered, 1, content_hash=key, dataset="brca2", actor="ada")
        back = uow.readings(new.id)
        round_ = uow.rounds(ordered)[0]
        rows = uow.connection.execute(text("SELECT count(*) FROM measurement")).scalar_one()
    assert content_hash(back, alphabet="dna", unit="PSI", goal="maximize") == new.id == key
    assert (back.sequences, back.replicates) == (combined.sequences, combined.replicates)
    assert (new.number, new.parent_id, new.num_measurements, new.num_sequences) == (2, version.id, 6, 4)
    assert (round_.state, round_.next_version_id) == (RoundState.CLOSED, key)
    assert rows == 4 + 3  # linked, not copied
    with registry.begin() as uow, pytest.raises(WrongStateError, match="closed"):
        uow.close_round_into_version(ordered, 1, content_hash=key, dataset="brca2", actor="ada")


def test_closing_without_a_reading_leaves_the_version_as_it_was(registry, ordered, version):
    with registry.begin() as uow:
        uow.add_results(ordered, 1, [NewResult(f"c1-r1-{i}", None) for i in (1, 2, 3)], "lab", None)
        same = uow.close_round_into_version(ordered, 1, content_hash=version.id, dataset="brca2", actor="ada")
        assert same == version
        assert uow.rounds(ordered)[0].next_version_id == version.id


def test_a_superseded_reading_no_longer_counts(registry, ordered):
    with registry.begin() as uow:
        uow.add_results(ordered, 1, [NewResult("c1-r1-2", 2.0)], "lab", None)
        columns = "assay_id, sequence_id, status, replicate, design_id, round_id, created_by, created_at"
        uow.connection.execute(
            text(
                f"INSERT INTO measurement (value, supersedes_id, {columns})"
                f" SELECT 2.5, id, {columns} FROM measurement WHERE design_id IS NOT NULL"
            )
        )
        assert [r.value for r in uow.results(ordered)] == [2.5]
