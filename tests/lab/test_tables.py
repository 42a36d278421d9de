import csv
import hashlib
import io
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plait.design.alphabets import DNA, PROTEIN
from plait.design.errors import BadInputError, NotFoundError
from plait.lab.delimited import MAX_BYTES
from plait.lab.tables import read_measurements

fuzz = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)


def write(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def problems(path, alphabet=DNA, **columns):
    with pytest.raises(BadInputError) as caught:
        read_measurements(path, alphabet, **columns)
    return [(p.row, p.column, p.value, p.reason) for p in caught.value.problems]


def test_a_good_table(tmp_path):
    content = b"sequence,replicate,value,sd,plate\nACG,1,0.5,0.1,p1\nACG,2,-1e-3,0,p2\nTTT,1,+3,.5,p1\n"
    table = read_measurements(write(tmp_path, content), DNA, std_column="sd", batch_column="plate")
    assert table.readings.sequences == ("ACG", "ACG", "TTT")
    assert table.readings.values.tolist() == [0.5, -0.001, 3.0]
    assert table.readings.replicates == ("1", "2", "1")
    assert table.readings.stds is not None
    assert table.readings.stds.tolist() == [0.1, 0.0, 0.5]
    assert table.readings.batches == ("p1", "p2", "p1")
    assert (table.num_rows, table.num_bytes, table.filename) == (3, len(content), "table.csv")
    assert table.sha256 == hashlib.sha256(content).hexdigest()
    assert table.columns == ("sequence", "replicate", "value", "sd", "plate")
    assert table.notes == ()


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b"\xef\xbb\xbfsequence,value\nACG,1\nTTT,2\n", "replicate 1"),
        (b"sequence,value\r\nACG,1\r\nTTT,2\r\n", "replicate 1"),
        (b"sequence,value\rACG,1\rTTT,2", "replicate 1"),
        (b'"sequence","value"\n"ACG","1"\n"TTT"," 2 "', "replicate 1"),
        (b"sequence\tvalue\nACG\t1\nTTT\t2\n", "tab separated"),
        (b"sequence;value\nACG;1\nTTT;2\n", "semicolon separated"),
        (b"sequence,value\nACG,1\n\nTTT,2\n\n", "2 blank rows"),
        (b" value ,note, sequence\n1,hot,ACG\n2,cold,TTT\n", "columns not used: 'note'"),
    ],
)
def test_ways_to_write_the_same_table(tmp_path, content, note):
    table = read_measurements(write(tmp_path, content), DNA)
    assert table.readings.sequences == ("ACG", "TTT")
    assert table.readings.values.tolist() == [1.0, 2.0]
    assert table.readings.replicates == ("1", "1")
    assert any(note in said for said in table.notes), table.notes


def test_na_is_a_peptide(tmp_path):
    path = write(tmp_path, "sequence,value\nNA,1\nAN,2\n")
    assert read_measurements(path, PROTEIN).readings.sequences == ("NA", "AN")


@pytest.mark.parametrize(
    ("row", "column", "value", "words"),
    [
        ("ACX,1,1,1", "sequence", "ACX", "'X' at position 3"),
        ("ACU,1,1,1", "sequence", "ACU", "RNA letter"),
        ("acg,1,1,1", "sequence", "acg", "lower-case 'a' at position 1"),
        ("ACN,1,1,1", "sequence", "ACN", "ambiguous"),
        ("ACG ,1,1,1", "sequence", "ACG ", "' ' at position 4"),
        ("ACGT,1,1,1", "sequence", "ACGT", "length 4, most rows have 3"),
        (",1,1,1", "sequence", "", "empty cell"),
        ("ACG,,1,1", "value", "", "empty cell"),
        ("ACG,NaN,1,1", "value", "NaN", "NaN"),
        ("ACG,NA,1,1", "value", "NA", "not a number"),
        ("ACG,-inf,1,1", "value", "-inf", "infinite"),
        ("ACG,1e999,1,1", "value", "1e999", "too large"),
        ("ACG,high,1,1", "value", "high", "not a number"),
        ("ACG,1_000,1,1", "value", "1_000", "not a number"),
        ("ACG,\x1c1,1,1", "value", "\x1c1", "not a number"),
        ("ACG,\u0661,1,1", "value", "\u0661", "not a number"),
        ("ACG,1e31,1,1", "value", "1e31", "too large"),
        ("ACG,0x10,1,1", "value", "0x10", "not a number"),
        ('ACG,"1,5",1,1', "value", "1,5", "decimal point"),
        ("ACG,1,,1", "replicate", "", "empty cell"),
        ("ACG,1,1,-0.1", "sd", "-0.1", "not negative"),
        ("ACG,1,1,nan", "sd", "nan", "NaN"),
        ("ACG,1,1,", "sd", "", "empty cell"),
        ("AAA,5,1,1", "sequence", "AAA", "the same sequence and replicate as row 2"),
        ("ACG,1,1", "(row)", "ACG,1,1", "3 cells, the header has 4"),
        ("ACG,1,1,1,1", "(row)", "ACG,1,1,1,1", "5 cells, the header has 4"),
        ('"ACG"x,1,1,1', "(row)", "", "cannot be split"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, column, value, words):
    path = write(tmp_path, f"sequence,value,replicate,sd\nAAA,1,1,1\nCCC,1,1,1\n{row}\nGGG,1,1,1\n")
    found = problems(path, std_column="sd")
    assert [(4, column, value)] == [problem[:3] for problem in found]
    assert words in found[0][3]


def test_every_problem_is_listed_in_order(tmp_path):
    path = write(tmp_path, "sequence,value\nACG,x\n\nACGT,nan\nTTT\nCCC,1\nCCC,2\n")
    assert [problem[:2] for problem in problems(path)] == [
        (2, "value"),
        (4, "sequence"),
        (4, "value"),
        (5, "(row)"),
        (7, "sequence"),
    ]
    assert problems(path)[-1][3] == "the same sequence as row 6"


def test_ten_thousand_bad_rows_are_all_listed(tmp_path):
    path = write(tmp_path, "sequence,value\nACG,1\n" + "ACX,no\n" * 10_000)
    with pytest.raises(BadInputError, match=r"10000 of 10001 rows of table\.csv") as caught:
        read_measurements(path, DNA)
    rows = {column: [p.row for p in caught.value.problems if p.column == column] for column in ("sequence", "value")}
    assert rows["value"] == list(range(3, 10_003))
    assert set(rows["sequence"]) == set(rows["value"])
    assert len(caught.value.to_json()["error"]["problems"]) == len(caught.value.problems)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\n \n", "is empty"),
        (b"sequence,value\n", "a header and no rows"),
        (b"seq,value\nACG,1\n", "has no column 'sequence'; there are 'seq', 'value'"),
        (b"sequence value\nACG 1\n", "there are 'sequence value'"),
        (b"sequence,value,value\nACG,1,2\n", "names a column twice: 'value'"),
        (b"PK\x03\x04rest", "an Excel workbook"),
        (b"\x1f\x8b\x08rest", "a gzip file"),
        ("sequence,value\nACG,1\n".encode("utf-16"), "UTF-16"),
        (b"sequence,value\nAC\0,1\n", "binary file"),
        (b'"sequence,value\nACG,1\n', "quote is not closed"),
    ],
)
def test_files_that_are_no_table(tmp_path, content, words):
    with pytest.raises(BadInputError) as caught:
        read_measurements(write(tmp_path, content), DNA)
    assert words in caught.value.message


