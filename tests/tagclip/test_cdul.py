"""CDUL's global-local scores, against plain loops and by their properties."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tagclip.cdul import aggregate_snippets, cut_snippets, initial_labels
from tagclip.clip import Grid
from tagclip.config import CdulConfig, TagCLIPConfig
from tagclip.errors import UsageError
from tagclip.tagger import ABLATION, TagCLIP
from tagclip.vocabulary import Vocabulary
from tests.golden import COPY

SCENE = COPY / "images" / "scene1_320x224.png"
NAMES = ["cat", "dog", "bird"]


@pytest.fixture(scope="module")
def scores():
    return torch.rand(4, 9, 5, generator=torch.Generator().manual_seed(0))


def test_the_threshold_chooses_between_best_and_worst_part(scores):
    best, worst = scores.amax(1), scores.amin(1)
    assert (best >= worst).all()
    assert torch.equal(aggregate_snippets(scores, 0.0), best)
    assert torch.equal(aggregate_snippets(scores, 1.01), worst)
    between = aggregate_snippets(scores, 0.9)
    for image in range(4):
        for label in range(5):
            values = scores[image, :, label].tolist()
            assert between[image, label] == (max(values) if max(values) >= 0.9 else min(values))
    assert 0 < (between == best).float().mean() < 1


def test_labels_lie_between_global_and_local_or_at_the_larger(scores):
    whole = torch.rand(4, 5, generator=torch.Generator().manual_seed(1))
    local = scores.amax(1)
    plain = CdulConfig(threshold=0.0)
    assert torch.allclose(initial_labels(whole, scores, plain), (whole + local) / 2)
    full = initial_labels(whole, scores, replace(plain, difference_weight=1.0))
    assert torch.allclose(full, torch.maximum(whole, local))


@pytest.mark.parametrize(("height", "width"), [(48, 96), (50, 97), (2, 33)])
def test_parts_cover_the_image_row_by_row(height, width):
    images = torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width).repeat(2, 3, 1, 1)
    parts = cut_snippets(images, 3, 16, Grid(2, 3))
    assert parts.shape == (2, 9, 3, 32, 48)
    rows = [round(place * height / 3) for place in range(4)]
    columns = [round(place * width / 3) for place in range(4)]
    if height > 3:
        part = images[:1, :, rows[1] : rows[2], columns[2] : columns[3]]
        expected = F.interpolate(part, size=(32, 48), mode="bilinear", align_corners=False)
        assert torch.equal(parts[0, 5], expected[0])
    assert torch.isfinite(parts).all()


def test_scores_are_those_of_a_plain_loop(golden_clip):
    settings = TagCLIPConfig(scorer="cdul", cdul=CdulConfig(threshold=0.4, chunk_size=4))
    tagger = TagCLIP(golden_clip, Vocabulary(NAMES), config=settings)
    result = tagger(SCENE)
    text = golden_clip.encode_text([f"a photo of a {name}." for name in NAMES])
    image = tagger.prepare(SCENE)[None]

    def read(pixels: torch.Tensor) -> torch.Tensor:
        trunk = golden_clip.trunk(pixels, tagger.request)
        feature = F.normalize(golden_clip.project(golden_clip.last_block(trunk.tokens)[:, 0]).float(), dim=-1)
        return (golden_clip.logit_scale * feature @ text.T).softmax(-1)[0]

    side = golden_clip.native_grid.height * golden_clip.patch_size
    height, width = image.shape[2:]
    parts = []
    for row in range(3):
        for column in range(3):
            top, bottom = round(row * height / 3), round((row + 1) * height / 3)
            left, right = round(column * width / 3), round((column + 1) * width / 3)
            parts.append(read(F.interpolate(image[..., top:bottom, left:right], size=(side, side), mode="bilinear")))
    alpha, beta = torch.stack(parts).amax(0), torch.stack(parts).amin(0)
    expected = (read(image) + torch.where(alpha >= 0.4, alpha, beta)) / 2
    np.testing.assert_allclose(result.scores, expected.numpy(), atol=1e-5)
    assert result.details == {}


def test_background_words_take_part_only_when_asked(golden_clip):
    vocabulary = Vocabulary(NAMES, background=("grass", "sky"))
    alone, joined = (
        TagCLIP(golden_clip, vocabulary, config=TagCLIPConfig(scorer="cdul", cdul=CdulConfig(background_words=words)))
        for words in (False, True)
    )
    assert (len(alone.cdul_classifier), len(joined.cdul_classifier)) == (3, 5)
    assert not np.allclose(alone(SCENE).scores, joined(SCENE).scores)


def test_it_is_a_row_of_the_ablation(golden_clip):
    settings = TagCLIPConfig(cdul=CdulConfig(threshold=0.1))
    rows = TagCLIP(golden_clip, Vocabulary(NAMES), config=settings).ablation([SCENE])
    assert tuple(rows) == ABLATION
    expected = TagCLIP(golden_clip, Vocabulary(NAMES), config=replace(settings, scorer="cdul"))(SCENE)
    np.testing.assert_allclose(rows["CDUL global and local"][0], expected.scores, atol=1e-6)


def test_a_single_class_has_no_rivals(golden_clip):
    vocabulary = Vocabulary(["cat"], background=("grass",))
    with pytest.raises(UsageError, match="compares classes with each other and there is one"):
        TagCLIP(golden_clip, vocabulary, config=TagCLIPConfig(scorer="cdul"))
    assert ABLATION[1] not in TagCLIP(golden_clip, vocabulary).ablation([SCENE])
    joined = TagCLIPConfig(scorer="cdul", cdul=CdulConfig(background_words=True))
    assert TagCLIP(golden_clip, vocabulary, config=joined)(SCENE).scores[0] < 1


@pytest.mark.parametrize("values", [{"snippets": 0}, {"chunk_size": 0}, {"difference_weight": 1.5}])
def test_wrong_settings(values):
    with pytest.raises(UsageError, match=next(iter(values))):
        CdulConfig(**values)


def test_older_runs_are_not_told_of_it():
    assert "cdul" not in TagCLIPConfig().identity()
    assert TagCLIPConfig(scorer="cdul").identity()["cdul"]["snippets"] == 3
