"""The demo's closing table and picture, drawn from folders that hold the truth as their answers."""

import json
import shutil

import numpy as np
import pytest

from tagclip.demo.dataset import write_scenes
from tagclip.demo.scenes import SceneConfig
from tagclip.errors import UsageError
from tagclip.vocabulary import Vocabulary
from wsss.demo.demo_report import PANEL, demo_picture, demo_table
from wsss.files.mask_files import read_mask
from wsss.review.panels import GAP


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    look = SceneConfig(side=(96, 128), objects=(1, 1), object_side=(40, 60))
    for data, answers, split in (("scenes", "run", "train"), ("held_out", "predictions", "val")):
        write_scenes(root / data, 2, look, seed=1, split=split)
        shutil.copytree(root / data / "SegmentationClass", root / answers / "masks")
    (root / "tags.json").write_text(json.dumps({"images": 2, "mean_ap": 0.5, "micro": {"f1": 0.25}}))
    (root / "masks.json").write_text(json.dumps({"images": 2, "miou": 0.375}))
    outcomes = [{"title": "pseudo masks", "best": 12.5}, {"title": "ground truth", "best": None}]
    (root / "run" / "segmentation").mkdir()
    (root / "run" / "segmentation" / "summary.json").write_text(json.dumps({"outcomes": outcomes}))
    return root


def test_table_has_a_row_for_each_figure(demo):
    rows = [line.split(" | ") for line in demo_table(demo).splitlines()[2:]]
    assert [(row[0].strip("| "), row[-1].strip("| ")) for row in rows] == [
        ("tags: mAP", "50.0"),
        ("tags: micro-F1", "25.0"),
        ("pseudo masks: mIoU", "37.5"),
        ("DeepLab trained on pseudo masks: mIoU", "12.5"),
    ]
    assert rows[-1][1] == "2 scenes, held-out style"


def test_picture_shows_scene_truth_and_answer(demo):
    both = demo_picture(demo, count=2)
    (demo / "predictions").rename(demo / "away")
    known = demo_picture(demo, count=2)
    (demo / "away").rename(demo / "predictions")
    assert both.shape[0] - known.shape[0] >= PANEL.height  # two scenes per row
    assert len(np.unique(known.reshape(-1, 3), axis=0)) > 1000


def test_the_legend_below_has_the_classes_of_the_picture(demo):
    vocabulary, picture = Vocabulary.named("voc"), demo_picture(demo, count=2)
    labels = set()
    for path in demo.glob("*/masks/*.png"):
        labels |= set(np.unique(read_mask(path)).tolist()) - {0, 255}
    swatches = picture[-PANEL.font_size - 2 * GAP :].reshape(-1, 3).tolist()
    assert labels
    for label in range(1, 21):
        assert (vocabulary.palette[label].tolist() in swatches) == (label in labels)


def test_an_empty_folder_is_named(tmp_path):
    for made in (demo_table, demo_picture):
        with pytest.raises(UsageError, match=str(tmp_path)):
            made(tmp_path)
