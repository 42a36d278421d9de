"""The notebooks run, and ship with the output of a run.

To write that output anew after a change: plait benchmark fetch, then
REFRESH_NOTEBOOKS=1 .venv/bin/python -m pytest tests/notebooks
Here benchmarks.ipynb runs on a small slice, on what ships with Plait alone.
"""

import base64
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
QUICKSTART, BENCHMARKS = FOLDER / "01_quickstart.ipynb", FOLDER / "benchmarks.ipynb"
SILENT = {QUICKSTART: {"setup"}, BENCHMARKS: {"setup", "parameters", "wells"}}
"""Cells that show nothing."""
PICTURES = {
    QUICKSTART: {"plot", "logos"},
    BENCHMARKS: {"landscapes", "overoptimisation", "brakes", "doubt", "wells-plot"},
}
IS_REFRESH = bool(os.environ.get("REFRESH_NOTEBOOKS"))
BEST_OF_START = 0.2071  # log10 PSI
MOST_BYTES = 600_000
A_PATH = r"(?:/(?:home|Users|tmp|var|root|work|private|usr)/|[A-Z]:\\)\S*"
LAST_CELL = 'print(*(f"{name} {values.median():.4f} {values.count()}" for name, values in groups.items()), sep="\\n")'
"""Added to the run, never to the file: the numbers behind the summary."""
SMALL_SLICE = """names, seeds, num_rounds = ["splice6"], (0,), 2
model = ensemble.Config(families=("mlp",), members=2, steps=50)"""
"""In place of the parameters of benchmarks.ipynb."""


def code_cells(notebook):
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def shown(cell):
    """What a cell shows as text."""
    data = [output.get("data", {}) for output in cell.outputs]
    return "".join(o.get("text", "") for o in cell.outputs) + "".join(
        d.get("text/plain", "") + d.get("text/html", "") for d in data
    )


def run(notebook, folder, patch):
    """Execute a notebook in an empty folder, with nothing of this machine's configuration."""
    for name in [name for name in os.environ if name.startswith("PLAIT_")]:
        patch.delenv(name)
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "TMPDIR"):
        (folder / name).mkdir()
        patch.setenv(name, str(folder / name))
    NotebookClient(
        notebook,
        timeout=1800 if IS_REFRESH else 280,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    ).execute()


def refresh(path, cells, notebook):
    """Write a run as the notebook that ships, if asked to."""
    if IS_REFRESH:
        kept = nbformat.from_dict(notebook | {"cells": cells})
        kept.metadata.language_info = {"name": "python"}
        nbformat.write(kept, path)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    notebook = nbformat.read(QUICKSTART, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(LAST_CELL, id="numbers"))
    with pytest.MonkeyPatch.context() as patch:
        run(notebook, tmp_path_factory.mktemp("run"), patch)
    refresh(QUICKSTART, notebook.cells[:-1], notebook)
    return notebook


@pytest.fixture(scope="module")
def executed_benchmarks(tmp_path_factory):
    """On a small slice; whole, with what was fetched on this machine, if it is to be written."""
    notebook = nbformat.read(BENCHMARKS, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("run")
        if not IS_REFRESH:
            code_cells(notebook)["parameters"].source = SMALL_SLICE
            patch.setenv("XDG_CACHE_HOME", str(folder))
        run(notebook, folder, patch)
    refresh(BENCHMARKS, notebook.cells, notebook)
    return notebook


@pytest.fixture(params=[QUICKSTART, BENCHMARKS], ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def shipped(path):
    return nbformat.read(path, as_version=4)


def check_outputs(path, cells):
    """Every cell that should has output, no cell has an error or a word on stderr."""
    assert {name for name, cell in cells.items() if not cell.outputs} == SILENT[path]
    assert {output.output_type for cell in cells.values() for output in cell.outputs} <= {
        "stream",
        "execute_result",
        "display_data",
    }
    assert "".join(o.text for c in cells.values() for o in c.outputs if o.get("name") == "stderr") == ""
    for name in PICTURES[path]:
        pictures = [o.data["image/png"] for o in cells[name].outputs if "image/png" in o.get("data", {})]
        assert [base64.b64decode(picture)[1:4] for picture in pictures] == [b"PNG"]


@pytest.mark.timeout(300)
def test_the_quickstart_runs_and_its_designs_beat_what_it_started_from(executed):
    cells = code_cells(executed)
    numbers = {}
    for line in cells.pop("numbers").outputs[0].text.splitlines():
        name, median, count = line.rsplit(" ", 2)
        numbers[name] = (float(median), int(count))
    check_outputs(QUICKSTART, cells)
    assert numbers["start"][1] == 2000
    assert min(numbers["round 1"][1], numbers["round 2"][1]) >= 8
    assert numbers["prior"][0] < BEST_OF_START < numbers["round 2"][0] < 2.5
    assert "mostly noise" in " ".join(shown(cells["benchmark"]).split())
    assert re.findall(A_PATH, "\n".join(map(shown, cells.values()))) == []


@pytest.mark.timeout(1800 if IS_REFRESH else 300)
def test_the_benchmarks_notebook_runs_and_shows_what_the_gate_lets_pass(executed_benchmarks):
    cells = code_cells(executed_benchmarks)
    check_outputs(BENCHMARKS, cells)
    assert "splice6: the gate rejects 0.0% of all items" in shown(cells["gate"])
    table = cells["gate"].outputs[-1].data["text/html"]
    shares = [[int(share) for share in re.findall(r"<td>(\d+)%</td>", row)] for row in table.split("<tr>")]
    assert [row[1] for row in shares if row] == [100] * 6
    assert "seed 0: " in shown(cells["cells"])
    assert re.findall(A_PATH, "\n".join(map(shown, cells.values()))) == []


def test_every_notebook_ships_with_the_output_of_one_clean_run(path, shipped):
    nbformat.validate(shipped)
    cells = code_cells(shipped)
    check_outputs(path, cells)
    assert [cell.execution_count for cell in cells.values()] == list(range(1, len(cells) + 1))
    assert path.stat().st_size < MOST_BYTES


def test_no_notebook_tells_anything_of_the_machine_it_ran_on(shipped):
    assert shipped.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert all(cell.metadata == {} for cell in shipped.cells)
    texts = [cell.source for cell in shipped.cells] + [shown(cell) for cell in code_cells(shipped).values()]
    assert re.findall(A_PATH, "\n".join(texts)) == []
    assert re.findall(r"\bat 0x[0-9a-f]+", "\n".join(texts)) == []
