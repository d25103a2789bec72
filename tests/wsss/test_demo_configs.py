"""The demo's mask settings resolve to what its pages say."""

from pathlib import Path

import pytest

from wsss.pipeline.recipe import Recipe
from wsss.pipeline.run_config import MaskRunConfig, load_run_config

CONFIGS = Path(__file__).parents[2] / "configs" / "demo"


@pytest.mark.parametrize(
    ("name", "method", "scales", "alpha", "threshold"),
    [
        ("masks", "cam", (1.0, 1.5), 2.0, 0.15),
        ("masks_sclip", "sclip", (1.0,), 2.0, 0.15),
        ("masks_fused", ("cam", "sclip"), (1.0,), 1.5, 0.08),
    ],
)
def test_settings(name, method, scales, alpha, threshold):
    recipe = Recipe.resolve(load_run_config(CONFIGS / f"{name}.py", {}, MaskRunConfig()))
    assert recipe.run.model.name == "demo"
    assert recipe.run.method == method
    assert (recipe.masks.views.scales, recipe.masks.views.flip) == (scales, True)
    assert (recipe.masks.alpha, recipe.masks.confidence, recipe.masks.score_power) == (alpha, None, 0.0)
    assert recipe.masks.affinity.block_range(12) == (1, 11)
    assert recipe.tagging.rule.threshold == threshold
