"""The worked proof of docs/dense.md: a new strategy is one file."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tagclip.errors import UsageError
from tagclip.vocabulary import Vocabulary
from tests.oracle import dense as oracle
from wsss.dense import dense_features
from wsss.dense.dense_config import DenseConfig
from wsss.dense.inference import DenseSegmenter
from wsss.dense.strategy import get_strategy
from wsss.dense.strategy_source import StrategySource
from wsss.masks.generator import MaskGenerator

PAGE = Path(__file__).resolve().parents[3] / "docs" / "dense.md"
ONE = ("a photo of a {}.",)


@pytest.fixture
def idea(tmp_path):
    """The file of the docs page, written somewhere outside the packages."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (code,) = [block for block in blocks if "STRATEGY = " in block]
    path = tmp_path / "my_idea.py"
    path.write_text(code, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def test_features_are_what_the_file_says(idea, golden_clip, oracle_clip):
    tensor = torch.randn(3, 64, 96, generator=torch.Generator().manual_seed(0))
    features = dense_features(golden_clip, tensor, str(idea), sharpness=2.0)
    x, _, _ = oracle_clip.trunk(tensor, "none")
    prefix = oracle_clip.visual_prefix(12)
    q, k, v = oracle_clip.qkv(oracle_clip._norm(x, prefix + ".ln_1"), prefix, oracle_clip.heads)
    weights = (oracle.similarity(2 * q, q) + oracle.similarity(2 * k, k)) / 2
    expected = oracle.finish(oracle_clip, x, weights @ v, residual=False, mlp=False)
    assert (features - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("vocabulary", ["all", "tags"])
def test_it_segments_and_makes_masks(idea, golden_clip, image, vocabulary):
    classes = Vocabulary(["cat", "dog"], background=["grass"])
    dense = DenseConfig(strategy=str(idea), vocabulary=vocabulary, templates=ONE, tagging={"templates": ONE})
    result = DenseSegmenter(golden_clip, classes, dense)(Image.fromarray(image))
    assert result.labels.shape == image.shape[:2]
    assert result.strategy.name == "my-idea"
    masks = MaskGenerator(StrategySource(golden_clip, classes, dense=dense))(image, tags=["dog"])
    assert set(np.unique(masks.mask)) <= {0, 2, 255}


def test_options_are_checked(idea):
    assert get_strategy(idea, {"sharpness": 3.0}).options.sharpness == 3.0
    with pytest.raises(UsageError, match="it has: sharpness"):
        get_strategy(idea, {"sharp": 3.0})


@pytest.mark.parametrize("options", ["None", "dict(sharpness=2)", "NoOptions"])
def test_options_that_are_no_dataclass_instance(tmp_path, options):
    path = tmp_path / "wrong.py"
    path.write_text(
        "from wsss.dense.strategy import NoOptions, Strategy\n"
        f"STRATEGY = Strategy('wrong', mix=None, residual=True, mlp=True, options={options})\n"
    )
    with pytest.raises(UsageError, match=r"strategy wrong: options=.* is not a dataclass instance; give one, or leave"):
        get_strategy(path)


def test_a_file_that_python_refuses(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("import nothing_of_this_name\n")
    with pytest.raises(UsageError, match=r"strategy file .*broken\.py: ModuleNotFoundError: No module named"):
        get_strategy(path)


def test_a_file_without_a_strategy(tmp_path):
    path = tmp_path / "empty.py"
    path.write_text("x = 1\n")
    with pytest.raises(UsageError, match="defines no STRATEGY"):
        get_strategy(path)
