import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plait.design.errors import BadInputError, NotFoundError
from plait.lab.results import ResultRow, read_results

IDS = ("c-r1-1", "c-r1-2", "c-r1-3")
ONE, TWO = ("psi",), ("psi", "kd")


def write(tmp_path, content):
    path = tmp_path / "results.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def problems(path, ordered=None, assays=ONE, registered=None):
    with pytest.raises(BadInputError) as caught:
        read_results(path, assays, IDS, ordered, registered)
    return [(p.row, p.column, p.value, p.reason) for p in caught.value.problems]


def test_good_results(tmp_path):
    path = write(
        tmp_path,
        "design_id,value,replicate,status,operator\nc-r1-1,1.5,1,ok,ann\nc-r1-1,-2,2,,bob\nc-r1-3,,1,failed,ann\n",
    )
    table = read_results(path, ONE, set(IDS))
    assert table.rows == (
        ResultRow(2, "c-r1-1", "psi", 1.5, "1", "ok"),
        ResultRow(3, "c-r1-1", "psi", -2.0, "2", "ok"),
        ResultRow(4, "c-r1-3", "psi", None, "1", "failed"),
    )
    assert table.notes == ("columns not used: 'operator'",)
    assert (table.filename, len(table.sha256), table.num_bytes) == ("results.csv", 64, path.stat().st_size)


def test_two_columns_are_enough(tmp_path):
    rows = read_results(write(tmp_path, b"\xef\xbb\xbfvalue\tdesign_id\r\n3\tc-r1-2\r\n"), ONE, IDS).rows
    assert rows == (ResultRow(2, "c-r1-2", "psi", 3.0, "1", "ok"),)


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        ("c-r9-1,1,1,ok", "design_id", "no design of this campaign"),
        (",1,1,ok", "design_id", "empty cell"),
        ("c-r1-3,1,1,ok", "design_id", "does not wait for results"),
        ("c-r1-2,,1,ok", "value", "empty value"),
        ("c-r1-2,,1,", "value", "empty value"),
        ("c-r1-2,nan,1,ok", "value", "NaN"),
        ("c-r1-2,inf,1,ok", "value", "infinite"),
        ("c-r1-2,high,1,ok", "value", "not a number"),
        ("c-r1-2,1,1,failed", "value", "a failed well has no value"),
        ("c-r1-2,1,1,maybe", "status", "write ok or failed"),
        ("c-r1-2,1,,ok", "replicate", "empty cell"),
        ("c-r1-1,9,1,ok", "design_id", "the same design and replicate as row 2"),
        ("c-r1-2,1,1", "(row)", "3 cells, the header has 4"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, column, words):
    path = write(tmp_path, f"design_id,value,replicate,status\nc-r1-1,1,1,ok\n{row}\nc-r1-2,5,7,ok\n")
    found = problems(path, IDS[:2])
    assert [(3, column)] == [problem[:2] for problem in found]
    assert words in found[0][3]


def test_every_bad_row_is_listed(tmp_path):
    path = write(tmp_path, "design_id,value\n" + "nobody,x\n" * 200)
    found = problems(path)
    assert {problem[0] for problem in found} == set(range(2, 202))
    assert len(found) == 200 * 2 + 199


def test_files_that_are_no_results(tmp_path):
    with pytest.raises(BadInputError, match="has no column 'design_id'"):
        read_results(write(tmp_path, "id,value\nc-r1-1,1\n"), ONE, IDS)
    with pytest.raises(BadInputError, match="header and no rows"):
        read_results(write(tmp_path, "design_id,value\n"), ONE, IDS)
    with pytest.raises(NotFoundError):
        read_results(tmp_path / "nothing.csv", ONE, IDS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(
    st.binary(max_size=60),
    st.sampled_from([b"", b"design_id,value,status\n", b"design_id;value;replicate\n", b"design_id,assay,value\n"]),
    st.sampled_from([ONE, TWO]),
)
def test_any_bytes_are_read_or_refused(tmp_path, content, header, assays):
    path = write(tmp_path, header + content)
    try:
        rows = read_results(path, assays, IDS).rows
    except BadInputError:
        return
    assert all(row.design_id in IDS and row.assay in assays for row in rows)


def test_rows_that_contradict_registered_readings_are_named(tmp_path):
    path = write(
        tmp_path,
        "design_id,value,replicate,status\nc-r1-1,1,1,ok\nc-r1-1,3,2,ok\nc-r1-2,4,1,ok\nc-r1-3,,1,failed\nc-r1-3,5,2,ok\n",
    )
    first = {("c-r1-1", "1"): 1.0, ("c-r1-1", "2"): 2.0, ("c-r1-2", "1"): None, ("c-r1-3", "1"): 0.5}
    registered = {(design, "psi", replicate): value for (design, replicate), value in first.items()}
    with pytest.raises(BadInputError) as caught:
        read_results(path, ONE, IDS, None, registered)
    assert [(p.row, p.column, p.value) for p in caught.value.problems] == [
        (3, "value", "3"),
        (4, "value", "4"),
        (5, "value", ""),
    ]
    assert "c-r1-2 replicate 1 is registered as failed" in caught.value.problems[1].reason


def test_the_column_assay_says_what_was_measured(tmp_path):
    path = write(
        tmp_path,
        "assay,design_id,value,status\npsi,c-r1-1,1.5,ok\nkd,c-r1-1,20,ok\n kd ,c-r1-2,,failed\n",
    )
    table = read_results(path, TWO, IDS)
    assert table.rows == (
        ResultRow(2, "c-r1-1", "psi", 1.5, "1", "ok"),
        ResultRow(3, "c-r1-1", "kd", 20.0, "1", "ok"),
        ResultRow(4, "c-r1-2", "kd", None, "1", "failed"),
    )
    assert table.notes == ()


def test_several_assays_need_the_column_and_one_does_not(tmp_path):
    path = write(tmp_path, "design_id,value\nc-r1-1,1\n")
    assert read_results(path, ONE, IDS).rows[0].assay == "psi"
    with pytest.raises(BadInputError, match="has no column 'assay', and this campaign has 2 assays") as caught:
        read_results(path, TWO, IDS)
    assert "psi or kd" in caught.value.hint
    [problem] = caught.value.problems
    assert (problem.row, problem.column) == (1, "assay")
    assert "psi or kd may stand in it" in problem.reason


@pytest.mark.parametrize(
    ("assays", "row", "column", "words"),
    [
        (TWO, "ki,c-r1-2,1,1", "assay", "no assay of this campaign: write psi or kd"),
        (TWO, "PSI,c-r1-2,1,1", "assay", "write psi or kd"),
        (TWO, ",c-r1-2,1,1", "assay", "empty cell"),
        (ONE, "kd,c-r1-2,1,1", "assay", "no assay of this campaign: write psi"),
        (TWO, "psi,c-r1-1,9,1", "design_id", "the same design, assay and replicate as row 2"),
        (TWO, "psi,c-r1-1,9,2", "value", "c-r1-1 replicate 2 in psi is registered as 3;"),
    ],
)
def test_a_bad_assay_is_named(tmp_path, assays, row, column, words):
    path = write(tmp_path, f"assay,design_id,value,replicate\npsi,c-r1-1,1,1\n{row}\npsi,c-r1-1,1,3\n")
    registered = {("c-r1-1", "psi", "2"): 3.0, ("c-r1-1", "kd", "3"): 77.0}
    found = problems(path, None, assays, registered)
    assert [(3, column)] == [problem[:2] for problem in found]
    assert words in found[0][3]
