import csv
import io

import numpy as np
import pytest
from PIL import Image

from tagclip.errors import RunError, UsageError
from tagclip.images import prepare_image
from tagclip.vocabulary import Vocabulary
from tests.tools.commands import command
from wsss.config import PamrConfig
from wsss.dense.comparison import CompareConfig, Comparison
from wsss.dense.comparison_report import Row, draw_bars, to_csv, to_markdown
from wsss.dense.dense_config import DenseConfig
from wsss.dense.diagnostics import diagnose
from wsss.dense.inference import DenseSegmenter
from wsss.evaluation.scorer import MaskEvaluationConfig, MaskScorer

ONE = ("a photo of a {}.",)
CLASSES = Vocabulary(["cat", "dog", "car"], background=["grass", "sky"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, golden_dir):
    root = tmp_path_factory.mktemp("scenes")
    (root / "JPEGImages").mkdir()
    (root / "SegmentationClass").mkdir()
    scene = Image.open(sorted((golden_dir / "images").glob("scene*.png"))[0]).convert("RGB")
    for index, size in enumerate([(64, 48), (80, 64)]):
        scene.resize(size).save(root / "JPEGImages" / f"i{index}.jpg")
        mask = np.random.default_rng(index).choice(np.array([0, 1, 3, 255], np.uint8), (3, 4))
        Image.fromarray(mask).resize(size, Image.Resampling.NEAREST).save(root / "SegmentationClass" / f"i{index}.png")
    return root


@pytest.fixture(scope="module")
def pairs(folder):
    return [(folder / "JPEGImages" / f"i{i}.jpg", folder / "SegmentationClass" / f"i{i}.png") for i in range(2)]


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_rows_equal_one_segmenter_each(golden_clip, pairs, mode):
    dense = DenseConfig(templates=ONE, tagging={"templates": ONE}, mode=mode, crop=48, stride=48)
    config = CompareConfig(("clip", "gclip", "cam"), dense=dense, timed_images=0)
    rows = {(row.strategy, row.vocabulary): row for row in Comparison(golden_clip, CLASSES, config).run(pairs)}
    assert len(rows) == 9
    for strategy, vocabulary in (("gclip", "all"), ("clip", "tags"), ("gclip", "labels")):
        settings = DenseConfig.from_dict({"strategy": strategy, "vocabulary": vocabulary}, dense)
        segmenter = DenseSegmenter(golden_clip, CLASSES, settings)
        scorer = MaskScorer(MaskEvaluationConfig(boundary_width=0))
        for image, mask in pairs:
            truth = np.array(Image.open(mask))
            present = [int(label) - 1 for label in np.unique(truth) if label not in (0, 255)]
            scorer.update(segmenter(image, classes=present if vocabulary == "labels" else None).labels, truth)
        expected = scorer.scores(["background", *CLASSES.names]).miou
        assert rows[strategy, vocabulary].miou == pytest.approx(expected, abs=1e-3)
    assert all(np.isnan(row.seconds) for row in rows.values())
    assert rows["cam", "labels"].miou > 0


def test_strategies_of_files_go_by_their_names(golden_clip, pairs, tmp_path):
    for name, file in (("my-idea", "a.py"), ("clip", "b.py")):
        (tmp_path / file).write_text(
            "from dataclasses import replace\nfrom wsss.dense import get_strategy\n"
            f"STRATEGY = replace(get_strategy('sclip'), name={name!r})\n"
        )
    dense = DenseConfig(templates=ONE, tagging={"templates": ONE})
    files = [str(tmp_path / file) for file in ("a.py", "b.py")]
    config = CompareConfig(("clip", *files), "all", dense=dense, timed_images=0)
    rows = {row.strategy: row for row in Comparison(golden_clip, CLASSES, config).run(pairs[:1])}
    assert list(rows) == ["clip", "my-idea", files[1]]  # the second file's name is that of a strategy that is there
    assert rows["my-idea"].miou == rows[files[1]].miou


def test_times(golden_clip, pairs):
    dense = DenseConfig(templates=ONE, tagging={"templates": ONE})
    config = CompareConfig(("clip", "naclip", "cam"), ("all", "tags"), dense=dense, timed_images=1)
    rows = Comparison(golden_clip, CLASSES, config).run(pairs[:1])
    assert all(row.seconds > 0 for row in rows)
    assert [row.relative for row in rows if row.strategy == "clip"] == [1.0, 1.0]


def test_tables(tmp_path):
    nan = float("nan")
    rows = [Row("clip", "all", 0.1, 0.5, 0.2, 1.0), Row("clip", "tags", 0.25, 0.6, 0.3, 1.0),
            Row("gclip", "all", 0.3, 0.7, 0.3, 1.5), Row("gclip", "tags", nan, 0.7, nan, 1.5)]  # fmt: skip
    text = to_markdown(rows, "caption")
    assert "| clip | 10.0 | 25.0 | 200 (1.00) | 300 (1.00) |" in text
    assert "| gclip | 30.0 | - | 300 (1.50) | - |" in text
    assert "milliseconds per image, each combination by itself, and in brackets relative to clip" in text
    table = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert table[1]["miou"] == "25.00"
    assert table[2]["time_relative_to_clip"] == "1.500"
    draw_bars(rows[:2], tmp_path / "bars.png", "title")
    assert Image.open(tmp_path / "bars.png").size[0] > 200


def test_what_was_not_timed_is_not_explained():
    nan = float("nan")
    untimed = to_markdown([Row("clip", "all", 0.1, 0.5, nan, nan)], "caption")
    assert "| strategy | mIoU, all |" in untimed
    assert "Time" not in untimed
    alone = to_markdown([Row("gclip", "all", 0.1, 0.5, 0.2, nan)], "caption")
    assert "Time: milliseconds per image, each combination by itself." in alone
    assert "brackets" not in alone


def test_classes_and_background_are_told():
    scorer = MaskScorer(MaskEvaluationConfig(boundary_width=0))
    scorer.update(np.array([[0, 0, 0, 1]], np.uint8), np.array([[0, 0, 1, 1]], np.uint8))
    nan = float("nan")
    row = Row.of("clip", "all", scorer.scores(["background", "cat", "dog"]), nan, nan, has_background=True)
    assert (row.background, row.true_background) == (0.75, 0.5)
    text = to_markdown([row], "caption")
    assert "called background, in per cent (50.0 are):" in text
    assert "| clip | 75.0 |" in text
    assert "| background | 66.7 |\n| cat | 50.0 |\n| dog | - |" in text
    table = next(csv.DictReader(io.StringIO(to_csv([row]))))
    assert (table["background_share"], table["true_background_share"], table["iou_cat"]) == ("75.00", "50.00", "50.00")
    without = Row.of("clip", "all", scorer.scores(["cat", "dog"]), nan, nan, has_background=False)
    assert np.isnan(without.background)
    assert "background" not in to_markdown([without], "caption").split("threshold): ")[1]


def test_a_long_title_stays_in_the_picture(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **kwargs: drawn.append(self))
    title = "1449 images of VOC2012, ViT-B-16 openai; " + DenseConfig(mode="slide", short_side=336).describe()
    draw_bars([Row("clip", "all", 0.1, 0.5, 0.2, 1.0)], tmp_path / "bars.png", title)
    figure = drawn[0]
    figure.draw_without_rendering()
    box, whole = figure._suptitle.get_window_extent(), figure.bbox
    assert 0 <= box.x0 < box.x1 <= whole.x1
    assert box.y1 <= whole.y1
    assert figure._suptitle.get_text().replace("\n", " ") == title


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (DenseConfig(), "whole images, native size, logit scale 40, no pixel threshold, no refinement"),
        (DenseConfig(mode="slide", short_side=336, background_threshold=0.1, max_long_side=900, pamr=PamrConfig()),
         "windows of 224 px every 112 px, short side 336 px, logit scale 40, pixels below 0.1 become background, "
         "refined by PAMR"),
        (DenseConfig(max_long_side=900),
         "whole images, native size (long side at most 900 px), logit scale 40, no pixel "
         "threshold, no refinement"),
    ],
)  # fmt: skip
def test_settings_in_a_line(config, line):
    assert config.describe() == line


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((48, 64), 7, np.uint8), "i1.png holds id 7, but there are 4 labels"),
        (np.zeros((64, 48), np.uint8), r"i1.png is 48x64, but its image .* is 64x48: one is the other turned"),
        (np.zeros((48, 64, 3), np.uint8), "i1.png: a RGB image holds colours"),
    ],
)
def test_masks_are_looked_at_before_the_first_image_is(golden_clip, tmp_path, mask, message):
    Image.new("RGB", (64, 48)).save(tmp_path / "i.jpg")
    Image.fromarray(np.eye(48, 64, dtype=np.uint8)).save(tmp_path / "i0.png")
    Image.fromarray(mask).save(tmp_path / "i1.png")
    dense = DenseConfig(templates=ONE, tagging={"templates": ONE})
    comparison = Comparison(golden_clip, CLASSES, CompareConfig(("clip",), ("all",), dense=dense, timed_images=0))
    seen = []
    with pytest.raises(RunError, match=message):
        comparison.run([(tmp_path / "i.jpg", tmp_path / f"i{index}.png") for index in range(2)], seen.append)
    assert not seen


