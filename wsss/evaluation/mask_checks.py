"""Can masks be trained on, or scored against? The one place that looks: for training, evaluation and comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from tagclip.arguments import as_names
from tagclip.errors import ImageError, RunError
from tagclip.images import Size, image_size
from tagclip.stored_files import FilePlace
from wsss.files.concurrency import bounded_map
from wsss.files.mask_files import (
    IGNORE_8_BIT,
    MaskHeader,
    count_labels,
    ignore_label,
    mask_header,
    read_mask,
    with_ignored_value,
)

WRITE_ONE = "write 1 instead of 255 into them"


@dataclass(frozen=True)
class PreflightConfig:
    """What a check looks at.

    Attributes:
        ids: decode every mask and compare its ids with the classes; False reads headers only.
        apply_exif: images are turned upright before they are used (as `LoadUprightImage` does by default);
            `train_segmentor` takes it from the pipelines.
        ignore_index: label without a class; None: 255, or 65535 of more labels than 255.
        workers: reading threads.
    """

    ids: bool = True
    apply_exif: bool = True
    ignore_index: int | None = None
    workers: int = 4


@dataclass(frozen=True)
class PreflightReport:
    """What a check that passed has seen.

    Attributes:
        images: number of pairs.
        pixels: (labels,) int64, pixels by label, zeros if only headers were read.
        ignored: pixels without a label.
    """

    images: int
    pixels: np.ndarray
    ignored: int = 0

    @property
    def ignored_share(self) -> float:
        """Share of the pixels that the loss ignores."""
        total = int(self.pixels.sum()) + self.ignored
        return self.ignored / total if total else 0.0


def turned(size: Size, other: Size) -> bool:
    """Whether one size is the other on its side, as when one of the two pictures was turned by its EXIF orientation."""
    return size != other and (size.height, size.width) == (other.width, other.height)


def set_problem(pixels: Mapping[int, int], ignored: int, remedy: str = WRITE_ONE) -> str | None:
    """What is wrong with a whole set of true masks, of which each one may be right.

    Args:
        pixels: by value, over all masks, the ignored ones included.
        ignored: the value without a label.
        remedy: for binary masks.

    Returns:
        One phrase after "the masks ...", None where nothing is wrong.
    """
    values = {value for value, count in pixels.items() if count}
    if values == {ignored}:
        return f"hold nothing but {ignored} (ignored)"
    if values == {0, IGNORE_8_BIT} == {0, ignored}:
        return (
            "hold nothing but 0 and 255, and 255 means ignored; if they are binary masks, whose 255 is the object, "
            f"{remedy}"
        )
    return None


def check_pairs(
    pairs: Sequence[tuple[FilePlace, FilePlace]],
    class_names: Sequence[str] | None,
    config: PreflightConfig | None = None,
    progress: Callable[[int], object] = lambda done: None,
    *,
    any_depth: bool = True,
    place: str = "true masks",
    read: Callable[[FilePlace], np.ndarray] = read_mask,
) -> PreflightReport:
    """Reads pairs of an image and its mask and makes sure that they belong together and hold ids of classes.

    Args:
        class_names: names by label; None where it is not known what becomes of the masks' ids.
        config: what to look at.
        progress: called with the number of pairs done.
        any_depth: False for mmseg's own reader, which takes masks as 8 bits.
        place: what messages call the whole set.
        read: label map of a file, as it is used.

    Raises:
        RunError: naming the first bad mask, what is wrong with it, how many others are bad, and the remedy; or what is
            wrong with them all.
    """
    names = None if class_names is None else as_names(class_names, "class names")
    config = config or PreflightConfig()
    ignored = config.ignore_index if config.ignore_index is not None else ignore_label(len(names or ()))
    config = replace(config, ignore_index=ignored)
    counts: Counter[int] = Counter()
    problems: list[str] = []

    def inspect(pair: tuple[FilePlace, FilePlace]) -> str | dict[int, int]:
        try:
            return _inspect(*pair, names, config, ignored, any_depth, read)
        except ImageError as error:
            return f"mask {error}"

    with ThreadPoolExecutor(max_workers=max(1, config.workers)) as executor:
        done = bounded_map(executor, inspect, pairs, 4 * max(1, config.workers))
        for number, (_, outcome) in enumerate(done, start=1):
            if isinstance(outcome, str):
                problems.append(outcome)
            else:
                counts.update(outcome)
            progress(number)
    if problems:
        others = f" ({len(problems) - 1} more masks are bad)" if len(problems) > 1 else ""
        raise RunError(problems[0] + others)
    if problem := set_problem(counts, ignored):
        raise RunError(f"{place}: the masks {problem}")
    labels = range(len(names)) if names is not None else range(max(counts, default=-1) + 1)
    pixels = np.array([counts[label] if label != ignored else 0 for label in labels], np.int64)
    return PreflightReport(len(pairs), pixels, counts[ignored])


def _inspect(
    image: FilePlace,
    mask: FilePlace,
    names: Sequence[str] | None,
    config: PreflightConfig,
    ignored: int,
    any_depth: bool,
    read: Callable[[FilePlace], np.ndarray],
) -> dict[int, int] | str:
    """Pixels by value of the mask, or what is wrong."""
    try:
        size = image_size(image, apply_exif=config.apply_exif)
    except ImageError as error:
        return f"image {error}"
    header = mask_header(mask)
    if problem := _depth_problem(mask, header, ignored, any_depth) or _size_problem(image, mask, size, header, config):
        return problem
    if not config.ids:
        return {}
    counts = count_labels(with_ignored_value(read(mask), ignored))
    if ignored > IGNORE_8_BIT and header.bits <= 8 and IGNORE_8_BIT in counts:
        return (
            f"mask {mask} has 8 bits and the value {IGNORE_8_BIT}, which is a class here, as {ignored} is ignored; "
            "save it as a 16-bit PNG"
        )
    beyond = [label for label in counts if names is not None and label >= len(names) and label != ignored]
    if names is not None and beyond:
        return (
            f"mask {mask} holds id {beyond[0]}, but there are {len(names)} labels (0 {names[0]} to {len(names) - 1} "
            f"{names[-1]}); is it the right vocabulary?"
        )
    return counts


def _depth_problem(mask: FilePlace, header: MaskHeader, ignored: int, any_depth: bool) -> str | None:
    if any_depth or header.bits == 8 or header.is_palette or (header.bits == 16 and ignored > IGNORE_8_BIT):
        return None
    return (
        f"mask {mask} is a grey image of {header.bits} bits, but LoadAnnotations reads 8 of them; save it as an 8-bit "
        "PNG, or load it by LoadLabelMap"
    )


def _size_problem(
    image: FilePlace, mask: FilePlace, size: Size, header: MaskHeader, config: PreflightConfig
) -> str | None:
    if header.size == size:
        return None
    sizes = (
        f"mask {mask} is {header.size.width}x{header.size.height}, but its image {image} is {size.width}x{size.height}"
    )
    if not turned(header.size, size):
        return f"{sizes}; make the mask again or scale it with nearest neighbour"
    if image_size(image, apply_exif=not config.apply_exif) != header.size:
        return f"{sizes}: one is the other turned; turn the mask, do not scale it"
    if config.apply_exif:
        return (
            f"{sizes}: it was drawn on the photo as it is stored, which its EXIF orientation turns; turn the mask as "
            "well, or read photos unturned (apply_exif=False)"
        )
    return (
        f"{sizes}: it was drawn on the upright photo, but photos are read as they are stored here; read them upright "
        "(apply_exif=True)"
    )
