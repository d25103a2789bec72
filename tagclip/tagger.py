"""TagCLIP: images -> scores -> tags, with the batches that make it fast."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, overload, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tagclip.arguments import ImageInput, as_images, is_one_image
from tagclip.batches import plan_batches
from tagclip.cdul import cut_snippets, initial_labels
from tagclip.clip import AttentionRequest, FrozenCLIP, Grid, Trunk, build_text_classifier
from tagclip.clip.int8 import are_packed, without_int8
from tagclip.config import TagCLIPConfig, TagRuleConfig
from tagclip.cwr import candidate_border, reidentify
from tagclip.dmar import coarse_scores, local_scores, masked_affinity, refine_scores
from tagclip.errors import UsageError
from tagclip.images import Size, decode_image, prepare_image, target_size
from tagclip.precision import exact_float32
from tagclip.thresholds import select, tag_margins
from tagclip.vocabulary import Vocabulary

# Rows of the ablation table: two ways without patches, then the paper's parts in the order in which it adds them.
ABLATION = ("CLIP global", "CDUL global and local", "patch scores", "+ DMAR", "+ CWR")


@dataclass
class Stages:
    """Everything between the trunk and the scores of a batch; fp32 tensors on the model's device.

    Attributes:
        grid: patch grid, N = grid.count.
        patch_features: unit norm, (B, N, D).
        coarse: class probabilities of each patch, background words included, (B, N, C).
        vote_mask: (B, N, N) bool, and affinity: masked by it, (B, N, N); None without DMAR.
        first, refined: both passes of DMAR, (B, N, C); the coarse scores without DMAR.
        local: best patch of each target class, (B, targets).
        scores: after CWR, (B, targets).
    """

    grid: Grid
    patch_features: Tensor
    coarse: Tensor
    vote_mask: Tensor | None
    affinity: Tensor | None
    first: Tensor
    refined: Tensor
    local: Tensor
    scores: Tensor

    def of_image(self, index: int) -> dict[str, np.ndarray]:
        """The arrays of one image of the batch by name, without the batch dimension."""
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return {name: value[index].cpu().numpy() for name, value in arrays.items()}


@dataclass
class TagResult:
    """Tags of one image.

    Attributes:
        scores: of every target class, (C,) float32, in [0, 1]. `scores_by_name` has them by class name.
        indices: classes that the tag rule chose, ascending.
        names: of the C classes.
        grid: patch grid that the image was seen on.
        details: intermediate arrays by name (see `Stages`) if they were asked for, else empty.
    """

    scores: np.ndarray
    indices: list[int]
    names: tuple[str, ...]
    grid: Grid
    details: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def tags(self) -> list[str]:
        """Names of the classes that the tag rule chose, in class order."""
        return [self.names[index] for index in self.indices]

    @property
    def scores_by_name(self) -> dict[str, float]:
        """Class name -> score, best first."""
        order = np.argsort(-self.scores, kind="stable").tolist()
        return {self.names[index]: float(self.scores[index]) for index in order}


class ImageModel(Protocol):
    """What preparing images and running batches need to know of a model."""

    name: str
    patch_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    architecture: str
    weights_digest: str

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def dtype(self) -> torch.dtype:
        """Number format of its weights."""

    @property
    def number_format(self) -> str:
        """What it computes in, for provenance and messages."""


@runtime_checkable
class ImageTagger(Protocol):
    """What a run needs of a tagger: `TagCLIP`, or one that was trained on its scores.

    Attributes:
        config: settings; the rule, the input and the batches count for every tagger.
        vocabulary: classes.
    """

    config: TagCLIPConfig
    vocabulary: Vocabulary

    @property
    def model(self) -> ImageModel:
        """The model that images are prepared for."""

    @property
    def request(self) -> AttentionRequest:
        """What `score_trunk` needs of the attention maps."""

    def score(self, images: Tensor) -> Tensor:
        """Scores of prepared images, (B, 3, H, W) -> (B, targets) fp32."""

    def score_trunk(self, trunk: Trunk, images: Tensor) -> Tensor:
        """The same where a trunk of these images is there already."""

    def results(self, scores: Tensor | np.ndarray, grid: Grid) -> list[TagResult]:
        """The tag rule applied to the scores (B, targets) of a batch."""


def tag_results(
    scores: Tensor | np.ndarray, rule: TagRuleConfig, names: tuple[str, ...], grid: Grid
) -> list[TagResult]:
    """Results of a batch.

    Args:
        scores: (B, C). rule: for these classes (`TagRuleConfig.for_classes`). grid: that the images were seen on.
    """
    values = scores.cpu().numpy() if isinstance(scores, Tensor) else np.asarray(scores, dtype=np.float32)
    chosen = select(values, rule)
    return [
        TagResult(row, np.flatnonzero(tagged).tolist(), names, grid)
        for row, tagged in zip(values, chosen, strict=True)
    ]


class TagCLIP:
    """Tags images with the classes of a vocabulary (TagCLIP, arXiv 2312.12828).

    Args:
        clip: the frozen model.
        vocabulary: target classes and background words.
        preset: "default", or "reference" for the published implementation's behaviour in every detail. Both have the
            paper's constants for VOC and COCO, whatever the vocabulary: COCO-Stuff needs others, which
            `config=dataset_settings("tagging/cocostuff").tagging` takes from its config (`wsss.pipeline.recipe`).
        config: settings in place of the preset's.
        cache_dir: where the text classifier is kept between runs; None keeps nothing.

    Attributes:
        classifier: text rows, target classes first, then background words, (C, D) fp32 unit norm.
        request: what a trunk must collect for `score_trunk`.

    Raises:
        UsageError: class thresholds that do not fit the vocabulary, affinity blocks that the model does not have, or
            the scorer "cdul" for a single class.

    Example:
        >>> tagger = TagCLIP(load_clip("demo"), Vocabulary.named("voc"))  # doctest: +SKIP
        >>> tagger("street.jpg").tags  # doctest: +SKIP
        ['bus', 'person']
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        vocabulary: Vocabulary,
        preset: str = "default",
        *,
        config: TagCLIPConfig | None = None,
        cache_dir: Path | str | None = None,
    ):
        self.clip = clip
        self.vocabulary = vocabulary
        config = config or TagCLIPConfig.preset(preset)
        self.config = replace(config, rule=config.rule.or_thresholds(vocabulary.thresholds))
        self._rule = self.config.rule.for_classes(vocabulary.names)
        rows = [*vocabulary.prompts, *((word,) for word in vocabulary.background)]
        self.classifier = build_text_classifier(clip, rows, self.config.templates, cache_dir=cache_dir)
        self._range = self.config.dmar.block_range(clip.depth)
        self._cache_dir = cache_dir
        if self.config.scorer == "cdul" and not self._can_use_cdul:
            raise UsageError(
                "scorer 'cdul': compares classes with each other and there is one; --set "
                "tagging.cdul.background_words=True lets background words take part, --scorer patches needs none"
            )

    @property
    def _can_use_cdul(self) -> bool:
        """Whether a class has rivals there: a softmax over one class is 1 whatever the image shows."""
        return len(self.vocabulary) > 1 or (self.config.cdul.background_words and bool(self.vocabulary.background))

    @cached_property
    def cdul_classifier(self) -> Tensor:
        """Text rows of the scorer "cdul": targets, then background words if its settings let them in, (C, D)."""
        config = self.config.cdul
        background = self.vocabulary.background if config.background_words else ()
        rows = [*self.vocabulary.prompts, *((word,) for word in background)]
        return build_text_classifier(self.clip, rows, (config.template,), cache_dir=self._cache_dir)

    @property
    def model(self) -> FrozenCLIP:
        """The frozen model, which images are prepared for."""
        return self.clip

    @property
    def request(self) -> AttentionRequest:
        """What `score_trunk` needs of the attention maps."""
        dmar = self.config.dmar
        if self.config.scorer != "patches" or not dmar.enabled:
            return AttentionRequest()
        return AttentionRequest(votes=dmar.vote_mask, ranges=(self._range,))

    def prepare(self, image: ImageInput) -> Tensor:
        """Decode an image (path, PIL or (H, W, 3) uint8 RGB array) into the model's input, (3, H', W') float32.

        Raises:
            ImageError: a file that cannot be read as an image.
        """
        settings = self.config.image
        rgb = decode_image(image, apply_exif=settings.apply_exif)
        return prepare_image(
            rgb, self.clip.patch_size, self.clip.mean, self.clip.std, max_long_side=settings.max_long_side
        )

    def grid(self, size: Size) -> Grid:
        """Patch grid of an image of a size in pixels (`tagclip.images.image_size` reads it from the header)."""
        patch = self.clip.patch_size
        pixels = target_size(size.height, size.width, patch, self.config.image.max_long_side)
        return Grid(pixels.height // patch, pixels.width // patch)

    def plan(self, grids: Sequence[Grid | None]) -> list[list[int]]:
        """Batches of images of one grid, planned over the whole list: see `tagclip.batches.plan_batches`."""
        return plan_batches(grids, self.config.batch_size, self.config.batch_patches)

    @overload
    def __call__(self, images: ImageInput, *, details: bool = False) -> TagResult: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, images: Iterable[ImageInput], *, details: bool = False) -> list[TagResult]: ...
    def __call__(
        self, images: ImageInput | Iterable[ImageInput], *, details: bool = False
    ) -> TagResult | list[TagResult]:
        """Tag one image or several; they may have any sizes, those of one patch grid go through the model together.

        All images are held in memory: feed a large collection piece by piece.

        Args:
            images: a path, PIL image or (H, W, 3) uint8 RGB array; or a list of them.
            details: keep the intermediate arrays (N x N maps among them); only the scorer "patches" has any.

        Returns:
            One result for one image; for a list, a list with one result per image, in the order given.

        Raises:
            ImageError: a file that cannot be read as an image.
            UsageError: something else than images.
        """
        results = self._tag(as_images(images), details)
        return results[0] if is_one_image(images) else results

    def _tag(self, images: Sequence[ImageInput], details: bool) -> list[TagResult]:
        results: dict[int, TagResult] = {}
        for indices, batch in self._batches(images):
            trunk = self.trunk(batch)
            scores, stages = self._scores(trunk, batch)
            scores = self._rechecked(scores, stages, batch)
            for position, result in enumerate(self.results(scores, trunk.grid)):
                if details and stages is not None:
                    result.details = stages.of_image(position)
                results[indices[position]] = result
        return [results[index] for index in range(len(images))]

    def trunk(self, images: Tensor) -> Trunk:
        """Blocks 1..L-1 of a batch (B, 3, H, W) of prepared images, with what `score_trunk` needs."""
        return self.clip.trunk(images, self.request, position_rounding=self.config.image.position_rounding)

    def score(self, images: Tensor) -> Tensor:
        """Scores of a batch (B, 3, H, W) of prepared images, (B, targets) fp32 on the model's device."""
        return self.score_trunk(self.trunk(images), images)

    def score_trunk(self, trunk: Trunk, images: Tensor) -> Tensor:
        """Scores of a batch from a trunk that was made with (at least) `request`.

        Args:
            trunk: of the same batch.
            images: prepared images, (B, 3, H, W): CWR cuts its crops from them.

        Returns:
            (B, targets) fp32 on the model's device.

        Raises:
            UsageError: a trunk without the attention statistics of `request`.
        """
        return self._rechecked(*self._scores(trunk, images), images)

    def _scores(self, trunk: Trunk, images: Tensor) -> tuple[Tensor, Stages | None]:
        """Scores, and the steps that they come from if they are TagCLIP's own."""
        if self.config.scorer == "global":
            return self._global_scores(trunk), None
        if self.config.scorer == "cdul":
            return self._cdul_scores(trunk, images), None
        stages = self.stages(trunk, images)
        return stages.scores, stages

    def _rechecked(self, scores: Tensor, stages: Stages | None, images: Tensor) -> Tensor:
        """The scores, those of images that are near to other tags from float32 arithmetic instead of int8."""
        if not self.config.recheck or not are_packed(self.clip.blocks):
            return scores
        near = torch.from_numpy(tag_margins(scores.cpu().numpy(), self._rule) < self.config.recheck)
        if stages is not None and self.config.cwr.enabled:  # or to other classes being looked at again
            border = candidate_border(stages.refined, self.config.cwr.threshold)
            near |= ((stages.local - border).abs() < self.config.recheck).any(dim=1).cpu()
        if near.any():
            again = images[near]
            with without_int8():
                scores[near] = self._scores(self.trunk(again), again)[0]
        return scores

    def results(self, scores: Tensor | np.ndarray, grid: Grid) -> list[TagResult]:
        """Apply the tag rule to the scores (B, targets) of a batch."""
        return tag_results(scores, self._rule, self.vocabulary.names, grid)

    @torch.no_grad()
    @exact_float32()
    def stages(self, trunk: Trunk, images: Tensor) -> Stages:
        """Every step of TagCLIP for a batch, by the settings; see `score_trunk` for the arguments.

        Raises:
            UsageError: a trunk without the attention statistics of `request`.
        """
        config, grid, targets = self.config, trunk.grid, len(self.vocabulary)
        features = self._patch_features(trunk)
        coarse = coarse_scores(features, self.classifier, self.clip.logit_scale)
        vote_mask = affinity = None
        first = refined = coarse
        if config.dmar.enabled and grid.count > 1:  # a single patch has no other to be refined by
            if self._range not in trunk.affinity or (config.dmar.vote_mask and trunk.votes is None):
                raise UsageError(
                    f"the trunk was made without votes or mean attention of blocks {self._range}: pass `request`"
                )
            needed = config.dmar.votes_needed(self.clip.depth)
            votes = trunk.votes if config.dmar.vote_mask else None
            vote_mask = None if votes is None else votes >= needed
            affinity = masked_affinity(trunk.affinity[self._range].float(), votes, needed)
            first, refined = refine_scores(coarse, affinity, grid, config.dmar)
        local = local_scores(refined, targets)
        scores = self._reidentify(images, local, refined, grid) if config.cwr.enabled else local
        return Stages(grid, features, coarse, vote_mask, affinity, first, refined, local, scores)

    def ablation(self, images: ImageInput | Iterable[ImageInput]) -> dict[str, np.ndarray]:
        """Scores of the paper's ablation table, all from one trunk pass per image.

        Returns:
            Row of the table -> (n, targets) float32: "CLIP global" ([CLS] over the same input), "CDUL global and local"
            (the scorer "cdul"), "patch scores" (best patch of the local last block), "+ DMAR", "+ CWR" (the whole
            method). A single class has no row of CDUL, unless its background words are let in.
        """
        images = as_images(images)
        shape, cdul = (len(images), len(self.vocabulary)), self._can_use_cdul
        rows = {name: np.zeros(shape, dtype=np.float32) for name in ABLATION if cdul or name != ABLATION[1]}
        for indices, batch in self._batches(images):
            trunk = self.clip.trunk(
                batch,
                AttentionRequest(votes=self.config.dmar.vote_mask, ranges=(self._range,)),
                position_rounding=self.config.image.position_rounding,
            )
            stages = self.stages(trunk, batch)
            patches = local_scores(stages.coarse, len(self.vocabulary))
            compared = [self._global_scores(trunk), *([self._cdul_scores(trunk, batch)] if cdul else [])]
            for name, values in zip(rows, (*compared, patches, stages.local, stages.scores), strict=True):
                rows[name][indices] = values.cpu().numpy()
        return rows

    @torch.no_grad()
    def _patch_features(self, trunk: Trunk) -> Tensor:
        tokens = self.clip.last_block(trunk.tokens, self.config.local_attention)
        return F.normalize(self.clip.project(tokens[:, 1:]).float(), dim=-1)

    @torch.no_grad()
    @exact_float32()
    def _cdul_scores(self, trunk: Trunk, images: Tensor) -> Tensor:
        """CLIP's answers for the whole image and for its parts, put together as CDUL does, (B, targets)."""
        config, clip = self.config.cdul, self.clip
        tokens = clip.project(clip.last_block(trunk.tokens)[:, :1]).float()
        parts = cut_snippets(images.to(clip.device), config.snippets, clip.patch_size, clip.native_grid)
        request, rounding = AttentionRequest(), self.config.image.position_rounding
        features = []
        for chunk in parts.flatten(0, 1).split(config.chunk_size):
            seen = clip.last_block(clip.trunk(chunk, request, position_rounding=rounding).tokens)
            features.append(clip.project(seen[:, :1]).float())
        snippets = F.normalize(torch.cat(features)[:, 0], dim=-1).view(*parts.shape[:2], -1)
        targets = len(self.vocabulary)
        whole, local = (
            coarse_scores(rows, self.cdul_classifier, clip.logit_scale)[..., :targets]
            for rows in (F.normalize(tokens, dim=-1), snippets)
        )
        return initial_labels(whole[:, 0], local, config)

    @torch.no_grad()
    @exact_float32()
    def _global_scores(self, trunk: Trunk) -> Tensor:
        """CLIP's own answer: softmax over all classes of the [CLS] feature, (B, targets)."""
        tokens = self.clip.last_block(trunk.tokens)
        features = F.normalize(self.clip.project(tokens[:, :1]).float(), dim=-1)
        return coarse_scores(features, self.classifier, self.clip.logit_scale)[:, 0, : len(self.vocabulary)]

    def _reidentify(self, images: Tensor, local: Tensor, patch_scores: Tensor, grid: Grid) -> Tensor:
        return reidentify(
            self.clip,
            images.to(self.clip.device),
            local,
            patch_scores,
            self.classifier,
            grid,
            self.config.cwr,
            position_rounding=self.config.image.position_rounding,
        )

    def _batches(self, images: Sequence[ImageInput]) -> Iterator[tuple[list[int], Tensor]]:
        """Indices and stacked inputs (B, 3, H, W) of each batch."""
        inputs = [self.prepare(image) for image in images]
        patch = self.clip.patch_size
        grids = [Grid(values.shape[1] // patch, values.shape[2] // patch) for values in inputs]
        for indices in self.plan(grids):
            yield indices, torch.stack([inputs[index] for index in indices])
