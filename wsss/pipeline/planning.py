"""What a run has to do: sizes from headers, batches over the whole list, and what earlier runs left undone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.batches import batch_limit
from tagclip.clip.trunk import Grid
from tagclip.config import ImageConfig
from tagclip.errors import ImageError, RunError
from tagclip.image_lists import ImageFile, ImageFiles
from tagclip.images import Size, decode_image, image_size, target_size
from tagclip.tag_files import TagRecord
from wsss.files.concurrency import bounded_map
from wsss.files.kept_plan import PLAN_FILE, PhotoHeaders, write_headers
from wsss.files.map_files import read_maps
from wsss.files.run_files import read_manifest, run_id
from wsss.files.run_folder import RunFolder
from wsss.pipeline.plan_table import (
    BatchTable,
    Lazy,
    fill_from,
    listed_names,
    look_at,
    names_digest,
    place_of,
    text_digest,
)


@dataclass(frozen=True)
class PlannedImage:
    """An image whose header could be read.

    Attributes:
        file: id and path.
        size: of the decoded image.
        grid: patch grid that the model will see.
        file_size: of the file in bytes, by which the photo is known again.
    """

    file: ImageFile
    size: Size
    grid: Grid
    file_size: int | None = None

    @property
    def id(self) -> str:
        """The image's id."""
        return self.file.id

    def tagged(self, indices: Sequence[int], scores: np.ndarray | None) -> TagRecord:
        """The image with its tags: class indices, and scores (C,) float32 or None."""
        size = (self.size.height, self.size.width)
        return TagRecord(self.id, tuple(indices), self.file.recorded, size, scores, self.file_size)


