"""Stage two with maps from a strategy: the configs that ship, and a run folder made with one."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagclip.vocabulary import Vocabulary
from tests.tools.commands import command
from wsss.config import MaskConfig
from wsss.configs import list_configs
from wsss.dense.dense_config import DenseConfig
from wsss.dense.strategy_source import StrategySource
from wsss.masks.generator import MaskGenerator
from wsss.pipeline.recipe import dataset_settings

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", list_configs("masks"))
def test_only_the_source_of_maps_differs(name):
    options = {"vocabulary": "cat,dog"} if name == "masks/custom" else {}
    plain, gclip = (dataset_settings(name, options={**options, "method": method}) for method in ("cam", "gclip"))
    assert (plain.run.sources, gclip.run.sources) == (("cam",), ("gclip",))
    assert gclip.masks == plain.masks
    assert gclip.tagging == plain.tagging
    assert gclip.identity() != plain.identity()
    assert DenseConfig.from_dict(gclip.run.dense).logit_scale == 40.0


def test_run_folder_from_gclip(golden_clip, golden_model_path, tmp_path):
    classes = tmp_path / "classes.yaml"
    classes.write_text("classes: [cat, dog, car]\nbackground: [grass, sky]\n")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photos" / "a.png")
    (tmp_path / "tags.txt").write_text("a 1 2\n")
    out = tmp_path / "run"
    command("mask")(
        ["--config", "masks/custom", "--method", "gclip", "--images", str(tmp_path / "photos"),
         "--classes", str(classes),
         "--tags", str(tmp_path / "tags.txt"), "--model", str(golden_model_path), "--out", str(out), "--refine", "none",
         "--device", "cpu", "--mask-workers", "1"]
    )  # fmt: skip
    settings = MaskConfig.from_dict({"refiner": "none"}, MaskConfig.preset())
    generator = MaskGenerator(StrategySource(golden_clip, Vocabulary.from_file(classes), config=settings))
    expected = generator(pixels, tags=["dog", "car"])
    made = np.array(Image.open(out / "masks" / "a.png"))
    assert (made == expected.mask).mean() > 0.999  # the folder keeps maps as float16
    assert np.load(out / "cams" / "a.npz")["cams"].shape == (2, 3, 4)
