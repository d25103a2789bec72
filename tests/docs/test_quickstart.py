"""docs/quickstart.ipynb runs, keeps small outputs, and its committed figures are those of a run."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "quickstart.ipynb"
BYTES = 400_000


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def executed(committed, tmp_path_factory):
    """The notebook after a run in an empty folder."""
    notebook = nbformat.from_dict(committed)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    resources = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    return NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=resources).execute()


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def figures(notebook):
    return [output for output in outputs(notebook) if "image/jpeg" in output.get("data", ())]


def texts(notebook):
    """What the cells print."""
    streams = [output for output in outputs(notebook) if output.output_type == "stream"]
    return [output.text for output in streams if output.name == "stdout"]


def test_it_is_small_and_names_no_machine(committed):
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < BYTES
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
    nbformat.validate(committed)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert 8 <= len(code) <= 12
    assert len(figures(committed)) == 3
    assert all(cell.execution_count for cell in code)


def test_it_runs(executed):
    assert len(figures(executed)) == 3
    table = texts(executed)[-1]
    assert "background" in table
    assert "cow" in table


def test_its_committed_tables_are_those_of_a_run(committed, executed):
    before, now = texts(committed), texts(executed)
    assert [text.split("\n")[0] for text in before] == [text.split("\n")[0] for text in now]
    numbers = [[float(word) for word in re.findall(r"\d+\.\d+", text)] for text in (before[-1], now[-1])]
    assert numbers[0] == pytest.approx(numbers[1], abs=1.0)  # other processors round elsewhere
