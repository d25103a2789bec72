"""What every format's module builds on: the job, one image of it, and the writer that takes images one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tagclip.errors import ImageError, RunError, UsageError
from tagclip.images import Size
from tagclip.stored_files import FilePlace
from tagclip.version import __version__
from tagclip.vocabulary import Vocabulary, voc_palette
from wsss.export.export_folder import ExportFolder
from wsss.export.export_options import ExportOptions
from wsss.export.mask_regions import connected_parts
from wsss.files.mask_files import IGNORE_COLOUR, encode_mask, ignore_label
from wsss.files.provenance import read_record

PRODUCER = f"tagclip-wsss {__version__}"


@dataclass(frozen=True)
class MaskRegion:
    """Pixels of one class, or one connected part of them.

    Attributes:
        index: of the class.
        pixels: (H, W) bool, not empty.
        score: of the tag, in [0, 1]; None where it is not known.
        confidence: mean probability of the pixels, in [0, 1]; None where the run has no confidence maps.
    """

    index: int
    pixels: np.ndarray
    score: float | None = None
    confidence: float | None = None

    @property
    def best_score(self) -> float | None:
        """For formats with one number: the tag's score, or else the pixels' confidence."""
        return self.score if self.score is not None else self.confidence


@dataclass(frozen=True)
class ExportSample:
    """One image on its way into an export.

    Attributes:
        id: of the image in the run.
        name: of its files in the export: the id, escaped where lists and tools would misread it.
        file_name: of the photo below the folder of photos, suffix included.
        number: unique in the run, from 1, the same whatever else the run holds and in whatever order.
        split: the list that it goes to.
        size: of photo and mask, as the mask has it.
        tags: class indices, ascending.
        scores: (C,) float32, NaN where not known; None where the run has none.
        mask: (H, W) run labels; None where the run has no mask and the format needs none.
        confidence: (H, W) float32, probability of each pixel's label, in steps of 1 / 255; None without.
        state: "checked", "rejected" or None.
        note: what a person wrote.
        photo: the run's photo, None where it is not there and not needed.
        content: of the photo's file, for formats that hold it inside; None for all others.
    """

    id: str
    name: str
    file_name: str
    number: int
    split: str
    size: Size
    tags: tuple[int, ...]
    scores: np.ndarray | None
    mask: np.ndarray | None
    confidence: np.ndarray | None = None
    state: str | None = None
    note: str = ""
    photo: FilePlace | None = None
    content: bytes | None = None

    @property
    def labels(self) -> np.ndarray:
        """The mask.

        Raises:
            ImageError: there is none.
        """
        if self.mask is None:
            raise ImageError(f"{self.id}: has no mask")
        return self.mask

    def score(self, index: int) -> float | None:
        """Score of a class, rounded to what float32 holds; None where it is not known."""
        if self.scores is None or np.isnan(self.scores[index]):
            return None
        return float(str(self.scores[index]))

    def mean_confidence(self, pixels: np.ndarray) -> float | None:
        """Mean probability of pixels that are not none, in [0, 1]."""
        if self.confidence is None:
            return None
        return round(float(self.confidence[pixels].mean()), 4)


@dataclass
class ExportJob:
    """What a writer needs to know.

    Attributes:
        vocabulary: the run's classes.
        options: settings of the export.
        folder: where files are written.
        splits: names of the lists, in order.
        run: the run folder.
        photo_root: which the photos' recorded paths are relative to; None where they are absolute.
        merge: the export is added to a data set at `folder.target`.
    """

    vocabulary: Vocabulary
    options: ExportOptions
    folder: ExportFolder
    splits: tuple[str, ...]
    run: Path
    photo_root: Path | str | None = None
    merge: bool = False

    @cached_property
    def ignored(self) -> int:
        """Value of ignored pixels in the run's masks: 255, or 65535 of 16 bits."""
        return ignore_label(self.vocabulary.label_count)

    @property
    def first(self) -> int:
        """Mask label of the first class."""
        return int(self.vocabulary.has_background)

    @cached_property
    def stuff(self) -> frozenset[int]:
        """Indices of the classes that are stuff.

        Raises:
            UsageError: a name that is neither a class nor a super-class.
        """
        found: set[int] = set()
        names, coarse = self.vocabulary.names, self.vocabulary.coarse_names or ()
        for name in self.options.stuff:
            if name in names:
                found.add(names.index(name))
            elif name in coarse:
                place = coarse.index(name)
                found.update(index for index, value in enumerate(self.vocabulary.coarse or ()) if value == place)
            else:
                raise UsageError(f"--stuff: {name!r} is neither a class nor a super-class of the run")
        return frozenset(found)

    def regions(self, sample: ExportSample, *, parts: bool | None = None) -> Iterator[MaskRegion]:
        """The regions of an image, by class.

        Args:
            parts: one region per connected part; None: as the options say, never of stuff.
        """
        labels = sample.labels
        for label in np.flatnonzero(np.bincount(labels.ravel())).tolist():
            index = label - self.first
            if index < 0 or label == self.ignored:
                continue
            pixels, score = labels == label, sample.score(index)
            split = self.options.instances == "component" and index not in self.stuff if parts is None else parts
            for part in connected_parts(pixels) if split else (pixels,):
                yield MaskRegion(index, part, score, sample.mean_confidence(part))

    def mask_png(self, labels: np.ndarray) -> bytes:
        """A mask of run labels as the run itself would store it."""
        return encode_mask(labels, self.vocabulary.label_palette)


