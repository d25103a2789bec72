"""Images and their masks, read from a run folder or from a VOC-layout folder; no mmseg needed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.arguments import as_names
from tagclip.errors import RunError, UsageError
from tagclip.tag_files import TagRecord, parse_tag_line
from tagclip.vocabulary import Vocabulary
from wsss.files.lists import read_ids
from wsss.files.photos import PhotoLocator
from wsss.files.run_folder import run_vocabulary

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
    """

    id: str
    image: Path
    mask: Path
    tags: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()


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
            remedy = "run tools/generate_masks.py again" if self.layout == "run" else "add them or list other ids"
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
        ann_file: list of ids, the first word of each line; relative to `root` or to the working directory. Without
            it, every image of the run, or in the VOC layout those of `split`, or else every mask.
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
    if (root / "tags.jsonl").is_file():
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
    if not masks.is_dir():
        raise UsageError(f"{root}: no masks in {masks}; run tools/generate_masks.py or tools/pipeline.py first")
    vocabulary = vocabulary or load_vocabulary(None, root)
    wanted = set(read_ids(find_list(root, ann_file))) if ann_file else None
    failed_ids = {row.get("id") for row, _ in _json_lines(root / "failures.jsonl")}
    photos = PhotoLocator.of_run(root, image_root)
    samples, missing, failed = [], [], []
    for row, place in _json_lines(root / "tags.jsonl"):
        record = parse_tag_line(row, vocabulary, place)
        if wanted is not None and record.id not in wanted:
            continue
        mask = masks / f"{record.id}.png"
        if not mask.is_file():
            (failed if record.id in failed_ids else missing).append(record.id)
            continue
        tags = tuple(vocabulary.names[index] for index in record.indices)
        samples.append(Sample(record.id, photos.find(record.id, record.path), mask, tags, _scores_of_tags(record)))
    return MaskSource(root, "run", tuple(samples), tuple(missing), tuple(failed))


def _scores_of_tags(record: TagRecord) -> tuple[float, ...]:
    if record.scores is None or not record.indices:
        return ()
    scores = record.scores[list(record.indices)]
    return () if np.isnan(scores).any() else tuple(float(score) for score in scores)


def _json_lines(path: Path) -> Iterator[tuple[dict, str]]:
    """Records of a JSON lines file and where each stands; nothing if there is no such file."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = f"{path} line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise RunError(f"{place}: not JSON ({error}); make it again") from None
            if not isinstance(row, dict):
                raise RunError(f"{place}: not a record; make it again")
            yield row, place


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
    images = {
        path.relative_to(root / IMAGE_FOLDER).with_suffix("").as_posix(): path
        for path in sorted((root / IMAGE_FOLDER).rglob("*"))
        if path.is_file()
    }
    if listing is not None:
        ids = read_ids(listing)
    else:
        ids = sorted(path.relative_to(masks).with_suffix("").as_posix() for path in masks.rglob("*.png"))
    without_image = [id_ for id_ in ids if id_ not in images]
    if without_image:
        raise UsageError(f"{root / IMAGE_FOLDER}: no image for {shown(without_image)}")
    pairs = [(id_, masks / f"{id_}.png") for id_ in ids]
    samples = tuple(Sample(id_, images[id_], mask) for id_, mask in pairs if mask.is_file())
    missing = tuple(id_ for id_, mask in pairs if not mask.is_file())
    return MaskSource(root, "voc", samples, missing)


def find_list(root: str | Path, ann_file: str | Path) -> Path:
    """A list of ids: its path relative to the folder that it is about, or to the working directory.

    Raises:
        UsageError: it is in neither.
    """
    for candidate in (Path(root, ann_file), Path(ann_file)):
        if candidate.is_file():
            return candidate
    raise UsageError(f"list {ann_file} does not exist, neither in {root} nor in the working directory")


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
