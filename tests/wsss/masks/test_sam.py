"""Masks of a promptable segmenter: prompts, voting, a stand-in that knows the scenes, and transformers' own classes."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from tagclip.demo.scenes import SceneConfig, SceneRenderer
from tagclip.demo.sprites import TRAINING_STYLES
from tagclip.errors import RequirementError, UsageError
from wsss.config import MaskConfig, SamConfig
from wsss.evaluation.scorer import MaskEvaluationConfig, MaskScorer
from wsss.masks import sam
from wsss.masks.crf import settle_engine
from wsss.masks.label_map import mask_from_maps
from wsss.masks.sam import SegmentAnswer, SegmentPrompt, find_prompts, refine_with_sam, vote
from wsss.pipeline.recipe import dataset_settings

needs_transformers = pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")


def blob(height: int, width: int, y: float, x: float, reach: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * reach**2)).astype(np.float32)


def test_prompts_lie_around_each_strong_region():
    maps = np.stack([blob(60, 80, 15, 20, 6) + 0.8 * blob(60, 80, 45, 60, 4), blob(60, 80, 40, 20, 5)])
    prompts = find_prompts(maps, SamConfig(points=2))
    assert [prompt.label for prompt in prompts] == [0, 0, 1]
    (first, second), third = prompts[:2], prompts[2]
    for prompt, (y, x) in ((first, (15, 20)), (second, (45, 60)), (third, (40, 20))):
        x0, y0, x1, y1 = prompt.box
        assert x0 <= x < x1
        assert y0 <= y < y1
        assert np.abs(prompt.points[0] - (x, y)).max() <= 1
        assert len(prompt.points) == 2
        assert (maps[prompt.label][prompt.points[:, 1], prompt.points[:, 0]] >= 0.5 * 0.8).all()
    only_large = find_prompts(maps, SamConfig(smallest_region=0.9))
    assert [prompt.label for prompt in only_large] == [0, 1]
    assert find_prompts(np.zeros((2, 8, 8), np.float32), SamConfig()) == []


def test_a_point_lies_where_its_class_leads():
    maps = np.zeros((2, 10, 30), np.float32)
    maps[0, 4:7, 5:25] = 0.9
    maps[1, 4:7, 15:30] = 0.85
    point = find_prompts(maps, SamConfig())[0].points[0]
    assert point[0] < 15


def scores_of(maps: np.ndarray) -> np.ndarray:
    return np.concatenate([1 - maps.max(axis=0, keepdims=True), maps])


@pytest.fixture
def two_squares():
    """Two objects side by side, and maps that are weak and reach into each other."""
    truth = np.zeros((40, 60), np.int64)
    truth[10:30, 5:25], truth[10:30, 30:55] = 1, 2
    maps = np.stack([blob(40, 60, 20, 15, 7), blob(40, 60, 20, 42, 7)])
    return truth, maps


class Standin:
    """A segmenter that knows the objects: the one under the point, or the one that the box holds most of.

    It offers two wrong masks beside the right one, the box and everything.
    """

    def __init__(self, objects: np.ndarray):
        self.objects = objects

    def __call__(self, rgb, prompts):
        answers = []
        for prompt in prompts:
            x, y = prompt.points[0]
            number = self.objects[y, x]
            x0, y0, x1, y1 = prompt.box
            box = np.zeros(self.objects.shape, bool)
            box[y0:y1, x0:x1] = True
            if number == 0:
                number = np.bincount(self.objects[box], minlength=2)[1:].argmax() + 1
            masks = np.stack([box, self.objects == number, np.ones_like(box)])
            answers.append(SegmentAnswer(masks, np.array([0.7, 0.9, 0.4])))
        return answers


def test_a_knowing_segmenter_gives_the_true_outlines(two_squares):
    truth, maps = two_squares
    rgb = np.zeros((40, 60, 3), np.uint8)
    found = refine_with_sam(rgb, scores_of(maps), SamConfig(), segmenter=Standin(truth))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_array_equal(found.argmax(axis=0), truth)
    half = refine_with_sam(rgb, scores_of(maps), SamConfig(weight=0.5), segmenter=Standin(truth))
    shares = scores_of(maps) / scores_of(maps).sum(axis=0)
    np.testing.assert_allclose(half, 0.5 * found + 0.5 * shares, atol=1e-6)


def test_a_mask_belongs_to_the_class_that_is_strongest_in_it(two_squares):
    truth, maps = two_squares
    prompts = [SegmentPrompt(1, (5, 10, 25, 30), np.array([[15, 20]]))]  # asked for the wrong class
    answers = Standin(truth)(None, prompts)
    scores = scores_of(maps)
    found = vote(scores / scores.sum(axis=0), maps, answers, SamConfig())
    assert (found.argmax(axis=0)[truth == 1] == 1).mean() > 0.99


def test_a_class_without_a_mask_keeps_its_share(two_squares):
    truth, maps = two_squares
    prompts = find_prompts(maps, SamConfig())[:1]
    shares = scores_of(maps) / scores_of(maps).sum(axis=0)
    found = vote(shares, maps, Standin(truth)(None, prompts), SamConfig())
    labels = found.argmax(axis=0)
    assert (labels[truth == 1] == 1).all()
    assert labels[20, 42] == 2
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    nothing = [SegmentAnswer(np.zeros((1, 40, 60), bool), np.ones(1))]
    np.testing.assert_allclose(vote(shares, maps, nothing, SamConfig()), shares, atol=1e-6)


def test_without_background_what_no_mask_covers_stays(two_squares):
    truth, maps = two_squares
    found = refine_with_sam(
        np.zeros((40, 60, 3), np.uint8), maps, SamConfig(), has_background=False, segmenter=Standin(truth)
    )
    labels = found.argmax(axis=0)
    assert (labels[truth == 1] == 0).all()
    assert (labels[truth == 2] == 1).all()
    assert found.shape == (2, 40, 60)


def test_masks_of_demo_scenes_are_within_two_points_of_the_truth(monkeypatch):
    """True tags, the demo model's class maps, and a segmenter that returns the scenes' true sprites."""
    from tagclip.clip import load_clip

    recipe = dataset_settings("demo/masks", options={"masks.refiner": "sam", "masks.sam.weights": "stand-in"})
    vocabulary = recipe.vocabulary
    config = replace(recipe.masks, views=replace(recipe.masks.views, scales=(1.0,), flip=False))
    source = recipe.maps(load_clip("demo", device="cpu"))
    source.config = config
    look = SceneConfig(side=(240, 320), objects=(1, 3), object_side=(90, 150), styles=TRAINING_STYLES, voc_share=1.0)
    renderer = SceneRenderer(look, 3)
    scorers = {name: MaskScorer(MaskEvaluationConfig(boundary_width=0.0)) for name in ("sam", "none")}
    for number in range(9):
        scene = renderer(number)
        indices = sorted({vocabulary.index(name) for name in scene.objects})
        truth = np.zeros_like(scene.mask)
        for place, name in enumerate(scene.objects):
            truth[scene.mask == place + 1] = vocabulary.index(name) + 1
        indices = [index for index in indices if (truth == index + 1).any()]
        maps = source.maps_from_trunk(source.trunk(source.prepare(scene.image)[None]), [indices])[0].maps
        standin = Standin(scene.mask.astype(np.int64))
        monkeypatch.setattr(sam, "load_segmenter", lambda *_, standin=standin: standin)
        for name, scorer in scorers.items():
            scorer.update(mask_from_maps(scene.image, maps, indices, replace(config, refiner=name)).mask, truth)
    miou = {name: scorer.scores(vocabulary.label_names).miou for name, scorer in scorers.items()}
    assert miou["sam"] > 0.98
    assert miou["none"] < 0.9


@pytest.mark.parametrize(
    ("values", "message"),
    [({"points": 0}, "sam.points 0"), ({"weight": 2.0}, "sam.weight 2.0"), ({"box_threshold": -0.1}, "box_threshold")],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(UsageError, match=message):
        SamConfig(**values)


def test_what_is_missing_is_said_before_a_model_loads(tmp_path, monkeypatch):
    config = MaskConfig(refiner="sam")
    with pytest.raises(UsageError, match=r"masks.sam.weights: needed for --refine sam"):
        settle_engine(config)
    named = replace(config, sam=SamConfig(weights=str(tmp_path)))
    with pytest.raises(UsageError, match=r"no config.json that can be read there"):
        settle_engine(named)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UsageError, match=r"model_type is 'bert'; sam and sam2 are known"):
        settle_engine(named)
    (tmp_path / "config.json").write_text('{"model_type": "sam"}')
    monkeypatch.setattr(sam, "find_spec", lambda name: None)
    with pytest.raises(RequirementError, match=r"pip install 'tagclip-wsss\[sam\]'"):
        settle_engine(named)


def test_a_run_records_the_weights_by_their_digest(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "sam"}')
    options = {"masks.refiner": "sam", "masks.sam.weights": str(tmp_path)}
    masks = dataset_settings("demo/masks", options=options).identity()["masks"]
    assert len(masks["sam"]["weights"]) == 64
    (tmp_path / "model.safetensors").write_bytes(b"other")
    assert dataset_settings("demo/masks", options=options).identity()["masks"]["sam"] != masks["sam"]
    assert "sam" not in dataset_settings("demo/masks").identity()["masks"]


@needs_transformers
@pytest.mark.parametrize("kind", ["sam", "sam2"])
def test_transformers_classes_with_random_weights(tmp_path, kind, two_squares):
    """Small models of random weights, saved and loaded as users' are: shapes, sizes and the way through the masks."""
    _save_random(tmp_path, kind)
    sam.load_segmenter.cache_clear()
    segmenter = sam.load_segmenter(str(tmp_path), "cpu")
    assert sam.load_segmenter(str(tmp_path), "cpu") is segmenter
    rgb = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    maps = two_squares[1]
    prompts = find_prompts(maps, SamConfig(points=2))
    answers = segmenter(rgb, prompts)
    assert len(answers) == len(prompts) == 2
    for answer in answers:
        assert answer.masks.shape[1:] == (40, 60)
        assert answer.masks.dtype == bool
        assert answer.quality.shape == (len(answer.masks),)
        assert ((answer.quality >= 0) & (answer.quality <= 1)).all()
    many = [prompts[number % 2] for number in range(sam.PROMPTS_AT_ONCE + 3)]
    again = segmenter(rgb, many)
    assert len(again) == len(many)
    np.testing.assert_array_equal(again[-1].masks, again[0].masks)
    config = MaskConfig(refiner="sam", sam=SamConfig(weights=str(tmp_path)))
    settle_engine(config)
    found = mask_from_maps(rgb, maps, [0, 1], config)
    assert found.mask.shape == (40, 60)
    assert set(np.unique(found.labels)) <= {0, 1, 2}


