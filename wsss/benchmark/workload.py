"""What a benchmark works on: a model, photos, text rows, and the tags of each photo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tagclip.clip import FrozenCLIP, load_clip, wrap_clip
from tagclip.errors import UsageError, WeightsError
from tagclip.images import decode_image, find_images, image_size, prepare_image
from tagclip.stored_files import FilePlace
from tagclip.tagger import TagCLIP
from wsss.benchmark.settings import RANDOM, BenchmarkSettings
from wsss.maps.gradcam_source import GradCamSource
from wsss.pipeline.recipe import Recipe, dataset_settings

TRAINED_LOGIT_SCALE = 100.0  # of CLIP's published models
ATTENTION_GAIN = 1.5  # on random queries and keys, whose attention is flatter than a trained model's
LOGIT_SPREAD = 2.0  # standard deviation of a patch's class logits, about that of CLIP on photos
CLUSTER_PHOTOS, CLUSTER_ROUNDS = 4, 5


@dataclass(frozen=True)
class ClassRows:
    """Unit-norm text rows, fp32, as numpy arrays so that they travel to other processes.

    Attributes:
        tagging: target classes, then background words, (C, D).
        cam: target classes, (targets, D); cam_background: (B, D).
    """

    tagging: np.ndarray
    cam: np.ndarray
    cam_background: np.ndarray


@dataclass(frozen=True)
class Photo:
    """One photo with its fixed tags.

    Attributes:
        labels: class indices of its tags, ascending; they are CWR's candidates too.
        threshold: t of the candidate rule that just these classes pass.
    """

    path: FilePlace
    size: tuple[int, int]
    labels: tuple[int, ...] = ()
    threshold: float = 0.5


def read_recipe(settings: BenchmarkSettings) -> Recipe:
    """Classes and constants of the settings' data set.

    Raises:
        UsageError: no such config or vocabulary.
    """
    other = {} if settings.vocabulary is None else {"vocabulary": settings.vocabulary}
    return dataset_settings(settings.config, settings.preset, other)


def make_clip(settings: BenchmarkSettings, dtype: str) -> FrozenCLIP:
    """The settings' model; random weights are the same for the same seed.

    Raises:
        WeightsError: a model that cannot be loaded.
    """
    if not settings.model.startswith(RANDOM):
        return load_clip(
            settings.model,
            settings.pretrained,
            device=settings.device,
            dtype=dtype,
            quick_gelu=settings.quick_gelu,
        )
    name = settings.model.removeprefix(RANDOM)
    if open_clip.get_model_config(name) is None:
        raise WeightsError(f"{settings.model}: open_clip has no architecture {name!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = open_clip.create_model(name, pretrained=None)
    model.logit_scale.data.fill_(float(np.log(TRAINED_LOGIT_SCALE)))
    for block in model.visual.transformer.resblocks:
        width = block.attn.embed_dim
        block.attn.in_proj_weight.data[: 2 * width] *= ATTENTION_GAIN
    return wrap_clip(model, name=settings.model, device=settings.device, dtype=dtype)


@contextmanager
def open_photos(settings: BenchmarkSettings) -> Iterator[list[Photo]]:
    """The settings' photos, files of JPEG or whatever the folder holds; noise is written to a temporary folder.

    Raises:
        UsageError: fewer photos of the size than asked for.
    """
    if settings.images is not None:
        yield _photos_of_size(settings.images, settings)
        return
    with TemporaryDirectory(prefix="benchmark-") as folder:
        generator = np.random.default_rng(settings.seed)
        photos = []
        for number in range(settings.count):
            path = Path(folder, f"{number:04d}.jpg")
            Image.fromarray(textured_noise(*settings.size, generator)).save(path, quality=90)
            photos.append(Photo(path, settings.size[::-1]))
        yield photos


def _photos_of_size(images: Path, settings: BenchmarkSettings) -> list[Photo]:
    width, height = settings.size
    photos = []
    for file in find_images(images):
        size = image_size(file.path)
        if (size.height, size.width) == (height, width):
            photos.append(Photo(file.path, (height, width)))
            if len(photos) == settings.count:
                return photos
    raise UsageError(
        f"{images}: {len(photos)} photos of {width}x{height} pixels, {settings.count} asked for; "
        "choose another size or count"
    )


def textured_noise(width: int, height: int, generator: np.random.Generator) -> np.ndarray:
    """Colour noise at all scales, as photos have it: (height, width, 3) uint8."""
    total = np.zeros((height, width, 3), np.float32)
    cells = 3
    while cells < min(width, height):
        rows = max(2, round(cells * height / width))
        values = generator.integers(0, 256, (rows, cells, 3), dtype=np.uint8)
        layer = Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)
        total += (np.asarray(layer, dtype=np.float32) - 128) * (3 / cells) ** 0.5
        cells *= 3
    return np.clip(total + 128, 0, 255).astype(np.uint8)


def make_rows(settings: BenchmarkSettings, clip: FrozenCLIP, recipe: Recipe, photos: list[Photo]) -> ClassRows:
    """Text rows: a real model's own, or for random weights, whose text tower says nothing, image-like ones."""
    vocabulary = recipe.vocabulary
    if not settings.model.startswith(RANDOM):
        generator = GradCamSource(clip, vocabulary, config=recipe.masks)
        tagger = TagCLIP(clip, vocabulary, config=recipe.tagging)
        own = (tagger.classifier, generator.tag_rows, generator.background_rows)
        return ClassRows(*(values.float().cpu().numpy() for values in own))
    features: list[Tensor] = []
    for photo in photos[:CLUSTER_PHOTOS]:
        image = prepare_image(decode_image(photo.path), clip.patch_size, clip.mean, clip.std)
        tokens = clip.last_block(clip.trunk(image[None]).tokens, "local")[0, 1:]
        features.append(F.normalize(clip.project(tokens).float(), dim=-1).cpu())
    backgrounds = max(len(vocabulary.background), len(vocabulary.cam_background))
    rows = image_like_rows(torch.cat(features), len(vocabulary) + backgrounds, clip.logit_scale, settings.seed).numpy()
    targets = rows[: len(vocabulary)]
    words = rows[len(vocabulary) :]
    return ClassRows(
        np.concatenate([targets, words[: len(vocabulary.background)]]), targets, words[: len(vocabulary.cam_background)]
    )


