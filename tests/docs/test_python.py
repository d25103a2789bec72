"""Every block of docs/python.md, in order, on demo scenes; blocks that begin with a file's name become that file."""

import re
from pathlib import Path

import pytest
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# (\w+\.py)\n")


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the blocks leave behind; `folder` is where they ran."""
    folder = tmp_path_factory.mktemp("page")
    names = {"folder": folder}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for number, code in enumerate(BLOCK.findall(PAGE.read_text(encoding="utf-8")), start=1):
            if name := FILE.match(code):
                Path(name[1]).write_text(code, encoding="utf-8")
            else:
                exec(compile(code, f"python.md, block {number}", "exec"), names)
    return names


def test_the_page_has_its_sections():
    headings = re.findall(r"^## (.*)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(headings) == 8
    assert len(BLOCK.findall(PAGE.read_text(encoding="utf-8"))) == 14


def test_what_the_comments_say_is_true(names):
    grid, vocabulary, details = names["result"].grid, names["vocabulary"], names["details"]
    words = len(vocabulary) + len(vocabulary.background)
    assert details["patch_features"].shape == (grid.count, names["clip"].embed_dim)
    assert details["coarse"].shape == details["first"].shape == details["refined"].shape == (grid.count, words)
    assert details["vote_mask"].shape == details["affinity"].shape == (grid.count, grid.count)
    assert details["local"].shape == details["scores"].shape == (len(vocabulary),)
    assert names["features"].shape[0] == grid.count
    found = names["found"]
    assert found.mask.shape == found.confidence.shape == names["mask"].shape
    assert set(found.maps) == set(found.tags)
    assert len(names["both_masks"]) == 2
    assert len(names["stuff"].vocabulary) == 171
    assert names["stuff"].tagging.rule.threshold == 0.2
    assert names["tagging"].rule.threshold == 0.3
    assert not names["tagging"].cwr.enabled


def test_what_it_makes(names):
    folder = names["folder"]
    assert names["run"].counts["masks"] == 4
    assert names["exported"].images == 4
    assert names["exported"].splits == {"train": 3, "val": 1}
    assert (folder / "runs" / "scenes" / "export" / "coco" / "annotations" / "instances_val.json").is_file()
    assert Path(names["summary"].checkpoint).name == "iter_2.pth"
    assert names["segmented"].labels.shape == names["found"].mask.shape
    assert names["scores"].images == 2
    for picture in ("found.png", "segmented.png"):
        with Image.open(folder / picture) as image:
            assert image.width > 400
