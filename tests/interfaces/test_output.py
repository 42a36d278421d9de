import io
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest
from plait.campaign.records import RoundState
from plait.interfaces.cli.output import aligned, facts, json_text, print_blocks
from plait.interfaces.cli.progress import ProgressBars, ProgressLines, progress_on


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass(frozen=True)
class Thing:
    when: datetime
    state: RoundState
    values: tuple[float, ...]


def test_records_become_plain_json():
    thing = Thing(datetime(2026, 1, 2, 3, tzinfo=UTC), RoundState.CLOSED, (1.0, math.nan, math.inf))
    document = json.loads(json_text({"thing": thing, "array": np.array([1.5, np.nan]), "count": np.int64(3)}))
    assert document["thing"] == {"when": "2026-01-02T03:00:00+00:00", "state": "closed", "values": [1.0, None, None]}
    assert (document["array"], document["count"]) == ([1.5, None], 3)
    with pytest.raises(TypeError):
        json_text(object())


def test_a_table_that_nobody_looks_at_is_never_cut():
    long = "ACGT" * 100
    text = aligned((["rank", "sequence"], [["1", long], ["10", "A"]]))
    assert text.splitlines() == ["rank  sequence", f"1     {long}", "10    A"]


def test_what_somebody_wrote_stays_on_its_line_and_moves_no_cursor():
    text = aligned((["campaign", "why"], [["c", "one\ntwo \x1b[31m"]])) + facts(reason="one\ntwo\x1b")
    assert text == "campaign  why\nc         one\\ntwo \\x1b[31m\nreason  one\\ntwo\\x1b"


def test_a_terminal_gets_boxes_unless_no_colour_is_wanted(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    table = (["a"], [["[bold]1"]])
    fancy, plain = Terminal(), Terminal()
    print_blocks(fancy, [table])
    monkeypatch.setenv("NO_COLOR", "1")
    print_blocks(plain, [table])
    assert "[bold]1" in fancy.getvalue()  # cells are text, not markup
    assert "\x1b[" in fancy.getvalue()
    assert plain.getvalue() == "a\n[bold]1\n"


def test_progress_is_a_line_now_and_then():
    stream = io.StringIO()
    with progress_on(stream, is_quiet=False) as progress:
        assert isinstance(progress, ProgressLines)
        for done in range(1001):
            progress("fine-tuning", done, 1000, "kl 1.0")
        progress("waiting", 0, 0, "for another process")
    assert stream.getvalue().splitlines() == [
        "fine-tuning 0/1000: kl 1.0",
        "fine-tuning 1000/1000: kl 1.0",
        "waiting: for another process",
    ]


def test_progress_is_drawn_on_a_terminal_and_silent_when_asked(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream, silent = Terminal(), Terminal()
    with progress_on(stream, is_quiet=False) as progress:
        assert isinstance(progress, ProgressBars)
        progress("pre-training", 3, 10, "[elbo]")
    assert "pre-training" in stream.getvalue()
    assert "[elbo]" in stream.getvalue()
    with progress_on(silent, is_quiet=True) as progress:
        progress("pre-training", 3, 10, "")
    assert silent.getvalue() == ""
