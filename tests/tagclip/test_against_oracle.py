"""The fast tagger against the plain transcription on images that are in no golden case."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.golden import COPY, golden_text
from tests.oracle.tagclip import tag_image

SIZES = ((33, 33), (48, 130), (200, 64), (176, 192))  # height, width


def composed(seed: int, size: tuple[int, int]) -> Image.Image:
    """A crop of a rendered scene, turned, resized and with noise: content at many scales, also cut off at borders."""
    generator = np.random.default_rng(seed)
    scenes = sorted((COPY / "images").glob("*.png"))
    scene = Image.open(scenes[seed % len(scenes)]).convert("RGB")
    left, top = (int(generator.integers(0, side // 3)) for side in scene.size)
    right, bottom = (int(generator.integers(side // 2, side + 1)) for side in scene.size)
    crop = scene.crop((left, top, right, bottom)).rotate(90 * int(generator.integers(4)), expand=True)
    pixels = np.asarray(crop.resize(size[::-1])).astype(np.int16) + generator.integers(-8, 9, (*size, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(("vocabulary", "seed"), [("voc", 0), ("voc", 1), ("cocostuff", 2)])
def test_reference_preset_equals_the_transcription(golden_tagger, oracle_clip, vocabulary, seed):
    tagger = golden_tagger(vocabulary)
    text = torch.from_numpy(golden_text("tagging")[vocabulary])
    stuff = vocabulary == "cocostuff"
    images = [composed(seed * len(SIZES) + number, size) for number, size in enumerate(SIZES)]
    for image, result in zip(images, tagger(images, details=True), strict=True):
        trace = tag_image(
            oracle_clip,
            oracle_clip.prepare(image),
            text,
            len(tagger.vocabulary),
            threshold=0.1 if stuff else 0.5,
            all_layers=stuff,
        )
        if np.array_equal(result.details["vote_mask"], trace.vote_mask.numpy()):
            assert np.abs(result.details["refined"] - trace.refined.numpy()).max() < 1e-4
            assert np.abs(result.scores - trace.scores.numpy()).max() < 1e-4
        else:  # a vote within float error of its layer's mean
            margins = torch.stack([(layer - layer.mean()).abs() for layer in trace.maps]).amin(dim=0).numpy()
            assert (margins[result.details["vote_mask"] != trace.vote_mask.numpy()] < 1e-6).all()
            assert np.abs(result.scores - trace.scores.numpy()).max() < 1e-2
        assert result.indices == trace.tags