def image_like_rows(features: Tensor, count: int, logit_scale: float, seed: int) -> Tensor:
    """Rows towards clusters of patch features, so that every class has its regions in the photos.

    Args:
        features: unit-norm patch features, (P, D).
        logit_scale: of the model; the rows are drawn to the mean feature until logits spread as a trained model's.

    Returns:
        (count, D) fp32, unit norm.
    """
    generator = torch.Generator().manual_seed(seed)
    mean = features.mean(0)
    centred = F.normalize(features - mean, dim=-1)
    centres = centred[torch.randperm(len(centred), generator=generator)[:count]]
    if len(centres) < count:  # fewer patches than classes: any other directions
        centres = torch.cat([centres, torch.randn(count - len(centres), features.shape[1], generator=generator)])
    for _ in range(CLUSTER_ROUNDS):
        nearest = (centred @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, centred)
        centres = F.normalize(torch.where(sums.norm(dim=1, keepdim=True) > 0, sums, centres), dim=-1)
    common = F.normalize(mean, dim=0)
    centres = F.normalize(centres - (centres @ common)[:, None] * common, dim=-1)
    spread = (features @ centres.T).std(dim=1).mean()
    share = (LOGIT_SPREAD / (logit_scale * spread)).clamp(max=0.95)
    return F.normalize(share * centres + (1 - share**2).sqrt() * common, dim=-1)


def choose_tags(photo: Photo, local: np.ndarray, low: float, high: float, count: int) -> Photo:
    """The photo with its `count` best classes as tags, and the threshold that separates them from the others.

    Args:
        local: local scores of the target classes, (targets,).
        low, high: smallest and largest entry of the photo's refined patch scores.
    """
    if count >= len(local):
        raise UsageError(f"{count} tags per image: fewer than the {len(local)} classes are needed")
    order = np.argsort(-local, kind="stable")
    middle = (float(local[order[count - 1]]) + float(local[order[count]])) / 2
    labels = tuple(sorted(int(label) for label in order[:count]))
    return replace(photo, labels=labels, threshold=(middle - low) / (high - low))


def batches(photos: Sequence[Photo], size: int) -> Iterator[Sequence[Photo]]:
    """Consecutive photos, `size` at a time; all have one size in pixels."""
    for start in range(0, len(photos), size):
        yield photos[start : start + size]
