"""Boundaries by a promptable segmenter: class maps give it points and boxes, and its masks vote with the label map.

The segmenter is SAM (Kirillov et al., arXiv 2304.02643) or SAM 2 (Ravi et al., arXiv 2408.00714) as the package
transformers has them, with weights of your own, or anything else that answers prompts. The voting is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from tagclip.errors import RequirementError, UsageError, first_line
from tagclip.text_files import parse_json
from wsss.config import SamConfig

if TYPE_CHECKING:
    import torch

PROMPTS_AT_ONCE = 16
MODELS = {"sam": "SamModel", "sam2": "Sam2Model"}  # `model_type` of a folder's config.json -> transformers' class
PROCESSORS = {"sam": "SamProcessor", "sam2": "Sam2Processor"}
SMALL = 1e-6


@dataclass(frozen=True)
class SegmentPrompt:
    """What the segmenter is asked about: an object of a class.

    Attributes:
        label: place of the class among the image's tags.
        box: x0, y0, x1, y1 in pixels, ends exclusive.
        points: inside the object, (n, 2) of x, y in pixels.
    """

    label: int
    box: tuple[int, int, int, int]
    points: np.ndarray


@dataclass(frozen=True)
class SegmentAnswer:
    """Masks that a segmenter proposes for one prompt.

    Attributes:
        masks: (M, H, W) bool. quality: what it says of each, (M,) in [0, 1].
    """

    masks: np.ndarray
    quality: np.ndarray


class PromptableSegmenter(Protocol):
    """Anything that answers prompts with masks."""

    def __call__(self, rgb: np.ndarray, prompts: Sequence[SegmentPrompt]) -> list[SegmentAnswer]:
        """One answer per prompt for an image, (H, W, 3) uint8 RGB."""


def refine_with_sam(
    rgb: np.ndarray,
    scores: np.ndarray,
    config: SamConfig,
    *,
    has_background: bool = True,
    segmenter: PromptableSegmenter | None = None,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Label probabilities after the segmenter's masks have voted.

    Args:
        rgb: (H, W, 3) uint8.
        scores: one map per label, (L, H, W) float32 in [0, 1]; the first is the background's if `has_background`.
        segmenter: in place of the one of `config.weights`.
        device: where that one computes.

    Returns:
        (L, H, W) float32, summing to 1 at each pixel.

    Raises:
        UsageError: no weights, or a folder without them. RequirementError: transformers is missing.
    """
    shares = scores / np.maximum(scores.sum(axis=0), SMALL)
    maps = scores[1:] if has_background else scores
    prompts = find_prompts(maps, config)
    if not prompts:
        return shares
    if segmenter is None:
        segmenter = load_segmenter(str(config.weights) if config.weights else "", str(device))
    answers = segmenter(rgb, prompts)
    return vote(shares, maps, answers, config, has_background=has_background)


def find_prompts(maps: np.ndarray, config: SamConfig) -> list[SegmentPrompt]:
    """A box and points for each connected region where a class is strong.

    Args:
        maps: class maps at the image's size, (K, H, W) in [0, 1].
    """
    prompts = []
    for label, one in enumerate(maps):
        peak = float(one.max())
        if peak <= 0:
            continue
        others = np.delete(maps, label, axis=0)
        lead = one - others.max(axis=0) if len(others) else one
        strong = (one >= config.box_threshold * peak).astype(np.uint8)
        count, regions, statistics, _ = cv2.connectedComponentsWithStats(strong, connectivity=8)
        areas = statistics[:, cv2.CC_STAT_AREA]
        largest = areas[1:].max() if count > 1 else 0
        for region in range(1, count):
            if areas[region] < config.smallest_region * largest:
                continue
            x, y = (int(statistics[region, key]) for key in (cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP))
            w, h = (int(statistics[region, key]) for key in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT))
            part = (slice(y, y + h), slice(x, x + w))
            inside = regions[part] == region
            points = _peaks(np.where(inside, lead[part], -np.inf), config.points) + np.array([x, y])
            prompts.append(SegmentPrompt(label, (x, y, x + w, y + h), points))
    return prompts


