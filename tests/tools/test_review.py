"""`tagclip review`, run in this process."""

import json
import subprocess
import sys

import pytest

from tagclip.errors import UsageError
from tests.tools.commands import TOOLS, command
from tests.wsss.review.synthetic_runs import RunRecipe, make_run

review = command("review")


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", tmp_path / "photos", RunRecipe(["a", "b"]))


def test_makes_a_page_and_says_where(run, capsys):
    assert review(["--run", str(run), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "2 images, 2 thumbnails made" in said
    assert f"open in a browser: {(run / 'review' / 'index.html').resolve().as_uri()}" in said
    assert review(["--run", str(run)]) == 0
    assert "2 images, 0 thumbnails made" in capsys.readouterr().out
    assert review(["--run", str(run), "--overwrite", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["thumbnails"] == 2


def test_a_dry_run_writes_nothing(run, tmp_path, capsys):
    (tmp_path / "photos" / "b.png").unlink()
    assert review(["--run", str(run), "--dry-run"]) == 0
    assert "2 images, 2 thumbnails to make (about 0.0 MB); 1 photos are gone" in capsys.readouterr().out
    assert not (run / "review").exists()


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UsageError, match="give a run folder"):
        review(["--run", str(tmp_path)])


def test_the_script_is_the_same(run):
    command = [sys.executable, TOOLS / "review.py", "--run", run, "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout[:8]) == (0, "2 images")
