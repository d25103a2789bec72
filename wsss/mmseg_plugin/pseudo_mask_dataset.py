"""Pseudo masks as an mmseg data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from tagclip.errors import UsageError
from tagclip.stored_files import StoredFile
from wsss.files.mask_files import ignore_label
from wsss.files.sources import VocabularySource, load_vocabulary, open_source, shown
from wsss.files.unpacked import UNPACKED, local_file
from wsss.segmentation.image_weights import ImageWeights


@DATASETS.register_module()
class PseudoMaskDataset(BaseSegDataset):
    """A run folder, or a VOC-layout folder, of images with palette masks.

    METAINFO (classes and palette) comes from the vocabulary: label 0 is the background and class c is label c + 1,
    or, for a vocabulary without background, class c is label c. 255 is ignored by the loss and by the metrics,
    or 65535 where there are more labels than 255.

    Args:
        data_root: run folder (`tags.jsonl`, `masks/`) or VOC-layout folder (`JPEGImages/`, `SegmentationClass/`).
        vocabulary: built-in name, class file, list of names, or what `Vocabulary.to_dict` gives; None reads it from
            the run's manifest.
        layout: "run", "voc" or "auto".
        ann_file: list of ids, the first word of each line.
        split: list in `ImageSets/Segmentation` to use if there is one.
        mask_dir: read the masks from this folder instead, e.g. those of a self-training round.
        image_root: where the photos of a run folder are now; None: where they were when it was made.
        missing: "error" names the images without a mask, "skip" leaves them out with a warning.
        image_weight: settings of `ImageWeights`, e.g. dict(rule="mean"), None for equal weights. The weight becomes
            `image_weight` of each sample, which `WeightedEncoderDecoder` multiplies the image's loss with.
        kwargs: arguments of `BaseSegDataset` (`pipeline`, `indices`, `test_mode`, ...).

    Raises:
        UsageError: wrong folder, list or option.
        RunError: masks are missing.
    """

    def __init__(
        self,
        data_root: str | Path,
        vocabulary: VocabularySource | None = None,
        *,
        layout: str = "auto",
        ann_file: str | None = None,
        split: str | None = None,
        mask_dir: str | None = None,
        image_root: str | None = None,
        missing: str = "error",
        image_weight: dict | None = None,
        **kwargs: Any,
    ) -> None:
        if missing not in ("error", "skip"):
            raise UsageError(f"missing={missing!r} is not one of error, skip")
        self.vocabulary = load_vocabulary(vocabulary, data_root)
        self.source = open_source(
            data_root, layout=layout, ann_file=ann_file, split=split, mask_dir=mask_dir, vocabulary=self.vocabulary,
            image_root=image_root,
        )  # fmt: skip
        if missing == "error":
            self.source.require_complete()
        left_out = self.source.missing + self.source.failed
        if left_out:
            print_log(f"{data_root}: left out {len(left_out)} images without a mask: {shown(left_out)}", "current")
        self.image_weights = ImageWeights(**image_weight) if image_weight else None
        classes, palette = self.vocabulary.label_names, self.vocabulary.label_palette.tolist()
        kwargs.setdefault("ignore_index", ignore_label(len(classes)))
        super().__init__(metainfo={"classes": classes, "palette": palette}, reduce_zero_label=False, **kwargs)

    def load_data_list(self) -> list[dict]:
        """One dict per image: paths, id, weight, and what mmseg's transforms expect."""
        samples, copies = self.source.samples, self.source.root / UNPACKED
        if any(isinstance(place, StoredFile) for sample in samples for place in (sample.image, sample.mask)):
            print_log(f"{self.source.root}: photos or masks in shards are unpacked into {copies} first", "current")
        weights = self.image_weights(samples) if self.image_weights else [1.0] * len(samples)
        return [
            {
                "img_path": str(local_file(sample.image, copies / "photos", sample.id)),
                "seg_map_path": str(local_file(sample.mask, copies / "masks", sample.id)),
                "sample_id": sample.id,
                "image_weight": weight,
                "label_map": self.label_map,
                "reduce_zero_label": False,
                "seg_fields": [],
            }
            for sample, weight in zip(samples, weights, strict=True)
        ]
