"""Image -> label map by a training-free strategy, whole or in windows, with the vocabulary of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tagclip.clip import AttentionRequest, FrozenCLIP, Grid, PositionInterpolation, Trunk
from tagclip.clip.prompts import build_text_classifier
from tagclip.config import TagCLIPConfig
from tagclip.errors import UsageError
from tagclip.images import decode_image, prepare_image
from tagclip.precision import exact_float32
from tagclip.tagger import TagCLIP, TagResult
from tagclip.vocabulary import Vocabulary
from wsss.config import PamrConfig
from wsss.dense.dense_config import DenseConfig
from wsss.dense.features import (
    blocks_to_keep,
    features_after_feedback,
    merge_requests,
    one_image,
    own_stop,
    positions_of,
    prepared,
    strategy_features,
)
from wsss.dense.logits import (
    DenseLabels,
    LogitField,
    PatchField,
    ResizedField,
    Window,
    WindowField,
    WordMaps,
    argmax_labels,
    class_probabilities,
    log_normaliser,
    small_labels,
    windows_of,
)
from wsss.dense.strategy import Strategy, get_strategy
from wsss.dense.text_propagation import propagate
from wsss.files.mask_files import ignore_label, label_dtype
from wsss.masks.pamr import refine_with_pamr


@dataclass
class PreparedImage:
    """An image as the model sees it.

    Attributes:
        inputs: normalised, the whole image (1, 3, h, w) or its windows (W, 3, h, w).
        windows: where the windows lie, in pixels of the (perhaps resized) image; None for the whole image.
        size: height and width in which the windows are given.
        target: height and width of the image itself.
        grid: patch grid of one input.
        trunks: of all inputs, batch by batch, for each way to interpolate positions; kept by `DenseSegmenter.features`
            where a strategy reads them once more when the words are known.
    """

    inputs: Tensor
    windows: list[Window] | None
    size: tuple[int, int]
    target: tuple[int, int]
    grid: Grid
    trunks: dict[PositionInterpolation | None, list[Trunk]] = field(default_factory=dict)


@dataclass
class Names:
    """The text side of one image.

    Attributes:
        rows: text features, (Q, D) fp32 unit norm.
        labels: mask label of every name, (Q,) int64.
    """

    rows: Tensor
    labels: Tensor


@dataclass
class DenseResult:
    """Label map of one image.

    Attributes:
        labels: (H, W) uint8: 0 background and class c as c + 1, or c if the vocabulary has no background; uint16 where
            there are more labels than 255. Background words of a vocabulary without background: 255 or 65535.
        confidence: probability of the winning class, (H, W) float32 in [0, 1].
        classes: indices of the classes that were allowed.
        tags: what the tagger said, if it was asked.
        strategy: with everything filled in that was found on the image, as gclip's blocks.
    """

    labels: np.ndarray
    confidence: np.ndarray
    classes: list[int]
    tags: TagResult | None
    strategy: Strategy


class DenseSegmenter:
    """Segments images with no training (ALGORITHMS, sections 4 and 5).

    Args:
        clip: the frozen model; never changed, whatever the strategy.
        vocabulary: classes; several prompt names of a class compete, the best one counts.
        config: settings.
        tagger: for vocabulary="tags"; default one made from the same vocabulary.
        cache_dir: where text classifiers are kept between runs.

    Raises:
        UsageError: unknown strategy, a crop that does not fit the patch size, a background threshold without a
            background label, more classes than a mask can hold.
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        vocabulary: Vocabulary,
        config: DenseConfig | None = None,
        *,
        tagger: TagCLIP | None = None,
        cache_dir: Path | str | None = None,
    ):
        self.clip, self.vocabulary, self.config = clip, vocabulary, config or DenseConfig()
        self.strategy = get_strategy(self.config.strategy, self.config.options, self.config.preset)
        if self.config.mode == "slide" and self.config.crop % clip.patch_size:
            raise UsageError(f"crop {self.config.crop} is no multiple of the model's patch size {clip.patch_size}")
        for name in ("background_threshold", "area_threshold"):
            if getattr(self.config, name) and not vocabulary.has_background:
                raise UsageError(f"{name}: vocabulary {vocabulary.name!r} has no background label")
        self._offset = offset = 1 if vocabulary.has_background else 0
        self.ignored, self.dtype = ignore_label(vocabulary.label_count), label_dtype(vocabulary.label_count)
        prompts = [(name, index) for index, group in enumerate(vocabulary.prompts) for name in group]
        prompts += [(word, -1) for word in vocabulary.background]
        self._owner = torch.tensor([index for _, index in prompts], device=clip.device)
        self._labels = torch.where(self._owner >= 0, self._owner + offset, 0 if offset else self.ignored)
        self._rows = build_text_classifier(
            clip, [name for name, _ in prompts], self.config.templates, cache_dir=cache_dir
        ).to(clip.device)
        if tagger is None and self.config.vocabulary == "tags":
            tagging = TagCLIPConfig.from_dict(self.config.tagging)
            tagger = TagCLIP(clip, vocabulary, config=tagging, cache_dir=cache_dir)
        self.tagger = tagger

    def __call__(self, image: Any, *, classes: int | str | Sequence[int | str] | None = None) -> DenseResult:
        """Segment one image.

        Args:
            image: path, PIL image or (H, W, 3) uint8 RGB array.
            classes: indices or names that the image may get; needed for vocabulary="labels", otherwise in the place
                of what the config says.

        Raises:
            ImageError: a file that cannot be read as an image.
            UsageError: vocabulary="labels" without `classes`.
        """
        rgb = decode_image(image, apply_exif=self.config.apply_exif)
        view, features, indices, tags, strategy = self._seen(rgb, classes)
        result = self.labels(view, features, self.names(indices), rgb, strategy)
        labels = result.labels.cpu().numpy().astype(self.dtype)
        return DenseResult(labels, result.confidence.cpu().numpy(), list(indices), tags, strategy)

    @exact_float32()
    def probabilities(self, image: Any, *, classes: int | str | Sequence[int | str] | None = None) -> Tensor:
        """Probability of every label at every pixel, before PAMR and threshold: (labels, H, W) fp32.

        Labels that the image may not get have probability 0. The whole array is held: for small images only.
        """
        rgb = decode_image(image, apply_exif=self.config.apply_exif)
        view, features, indices, _, strategy = self._seen(rgb, classes)
        names, scale = self.names(indices), self.config.logit_scale
        field = self.smoothed(self.field(view, features, names, strategy), names, rgb)
        normaliser = log_normaliser(field, logit_scale=scale, chunk_bytes=self._chunk_bytes)
        result = normaliser.new_zeros(len(self.vocabulary) + self._offset, *view.target)
        for label in names.labels.unique().tolist():
            if label != self.ignored:
                result[label] = class_probabilities(field, names.labels, label, normaliser, logit_scale=scale)
        return result

    def image_features(self, image: Any) -> Tensor:
        """Patch features of an image: (N, D) fp32 unit norm, or (windows, N, D)."""
        view = self.view(decode_image(image, apply_exif=self.config.apply_exif))
        inputs = view.inputs[: self.config.window_batch].to(self.clip.device)
        (features,), _ = self.features(view, [prepared(self.clip, inputs, self.strategy)])
        return features[0] if view.windows is None else features

    def _seen(
        self, rgb: np.ndarray, classes: int | str | Sequence[int | str] | None
    ) -> tuple[PreparedImage, Tensor, list[int], TagResult | None, Strategy]:
        """View, features, allowed class indices, tags or None, and prepared strategy of one image."""
        if classes is None and self.config.vocabulary == "labels":
            raise UsageError('vocabulary="labels" needs the classes of every image')
        view = self.view(rgb)
        wants_tags = classes is None and self.config.vocabulary == "tags"
        strategy = prepared(self.clip, view.inputs[: self.config.window_batch].to(self.clip.device), self.strategy)
        (features,), tags = self.features(view, [strategy], rgb if wants_tags else None)
        return view, features, self.allowed(classes) if tags is None else tags.indices, tags, strategy

    @property
    def _chunk_bytes(self) -> int:
        return self.config.chunk_mib * 2**20

    def allowed(self, classes: int | str | Sequence[int | str] | None) -> list[int]:
        """Class indices from indices or names, one or several; None means all."""
        if classes is None:
            return list(range(len(self.vocabulary)))
        if isinstance(classes, str | int):
            classes = [classes]
        return sorted({self.vocabulary.index(one) if isinstance(one, str) else int(one) for one in classes})

    def view(self, rgb: np.ndarray) -> PreparedImage:
        """The model's input of an image (H, W, 3) uint8 RGB."""
        config, target = self.config, (rgb.shape[0], rgb.shape[1])
        if config.short_side is not None:
            factor = config.short_side / min(target)
            height, width = (max(1, round(side * factor)) for side in target)
            rgb = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))
        size = (rgb.shape[0], rgb.shape[1])
        windows = None
        if config.mode == "whole":
            inputs = self._input(rgb, config.max_long_side)[None]
        else:
            windows = windows_of(*size, config.crop, config.stride)
            inputs = torch.stack([self._input(rgb[w.top : w.bottom, w.left : w.right], None) for w in windows])
        patch = self.clip.patch_size
        return PreparedImage(inputs, windows, size, target, Grid(inputs.shape[2] // patch, inputs.shape[3] // patch))

    def features(
        self, view: PreparedImage, strategies: Sequence[Strategy], tag_rgb: np.ndarray | None = None
    ) -> tuple[list[Tensor], TagResult | None]:
        """Patch features of a view under several prepared strategies from one trunk, and tags on request.

        Args:
            tag_rgb: the image, if it is to be tagged: a whole image from the same trunk, windows from one of its own.

        Returns:
            One (B, N, D) fp32 unit-norm tensor a strategy, and the tags or None.
        """
        if tag_rgb is not None and self.tagger is None:
            raise UsageError("an image is to be tagged, but this segmenter has no tagger")
        tagger = None if tag_rgb is None or view.windows is not None else self.tagger
        ways = [positions_of(self.clip, strategy) for strategy in strategies]
        parts: list[list[Tensor]] = [[] for _ in strategies]
        tags = None
        view.trunks = {}
        for way in dict.fromkeys([*ways, *([None] if tagger is not None else [])]):
            own = [index for index, other in enumerate(ways) if other == way]
            users = [strategies[index] for index in own]
            request = AttentionRequest(keep=blocks_to_keep(self.clip, users))
            tagging = tagger if way is None else None
            if tagging is not None:
                request = merge_requests(request, tagging.request)
            stop = own_stop(self.clip, users) if tagging is None else None
            kept = view.trunks.setdefault(way, [])
            for inputs in view.inputs.split(self.config.window_batch):
                inputs = inputs.to(self.clip.device)
                trunk = self.clip.trunk(inputs, request, stop=stop, interpolation=way)
                for index, strategy in zip(own, users, strict=True):
                    parts[index].append(strategy_features(self.clip, trunk, strategy))
                if tagging is not None:
                    tags = tagging.results(tagging.score_trunk(trunk, inputs), trunk.grid)[0]
                if any(strategy.feedback or strategy.decide for strategy in users):
                    kept.append(Trunk(trunk.tokens, trunk.grid, kept=trunk.kept))
        if tag_rgb is not None and self.tagger is not None and tagger is None:
            tags = self.tagger(tag_rgb)
        return [torch.cat(part) for part in parts], tags

    def names(self, classes: Sequence[int]) -> Names:
        """The names of these classes and the background words; all names if that leaves none."""
        keep = torch.isin(self._owner, torch.tensor([-1, *classes], device=self._owner.device))
        if not keep.any():
            keep = torch.ones_like(keep)
        return Names(self._rows[keep], self._labels[keep])

    @exact_float32()
    def field(
        self, view: PreparedImage, features: Tensor, names: Names, strategy: Strategy | None = None
    ) -> LogitField:
        """Cosines between every pixel and every name, or what the strategy decides on in their place.

        Args:
            features: (B, N, D) of this view.
            strategy: whose features they are, prepared; None: the segmenter's.
        """
        grid, strategy = view.grid, strategy or self.strategy
        trunks = [
            (trunk, index)
            for trunk in view.trunks.get(positions_of(self.clip, strategy), [])
            for index in range(len(trunk.tokens))
        ]
        fields: list[LogitField] = []
        for number, one in enumerate(features):
            trunk = one_image(*trunks[number]) if trunks else None
            if trunk is not None and strategy.feedback is not None:
                images = view.inputs[number : number + 1].to(self.clip.device)
                told = features_after_feedback(self.clip, trunk, images, names.rows, strategy)
                one = one if told is None else told[0]
            cosines = (one @ names.rows.T).T.unflatten(1, (grid.height, grid.width))
            size = view.target
            if view.windows is not None:
                window = view.windows[number]
                size = (window.bottom - window.top, window.right - window.left)
            found = None
            if trunk is not None and strategy.decide is not None:
                maps = WordMaps(cosines, names.rows, names.labels, *view.inputs.shape[2:])
                found = strategy.decide(self.clip, trunk, maps, strategy.options)
            if found is None:
                fields.append(PatchField(cosines, *size))
            else:
                fields.append(found if (found.height, found.width) == size else ResizedField(found, *size))
        if view.windows is None:
            return fields[0]
        joined = WindowField(view.windows, fields, *view.size)
        return joined if view.size == view.target else ResizedField(joined, *view.target)

    def smoothed(self, field: LogitField, names: Names, rgb: np.ndarray) -> LogitField:
        """The field after `DenseConfig.propagation`, if there is any."""
        if self.config.propagation is None:
            return field
        return propagate(
            field,
            names.rows,
            rgb,
            self.config.propagation,
            mean=self.clip.mean,
            std=self.clip.std,
            chunk_bytes=self._chunk_bytes,
        )

    @exact_float32()
    def labels(
        self, view: PreparedImage, features: Tensor, names: Names, rgb: np.ndarray, strategy: Strategy | None = None
    ) -> DenseLabels:
        """Propagation, argmax, PAMR, area and background thresholds as the config says.

        Args:
            features: (B, N, D) of this view.
            rgb: the image, (H, W, 3) uint8, for propagation and PAMR.
            strategy: whose features they are, prepared; None: the segmenter's.
        """
        config, chunk = self.config, self._chunk_bytes
        field = self.smoothed(self.field(view, features, names, strategy), names, rgb)

        def decide(left_out: Sequence[int]) -> DenseLabels:
            if config.pamr is not None:
                return self._refined(field, names, rgb, chunk, config.pamr, left_out)
            scale = config.logit_scale
            return argmax_labels(field, names.labels, logit_scale=scale, chunk_bytes=chunk, left_out=left_out)

        result = decide(())
        if config.area_threshold and (small := small_labels(result.labels, config.area_threshold)):
            result = decide(small)
        if config.background_threshold:
            result.labels[result.confidence < config.background_threshold] = 0
        return result

    @exact_float32()
    def patch_probabilities(self, features: Tensor, classes: Sequence[int]) -> Tensor:
        """Probability of each class at every patch of one whole image, against the background words.

        What stage two takes in the place of class activation maps: 1 - maximum is the background's share.

        Args:
            features: (N, D).
            classes: K class indices.

        Returns:
            (K, N) fp32.
        """
        names = self.names(classes)
        probabilities = (self.config.logit_scale * features @ names.rows.T).softmax(dim=-1)
        columns = [probabilities[:, names.labels == index + self._offset].amax(dim=1) for index in classes]
        return torch.stack(columns) if columns else probabilities.new_zeros(0, len(features))

    def _input(self, rgb: np.ndarray, max_long_side: int | None) -> Tensor:
        return prepare_image(rgb, self.clip.patch_size, self.clip.mean, self.clip.std, max_long_side=max_long_side)

    def _refined(
        self,
        field: LogitField,
        names: Names,
        rgb: np.ndarray,
        chunk: int,
        pamr: PamrConfig,
        left_out: Sequence[int] = (),
    ) -> DenseLabels:
        """PAMR on every label's probability, some labels at a time, then the argmax over labels."""
        scale = self.config.logit_scale
        image = torch.from_numpy(rgb).permute(2, 0, 1).to(names.rows.device)
        normaliser = log_normaliser(field, logit_scale=scale, chunk_bytes=chunk)
        present = [label for label in names.labels.unique().tolist() if label not in left_out]
        step = max(1, chunk // (4 * normaliser.numel()))
        best = torch.full_like(normaliser, -1.0)
        labels = torch.zeros_like(normaliser, dtype=torch.int64)
        for first in range(0, len(present), step):
            group = present[first : first + step]
            maps = torch.stack(
                [class_probabilities(field, names.labels, one, normaliser, logit_scale=scale) for one in group]
            )
            for label, refined in zip(group, refine_with_pamr(image, maps, pamr), strict=True):
                wins = refined > best
                best[wins], labels[wins] = refined[wins], label
        return DenseLabels(labels, best)
