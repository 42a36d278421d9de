import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
from plait.interfaces.cli.main import main

NEW = ["--dataset", "d", "--alphabet", "dna", "--unit", "au"]


def test_checking_needs_no_home(tmp_path, readings, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(sys.stdout):
        assert main(["data", "check", str(readings), "--alphabet", "dna", "--json"]) == 0
    assert json.loads(out.getvalue())["length"] == 8
    assert list(tmp_path.iterdir()) == []


def test_the_same_table_twice_is_one_version(cli, readings):
    first, again = cli.json("data", "import", readings, *NEW), cli.json("data", "import", readings, *NEW)
    assert (first["is_new"], again["is_new"]) == (True, False)
    assert first["version"] == again["version"]
    assert len(cli.json("data", "show", "d")["versions"]) == 1
    assert "was there already" in cli("data", "import", readings, *NEW).out


def test_new_content_needs_append_or_replace(cli, tmp_path, readings):
    cli("data", "import", readings, *NEW)
    more = tmp_path / "more.csv"
    more.write_text("sequence,value\nTTTTTTTT,1\nCCCCCCCC,2\n")
    said = cli("data", "import", more, *NEW, code=4).err
    assert "--append" in said
    assert "--replace" in said
    before = cli.json("data", "show", "d")["num_measurements"]
    assert cli.json("data", "import", more, *NEW, "--append")["version"]["num_measurements"] == before + 2
    assert cli.json("data", "import", more, *NEW, "--replace")["version"]["num_measurements"] == 2
    assert [v["number"] for v in cli.json("data", "show", "d")["versions"]] == [1, 2, 3]
    cli("data", "import", more, *NEW, "--append", "--replace", code=2)


def test_columns_go_by_any_name(cli, tmp_path):
    table = tmp_path / "t.tsv"
    table.write_bytes(b'\xef\xbb\xbfsite\tpsi\trun\terr\tplate\r\n"ACGT"\t1\tx\t.1\tp1\r\nACGT\t2\ty\t.2\tp1\r\n')
    names = "--sequence-column site --value-column psi --replicate-column run --std-column err --batch-column plate"
    found = cli.json("data", "check", table, "--alphabet", "dna", *names.split())
    assert (found["num_rows"], found["num_sequences"], found["num_replicates"]) == (2, 1, 2)
    version = cli.json("data", "import", table, *NEW, *names.split(), "--goal", "minimize")["version"]
    assert (version["goal"], version["num_measurements"]) == ("minimize", 2)


def test_every_bad_row_is_counted_and_fifty_are_shown(cli, tmp_path):
    table = tmp_path / "bad.csv"
    table.write_text("sequence,value\n" + "".join(f"ACGTACGT,what{i}\n" for i in range(10_000)))
    said = cli("data", "import", table, *NEW, code=3).err
    assert len([line for line in said.splitlines() if "not a number" in line]) == 49
    assert "the same sequence as row 2 (9,999 rows like this)" in said
    assert "and 9,951 more problems" in said
    problems = cli.json("data", "check", table, "--alphabet", "dna", code=3)["error"]["problems"]
    assert {p["row"] for p in problems} == set(range(2, 10_002))
    assert problems[0] == {"row": 2, "column": "value", "value": "what0", "reason": "not a number"}
    assert cli.json("data", "list") == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"sequence,value\nACGT,nan\n", "NaN"),
        (b"sequence,value\nACGT,inf\n", "infinite"),
        (b"sequence,value\nACGT,1\nACGT,2\n", "row 2"),
        (b"sequence,value\nACGT,1\nACG,2\nACGG,3\n", "length"),
        (b"sequence,value\nACGT,1,9\n", "cells"),
        (b"sequence,reading\nACGT,1\n", "no column"),
        (b"sequence,value\nACNT,1\n", "'N'"),
    ],
)
def test_a_bad_table_is_refused_with_its_reason(cli, tmp_path, content, reason):
    table = tmp_path / "bad.csv"
    table.write_bytes(content)
    assert reason in cli("data", "check", table, "--alphabet", "dna", code=3).err
    assert cli.json("data", "check", table, "--alphabet", "dna", code=3)["error"]["code"] == "bad_input"


def test_what_is_not_there_ends_with_4(cli, tmp_path):
    cli("data", "show", "nothing", code=4)
    cli("data", "check", tmp_path / "nothing.csv", "--alphabet", "dna", code=4)
    cli("campaign", "show", "nothing", code=4)
    cli("model", "show", "nothing", code=4)
    cli("campaign", "create", tmp_path / "nothing.yaml", code=4)


def test_a_benchmark_says_what_can_be_learnt(cli, readings):
    cli("data", "import", readings, *NEW)
    found = cli.json("data", "benchmark", "d")
    assert found["num_items"] == found["num_readings"]
    assert found["held_out_spearman"] > 0.3
