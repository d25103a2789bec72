"""The three command lines of stage three."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from tests.wsss.segmentation import squares

TOOLS = Path(__file__).parents[2] / "tools"


def call(capsys, tool: str, *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a tool."""
    before = sys.argv
    sys.argv = [tool, *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(TOOLS / f"{tool}.py"), run_name="__main__")
    finally:
        sys.argv = before
    output = capsys.readouterr()
    return int(ended.value.code or 0), output.out, output.err


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A config and the two folders."""
    root = tmp_path_factory.mktemp("tools")
    (root / "squares.py").write_text(squares.CONFIG)
    squares.run_folder(root / "run", count=4)
    squares.voc_folder(root / "val", count=2)
    return root


def test_train_segment_export(work, capsys):
    options = ("--run", work / "run", "--val", work / "val", "--iterations", 2)
    code, out, _ = call(
        capsys, "train_segmentor", "--config", work / "squares.py", *options, "--set", "train.train_cfg.val_interval=2"
    )
    assert code == 0
    assert "pseudo masks" in out
    summary = json.loads((work / "run" / "segmentation" / "summary.json").read_text())
    checkpoint = Path(summary["checkpoint"])
    assert checkpoint.name == "best_mIoU_iter_2.pth"

    photos = work / "val" / "JPEGImages"
    arguments = ("--checkpoint", checkpoint, "--images", photos, "--out", work / "out", "--tta", "--refine", "crf")
    code, out, _ = call(capsys, "segment", *arguments, "--threads", 1)
    assert code == 0
    assert "2 segmented, 0 kept" in out
    assert sorted(path.name for path in (work / "out" / "overlays").iterdir()) == ["s100.png", "s101.png"]

    for words in ("2 segmented, 0 kept", "0 segmented, 2 kept"):  # results among the photos are no photos
        inside = ("--checkpoint", checkpoint, "--images", photos, "--out", photos / "out", "--threads", 1)
        assert words in call(capsys, "segment", *inside)[1]

    arguments = ("--checkpoint", checkpoint, "--out", work / "model.onnx", "--image", photos / "s100.png")
    code, out, _ = call(capsys, "export_segmentor", *arguments, "--size", "64x64")
    assert code == 0
    assert "largest logit difference to torch" in out


TRAIN = ("--config", "squares.py", "--run")
SEGMENT = ("--checkpoint", "no.pth", "--out", "o", "--images")
WITHOUT_CLASSES = "set `vocabulary` in the config or give --classes"


@pytest.mark.parametrize(
    ("tool", "arguments", "code", "message"),
    [
        ("train_segmentor", ("--config", "no.py", "--run", "run"), 2, "--config no.py: neither a file nor"),
        ("train_segmentor", (*TRAIN, "nowhere"), 2, WITHOUT_CLASSES),
        ("train_segmentor", (*TRAIN, "run", "--set", "seed=1"), 2, "write --set train.seed=..."),
        ("segment", (*SEGMENT, "val/JPEGImages"), 2, "checkpoint no.pth does not exist"),
        ("segment", (*SEGMENT, "nothing"), 2, "nothing"),
        ("segment", (*SEGMENT, "val/JPEGImages", "--tta", "--flip"), 2, "--tta sets scales and flip"),
        ("export_segmentor", ("--checkpoint", "no.pth", "--out", "m.onnx", "--image", "no.jpg"), 1, "no.jpg"),
    ],
)
def test_mistakes_are_one_line(work, capsys, monkeypatch, tool, arguments, code, message):
    monkeypatch.chdir(work)
    found, _, err = call(capsys, tool, *arguments)
    last = err.strip().splitlines()[-1]
    assert found == code
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in err


def test_bad_masks_end_a_training_before_it_starts(work, capsys, tmp_path):
    root = squares.run_folder(tmp_path / "run", count=2)
    (root / "masks" / "a" / "s0.png").write_bytes(b"")
    code, _, err = call(capsys, "train_segmentor", "--config", work / "squares.py", "--run", root)
    assert code == 1
    assert "s0.png: not an image that can hold class ids" in err.strip().splitlines()[-1]
    assert not (root / "segmentation").exists()