@dataclass
class Plan:
    """All images of a run.

    Attributes:
        order: every id, in input order.
        batches: images that go through the model together.
        unreadable: (file, error) of images whose header cannot be read.
        absent: ids, among `order`, of images that have tags in a file and are not there.
        table: what order and batches are made from, of a plan of `plan_images`.
    """

    order: Sequence[str]
    batches: Sequence[list[PlannedImage]]
    unreadable: list[tuple[ImageFile, ImageError]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    table: PlanTable | None = None

    @property
    def images(self) -> list[PlannedImage]:
        """All planned images, batch by batch."""
        return [image for batch in self.batches for image in batch]

    @property
    def present(self) -> list[str]:
        """Ids of the images that are there, in order."""
        absent = set(self.absent)
        return [name for name in self.order if name not in absent]

    def ids(self) -> Iterator[str]:
        """`order`, and faster for very many images."""
        return iter(self.order) if self.table is None else self.table.ids()

    def sizes(self) -> set[Size]:
        """All sizes of images."""
        return {image.size for batch in self.batches for image in batch} if self.table is None else self.table.sizes()

    def batch_lengths(self) -> list[int]:
        """Images of each batch."""
        if self.table is not None:
            return np.diff(self.table.packed.bounds).tolist()
        return [len(batch) for batch in self.batches]

    def part(self, first: int, last: int) -> Plan:
        """The batches from `first` up to, not with, `last`, and nothing else."""
        if self.table is not None:
            return self.table.part(first, last)
        batches = list(self.batches[first:last])
        return Plan([image.id for batch in batches for image in batch], batches)

    def some_batches(self, numbers: Sequence[int]) -> Sequence[list[PlannedImage]]:
        """The batches of these numbers."""
        if self.table is None:
            return [self.batches[number] for number in numbers]
        return Lazy(len(numbers), lambda place: self.batches[numbers[place]])

    def spelled_out(self) -> Plan:
        """The same without a table: what another process needs of a part."""
        return Plan(list(self.order), list(self.batches), self.unreadable, self.absent)

    def restrict(self, ids: set[str]) -> Plan:
        """The same batches without the images outside `ids`; who stays keeps its companions of the full plan."""
        batches = [[image for image in batch if image.id in ids] for batch in self.batches]
        return Plan(
            [name for name in self.order if name in ids],
            [batch for batch in batches if batch],
            [(file, error) for file, error in self.unreadable if file.id in ids],
        )

    def photo_sizes(self) -> Iterator[tuple[str, int | None]]:
        """(id, size of the file in bytes) of every image that can be read."""
        if self.table is not None:
            return self.table.photo_sizes()
        return ((image.id, image.file_size) for batch in self.batches for image in batch)


@dataclass(frozen=True)
class PlanTable:
    """All images of a plan, a few numbers each.

    Attributes:
        files: all of them.
        headers: in their order.
        packed: places in `files` of each batch.
        grids: patch grid by size (height, width).
        is_new: headers were read that are not kept.
    """

    files: Sequence[ImageFile]
    headers: PhotoHeaders
    packed: BatchTable
    grids: Mapping[tuple[int, int], Grid]
    is_new: bool

    def image(self, place: int) -> PlannedImage:
        """The image at a place in `files`."""
        height, width = int(self.headers.height[place]), int(self.headers.width[place])
        size = Size(height, width)
        return PlannedImage(self.files[place], size, self.grids[height, width], int(self.headers.bytes[place]))

    def id(self, place: int) -> str:
        """Of the image at a place in `files`."""
        return self.files.id(place) if isinstance(self.files, ImageFiles) else self.files[place].id

    def ids(self) -> Iterator[str]:
        """Of all images, in order."""
        return self.files.ids() if isinstance(self.files, ImageFiles) else (file.id for file in self.files)

    def batch(self, number: int) -> list[PlannedImage]:
        """Images of a batch."""
        return [self.image(place) for place in self.packed[number]]

    def sizes(self) -> set[Size]:
        """All sizes of images."""
        return {Size(*size) for size in self.grids}

    def part(self, first: int, last: int) -> Plan:
        """See `Plan.part`."""
        start, end = self.packed.bounds[[first, last]].tolist()
        ids = Lazy(end - start, lambda place: self.id(int(self.packed.members[start + place])))
        return Plan(ids, Lazy(last - first, lambda number: self.batch(first + number)))

    def photo_sizes(self) -> Iterator[tuple[str, int | None]]:
        """See `Plan.photo_sizes`."""
        columns = zip(self.ids(), self.headers.height.tolist(), self.headers.bytes.tolist(), strict=True)
        return ((name, size) for name, height, size in columns if height)

    def keep(self, root: Path, scratch: Path) -> None:
        """Keeps the headers in a run folder, for the next start.

        Raises:
            RunError: full disk.
        """
        if self.is_new:
            names = "".join(listed_names(self.files)).encode(errors="surrogateescape")
            write_headers(root / PLAN_FILE, scratch, self.headers, names)


def plan_images(
    files: Sequence[ImageFile],
    config: ImageConfig,
    patch_size: int,
    *,
    batch_size: int,
    batch_patches: int | None,
    workers: int = 4,
    kept: Path | None = None,
) -> Plan:
    """Reads every header that is not kept and groups images of one patch grid.

    Args:
        files: the whole list, also of a run that is being resumed: batches depend on it alone.
        workers: reading threads.
        kept: run folder that may hold the headers of an earlier start; those of photos whose size in bytes and time of
            change are the same are not read again.
    """
    digest = names_digest(files)
    seen = look_at(files, digest, config.apply_exif, workers)
    headers = fill_from(None if kept is None else kept / PLAN_FILE, seen, files)
    missing = np.flatnonzero(headers.height == 0).tolist()
    height, width = headers.height, headers.width
    unreadable: list[tuple[ImageFile, ImageError]] = []
    is_new = False

    def measure(place: int) -> Size | ImageError:
        path = place_of(files, place)
        try:
            size = image_size(path, apply_exif=config.apply_exif)
            headers.bytes[place] = path.stat().st_size
        except OSError as error:
            return ImageError(f"{path}: {error.strerror or error}")
        except ImageError as error:
            return error
        return size

    with ThreadPoolExecutor(max_workers=max(1, workers)) as executor:
        for place, found in bounded_map(executor, measure, missing, 64):
            if isinstance(found, ImageError):
                unreadable.append((files[place], found))
            else:
                height[place], width[place] = found.height, found.width
                is_new = True
    found_sizes, of_size = np.unique(height.astype(np.int64) << 32 | width, return_inverse=True)
    sizes = [(int(size >> 32), int(size & 0xFFFFFFFF)) for size in found_sizes]
    grids = {size: _grid(*size, patch_size, config) for size in sizes if size[0]}
    distinct = sorted(set(grids.values()), key=lambda grid: (grid.height, grid.width))
    number = {grid: place for place, grid in enumerate(distinct)}
    groups = np.array([number[grids[size]] if size[0] else -1 for size in sizes], np.int32)[of_size.reshape(-1)]
    packed = BatchTable.of(groups, [batch_limit(grid, batch_size, batch_patches) for grid in distinct])
    table = PlanTable(files, headers, packed, grids, is_new)
    return Plan(Lazy(len(files), table.id), Lazy(len(packed), table.batch), unreadable, table=table)


def _grid(height: int, width: int, patch_size: int, config: ImageConfig) -> Grid:
    target = target_size(height, width, patch_size, config.max_long_side)
    return Grid(target.height // patch_size, target.width // patch_size)


def confirm_photos(plan: Plan, run: RunFolder) -> None:
    """Makes sure that a run that is resumed has the photos that it began with, and notes where they are now.

    Photos may have been moved, and one that could not be read may have been repaired; one that has been tagged must be
    the same file.

    Raises:
        RunError: a photo has another size in bytes than the one that was tagged under its id.
    """
    mine, there = photos_record(plan), (run.manifest or {}).get("photos") or {}
    if run.manifest is not None and mine["sizes"] != there.get("sizes"):
        for image in (image for batch in plan.batches for image in batch):
            tagged = run.tags[image.id].get("file_size") if image.id in run.tags else None
            if tagged not in (None, image.file_size):
                raise RunError(
                    f"{image.file.path}: is not the photo that this run has tagged ({tagged} bytes there, "
                    f"{image.file_size} here); bring that one back, or start anew with --overwrite"
                )
    if plan.table is not None:
        plan.table.keep(run.root, run.scratch)
    there = read_manifest(run.root) or {}
    run.note({"photos": mine, "id": run_id({**there, "photos": mine})})


def photos_record(plan: Plan) -> dict[str, Any]:
    """Where the photos of a plan are, and a digest of their sizes in bytes."""
    if plan.table is not None and isinstance(plan.table.files, ImageFiles):
        roots: set[Any] = {plan.table.files.root}
    else:
        images = (image.file for batch in plan.batches for image in batch)
        roots = {file.root for file in [*images, *(file for file, _ in plan.unreadable)]}
    root = roots.pop() if len(roots) == 1 else None
    digest = text_digest(sorted(f"{name}\0{size}\n" for name, size in plan.photo_sizes()))
    # A list names a store or shards, a text a local folder.
    place = str(root) if isinstance(root, Path) else [root] if isinstance(root, str) else root and list(root)
    return {"root": place, "sizes": digest}


@dataclass
class Todo:
    """What is left of a plan.

    Attributes:
        batches: need the model. An image of a batch may be done already: it is computed again all the same, so that
            its companions see the batch that they would have seen in one go.
        masks: have CAMs and need only a mask.
        masks_there: ids that have a mask.
        damaged: ids whose CAM file was unreadable and is made again.
        outside: ids of images that get no mask.
    """

    batches: Sequence[list[PlannedImage]] = ()
    masks: list[PlannedImage] = field(default_factory=list)
    masks_there: set[str] = field(default_factory=set)
    damaged: list[str] = field(default_factory=list)
    outside: Collection[str] = ()

    @property
    def images(self) -> int:
        """Images that get a mask."""
        done = {*self.masks_there, *self.outside}
        waiting = sum(image.id not in done for batch in self.batches for image in batch)
        return waiting + len(self.masks)


def survey(
    plan: Plan,
    run: RunFolder,
    config: ImageConfig,
    *,
    outside: Collection[str] = (),
    with_confidence: bool = False,
    regroup: Callable[[list[PlannedImage]], list[list[PlannedImage]]] | None = None,
    confirmed: bool = False,
) -> Todo:
    """Compares a plan with what a run folder holds.

    Images that failed to decode are tried again (a repaired one is then done); those that failed later as well.

    Args:
        outside: ids of images that get no mask: rejected ones.
        with_confidence: a mask counts as done only with its confidence.
        regroup: makes batches of the images that need the model, of a run that was complete before; None: the plan's
            own batches go through the model whole, so that a killed run ends with the bytes of one that was not.
        confirmed: `confirm_photos` has been called, for the plan that `plan` is a part of.

    Raises:
        RunError: other photos than the run began with, see `confirm_photos`.
    """
    if not confirmed:
        confirm_photos(plan, run)
    cams, masks = run.existing("cams"), run.existing("masks")
    if with_confidence:
        masks &= run.existing("confidence")
    for name in run.failures.ids():
        if name in masks or run.failures[name]["stage"] == "masks":
            run.failures.discard(name)
    todo = Todo(masks_there=masks, outside=set(outside))
    needy: list[PlannedImage] = []
    numbers: list[int] = []  # of batches that need the model; a million images are many objects
    for number, batch in enumerate(plan.batches):
        waiting = []
        for image in batch:
            if image.id in run.failures and not decodes(image, config):
                continue
            run.failures.discard(image.id)
            if image.id in cams and image.id not in masks and image.id not in outside and not _readable(image, run):
                cams.discard(image.id)
                todo.damaged.append(image.id)
            if image.id not in run.tags or (image.id not in cams and image.id not in outside):
                waiting.append(image)
        done = {image.id for image in batch} - {image.id for image in waiting}
        if waiting and regroup is None:
            numbers.append(number)
        else:
            needy += waiting
            todo.masks.extend(
                image for image in batch
                if image.id in done and image.id not in masks and image.id not in run.failures
                and image.id not in outside
            )  # fmt: skip
    todo.batches = plan.some_batches(numbers) if regroup is None else regroup(needy)
    return todo


def decodes(image: PlannedImage, config: ImageConfig) -> bool:
    """Whether the file of an image can be decoded by now."""
    try:
        decode_image(image.file.path, apply_exif=config.apply_exif)
    except ImageError:
        return False
    return True


def _readable(image: PlannedImage, run: RunFolder) -> bool:
    try:
        read_maps(run.place("cams", image.id))
    except ImageError:
        return False
    return True
