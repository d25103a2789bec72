"""Images and their masks, read from a run folder or from a VOC-layout folder; no mmseg needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.arguments import as_names
from tagclip.errors import RunError, UsageError
from tagclip.folders import files_by_id
from tagclip.image_ids import without_suffix
from tagclip.images import find_images
from tagclip.stored_files import FilePlace
from tagclip.tag_files import TagRecord, parse_tag_line
from tagclip.vocabulary import Vocabulary
from wsss.files.lists import find_list, read_ids
from wsss.files.photos import PhotoLocator
from wsss.files.result_shards import results_by_id, results_there
from wsss.files.run_files import json_lines, run_vocabulary
from wsss.files.tag_tables import TAG_TABLE, tag_lines

IMAGE_FOLDER = "JPEGImages"
MASK_FOLDER = "SegmentationClass"
SPLIT_FOLDER = Path("ImageSets", "Segmentation")
NAMES_SHOWN = 5


@dataclass(frozen=True)
class Sample:
    """One image and its mask.

    Attributes:
        id: relative path without suffix, unique in its source.
        image, mask: the two files; the mask may not exist (see `MaskSource.missing`).
        tags: class names of the image, empty if the source has none.
        scores: scores of those tags where known, in the order of `tags`.
        file_size: of the image in bytes when it was tagged; None where that is not known.
    """

    id: str
    image: FilePlace
    mask: FilePlace
    tags: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    file_size: int | None = None


@dataclass(frozen=True)
class MaskSource:
    """What a folder offers for training or validation.

    Attributes:
        root: the folder.
        layout: "run" (a run folder of this project) or "voc" (JPEGImages, SegmentationClass, ImageSets).
        samples: every image that is listed and has a mask.
        missing: ids that are listed without a mask and without a recorded failure.
        failed: ids without a mask whose failure the run recorded.
    """

    root: Path
    layout: str
    samples: tuple[Sample, ...]
    missing: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def require_complete(self) -> None:
        """Raises:
        RunError: masks are missing; the message names the first few and the remedy.
        """
        if self.missing:
            total = len(self.samples) + len(self.missing)
            remedy = "run `tagclip mask` again" if self.layout == "run" else "add them or list other ids"
            raise RunError(
                f"{self.root}: {len(self.missing)} of {total} images have no mask: {shown(self.missing)}; {remedy}"
            )

    def select(self, ids: Sequence[str]) -> MaskSource:
        """The samples with these ids, in this order."""
        by_id = {sample.id: sample for sample in self.samples}
        chosen = tuple(by_id[id_] for id_ in as_names(ids, "ids") if id_ in by_id)
        return MaskSource(self.root, self.layout, chosen)


def shown(names: Sequence[str]) -> str:
    """The first few names and how many more there are, for one-line messages."""
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def open_source(
    root: str | Path,
    *,
    layout: str = "auto",
    ann_file: str | Path | None = None,
    split: str | None = None,
    mask_dir: str | Path | None = None,
    vocabulary: Vocabulary | None = None,
    image_root: str | Path | None = None,
) -> MaskSource:
    """Lists the images and masks of a folder.

    Args:
        root: a run folder (`tags.jsonl`, `masks/`) or a VOC-layout folder (`JPEGImages/`, `SegmentationClass/`).
        layout: "run", "voc" or "auto", which looks at what is there.
        ann_file: list of ids (see `wsss.files.lists`), relative to `root` or the working directory. Without it, every
            image of the run, or in the VOC layout those of `split`, or else every mask.
        split: name of a list in `ImageSets/Segmentation`, used if that file exists.
        mask_dir: take the masks from this folder instead (a self-training round, another run's masks).
        vocabulary: classes of the tags of a run folder; None reads them from its manifest.
        image_root: where the photos of a run folder are now; None: where they were when it was made.

    Raises:
        UsageError: the folder is neither, the list is missing or empty, or an image cannot be found.
        RunError: the run's records are damaged.
    """
    root = Path(root)
    if layout == "auto":
        layout = _guess_layout(root)
    if layout == "run":
        source = _open_run(root, Path(mask_dir) if mask_dir else root / "masks", ann_file, vocabulary, image_root)
    elif layout == "voc":
        source = _open_voc(root, _voc_masks(root, mask_dir), ann_file, split)
    else:
        raise UsageError(f"layout {layout!r} is not one of auto, run, voc")
    if not source.samples and not source.missing:
        raise UsageError(f"{root}: no images with masks; is it the right folder?")
    return source


def _guess_layout(root: Path) -> str:
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; give a run folder or a VOC-layout folder")
    if (root / "tags.jsonl").is_file() or (root / TAG_TABLE).is_file():
        return "run"
    if (root / IMAGE_FOLDER).is_dir():
        return "voc"
    raise UsageError(
        f"{root}: neither a run folder (no tags.jsonl) nor a VOC-layout folder (no {IMAGE_FOLDER}/ inside)"
    )


def _open_run(
    root: Path,
    masks: Path,
    ann_file: str | Path | None,
    vocabulary: Vocabulary | None,
    image_root: str | Path | None,
) -> MaskSource:
    if not results_there(masks):
        raise UsageError(f"{root}: no masks in {masks}; run `tagclip run` or `tagclip mask` first")
    vocabulary = vocabulary or load_vocabulary(None, root)
    failed_ids: set[str] = {row["id"] for row, _ in json_lines(root / "failures.jsonl") if "id" in row}
    photos = PhotoLocator.of_run(root, image_root)
    records = {}
    for row, place in tag_lines(root):
        record = parse_tag_line(row, vocabulary, place)
        records[record.id] = record
    wanted = list(records)
    if ann_file:
        listed = read_ids(find_list(root, ann_file), records.keys() | failed_ids)
        chosen = set(listed)
        wanted = [*(name for name in records if name in chosen), *(name for name in listed if name not in records)]
    there = results_by_id(masks, ".png")
    samples: list[Sample] = []
    missing: list[str] = []
    failed: list[str] = []
    for name in wanted:
        if name not in records or name not in there:
            (failed if name in failed_ids else missing).append(name)
            continue
        record = records[name]
        tags = tuple(vocabulary.names[index] for index in record.indices)
        image = photos.find(name, record.path)
        samples.append(Sample(name, image, there[name], tags, _scores_of_tags(record), record.file_size))
    return MaskSource(root, "run", tuple(samples), tuple(missing), tuple(failed))


def _scores_of_tags(record: TagRecord) -> tuple[float, ...]:
    if record.scores is None or not record.indices:
        return ()
    scores = record.scores[list(record.indices)]
    return () if np.isnan(scores).any() else tuple(float(score) for score in scores)



def _voc_masks(root: Path, mask_dir: str | Path | None) -> Path:
    if mask_dir is None:
        return root / MASK_FOLDER
    inside = root / mask_dir
    return inside if inside.is_dir() else Path(mask_dir)


def _open_voc(root: Path, masks: Path, ann_file: str | Path | None, split: str | None) -> MaskSource:
    if not masks.is_dir():
        raise UsageError(f"{root}: no folder {masks} with masks")
    if not (root / IMAGE_FOLDER).is_dir():
        raise UsageError(f"{root}: no folder {IMAGE_FOLDER} with images")
    listing = find_list(root, ann_file) if ann_file else None
    if listing is None and split and (root / SPLIT_FOLDER / f"{split}.txt").is_file():
        listing = root / SPLIT_FOLDER / f"{split}.txt"
    images = {file.id: file.path for file in find_images(root / IMAGE_FOLDER)}
    there = files_by_id(masks, ".png")
    ids = list(there) if listing is None else read_ids(listing, images.keys() | there.keys())
    _require_images(root / IMAGE_FOLDER, images, ids)
    samples = tuple(Sample(name, images[name], there[name]) for name in ids if name in there)
    missing = tuple(name for name in ids if name not in there)
    return MaskSource(root, "voc", samples, missing)


def _require_images(folder: Path, images: Mapping[str, FilePlace], ids: Sequence[str]) -> None:
    without = [name for name in ids if name not in images]
    if not without:
        return
    alike = [path.name for name, path in images.items() if without_suffix(name) == without[0]]
    if len(alike) > 1:
        raise UsageError(f"{folder}: {' and '.join(alike)} could both be the image of {without[0]}; remove one")
    raise UsageError(f"{folder}: no image for {shown(without)}")


VocabularySource = str | Path | Sequence[str] | Mapping[str, Any] | Vocabulary


def load_vocabulary(value: VocabularySource | None, run: str | Path | None = None) -> Vocabulary:
    """A vocabulary from what a config or the command line gives.

    Args:
        value: a built-in name, a file, a list of names, what `Vocabulary.to_dict` gives, or a Vocabulary; None reads
            the run's manifest.
        run: run folder for None.

    Raises:
        UsageError: None without a run, or a run that does not tell its classes.
        VocabularyError: from `Vocabulary`.
    """
    if isinstance(value, Mapping):
        return Vocabulary.from_dict(value)
    return _run_vocabulary(run) if value is None else Vocabulary.load(value)


def _run_vocabulary(run: str | Path | None) -> Vocabulary:
    vocabulary = run_vocabulary(Path(run)) if run is not None else None
    if vocabulary is None:
        raise UsageError("which classes? set `vocabulary` in the config or give --classes")
    return vocabulary
