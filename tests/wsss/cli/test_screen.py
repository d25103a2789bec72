"""Results on a terminal, in a pipe and as JSON; progress bars and messages."""

import io
import json
import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tagclip.errors import RunError, UsageError
from wsss.cli import console, progress
from wsss.cli.progress import counted, progress_bar, watched
from wsss.cli.screen import Output, Table

ROOT = Path(__file__).parents[3]
TABLE = Table(("class", "images"), [("cat [red]", "3"), ("dog", "12")])


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_plain_table_is_aligned(capsys):
    Output().show(TABLE)
    assert capsys.readouterr().out == "class      images\ncat [red]       3\ndog            12\n"
    assert Table(("a", "b"), [("x", "long"), ("y", "z")], left=True).plain() == "a  b\nx  long\ny  z"


def test_a_terminal_gets_a_drawn_table_and_names_stay_as_they_are(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    Output().show(TABLE)
    Output().markdown("| a | b |\n|---|---|\n| 1 | 2 |")
    drawn = terminal.getvalue()
    assert "cat [red]" in drawn
    assert "┃" in drawn
    assert "|---|" not in drawn


def test_figures_go_to_a_file_or_alone_to_the_screen(tmp_path, capsys):
    output = Output(str(tmp_path / "new" / "figures.json"))
    output.show("text")
    output.figures({"miou": 0.5, "name": "café"})
    assert json.loads((tmp_path / "new" / "figures.json").read_text(encoding="utf-8")) == {"miou": 0.5, "name": "café"}
    assert capsys.readouterr().out == "text\n"
    output = Output("-")
    output.show("text")
    output.markdown("text")
    output.figures([1, 2])
    assert json.loads(capsys.readouterr().out) == [1, 2]
    Output().figures([1])
    assert capsys.readouterr().out == ""
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot be written"):
        Output(str(tmp_path / "file" / "figures.json")).figures([1])


def test_numbers_that_json_does_not_know_are_null(capsys):
    Output("-").figures({"miou": float("nan"), "rows": [(1.5, float("inf"))]})
    assert json.loads(capsys.readouterr().out) == {"miou": None, "rows": [[1.5, None]]}


def test_lines_of_progress_in_a_log(monkeypatch, capsys):
    now = [0.0]
    bar = progress._Lines(100, "masks", 20, "images", lambda: now[0])
    bar.update(10)
    assert capsys.readouterr().err == ""
    now[0] = 40.0
    bar.note("model 2.00/s")
    bar.update(10)
    # 20 images in 40 s: half a second each is left of 60.
    assert capsys.readouterr().err == "masks: 40 of 100 images, 0.50/s, 2 min left; model 2.00/s\n"
    now[0] = 41.0
    bar.update(10)
    assert capsys.readouterr().err == ""
    assert bar.done == 50


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    console.terminal.cache_clear()
    with progress_bar(3, "tags", done=1) as bar:
        bar.update()
        bar.note("model 2/s")
        counted(bar)(3)
        assert bar.done == 3
        assert bar.progress.tasks[0].completed == 3
        bar.progress.refresh()
    assert "tags" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()


def test_quiet_progress_counts_and_shows_nothing(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar(3, "tags", quiet=True) as bar:
        assert list(watched("ab", bar)) == ["a", "b"]
    assert (bar.done, terminal.getvalue()) == (2, "")


@pytest.mark.parametrize(("quiet", "said"), [(False, "INFO: a note\nWARNING: mind\n"), (True, "WARNING: mind\n")])
def test_messages(quiet, said, capsys):
    console.setup_logging(quiet)
    logger = logging.getLogger("wsss.anything")
    logger.info("a note")
    logger.warning("mind")
    assert capsys.readouterr().err == said


def failing(error: BaseException):
    def main(argv):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("--out: no\nsuch thing"), 2, "error: --out: no such thing\n"),
        (RunError("disk full"), 1, "error: disk full\n"),
        (KeyboardInterrupt(), 130, "interrupted; the same command resumes where it stopped\n"),
    ],
)
def test_exit_codes(error, code, said, capsys):
    with pytest.raises(SystemExit) as ended:
        console.run_main(failing(error))
    assert ended.value.code == code
    assert capsys.readouterr().err == said


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        console.run_main(failing(ZeroDivisionError()))


def test_mmseg_loads_in_silence():
    code = (
        "import warnings; from wsss.cli.console import load_mmseg; load_mmseg()\n"
        "from mmseg.models.losses import CrossEntropyLoss; CrossEntropyLoss()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "OneDL" not in done.stdout + done.stderr
    assert "avg_non_ignore" not in done.stderr
    assert "MultiScaleDeformableAttention" not in done.stderr


def test_the_suppressed_words_are_those_of_mmseg():
    """The installed mmseg still says both by itself: else the test above could not fail."""
    root = Path(find_spec("mmseg").submodule_search_locations[0])
    assert "print_log('Could not import OneDL'" in (root / "datasets" / "__init__.py").read_text()
    assert console.KNOWN_WARNINGS[1] in (root / "models" / "losses" / "cross_entropy_loss.py").read_text()


