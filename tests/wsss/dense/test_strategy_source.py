"""Stage two with maps from a strategy: the configs that ship, and a run folder made with one."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagclip.vocabulary import Vocabulary
from wsss.config import MaskConfig
from wsss.dense.dense_config import DenseConfig
from wsss.dense.strategy_source import StrategySource
from wsss.masks.generator import MaskGenerator
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.run_config import MaskRunConfig, load_run_config

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted((ROOT / "configs" / "masks").glob("*_gclip.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_only_the_source_of_maps_differs(path):
    options = {"vocabulary": "cat,dog"} if path.stem.startswith("custom") else {}
    run = load_run_config(path, options, MaskRunConfig())
    plain = load_run_config(path.with_name(path.name.replace("_gclip", "")), options, MaskRunConfig())
    assert run.method == "gclip"
    assert plain.method == "cam"
    assert run.out != plain.out
    assert Recipe.resolve(run).masks == Recipe.resolve(plain).masks
    assert Recipe.resolve(run).tagging == Recipe.resolve(plain).tagging
    assert Recipe.resolve(run).identity() != Recipe.resolve(plain).identity()
    assert DenseConfig.from_dict(run.dense).logit_scale == 40.0


def test_run_folder_from_gclip(golden_clip, golden_model_path, tmp_path):
    classes = tmp_path / "classes.yaml"
    classes.write_text("classes: [cat, dog, car]\nbackground: [grass, sky]\n")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photos" / "a.png")
    (tmp_path / "tags.txt").write_text("a 1 2\n")
    spec = importlib.util.spec_from_file_location("generate_masks", ROOT / "tools" / "generate_masks.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    out = tmp_path / "run"
    tool.main(
        [str(ROOT / "configs/masks/custom_gclip.py"), "--images", str(tmp_path / "photos"), "--classes", str(classes),
         "--tags", str(tmp_path / "tags.txt"), "--model", str(golden_model_path), "--out", str(out), "--refine", "none",
         "--device", "cpu", "--crf-workers", "1"]
    )  # fmt: skip
    settings = MaskConfig.from_dict({"refiner": "none"}, MaskConfig.preset())
    generator = MaskGenerator(StrategySource(golden_clip, Vocabulary.from_file(classes), config=settings))
    expected = generator(pixels, tags=["dog", "car"])
    made = np.array(Image.open(out / "masks" / "a.png"))
    assert (made == expected.mask).mean() > 0.999  # the folder keeps maps as float16
    assert np.load(out / "cams" / "a.npz")["cams"].shape == (2, 3, 4)
