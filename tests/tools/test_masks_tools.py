"""`tagclip run`, `mask` and `show`, run in this process on the golden model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from tagclip.errors import RunError, UsageError
from tests.tools.commands import command
from tests.wsss.runs import draw_images
from tests.wsss.segmentation import squares

mask, remask, run, show = command("mask"), command("remask"), command("run"), command("show")
ROOT = Path(__file__).parents[2]
CLASSES = "cat,dog,bird"
# The golden model is of random weights: by the default rule for few classes it finds none.
RULE = ["--set", "tagging.rule.floor=None", "tagging.rule.at_least_one=True"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory, golden_model_path):
    """A folder of images, options that all calls share, and a finished run."""
    base = tmp_path_factory.mktemp("tools")
    draw_images(base / "images", ((64, 48), (48, 64), (64, 48)))
    shared = ["--images", str(base / "images"), "--classes", CLASSES, "--model", str(golden_model_path),
              "--cache-dir", str(base / "cache"), "--device", "cpu"]  # fmt: skip
    options = [*shared, "--mask-workers", "1", "--workers", "1", "--set", "masks.crf.iterations=2"]
    assert run([*options, *RULE, "--out", str(base / "run"), "--confidence", "0.5"]) == 0
    return base, options, shared


def test_pipeline_prints_a_summary_and_writes_the_resolved_config(scene, capsys):
    base, options, _ = scene
    manifest = json.loads((base / "run" / "manifest.json").read_text())
    assert (manifest["state"], manifest["counts"]["masks"]) == ("complete", 3)
    assert manifest["masks"]["crf"]["iterations"] == 2
    assert manifest["vocabulary"]["names"] == ["cat", "dog", "bird"]
    times = json.loads((base / "run" / "times.json").read_text())
    assert times["images"] == {"decode": 3, "trunk": 3, "tags": 3, "cams": 3, "write": 3, "masks": 3}
    assert "\nconfidence = " not in (base / "run" / "config.py").read_text()
    assert "'confidence': 0.5" in (base / "run" / "config.py").read_text()
    assert run([*options, *RULE, "--out", str(base / "run"), "--confidence", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "complete already" in said
    assert "3 images: 3 masks, 0 failures, 0 without tags" in said


def test_masks_by_both_tools_are_equal(scene):
    base, options, _ = scene
    tags = ["--tags", str(base / "run" / "tags.jsonl"), "--confidence", "0.5"]
    assert mask([*options, *tags, "--out", str(base / "two")]) == 0
    for folder in ("masks", "cams"):
        for path in (base / "run" / folder).rglob("*.*"):
            assert path.read_bytes() == (base / "two" / path.relative_to(base / "run")).read_bytes()


def test_another_setting_is_refused_with_what_differs(scene):
    base, options, _ = scene
    with pytest.raises(RunError, match=r"masks\.refiner 'crf' there, 'none' here"):
        run([*options, *RULE, "--out", str(base / "run"), "--confidence", "0.5", "--refine", "none"])


@pytest.mark.pydensecrf
def test_another_crf_engine_is_another_run(scene):
    base, options, _ = scene
    assert json.loads((base / "run" / "manifest.json").read_text())["masks"]["crf"]["engine"] == "pydensecrf"
    with pytest.raises(RunError, match=r"masks\.crf\.engine 'pydensecrf' there, 'torch' here"):
        run([*options, *RULE, "masks.crf.engine=torch", "--out", str(base / "run"), "--confidence", "0.5"])


def test_without_pydensecrf_masks_are_made_on_tensors_but_not_the_references(scene, monkeypatch):
    base, options, _ = scene
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    assert run([*options, *RULE, "--out", str(base / "tensors"), "--confidence", "0.5"]) == 0
    manifest = json.loads((base / "tensors" / "manifest.json").read_text())
    assert (manifest["masks"]["crf"]["engine"], manifest["counts"]["masks"]) == ("torch", 3)
    assert "'engine': 'torch'" in (base / "tensors" / "config.py").read_text()
    assert remask(["--run", str(base / "tensors"), "--out", str(base / "again"), "--mask-workers", "1"]) == 0
    for mask in (base / "tensors" / "masks").rglob("*.png"):
        ours = np.asarray(Image.open(mask))
        assert mask.read_bytes() == (base / "again" / mask.relative_to(base / "tensors" / "masks")).read_bytes()
        theirs = np.asarray(Image.open(base / "run" / mask.relative_to(base / "tensors")))
        assert (ours == theirs).mean() > 0.99
    with pytest.raises(UsageError, match=r"masks\.crf\.engine is 'pydensecrf', as the reference preset has it"):
        run([*options, *RULE, "--out", str(base / "reference"), "--preset", "reference"])
    assert not (base / "reference").exists()


def test_dry_run_estimates_and_leaves_no_folder(scene, capsys):
    base, options, _ = scene
    assert run([*options, "--out", str(base / "dry"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "3 images in 2 batches, 0 unreadable; 3 classes" in said
    assert "time: about" in said
    assert "disk: about" in said
    assert not (base / "dry").exists()


def test_pipeline_goes_on_to_a_trained_model(golden_model_path, tmp_path, capsys):
    (tmp_path / "squares.py").write_text(squares.CONFIG)
    photos = squares.voc_folder(tmp_path / "photos", count=4)
    options = [
        "--images", str(photos / "JPEGImages"), "--classes", ",".join(squares.CLASSES),
        "--model", str(golden_model_path), "--device", "cpu", "--mask-workers", "1", "--refine", "none",
        "--out", str(tmp_path / "run"),
        "--val", str(photos), "--ground-truth", str(photos), "--iterations", "4", "--rounds", "1",
        "--backbone-weights", "none",
        "--seed", "3", "--set", "train.train_dataloader.batch_size=3", "train.train_cfg.val_interval=4",
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"--val, --ground-truth, .*--set train\.\*: .*no --train CONFIG"):
        run(options)
    assert run([*options, "--train", str(tmp_path / "squares.py")]) == 0
    said = capsys.readouterr().out
    assert all(words in said for words in ("pseudo masks", "self-training", "ground truth"))
    work_dir = tmp_path / "run" / "segmentation"
    assert (work_dir / "best_mIoU_iter_4.pth").is_file()
    (config,) = work_dir.glob("squares.py")
    trained = Config.fromfile(config)
    assert (trained.train_dataloader.batch_size, trained.randomness.seed, trained.model.pretrained) == (3, 3, None)


def test_failures_are_counted_and_strict_fails(scene, tmp_path):
    _, options, _ = scene
    draw_images(tmp_path / "images", ((64, 48), (64, 48)))
    (tmp_path / "images" / "part0" / "text.jpg").write_text("no image")
    options = list(options)
    options[options.index("--images") + 1] = str(tmp_path / "images")
    options += ["--out", str(tmp_path / "run"), "--refine", "none"]
    assert run(options) == 0
    (failure,) = (tmp_path / "run" / "failures.jsonl").read_text().splitlines()
    assert json.loads(failure)["id"] == "part0/text"
    with pytest.raises(RunError, match="1 of 3 images failed, see"):
        run([*options, "--strict"])


def test_tags_without_an_image_are_failures(scene, tmp_path):
    _, options, _ = scene
    (tmp_path / "tags.txt").write_text("part0/0 1\ngone 0\npart1/0\n")
    options = [*options, "--tags", str(tmp_path / "tags.txt"), "--tag-ids", "index", "--refine", "none"]
    assert mask([*options, "--out", str(tmp_path / "run")]) == 0
    (failure,) = (tmp_path / "run" / "failures.jsonl").read_text().splitlines()
    assert "gone: has tags, but there is no such image" in failure
    assert sorted(path.name for path in (tmp_path / "run" / "masks").rglob("*.png")) == ["0.png", "0.png"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--set", "masks.alpha=-1"], "alpha"),
        (["--set", "masks.nothing=1"], r"unknown setting masks\.nothing"),
        (["--method", "nothing"], "nothing"),
        (["--tags", "missing.jsonl"], "missing.jsonl"),
    ],
)
def test_wrong_usage(scene, tmp_path, extra, message):
    _, options, _ = scene
    with pytest.raises(UsageError, match=message):
        mask([*options, "--tags", str(scene[0] / "run"), *extra, "--out", str(tmp_path / "run")])


def test_visualize_draws_a_run_and_an_image(scene, tmp_path, capsys):
    base, _, shared = scene
    assert show(["--run", str(base / "run"), "--out", str(tmp_path / "sheet.png"), "--panel-height", "60"]) == 0
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[0] >= 3 * (60 + 20 + 6)
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 100
    assert show(["--run", str(base / "run"), "--ids", "part1/0", "--out", str(tmp_path / "one")]) == 0
    assert [path.relative_to(tmp_path / "one").as_posix() for path in (tmp_path / "one").rglob("*.png")] == [
        "part1/0.png"
    ]
    image = ["--images", str(base / "images" / "part0" / "0.png"), *shared[2:]]
    assert show([*image, "--names", "dog", "cat", "--out", str(tmp_path / "image.png"), "--panel-height", "60"]) == 0
    # image, two tags with two maps each, mask: six panels of 80 pixels with a gap of 6 between
    assert np.asarray(Image.open(tmp_path / "image.png")).shape[1] == 6 * 80 + 5 * 6
    with pytest.raises(UsageError, match="'nobody' is not in"):
        show(["--run", str(base / "run"), "--ids", "nobody", "--out", str(tmp_path / "x.png")])
    with pytest.raises(UsageError, match=r"no manifest\.json there"):
        show(["--run", str(tmp_path), "--out", str(tmp_path / "x.png")])


def test_tools_start_without_torch():
    """Mask workers import the main module again: it must be light."""
    code = "import sys, wsss.cli.main, tools.pipeline; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
