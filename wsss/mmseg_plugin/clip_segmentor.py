"""A frozen CLIP as an mmseg model: nothing to train, everything mmseg can do with a model's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS, TRANSFORMS
from mmseg.structures import SegDataSample
from PIL import Image
from torch import Tensor

from tagclip.clip import load_clip
from tagclip.errors import UsageError
from tagclip.vocabulary import Vocabulary
from wsss.dense.dense_config import DenseConfig
from wsss.dense.inference import DenseSegmenter
from wsss.dense.strategy import get_strategy


@MODELS.register_module()
class ClipSegmentor(BaseSegmentor):
    """Training-free segmentation by a strategy of `wsss.dense`.

    It takes images as they were loaded, uint8 without normalisation (mmengine's plain `BaseDataPreprocessor`, the
    default, and any batch size), and resizes, normalises and cuts windows itself, as `dense` says.

    Args:
        classes: built-in vocabulary, class file or list of names. Label ids must be those of the data set: with a
            background 0 and class c as c + 1, without it class c as c.
        clip: arguments of `tagclip.clip.load_clip`, `path_or_name` first among them.
        dense: fields of `DenseConfig`. With vocabulary="labels" the image's classes are read from its ground truth.
        channel_order: "bgr", as mmcv loads images, or "rgb" behind a preprocessor that has already swapped them.
        keep_logits: give `seg_logits` too (probabilities of all labels, full size), as mmseg's test-time augmentation
            needs them.
        cache_dir: where text classifiers are kept between runs.
        data_preprocessor, init_cfg: see mmseg.

    Raises:
        UsageError: unknown setting or strategy. WeightsError, VocabularyError: see `load_clip` and `Vocabulary`.
    """

    align_corners = False  # read by BaseSegmentor.postprocess_result and test-time augmentation

    def __init__(
        self,
        classes: str | Sequence[str],
        clip: dict,
        dense: dict | None = None,
        channel_order: str = "bgr",
        keep_logits: bool = False,
        cache_dir: str | Path | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if channel_order not in ("bgr", "rgb"):
            raise UsageError(f'channel_order={channel_order!r}; choose "bgr" or "rgb"')
        self.config = DenseConfig.from_dict(dense or {})
        get_strategy(self.config.strategy, self.config.options)  # a wrong name should not wait for the weights
        self.vocabulary = Vocabulary.load(classes)
        self.channel_order, self.keep_logits, self.cache_dir = channel_order, keep_logits, cache_dir
        self.clip = load_clip(**clip)
        self.num_classes = len(self.vocabulary) + (1 if self.vocabulary.has_background else 0)
        self._made: tuple[torch.device, DenseSegmenter] | None = None

    @property
    def segmenter(self) -> DenseSegmenter:
        """Made when first used, because mmengine moves a model to its device after making it."""
        device = self.clip.device
        if self._made is None or self._made[0] != device:
            made = DenseSegmenter(self.clip, self.vocabulary, self.config, cache_dir=self.cache_dir)
            self._made = (device, made)
        return self._made[1]

    @torch.no_grad()
    def predict(
        self, inputs: Tensor | Sequence[Tensor], data_samples: list[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Label maps of a batch.

        Args:
            inputs: (B, 3, H, W) or a list of (3, H, W), values 0..255.
            data_samples: receive `pred_sem_seg` (1, H, W) int64 at their `ori_shape`, and `seg_logits` if kept.
        """
        samples = data_samples if data_samples is not None else [SegDataSample() for _ in inputs]
        for image, sample in zip(inputs, samples, strict=True):
            rgb, classes = self._rgb(image), self._classes(sample)
            labels = self.segmenter(rgb, classes=classes).labels
            target = tuple(sample.metainfo.get("ori_shape", labels.shape)[:2])
            if target != labels.shape:
                labels = np.array(Image.fromarray(labels).resize(target[::-1], Image.Resampling.NEAREST))
            device = self.clip.device
            sample.pred_sem_seg = PixelData(data=torch.from_numpy(labels.astype(np.int64))[None].to(device))
            if self.keep_logits:
                scores = self.segmenter.probabilities(rgb, classes=classes)[None]
                sample.seg_logits = PixelData(data=_resize(scores, target)[0])
        return samples

    def encode_decode(
        self, inputs: Tensor | Sequence[Tensor], batch_data_samples: list[SegDataSample] | None = None
    ) -> Tensor:
        """Probabilities of all labels, (B, num_classes, H, W) fp32, for images of one size."""
        samples = batch_data_samples if batch_data_samples is not None else [SegDataSample() for _ in inputs]
        return torch.stack(
            [
                self.segmenter.probabilities(self._rgb(image), classes=self._classes(sample))
                for image, sample in zip(inputs, samples, strict=True)
            ]
        )

    def extract_feat(self, inputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Patch features of each image under the strategy, (N, D) fp32 unit norm, or (windows, N, D)."""
        return [self.segmenter.image_features(self._rgb(image)) for image in inputs]

    def _forward(self, inputs: Tensor | Sequence[Tensor], data_samples: list[SegDataSample] | None = None) -> Tensor:
        return self.encode_decode(inputs, data_samples)

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict:
        """There is none.

        Raises:
            UsageError: always.
        """
        raise UsageError("ClipSegmentor is training-free; train a model of configs/segmentation on its masks instead")

    def _rgb(self, image: Tensor) -> np.ndarray:
        values = image.detach().round().clamp(0, 255).to("cpu", torch.uint8).permute(1, 2, 0).numpy()
        return np.ascontiguousarray(values[:, :, ::-1] if self.channel_order == "bgr" else values)

    def _classes(self, sample: SegDataSample) -> list[int] | None:
        """The true classes of an image, if the settings ask for them."""
        if self.config.vocabulary != "labels":
            return None
        if "gt_sem_seg" not in sample:
            raise UsageError('vocabulary="labels" needs ground truth: LoadAnnotations in the test pipeline')
        offset = 1 if self.vocabulary.has_background else 0
        present = sample.gt_sem_seg.data.unique().tolist()
        return [label - offset for label in present if offset <= label < offset + len(self.vocabulary)]


@TRANSFORMS.register_module()
class CocoStuffToObjects(BaseTransform):
    """Turns a COCO-Stuff label map (171 classes) into COCO-Object's: things become 1..80, everything else 0.

    Args:
        things: number of thing classes, which come first.
    """

    def __init__(self, things: int = 80):
        self.things = things

    def transform(self, results: dict) -> dict:
        labels = results["gt_seg_map"]
        results["gt_seg_map"] = np.where(labels < self.things, labels + 1, 0).astype(np.uint8)
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(things={self.things})"


def _resize(scores: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(scores.shape[2:]) == size:
        return scores
    return torch.nn.functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)
