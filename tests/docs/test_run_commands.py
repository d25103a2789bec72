"""The commands of the pages, run on drawn scenes with the demo model, page by page."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Command, commands, tagclip_words
from tests.docs.workspace import build
from wsss.cli.main import build_parser, execute

# In this order, as later pages read runs that earlier ones have made.
ORDER = (
    "README", "docs/own-data", "docs/export", "docs/tags", "docs/reproduce", "docs/masks", "docs/segmentation",
    "docs/dense",
)  # fmt: skip
OUTPUTS = ("runs/mine", "runs/voc2012/segmentation", "segmented", "model.onnx")  # by two pages, with other settings
# What stands for models that are too large for a test: a small one, for the classes of the run.
SMALL = {
    "segmentation/deeplabv2_r101_voc": ["demo/segmentation"],
    "segmentation/deeplabv3plus_r50_voc": ["demo/segmentation"],
    "segmentation/deeplabv3plus_r18_custom": ["demo/segmentation", "--classes", "classes.txt"],
}
# What is added where the option exists and is not given: the demo model for real weights, and little work.
ADDED = {
    "--model": ["demo"],
    "--device": ["cpu"],
    "--threads": ["1"],
    "--mask-workers": ["1"],
    "--timed-images": ["1"],
}
TRAINING = [
    "--iterations", "2", "--backbone-weights", "none", "--set",
    "train.train_dataloader.batch_size=2", "train.train_dataloader.num_workers=0",
    "train.train_dataloader.persistent_workers=False",
]  # fmt: skip


def substituted(words: list[str]) -> list[str]:
    """The command with a small model, little work, and the checkpoint that there is."""
    subcommand = words[0]
    words = [part for word in words for part in SMALL.get(word, [word])]
    known = _options(words)
    for flag, values in ADDED.items():
        if flag in known and flag not in words and not (flag == "--model" and "--run" in words):
            words += [flag, *values]
    if subcommand == "train":
        words += TRAINING  # the last --iterations counts
    if "--checkpoint" in words:
        place = words.index("--checkpoint") + 1
        words[place] = str(min(Path(words[place]).parent.glob("*.pth")))
    return words


def _options(words: list[str]) -> set[str]:
    parser = build_parser()
    for word in words[:2]:
        families = [action.choices for action in parser._actions if hasattr(action.choices, "items")]
        parser = families[0].get(word, parser) if families else parser
    return set(parser._option_string_actions)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    build(root)
    before = Path.cwd()
    os.chdir(root)
    yield {"root": root, "done": set()}
    os.chdir(before)


def run_page(name: str) -> None:
    """Runs the commands of a page that nothing excuses."""
    for output in map(Path, OUTPUTS):
        if output.is_dir():
            shutil.rmtree(output)
    for command in commands(ROOT / f"{name}.md"):
        words = tagclip_words(command.words)
        if command.needs:
            continue
        if words is None:
            _run_other(command)
        else:
            given = substituted(words)
            assert execute(given) == 0, given


def _run_other(command: Command) -> None:
    if command.words[0] == "cp":
        shutil.copy(command.words[1], command.words[2])
    else:
        raise AssertionError(f"{command}: cannot be run here; excuse its block with a comment")


@pytest.mark.pydensecrf
@pytest.mark.parametrize("name", ORDER)
def test_commands_run(workspace, name):
    pytest.importorskip("pydensecrf", reason="the reference preset computes its CRF with it")
    for earlier in ORDER[: ORDER.index(name) + 1]:
        if earlier not in workspace["done"]:
            run_page(earlier)
            workspace["done"].add(earlier)


def test_pages_with_commands_to_run_are_run():
    found = {
        page.relative_to(ROOT).with_suffix("").as_posix()
        for page in (ROOT / "docs").rglob("*.md")
        if any(tagclip_words(one.words) and not one.needs for one in commands(page))
    }
    assert found <= set(ORDER)
