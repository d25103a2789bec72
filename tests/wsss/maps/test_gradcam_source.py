"""Class activation maps of a batch: all images in the same kernels, as on an accelerator, or one after the other."""

import numpy as np
import torch

from tagclip.vocabulary import Vocabulary
from wsss.maps.gradcam_source import GradCamSource

TAGS = [[3, 7], [], [0, 5, 14], [9]]


def test_a_batch_together_is_its_images_alone(golden_clip_on, device):
    source = GradCamSource(golden_clip_on(device), Vocabulary.named("voc"))
    images = torch.randn(len(TAGS), 3, 96, 80, generator=torch.Generator().manual_seed(0)).to(device)
    trunk = source.trunk(images)
    together = source._maps_together(trunk, TAGS)
    for image, (found, tags) in enumerate(zip(together, TAGS, strict=True)):
        alone = source._maps_of(trunk, image, tags)
        assert found.indices == alone.indices == tags
        for name in ("raw", "refined", "maps", "probabilities"):
            ours, expected = getattr(found, name), getattr(alone, name)
            assert ours.shape == expected.shape
            assert ours.dtype == expected.dtype == np.float32
            assert np.allclose(ours, expected, rtol=0, atol=2e-5), name


def test_a_batch_without_tags_has_no_maps(golden_clip_on, device):
    source = GradCamSource(golden_clip_on(device), Vocabulary.named("voc"))
    trunk = source.trunk(torch.zeros(2, 3, 64, 64, device=device))
    for found in source.maps_from_trunk(trunk, [[], []]):
        assert found.maps.shape == (0, 4, 4)
        assert not len(found.probabilities)