def test_columns_asked_for_must_be_there(tmp_path):
    path = write(tmp_path, "sequence,value\nACG,1\n")
    for option in ("replicate_column", "std_column", "batch_column", "value_column", "sequence_column"):
        with pytest.raises(BadInputError, match="has no column 'other'; there are 'sequence', 'value'"):
            read_measurements(path, DNA, **{option: "other"})


def test_no_file_a_directory_and_too_large(tmp_path):
    with pytest.raises(NotFoundError, match=r"nothing\.csv"):
        read_measurements(tmp_path / "nothing.csv", DNA)
    with pytest.raises(BadInputError, match="cannot be read"):
        read_measurements(tmp_path, DNA)
    large = write(tmp_path, "sequence,value\nACG,1\n")
    os.truncate(large, MAX_BYTES + 1)  # a sparse file
    with pytest.raises(BadInputError, match="larger than 256 MB"):
        read_measurements(large, DNA)


def test_bytes_that_are_not_utf8_are_named_by_row(tmp_path):
    path = write(tmp_path, b"sequence,value,who\nACG,1,ok\nTTT,2,M\xfcller\nCCC,3,\xff\n")
    found = problems(path)
    assert [problem[0] for problem in found] == [3, 4]
    assert "byte 0xfc at byte 8 of the row" in found[0][3]


def test_an_open_quote_does_not_shift_the_rows_after_it(tmp_path):
    before = csv.field_size_limit(20)
    try:
        path = write(tmp_path, 'sequence,value\n"ACG,1\nTTT,2\nCCC,3\nGGG,4\nAAA,x\n')
        found = problems(path)
    finally:
        csv.field_size_limit(before)
    assert [problem[0] for problem in found] == [2, 6]


cells = st.sampled_from(["ACG", "ACGT", "acg", "", "1", "nan", "1e400", '"', 'a"b', "x,y", "\n", " ", "é", "-1", "2"])


@fuzz
@given(st.lists(st.lists(cells, max_size=5), max_size=8), st.sampled_from([",", "\t", ";"]), st.booleans())
def test_any_table_is_read_or_refused_by_name(tmp_path, rows, delimiter, is_quoted):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL if is_quoted else csv.QUOTE_MINIMAL)
    writer.writerows([["sequence", "value", "replicate", "sd"], *rows])
    read_or_refused(write(tmp_path, text.getvalue()))


@fuzz
@given(
    st.binary(max_size=80),
    st.sampled_from([b"", b"sequence,value\n", b"sequence\tvalue\treplicate\n", b'sequence,"value']),
)
def test_any_bytes_are_read_or_refused_by_name(tmp_path, content, header):
    read_or_refused(write(tmp_path, header + content))


def read_or_refused(path):
    """Either every reading is usable, or BadInputError says something; any other exception fails the test."""
    try:
        readings = read_measurements(path, DNA).readings
    except BadInputError as error:
        message = error.message
        assert message
        assert all(problem.row >= 1 and problem.reason for problem in error.problems)  # noqa: PT017
    else:
        assert len(readings) > 0
        assert np.isfinite(readings.values).all()
        assert len({len(sequence) for sequence in readings.sequences}) == 1
        assert set("".join(readings.sequences)) <= set("ACGT")
        keys = list(zip(readings.sequences, readings.replicates, strict=True))
        assert len(set(keys)) == len(keys)