def _save_random(folder, kind) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    if kind == "sam":
        vision = {
            "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64, "patch_size": 8,
            "output_channels": 16, "mlp_dim": 16, "window_size": 4, "global_attn_indexes": [0], "num_pos_feats": 8,
        }  # fmt: skip
        prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 8, "image_embedding_size": 8}
        decoder = {"hidden_size": 16, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                   "iou_head_hidden_dim": 16}  # fmt: skip
        config = transformers.SamConfig(
            vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
        )
        model = transformers.SamModel(config)
        images = transformers.SamImageProcessor(
            size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}, mask_size={"longest_edge": 16},
            mask_pad_size={"height": 16, "width": 16},
        )  # fmt: skip
        processor = transformers.SamProcessor(images)
    else:
        backbone = {
            "model_type": "hiera", "hidden_size": 8, "num_attention_heads": 1, "image_size": [64, 64],
            "embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 2, 4, 8],
            "blocks_per_stage": [1, 1, 2, 1], "window_size_per_stage": [4, 4, 4, 4], "global_attention_blocks": [3],
            "window_positional_embedding_background_size": [4, 4],
        }  # fmt: skip
        vision = {
            "backbone_config": {**backbone, "model_type": "sam2_hiera_det_model"},
            "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        }  # fmt: skip
        prompt = {"hidden_size": 32, "image_size": 64, "patch_size": 16}
        decoder = {"hidden_size": 32, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                   "iou_head_hidden_dim": 16}  # fmt: skip
        config = transformers.Sam2Config(
            vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
        )
        model = transformers.Sam2Model(config)
        size, mask_size = {"height": 64, "width": 64}, {"height": 16, "width": 16}
        images = transformers.Sam2ImageProcessor(size=size, mask_size=mask_size)
        processor = transformers.Sam2Processor(images)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
