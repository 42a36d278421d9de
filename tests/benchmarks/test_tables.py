from dataclasses import fields

import pyarrow.parquet
import pytest
from plait.benchmarks.cells import failed, finished, make_cell
from plait.benchmarks.scoring import Scores
from plait.benchmarks.tables import markdown, number, records, run_table, summary_table, write_results
from plait.benchmarks.tasks import find_task

TASK = find_task("splice6")


def scores(**given):
    rounds = given.pop("rounds", 2)
    plain = {f.name: 0.5 for f in fields(Scores)}
    by_round = {name: (0.25,) * rounds for name in plain if name.endswith("_by_round")}
    wells = {"rounds": rounds, "wells": 96 * rounds, "wells_to_first": 3, "wells_to_50": None}
    return Scores(**(plain | by_round | wells | given))


def rows():
    poor, good, broken = (make_cell(TASK, method, 0, "small") for method in ("ppo", "braid", "strl"))
    again = make_cell(TASK, "braid", 1, "small")
    return [
        finished(poor, scores(top_share=0.1, unique_fraction=0.2), 10.0, 500.0),
        finished(good, scores(top_share=0.4), 11.0, 510.0),
        finished(again, scores(top_share=0.6), 12.0, 520.0),
        failed(broken, "the lamp | is broken", 1.0, 100.0),
    ]


def test_the_parquet_file_holds_every_row_and_the_same_types_whatever_is_known(tmp_path):
    write_results(tmp_path / "some.parquet", rows())
    write_results(tmp_path / "none.parquet", rows()[-1:])
    assert pyarrow.parquet.read_table(tmp_path / "some.parquet").to_pylist() == [
        {k: list(v) if isinstance(v, tuple) else v for k, v in record.items()} for record in records(rows())
    ]
    schemas = [pyarrow.parquet.read_schema(tmp_path / f"{name}.parquet") for name in ("some", "none")]
    assert schemas[0] == schemas[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["none.parquet", "some.parquet"]


def test_the_summary_has_the_best_method_first_and_says_what_failed():
    headers, table = summary_table(rows())
    assert [row[1] for row in table] == ["braid", "ppo", "strl"]
    by_method = {row[1]: dict(zip(headers, row, strict=True)) for row in table}
    assert by_method["braid"]["top 1 % last round"] == "0.5 ± 0.141"
    assert by_method["ppo"]["runs"] == "1, 1 COLLAPSED"
    assert by_method["strl"]["runs"] == "1, 1 FAILED"


@pytest.mark.parametrize("unit", [{}, {"top_share": None}])
def test_a_collapse_is_ranked_last_whatever_its_score(unit):
    done = {m: make_cell(TASK, m, 0, "small") for m in ("ppo", "braid", "genetic", "strl")}
    low, high = ({"top_share": share, "best_so_far": share, **unit} for share in (0.1, 0.9))
    found = [
        failed(done["strl"], "broken"),
        finished(done["ppo"], scores(**high, unique_fraction=0.2), 1.0, 1.0),
        finished(make_cell(TASK, "ppo", 1, "small"), scores(**high), 1.0, 1.0),
        finished(done["braid"], scores(**low), 1.0, 1.0),
        finished(done["genetic"], scores(**high), 1.0, 1.0),
    ]
    assert [(row[1], row[2]) for row in summary_table(found)[1]] == [
        ("genetic", "1"),
        ("braid", "1"),
        ("ppo", "2, 1 COLLAPSED"),
        ("strl", "1, 1 FAILED"),
    ]


def test_every_run_is_a_line_and_errors_are_named():
    headers, table = run_table(rows())
    assert {len(line) for line in table} == {len(headers)}
    assert [line[3] for line in table] == ["COLLAPSED", "done", "done", "FAILED"]
    page = markdown("small", rows())
    assert "* splice6, strl, seed 0: the lamp | is broken" in page
    assert page.count("\n| splice6 |") == 3 + 4


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (0.12345, "0.123"), (12_345.6, "12,346"), (-2.0, "-2")])
def test_numbers_are_short(value, text):
    assert number(value) == text
