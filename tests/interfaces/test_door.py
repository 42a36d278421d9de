import errno
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr

import pytest
import typer
from plait.design.errors import BadInputError, CorruptArtifactError, NotFoundError, RowProblem, WrongStateError
from plait.interfaces.cli.door import interrupted, is_interruption, leave
from plait.interfaces.cli.session import Session


def told(error: BaseException, home, is_json: bool) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    session = Session(out)
    session.adopt(home=home, json=is_json, quiet=False, actor=None, override=None)
    with redirect_stderr(err):
        code = leave(error, session)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    ("kind", "code"), [(BadInputError, 3), (NotFoundError, 4), (WrongStateError, 4), (CorruptArtifactError, 5)]
)
def test_each_sort_of_error_has_its_code(tmp_path, kind, code):
    assert told(kind("what", hint="do"), tmp_path, False) == (code, "", "error: what\nhint: do\n")
    returned, out, err = told(kind("what", hint="do"), tmp_path, True)
    assert (returned, err) == (code, "")
    assert json.loads(out)["error"] | {"problems": []} == {
        "code": kind.code,
        "message": "what",
        "hint": "do",
        "problems": [],
    }


def test_bad_cells_cannot_write_on_the_terminal(tmp_path):
    error = BadInputError("what", problems=[RowProblem(2, "value", "\x1b[2Jx\ny", "why")])
    _, _, err = told(error, tmp_path, False)
    assert "\x1b" not in err
    assert "\\x1b[2Jx\\ny" in err


def test_a_mistake_in_many_rows_is_one_line(tmp_path):
    many = [RowProblem(row, "assay", "x", "no assay") for row in range(2, 26)]
    few = [RowProblem(row, "value", "?", "no number") for row in range(2, 12)]
    code, _, err = told(BadInputError("what", problems=[*many, *few]), tmp_path, False)
    lines = [line.split(maxsplit=3) for line in err.splitlines()[2:]]
    assert code == 3
    assert lines[0] == ["2", "assay", "x", "no assay (24 rows like this)"]
    assert lines[1:] == [[str(row), "value", "?", "no number"] for row in range(2, 12)]
    assert len(json.loads(told(BadInputError("what", problems=many), tmp_path, True)[1])["error"]["problems"]) == 24


def test_a_surprise_is_one_line_and_its_trace_is_in_a_private_log(tmp_path):
    try:
        raise ZeroDivisionError("postgresql://me:secret@host/db")
    except ZeroDivisionError as surprise:
        code, out, err = told(surprise, tmp_path, False)
    log = tmp_path / "plait.log"
    assert (code, out) == (5, "")
    assert err.count("\n") == 1
    assert err.startswith("internal error: ZeroDivisionError")
    assert str(log) in err
    assert "test_door.py" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    assert "secret" not in err + log.read_text()
    document = json.loads(told(ValueError("x"), tmp_path / "no home", True)[1])
    assert document["error"]["code"] == "internal"
    assert not (tmp_path / "no home").exists()


@pytest.mark.parametrize("outcome", [130, KeyboardInterrupt(), typer.Abort(), SystemExit(signal.SIGTERM)])
def test_all_ways_to_stop_are_the_same(outcome):
    assert is_interruption(outcome)
    out = io.StringIO()
    session = Session(out)
    session.is_json = True
    assert interrupted(session) == 130
    assert "again" in json.loads(out.getvalue())["error"]["hint"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_ends_with_130(nowhere, tmp_path, stop):
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    process = nowhere.start("data", "check", pipe, "--alphabet", "dna")
    with pipe.open("w"):  # opens when the command opens it, and keeps it waiting for data
        time.sleep(1)
        process.send_signal(stop)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.count("\n") == 1
    assert "run the same command again" in err


def test_a_reader_that_goes_away_is_no_error(nowhere, tmp_path):
    table = tmp_path / "bad.csv"
    table.write_text("sequence,value\n" + "ACGTACGT,what\n" * 20_000)
    process = nowhere.start("data", "check", table, "--alphabet", "dna", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "{\n"
    process.stdout.close()
    assert process.wait(timeout=60) == 3
    assert process.stderr.read() == ""
    process.stderr.close()


def test_output_in_a_poor_locale_is_still_json():
    line = [sys.executable, "-m", "plait.interfaces.cli", "--home", "/no/é", "data", "list", "--json"]
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    process = subprocess.run(line, capture_output=True, env=environment, check=False)
    assert process.returncode == 4
    assert "é" in json.loads(process.stdout)["error"]["message"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing_is_no_surprise(tmp_path, number):
    code, _, err = told(OSError(number, os.strerror(number), "/home/x"), tmp_path, False)
    assert code == 5
    assert err.startswith(f"error: /home/x cannot be used: {os.strerror(number)}\nhint: ")
    assert not (tmp_path / "plait.log").exists()


def test_a_log_that_cannot_be_written_lies_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "plait.log").write_bytes(b"x" * 1_000_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))  # the log opens, and has no room
    try:
        code, _, err = told(ZeroDivisionError("x"), tmp_path / "home", False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 5
    [log] = tmp_path.glob("plait-*.log")
    assert str(log) in err
    assert "ZeroDivisionError" in log.read_text()


ABORTING = """
import atexit, os, sys, threading, signal
from plait.interfaces.cli.main import run
atexit.register(os.abort)
threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
sys.argv = ["plait", "data", "check", sys.argv[1], "--alphabet", "dna", "--json"]
run()
"""


def test_an_interruption_keeps_its_code_though_a_library_dies_at_the_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # reading it waits for ever
    line = [sys.executable, "-c", ABORTING, str(tmp_path / "pipe")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (130, "interrupted")
