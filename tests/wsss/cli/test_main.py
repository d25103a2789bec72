"""The command itself: quick help, no heavy imports, version, completion."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tagclip
from tests.wsss.cli.parsers import leaves
from wsss.cli.main import build_parser, execute

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "mmengine", "cv2", "numpy", "rich", "yaml", "PIL", "matplotlib", "open_clip")
SECONDS = 0.3
# Runs main in a fresh interpreter and reports the processor's time of all of it, start-up included, and what it loaded.
PROBE = """
import json, sys, time
from wsss.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    heavy = [name for name in {heavy!r} if name in sys.modules]
    print("\\n" + json.dumps({{"code": end.code, "seconds": time.process_time(), "heavy": heavy}}))
"""


def probe(*arguments: str) -> dict:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROBE.format(heavy=HEAVY), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("words", [[], ["run"], ["evaluate", "masks"]], ids=" ".join)
def test_help_is_quick_and_loads_nothing_heavy(words):
    # The processor's time, as the machine may be busy with other things, and the best of three.
    found = [probe(*words, "--help") for _ in range(3)]
    assert [(one["code"], one["heavy"]) for one in found] == [(0, [])] * 3
    assert min(one["seconds"] for one in found) < SECONDS


def test_no_help_loads_anything_heavy():
    code = (
        "import sys; from tests.wsss.cli.parsers import leaves; from wsss.cli.main import build_parser\n"
        "found = [one.format_help() for one in leaves(build_parser())]\n"
        f"print(len(found), [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == f"{len(leaves(build_parser()))} []\n"


def test_version_and_a_bare_command(capsys):
    with pytest.raises(SystemExit) as ended:
        execute(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"tagclip {tagclip.__version__}\n"
    assert execute([]) == 2
    assert "export-model" in capsys.readouterr().out


def complete(line: str) -> list[str]:
    """What a shell that uses argcomplete would offer at the end of the line."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line,
        "COMP_POINT": str(len(line)), "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
    }  # fmt: skip
    command = [sys.executable, "-c", "import os, sys; os.dup2(1, 8); from wsss.cli.main import main; main()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return [word.strip() for word in done.stdout.split("\n") if word.strip()]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("tagclip ex", ["export", "export-model"]),
        ("tagclip run --tag-r", ["--tag-rule"]),
        ("tagclip run --refine ", ["crf", "pamr", "par", "sam", "none"]),
        ("tagclip evaluate ", ["tags", "masks", "dense"]),
        ("tagclip tag --config tagging/voc2007", ["tagging/voc2007"]),
        ("tagclip tag --classes coco", ["coco", "cocostuff"]),
    ],
)
def test_completion(line, offered):
    found = complete(line)
    assert [word for word in found if not word.startswith("-") or line.endswith("-r")] == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_code(shell, capsys):
    assert execute(["completion", shell]) == 0
    assert "tagclip" in capsys.readouterr().out


def test_the_entry_point_is_marked_for_global_completion():
    assert "PYTHON_ARGCOMPLETE_OK" in (ROOT / "wsss" / "cli" / "main.py").read_text()[:1024]
    assert "tagclip=wsss.cli.main:main" in (ROOT / "setup.py").read_text()


def test_configs_are_listed_with_what_they_are_for(capsys):
    assert execute(["configs", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["masks/custom"].startswith("Your own photos and classes")
    assert not [name for name in found if "_base_" in name]
    assert execute(["configs"]) == 0
    assert "segmentation/deeplabv3plus_r18_custom" in capsys.readouterr().out


def test_the_probe_sees_what_is_heavy():
    """Otherwise the test above could not fail."""
    found = probe("evaluate", "tags", "--tags", "nowhere", "--labels", "nowhere", "--classes", "cat")
    assert found["code"] == 2
    assert "numpy" in found["heavy"]