def test_binary_truth_is_refused(golden_clip, tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "i.jpg")
    Image.fromarray(np.eye(48, 64, dtype=np.uint8) * 255).save(tmp_path / "i.png")
    dense = DenseConfig(templates=ONE, tagging={"templates": ONE})
    comparison = Comparison(golden_clip, CLASSES, CompareConfig(("clip",), ("all",), dense=dense, timed_images=0))
    with pytest.raises(RunError, match="the masks hold nothing but 0 and 255"):
        comparison.run([(tmp_path / "i.jpg", tmp_path / "i.png")])


@pytest.mark.parametrize("settings", [{"vocabularies": ("some",)}, {"strategies": ()}])
def test_bad_settings(settings):
    with pytest.raises(UsageError):
        CompareConfig(**{"strategies": ("clip",), **settings})


def test_compare_tool(folder, golden_model_path, tmp_path, capsys):
    classes = tmp_path / "three.yaml"
    classes.write_text("classes: [cat, dog, car]\nbackground: [grass, sky]\n")
    arguments = ["--data", str(folder), "--model", str(golden_model_path), "--classes", str(classes),
                 "--out", str(tmp_path), "--method", "clip", "maskclip", "--restrict", "labels", "--timed-images", "1",
                 "--device", "cpu"]  # fmt: skip
    assert command("compare")(arguments) == 0
    assert {"compare.md", "compare.csv", "compare.png"} <= {path.name for path in tmp_path.iterdir()}
    assert "| maskclip |" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--model"):
        command("compare")(["--data", str(folder), "--out", str(tmp_path), "--classes", str(classes)])


def test_diagnose_tool(folder, golden_clip, golden_model_path, tmp_path, capsys):
    photo = folder / "JPEGImages" / "i1.jpg"
    out = tmp_path / "pictures"
    arguments = ["--image", str(photo), "--model", str(golden_model_path), "--out", str(out), "--device", "cpu"]
    assert command("diagnose")(arguments) == 0
    assert sorted(path.name for path in out.iterdir()) == ["attention.png", "norms.png"]
    image = prepare_image(np.array(Image.open(photo)), golden_clip.patch_size, golden_clip.mean, golden_clip.std)
    found = diagnose(golden_clip, image)
    assert found.received.shape == (12, 4, 5)
    norms = golden_clip.blocks[6].mlp.c_proj.weight.norm(dim=1)
    assert found.channels[6] == int(norms.argmax())
    others = (norms.sum() - norms.max()) / (len(norms) - 1)
    assert found.ratios[6] == pytest.approx(float(norms.max() / others), rel=1e-5)
    assert f"{found.blocks[0]} and {found.blocks[1]}" in capsys.readouterr().out