class FormatWriter:
    """Takes images one by one and writes a data set; a module of `wsss.export` has one per format.

    Class attributes:
        default_split: name of the one list where the user names none.
        photo_folder: where photos are, "{split}" stands for the list.
        needs_masks: images without a mask are left out.
        holds_photos: photos are inside the files (`ExportSample.content`), not beside them.
        photo_suffix: that all photos must have; None: their own.
        wants_photos: photos take part at all.
        known_by_id: `known` gives ids instead of names.
        used: options (of `ExportOptions`) that this format knows, beside those that all know.
    """

    default_split: ClassVar[str] = "train"
    photo_folder: ClassVar[str] = "images/{split}"
    needs_masks: ClassVar[bool] = True
    holds_photos: ClassVar[bool] = False
    wants_photos: ClassVar[bool] = True
    photo_suffix: ClassVar[str | None] = None
    known_by_id: ClassVar[bool] = False
    used: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, job: ExportJob):
        self.job = job
        self.counts: Counter[str] = Counter()

    @property
    def vocabulary(self) -> Vocabulary:
        """The run's classes."""
        return self.job.vocabulary

    def add(self, sample: ExportSample) -> None:
        """Writes what belongs to one image.

        Raises:
            ImageError: the image cannot be exported; nothing of it is in the export then.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Writes what belongs to all of them, the page on how to import it included."""
        raise NotImplementedError

    def notes(self) -> list[str]:
        """What was lost or changed, one sentence each, for the user."""
        return []

    def known(self, folder: Path) -> set[str]:
        """Names (`ExportSample.name`) of the images that a data set there has annotations of.

        Raises:
            UsageError: it is no data set of this format, or has other classes.
        """
        raise NotImplementedError

    def combine(self, name: str, there: Path, new: Path) -> str | bytes | None:
        """See `ExportFolder.merge`."""
        return None

    def image_path(self, sample: ExportSample) -> str:
        """The photo's path in the export, or, without photos in it, below the run's image root."""
        if self.job.options.photos == "none":
            return sample.file_name
        return f"{self.photo_folder.format(split=sample.split)}/{sample.file_name}"

    def write_guide(self, text: str) -> None:
        """Writes README.md of the export."""
        if self.job.options.photos == "none":
            where = self.job.photo_root or "the absolute paths that the annotations name"
            text += f"\nThe photos are not in this folder (exported with `--photos none`); they are in {where}.\n"
        self.job.folder.write("README.md", text)


def unique_colours(vocabulary: Vocabulary) -> np.ndarray:
    """A colour of its own for each mask label, (labels, 3) uint8: the palette's, or the VOC colour map's where that
    repeats itself; black is nobody's but the background's, and that of ignored pixels nobody's at all."""
    palette = vocabulary.label_palette
    taken = {tuple(IGNORE_COLOUR)} | (set() if vocabulary.has_background else {(0, 0, 0)})
    spare = iter(voc_palette(4 * len(palette) + 256).tolist())
    own = {tuple(colour) for colour in palette.tolist()}
    colours = []
    for label, colour in enumerate(map(tuple, palette.tolist())):
        if label == 0 and vocabulary.has_background:
            colour = (0, 0, 0)
        elif colour in taken or colour == (0, 0, 0):
            colour = next(found for found in map(tuple, spare) if found not in taken | own | {(0, 0, 0)})
        taken.add(colour)
        colours.append(colour)
    return np.array(colours, np.uint8).reshape(-1, 3)


def plain_names(names: Sequence[str], forbidden: str, taken: Sequence[str] = ()) -> list[str]:
    """Class names for files that cannot hold some characters: those become "_"; a number is added where names meet."""
    table = {ord(character): "_" for character in forbidden}
    found: list[str] = list(taken)
    for name in names:
        plain = " ".join(name.translate(table).split()) or "_"
        unique, number = plain, 2
        while unique in found:
            unique, number = f"{plain}_{number}", number + 1
        found.append(unique)
    return found[len(taken) :]


def read_data(path: Path) -> dict[str, Any]:
    """A JSON object of a data set that something is added to.

    Raises:
        RunError: it cannot be read.
    """
    return read_record(path, "mend it, or export into another folder")


def require_same(what: str, there: Mapping[Any, Any] | Sequence[Any], ours: Mapping[Any, Any] | Sequence[Any]) -> None:
    """Makes sure that a data set numbers or paints its classes as this run does.

    Raises:
        UsageError: it does not; the first difference is named.
    """
    if there == ours:
        return
    old, new = _pairs(there), _pairs(ours)
    key = next(key for key in [*new, *old] if old.get(key) != new.get(key))
    raise UsageError(
        f"--merge-into: {what} has other classes: {key} is {old.get(key)!r} there, {new.get(key)!r} in the run; export "
        "into a folder of its own"
    )


def _pairs(values: Mapping[Any, Any] | Sequence[Any]) -> dict[Any, Any]:
    return dict(values) if isinstance(values, Mapping) else dict(enumerate(values))


def list_lines_of(path: Path) -> list[str]:
    """Lines of a list of names in a data set, without their ends.

    Raises:
        RunError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from None


def joined_lists(there: Path, new: Path) -> str:
    """A list with the lines of both, those that are there first."""
    old = list_lines_of(there)
    known = set(old)
    return "".join(f"{line}\n" for line in [*old, *(line for line in list_lines_of(new) if line not in known)])


def file_stem(file_name: str) -> str:
    """A photo's name without its suffix: "a/b.c.jpg" -> "a/b.c"."""
    folder, slash, name = file_name.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    return f"{folder}{slash}{stem if dot and stem else name}"


@dataclass
class SplitLists:
    """Lines of each list, in the order in which images came."""

    lines: dict[str, list[str]] = field(default_factory=dict)

    def add(self, split: str, line: str) -> None:
        """Appends a line."""
        self.lines.setdefault(split, []).append(line)

    def text(self, split: str) -> str:
        """The whole list."""
        return "".join(f"{line}\n" for line in self.lines.get(split, ()))
