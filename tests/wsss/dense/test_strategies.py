"""Every strategy against the recorded outputs of the published code and against the plain transcription."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from tagclip.clip.encoder import AttentionRequest, FrozenCLIP
from tagclip.errors import UsageError
from tests.clip_models import SHAPES, make_model
from tests.golden import golden_root
from tests.oracle import dense as oracle
from wsss.dense.features import blocks_to_keep, image_features, own_stop, prepared, strategy_features
from wsss.dense.strategy import get_strategy, strategy_names

GOLDEN_CASES = sorted(path.stem.removeprefix("dense_") for path in golden_root().glob("dense_*.npz"))
IN_GOLDEN = ["clip", "maskclip", "sclip", "clearclip", "naclip"]


def normalised(clip, path, size=None):
    """(1, 3, H, W) of an image file, resized to (width, height) if asked."""
    image = Image.open(path).convert("RGB")
    if size is not None:
        image = image.resize(size)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return ((pixels - torch.tensor(clip.mean).view(3, 1, 1)) / torch.tensor(clip.std).view(3, 1, 1))[None]


@pytest.fixture(scope="module")
def scene(golden_clip, golden_dir):
    """A scene on a grid that is neither square nor the native one."""
    return normalised(golden_clip, golden_dir / "images" / f"{GOLDEN_CASES[0]}.png", (240, 192))


@pytest.mark.parametrize("case", GOLDEN_CASES)
@pytest.mark.parametrize("name", IN_GOLDEN)
def test_golden(golden_clip, golden_dir, case, name):
    images = normalised(golden_clip, golden_dir / "images" / f"{case}.png")
    expected = np.load(golden_dir / f"dense_{case}.npz")[name]
    features, _ = image_features(golden_clip, images, get_strategy(name))
    assert np.abs(features[0].numpy() - expected).max() <= 1e-4


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_golden_key_key(golden_clip, golden_dir, case):
    images = normalised(golden_clip, golden_dir / "images" / f"{case}.png")
    features, _ = image_features(golden_clip, images, get_strategy("naclip", {"std": 0}))
    assert np.abs(features[0].numpy() - np.load(golden_dir / f"dense_{case}.npz")["kk"]).max() <= 1e-4


@pytest.mark.parametrize("name", [*IN_GOLDEN, "tagclip-local", "gclip"])
def test_equals_transcription_off_the_native_grid(golden_clip, oracle_clip, scene, name):
    features, _ = image_features(golden_clip, scene, get_strategy(name))
    assert (features[0] - oracle.dense_features(oracle_clip, scene[0], name)).abs().max() <= 1e-5


def test_weights_stay_byte_identical(golden_clip, scene):
    before = {name: value.clone() for name, value in golden_clip.state_dict().items()}
    for name in strategy_names():
        image_features(golden_clip, scene, get_strategy(name))
    after = golden_clip.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.numpy().tobytes() == after[name].numpy().tobytes(), name


def test_gclip_differs_without_its_parts(golden_clip, scene):
    def features(**options):
        return image_features(golden_clip, scene, get_strategy("gclip", options))[0]

    full = features()
    assert (features(suppress=()) - full).abs().max() > 1e-4
    assert (features(heads="mean") - full).abs().max() > 1e-4
    assert (features(blocks=(3, 4)) - full).abs().max() > 1e-4
    # The golden model's largest row is no outlier of factor 100, so nothing is suppressed.
    assert (features(min_ratio=100.0) - features(suppress=())).abs().max() <= 1e-6


def test_gclip_head_mean_is_the_mean_map(golden_clip, oracle_clip, scene):
    strategy = get_strategy("gclip", {"heads": "mean", "suppress": ()})
    features, _ = image_features(golden_clip, scene, strategy)
    x, _ = oracle_clip.embed(scene[0], "none")
    maps = []
    for number in range(1, 12):
        x, attention = oracle_clip.visual_block(x, number)
        maps.append(attention.mean(dim=0))
    prefix = oracle_clip.visual_prefix(12)
    q, _, v = oracle_clip.qkv(oracle_clip._norm(x, prefix + ".ln_1"), prefix, oracle_clip.heads)
    fused = (maps[5] + maps[6] + oracle.similarity(q, q).mean(dim=0)) / 3
    expected = oracle.finish(oracle_clip, x, fused @ v, residual=False, mlp=False)
    assert (features[0] - expected).abs().max() <= 1e-5


def test_resclip_blends_by_weight(golden_clip, scene):
    def features(**options):
        return image_features(golden_clip, scene, get_strategy("resclip-rcs", options))[0]

    naclip = image_features(golden_clip, scene, get_strategy("naclip"))[0]
    assert (features(weight=0.0) - naclip).abs().max() <= 1e-6
    crossed = features(weight=1.0)
    assert (features(weight=1.0, base="clearclip") - crossed).abs().max() <= 1e-6
    assert (features(weight=0.5) - crossed).abs().max() > 1e-3
    with pytest.raises(UsageError, match="base 'gclip'"):
        features(base="gclip")


def test_resclip_cross_correlation(golden_clip, oracle_clip, scene):
    features, _ = image_features(golden_clip, scene, get_strategy("resclip-rcs", {"weight": 1.0}))
    x, _ = oracle_clip.embed(scene[0], "none")
    crossed = 0
    for number in range(1, 12):
        x, attention = oracle_clip.visual_block(x, number)
        if 6 <= number <= 9:
            crossed = crossed + attention / 4
    prefix = oracle_clip.visual_prefix(12)
    _, _, v = oracle_clip.qkv(oracle_clip._norm(x, prefix + ".ln_1"), prefix, oracle_clip.heads)
    expected = oracle.finish(oracle_clip, x, crossed @ v, residual=False, mlp=False)
    assert (features[0] - expected).abs().max() <= 1e-5


def test_one_trunk_serves_all_strategies(golden_clip, scene):
    strategies = [prepared(golden_clip, scene, get_strategy(name)) for name in strategy_names()]
    trunk = golden_clip.trunk(scene, AttentionRequest(keep=blocks_to_keep(golden_clip, strategies)))
    for strategy in strategies:
        alone, _ = image_features(golden_clip, scene, strategy)
        assert (strategy_features(golden_clip, trunk, strategy) - alone).abs().max() <= 1e-6


def test_a_trunk_of_its_own_ends_where_the_strategy_restarts(golden_clip, scene):
    ready = [prepared(golden_clip, scene, get_strategy(name)) for name in ("gclip", "clip")]
    assert own_stop(golden_clip, ready[:1]) == 7
    assert own_stop(golden_clip, ready) is None
    trunk = golden_clip.trunk(scene, AttentionRequest(keep=(6, 7)), stop=7)
    assert torch.equal(trunk.tokens, trunk.kept[7])
    assert torch.equal(trunk.tokens, golden_clip.trunk(scene, AttentionRequest(keep=(7,))).kept[7])
    with pytest.raises(UsageError, match="block 13"):
        golden_clip.trunk(scene, stop=13)


def test_batch_equals_single(golden_clip, scene):
    pair = torch.cat([scene, scene.flip(-1)])
    for name in ("gclip", "naclip", "resclip", "resclip-rcs", "scclip"):
        both, _ = image_features(golden_clip, pair, get_strategy(name))
        single, _ = image_features(golden_clip, pair[1:], get_strategy(name))
        assert (both[1:] - single).abs().max() <= 1e-5


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["naclip", "gclip", "resclip-rcs", "resclip", "scclip", "tagclip-local"])
def test_other_model_shapes(shape, name):
    clip = FrozenCLIP(make_model(shape), None, name=str(shape), mean=(0.5,) * 3, std=(0.5,) * 3)
    size = shape.patch_size
    images = torch.randn(1, 3, 3 * size, 5 * size, generator=torch.Generator().manual_seed(1))
    features, trunk = image_features(clip, images, get_strategy(name))
    assert features.shape == (1, 15, shape.embed_dim)
    assert (features.norm(dim=-1) - 1).abs().max() <= 1e-5
    assert (trunk.grid.height, trunk.grid.width) == (3, 5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gclipp", {}, "unknown strategy 'gclipp'"),
        ("naclip", {"sigma": 3}, "no option 'sigma'; it has: std, dino_positions"),
        ("clip", {"std": 3}, "it has: none"),
        ("nowhere.py", {}, "does not exist"),
    ],
)
def test_unknown_names(name, options, message):
    with pytest.raises(UsageError, match=message):
        get_strategy(name, options)


@pytest.mark.parametrize("options", [{"blocks": (6, 12)}, {"blocks": [0, 1]}, {"heads": "some"}])
def test_gclip_refuses_bad_options(golden_clip, scene, options):
    with pytest.raises(UsageError):
        image_features(golden_clip, scene, get_strategy("gclip", options))


def test_every_strategy_names_its_file():
    for name in strategy_names():
        strategy = get_strategy(name)
        assert strategy.name == name
        assert strategy.source
        assert dataclasses.is_dataclass(strategy.options)
