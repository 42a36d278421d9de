import time
from datetime import timedelta

import numpy as np
import pytest
from plait.campaign.datasets import import_dataset
from plait.campaign.records import Upload
from plait.design.errors import BadInputError, NotFoundError, WrongStateError
from plait.design.records import Readings
from plait.registry.tables import measurement
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError


def take(readings, rows):
    return Readings(
        tuple(readings.sequences[i] for i in rows),
        readings.values[rows],
        tuple(readings.replicates[i] for i in rows),
        readings.stds[rows],
        tuple(readings.batches[i] for i in rows),
    )


def count(registry, table):
    with registry.begin() as uow:
        return uow.connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()


def assert_equal(back, readings):
    assert (back.sequences, back.replicates, back.batches) == (
        readings.sequences,
        readings.replicates,
        readings.batches,
    )
    assert np.array_equal(back.values, readings.values)
    assert np.array_equal(back.stds, readings.stds, equal_nan=True)


def test_readings_come_back_bit_for_bit_in_their_order(registry, version, readings):
    with registry.begin() as uow:
        assert_equal(uow.readings(version.id), readings)
        assert uow.dataset_version("brca2") == uow.dataset_version_by_id(version.id) == version
    assert (version.number, version.num_measurements, version.num_sequences, version.length) == (1, 4, 3, 4)
    assert (version.unit, version.goal, version.alphabet, version.created_by) == ("PSI", "maximize", "dna", "ada")
    assert version.created_at.utcoffset().total_seconds() == 0


def test_readings_without_stds_or_batches_stay_without(registry, add):
    added = add(Readings(("AC",), np.array([1.0]), ("1",)))
    with registry.begin() as uow:
        back = uow.readings(added.id)
    assert back.stds is None
    assert back.batches is None


def test_the_same_content_twice_is_one_version(registry, add, readings, version):
    assert add(readings) == version
    assert add(take(readings, [3, 1, 0, 2])) == version  # another order of rows
    assert count(registry, "measurement") == 4
    with registry.begin() as uow:
        assert uow.dataset_versions("brca2") == [version]


def test_a_child_shares_the_rows_that_did_not_change(registry, add, readings, version):
    changed = take(readings, [2, 0, 1])
    changed.values[1] = 0.11
    child = add(changed, parent_id=version.id, upload=Upload("new.csv", "b" * 64, 10))
    assert (child.number, child.parent_id, child.upload_sha256) == (2, version.id, "b" * 64)
    assert count(registry, "measurement") == 5  # ACGT replicate 1 has a new value, two rows are shared
    with registry.begin() as uow:
        assert_equal(uow.readings(child.id), changed)
        assert_equal(uow.readings(version.id), readings)
        assert uow.datasets() == [child]
        assert uow.dataset_version("brca2", 1) == version


def test_a_version_that_lost_the_race_is_refused(add, readings, version):
    with pytest.raises(WrongStateError, match="meanwhile"):
        add(take(readings, [0]))
    add(take(readings, [0]), parent_id=version.id)
    with pytest.raises(WrongStateError, match="meanwhile"):
        add(take(readings, [1]), parent_id=version.id)


def test_two_datasets_may_hold_the_same_content(registry, add, readings, version):
    other = add(readings, "copy")
    assert other.id == version.id
    with registry.begin() as uow:
        assert [v.dataset for v in uow.datasets()] == ["brca2", "copy"]
        assert uow.dataset_version_by_id(version.id, "copy") == other
        assert_equal(uow.readings(version.id), readings)


def test_the_import_use_case_appends_and_replaces(registry, readings):
    about = {"dataset": "d", "alphabet": "dna", "unit": "PSI", "goal": "maximize", "actor": "ada"}
    first = import_dataset(registry, take(readings, [0, 1]), mode="new", **about)
    same = import_dataset(registry, take(readings, [0, 1]), mode="new", **about)
    more = import_dataset(registry, take(readings, [1, 2, 3]), mode="append", **about)
    assert (first.is_new, same.is_new, same.version) == (True, False, first.version)
    assert (more.version.number, more.num_added, more.version.num_measurements) == (2, 2, 4)
    assert count(registry, "measurement") == 4
    with pytest.raises(WrongStateError, match="other content"):
        import_dataset(registry, take(readings, [3]), mode="new", **about)


def test_what_is_no_number_is_refused_and_nothing_stored(registry, add):
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(BadInputError, match="1 readings are no finite numbers"):
            add(Readings(("AC", "AG"), np.array([1.0, value]), ("1", "1")))
    assert count(registry, "measurement") == count(registry, "audit_event") == 0


def test_the_database_itself_refuses_what_is_no_number(registry, ordered):
    columns = "assay_id, sequence_id, replicate, round_id, created_by, created_at"
    with registry.begin() as uow:
        is_sqlite = uow.connection.dialect.name == "sqlite"
    for value in ("9e999", "-9e999", "NULL") if is_sqlite else ("'NaN'", "'Infinity'", "'-Infinity'", "NULL"):
        with pytest.raises(IntegrityError), registry.begin() as uow:
            uow.connection.exec_driver_sql(
                f"INSERT INTO measurement (value, status, {columns}) SELECT {value}, 'ok', {columns} FROM measurement"
            )


def test_sequences_that_cannot_be_kept_are_refused(registry, add):
    for sequences in ((), ("AC", "ACG"), ("A" * 2001,), ("",)):
        with pytest.raises(BadInputError):
            add(Readings(sequences, np.ones(len(sequences)), ("1",) * len(sequences)))
    assert count(registry, "sequence") == 0


def test_what_is_not_there_is_named_with_what_is(registry, version):
    with registry.begin() as uow:
        with pytest.raises(NotFoundError, match="no dataset 'brca'") as caught:
            uow.dataset_version("brca")
        assert caught.value.hint == "known: brca2"
        with pytest.raises(NotFoundError, match="no version 'brca2 7'"):
            uow.dataset_version("brca2", 7)
        with pytest.raises(NotFoundError):
            uow.readings("0" * 64)
        with pytest.raises(NotFoundError):
            uow.dataset_versions("brca")


def test_many_rows_are_registered_quickly(registry, add):
    number = 20_000
    letters = np.array(list("ACGT"))[np.random.default_rng(0).integers(0, 4, (number, 12))]
    values = np.random.default_rng(1).normal(size=number)
    readings = Readings(tuple("".join(row) for row in letters), values, tuple(str(i) for i in range(number)))
    started = time.monotonic()
    added = add(readings)
    assert time.monotonic() - started < 20  # about 1 s on a quiet machine
    with registry.begin() as uow:
        back = uow.readings(added.id)
    assert back.sequences == readings.sequences
    assert np.array_equal(back.values, values)
    before = count(registry, "sequence")
    add(Readings((*readings.sequences[:3], "A" * 12), np.ones(4), ("1",) * 4), "few")
    assert before == len(set(readings.sequences))
    assert count(registry, "sequence") == before + 1


def test_times_are_utc_in_bulk_rows_too(registry, version):
    with registry.begin() as uow:
        times = uow.connection.execute(select(measurement.c.created_at)).scalars().all()
    assert {t.utcoffset() for t in times} == {timedelta(0)}
    assert all(abs(t - version.created_at) < timedelta(seconds=60) for t in times)


def test_readings_are_called_measurement_value(registry, version):
    with registry.begin() as uow:
        values = uow.connection.execute(text("SELECT value FROM measurement ORDER BY id")).scalars().all()
    assert values == [0.1, -2.5, 1 / 3, 7e300]
