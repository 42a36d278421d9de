import csv
import hashlib
import io
import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plait.design.errors import BadInputError
from plait.lab.orders import order_bytes, write_order


@dataclass(frozen=True)
class Row:
    design_id: str
    sequence: str
    predicted_mean: float
    predicted_std: float
    conservative: float
    rank: int


ROWS = [Row("c-r1-2", "ACGT", -0.1, 1e-9, 0.1 + 0.2, 2), Row("c-r1-1", "TTTT", float(np.float32(0.1)), 2.0, -3.0, 1)]


def test_the_file_to_the_byte(tmp_path):
    expected = (
        b"design_id,sequence,predicted_mean,predicted_std,conservative,rank\n"
        b"c-r1-1,TTTT,0.10000000149011612,2.0,-3.0,1\n"
        b"c-r1-2,ACGT,-0.1,1e-09,0.30000000000000004,2\n"
    )
    assert order_bytes(ROWS) == order_bytes(reversed(ROWS)) == expected
    path = tmp_path / "order.csv"
    assert write_order(path, ROWS) == hashlib.sha256(expected).hexdigest()
    assert path.read_bytes() == expected
    assert write_order(path, ROWS) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [file.name for file in tmp_path.iterdir()] == ["order.csv"]


def test_several_assays_stand_in_every_row(tmp_path):
    path = tmp_path / "order.csv"
    content = order_bytes(ROWS, ("arx", "hoxc4"))
    assert write_order(path, reversed(ROWS), ("arx", "hoxc4")) == hashlib.sha256(content).hexdigest()
    assert path.read_bytes() == content
    assert [line.rpartition(b",")[2] for line in content.splitlines()] == [b"assays", b"arx;hoxc4", b"arx;hoxc4"]
    assert [line.rpartition(b",")[0] for line in content.splitlines()] == order_bytes(ROWS).splitlines()
    assert order_bytes(ROWS, ("arx",)) == order_bytes(ROWS)


def test_numpy_numbers_are_written_as_numbers():
    row = Row("a", "A", np.float64(0.5), np.float32(0.25), np.float64(-1), np.int64(1))
    assert order_bytes([row]).splitlines()[1] == b"a,A,0.5,0.25,-1.0,1"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_text_that_a_spreadsheet_would_execute_is_disarmed(start):
    cell = f'{start}cmd|"/c calc",x'
    rows = list(csv.reader(io.StringIO(order_bytes([replace(ROWS[0], design_id=cell)]).decode(), newline="")))
    assert rows[1][0] == f"'{cell}"
    assert rows[1][2] == "-0.1"


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(finite, finite, finite), min_size=1, max_size=5))
def test_numbers_read_back_exactly(numbers):
    rows = [Row(f"d{i}", "ACGT", *figures, i) for i, figures in enumerate(numbers)]
    back = list(csv.DictReader(io.StringIO(order_bytes(rows).decode())))
    keys = ("predicted_mean", "predicted_std", "conservative")
    assert [tuple(float(row[key]) for key in keys) for row in back] == numbers


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    with pytest.raises(BadInputError, match="cannot be written"):
        write_order(tmp_path / "nowhere" / "order.csv", ROWS)
    (tmp_path / "taken").mkdir()
    with pytest.raises(BadInputError, match="cannot be written"):
        write_order(tmp_path / "taken", ROWS)
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]


def test_a_device_or_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInputError, match="no ordinary file"):
        write_order(tmp_path / "pipe", ROWS)
    assert (tmp_path / "pipe").is_fifo()
