from dataclasses import fields

import matplotlib.image
import pytest
from plait.benchmarks.cells import failed, finished, make_cell
from plait.benchmarks.scoring import Scores
from plait.benchmarks.tasks import find_task
from plait.reporting.benchmark_figures import best_by_wells, final_scores, promise_and_truth, write_figures

METHODS = ("default", "braid", "drakes", "strl", "ppo", "best_of_n", "smc", "tds", "cfg")


def row(task, method, seed, place):
    """Runs that end the worse the later their method stands in METHODS; strl repeats itself."""
    plain = {f.name: 0.5 for f in fields(Scores)}
    share = None if task.startswith("ehrlich") else round(0.9 - 0.1 * place, 2)
    best = tuple(0.5 + 0.1 * number - 0.02 * place for number in range(3))
    by_round = {
        "best_by_round": best,
        "median_by_round": best,
        "gap_by_round": best,
        "top_share_by_round": (share,) * 3,
    }
    unique = 0.1 if method == "strl" else 0.9
    given = {"rounds": 3, "wells": 288, "top_share": share, "best_so_far": best[-1], "unique_fraction": unique}
    cell = make_cell(find_task(task), method, seed, "ehrlich")
    return finished(cell, Scores(**(plain | by_round | given)), 1.0, 1.0)


@pytest.fixture(scope="module")
def rows():
    made = [
        row(task, method, seed, place)
        for task in ("splice6", "ehrlich-s4-l50")
        for place, method in enumerate(METHODS)
        for seed in (0, 1)
    ]
    return [*made, failed(make_cell(find_task("splice"), "ppo", 0, "real"), "the lamp is broken")]


def groups(rows):
    return {"splice6": {m: [r for r in rows if (r.task, r.method) == ("splice6", m)] for m in METHODS}}


def test_every_figure_is_a_picture(rows, tmp_path):
    paths = write_figures(tmp_path / "figures", rows)
    assert {p.stem for p in paths} == {"best_by_wells", "top_share_by_round", "promise_and_truth", "final_scores"}
    for path in paths:
        height, width, _ = matplotlib.image.imread(path).shape
        assert min(height, width) > 300


def test_where_nothing_can_be_listed_there_is_no_top_share(rows, tmp_path):
    long = [r for r in rows if r.task == "ehrlich-s4-l50"]
    assert "top_share_by_round" not in {p.stem for p in write_figures(tmp_path, long)}


def test_without_a_finished_run_there_is_no_figure(rows, tmp_path):
    assert write_figures(tmp_path / "figures", rows[-1:]) == ()
    assert not (tmp_path / "figures").exists()


def test_lines_start_from_the_offline_data_and_seven_methods_are_named(rows):
    figure = best_by_wells(groups(rows))
    (panel,) = figure.axes
    assert len(panel.lines) == len(METHODS)
    assert all(list(line.get_xdata()) == [0, 96, 192, 288] for line in panel.lines)
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["default", "braid", "drakes", "strl", "ppo", "best_of_n", "smc"]
    greys = {line.get_color() for line in panel.lines if line.get_linewidth() < 1}
    assert len(greys) == 1 < len({line.get_color() for line in panel.lines}) - 6


def test_the_heat_map_says_shares_and_who_repeats_itself(rows):
    (axes,) = final_scores(groups(rows)).axes
    said = dict(zip([t.get_text() for t in axes.get_yticklabels()], [t.get_text() for t in axes.texts], strict=True))
    assert said["default"] == "90%"
    assert said["strl"] == "60% ✕"


def test_promise_and_truth_have_a_line_a_method(rows):
    (axes,) = promise_and_truth(groups(rows)).axes
    assert [t.get_text() for t in axes.get_yticklabels()] == list(METHODS)