def _peaks(values: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` best places, (n, 2) of x, y; each rules out its neighbourhood, a quarter of the region's sides."""
    values, found = values.copy(), []
    reach = [max(1, side // 4) for side in values.shape]
    for _ in range(count):
        y, x = np.unravel_index(int(np.argmax(values)), values.shape)
        if not np.isfinite(values[y, x]):
            break
        found.append((int(x), int(y)))
        values[max(0, y - reach[0]) : y + reach[0] + 1, max(0, x - reach[1]) : x + reach[1] + 1] = -np.inf
    return np.array(found)


def vote(
    shares: np.ndarray,
    maps: np.ndarray,
    answers: Sequence[SegmentAnswer],
    config: SamConfig,
    *,
    has_background: bool = True,
) -> np.ndarray:
    """Label probabilities from those before and the segmenter's masks.

    Of each answer the mask counts whose overlap with some class's share of the label map, times a power of the
    segmenter's own quality, is largest. It then belongs to the class whose map is strongest in it, not to the one that
    asked. Where masks of two classes overlap, a pixel belongs to the class whose map is stronger there. What no mask
    covers is background; a class that no mask belongs to keeps its share there.

    Args:
        shares: probabilities before, (L, H, W). maps: class maps, (K, H, W), L = K + 1 with background.

    Returns:
        (L, H, W) float32, summing to 1.
    """
    first = int(has_background)
    own = shares[first:]
    sums = own.sum(axis=(1, 2), dtype=np.float64)
    chosen: list[tuple[int, np.ndarray]] = []
    for answer in answers:
        areas = answer.masks.sum(axis=(1, 2)).astype(np.float64)
        common = np.stack([own[:, mask].sum(axis=1, dtype=np.float64) for mask in answer.masks])
        overlap = common / np.maximum(sums + areas[:, None] - common, SMALL)
        best = int(np.argmax(overlap.max(axis=1) * np.asarray(answer.quality, np.float64) ** config.quality_power))
        if areas[best] == 0:
            continue
        mask = answer.masks[best]
        strength = np.array([one[mask].mean() for one in maps])
        chosen.append((int(np.argmax(strength)), mask))
    cover = np.zeros(maps.shape, bool)
    for label, mask in chosen:
        cover[label] |= mask
    covered = cover.any(axis=0)
    winner = np.where(cover, maps + SMALL, -1).argmax(axis=0)
    voted = np.zeros_like(shares)
    for label in range(len(maps)):
        voted[first + label] = covered & (winner == label)
    # Where no mask is: the background, and classes that no mask speaks for.
    rest = shares.copy()
    rest[first:][cover.any(axis=(1, 2))] = 0
    total = rest.sum(axis=0)
    if has_background:
        rest[0][total <= SMALL] = 1
        rest /= np.maximum(rest.sum(axis=0), SMALL)
    else:
        rest = np.where(total > SMALL, rest / np.maximum(total, SMALL), shares)
    voted = np.where(covered, voted, rest)
    return (config.weight * voted + (1 - config.weight) * shares).astype(np.float32)


def require_sam(config: SamConfig) -> str:
    """Makes sure that there is a segmenter, before anything is loaded; returns its `model_type`.

    Raises:
        UsageError: no weights are named, or their folder is not one of transformers' SAM. RequirementError:
            transformers is missing.
    """
    if not config.weights:
        raise UsageError(
            "masks.sam.weights: needed for --refine sam, a folder with SAM or SAM 2 as transformers saves it: "
            "--set masks.sam.weights=DIR"
        )
    folder = Path(config.weights)
    try:
        kind = parse_json((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        reason = first_line(error)
        raise UsageError(f"masks.sam.weights {folder}: no config.json that can be read there: {reason}") from None
    if kind not in MODELS:
        raise UsageError(f"masks.sam.weights {folder}: model_type is {kind!r}; sam and sam2 are known")
    if find_spec("transformers") is None:
        raise RequirementError("--refine sam: the package transformers is missing: pip install 'tagclip-wsss[sam]'")
    return str(kind)


@lru_cache(maxsize=1)
def load_segmenter(weights: str, device: str) -> PromptableSegmenter:
    """SAM or SAM 2 from a folder, kept for the next image; nothing is downloaded.

    Raises:
        UsageError, RequirementError: see `require_sam`; weights that cannot be loaded.
    """
    kind = require_sam(SamConfig(weights=weights))
    import transformers

    try:
        processor = getattr(transformers, PROCESSORS[kind]).from_pretrained(weights, local_files_only=True)
        model = getattr(transformers, MODELS[kind]).from_pretrained(
            weights, local_files_only=True, use_safetensors=True
        )
    except Exception as error:  # transformers raises a dozen unrelated types
        raise UsageError(f"masks.sam.weights {weights}: cannot be loaded: {first_line(error)}") from None
    return TransformersSegmenter(model.to(device).eval(), processor, two=kind == "sam2")


class TransformersSegmenter:
    """SAM or SAM 2 of transformers: the image is encoded once, then all prompts are asked.

    Args:
        model, processor: of one folder. two: they are SAM 2's.
    """

    def __init__(self, model: Any, processor: Any, *, two: bool = False):
        self.model, self.processor, self.two = model, processor, two

    def __call__(self, rgb: np.ndarray, prompts: Sequence[SegmentPrompt]) -> list[SegmentAnswer]:
        """See `PromptableSegmenter`."""
        import torch

        answers: list[SegmentAnswer] = []
        embeddings = None
        with torch.no_grad():
            for start in range(0, len(prompts), PROMPTS_AT_ONCE):
                part = prompts[start : start + PROMPTS_AT_ONCE]
                inputs = self._inputs(rgb, part)
                sizes = {key: inputs.pop(key) for key in ("original_sizes", "reshaped_input_sizes") if key in inputs}
                inputs = inputs.to(self.model.device)
                if embeddings is None:
                    embeddings = self.model.get_image_embeddings(inputs["pixel_values"])
                del inputs["pixel_values"]
                found = self.model(**inputs, image_embeddings=embeddings, multimask_output=True)
                masks = self.processor.post_process_masks(found.pred_masks.float().cpu(), **sizes)[0]
                quality = found.iou_scores.float().cpu().numpy()[0].clip(0, 1)
                answers += [
                    SegmentAnswer(one.numpy().astype(bool), two) for one, two in zip(masks, quality, strict=True)
                ]
        return answers

    def _inputs(self, rgb: np.ndarray, prompts: Sequence[SegmentPrompt]) -> Any:
        most = max(len(prompt.points) for prompt in prompts)
        # Every prompt needs as many points: one is asked twice where a region has fewer.
        points = [[list(map(float, prompt.points[i % len(prompt.points)])) for i in range(most)] for prompt in prompts]
        boxes = [[float(value) for value in prompt.box] for prompt in prompts]
        return self.processor(
            images=rgb, input_points=[points], input_labels=[[[1] * most for _ in prompts]], input_boxes=[boxes],
            return_tensors="pt",
        )  # fmt: skip
