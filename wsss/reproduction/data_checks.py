"""Is this the published data set? Counts, digests of lists, and the files that are missing, by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from tagclip.errors import UsageError
from tagclip.image_ids import read_ids
from wsss.reproduction.experiments import Experiment, ImageSet

SHOWN = 5  # names of missing files in one line


def list_digest(ids: Iterable[str]) -> str:
    """SHA-256 of the sorted ids, each followed by a line break, in hexadecimal."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(ids)).encode()).hexdigest()


def read_list(experiment: Experiment, name: str, data: Path) -> list[str]:
    """Ids of a list of images, in its order.

    Raises:
        UsageError: the list or folder is not there, or holds nothing.
    """
    wanted = experiment.lists[name]
    if wanted.path is not None:
        ids = read_ids(data / wanted.path, what="--data")
    else:
        folder, suffix = data / (wanted.every or ""), experiment.photos["suffix"]
        if not folder.is_dir():
            raise UsageError(f"--data {data}: has no folder {wanted.every}; {expected(experiment)}")
        ids = sorted(path.stem for path in folder.iterdir() if path.suffix.lower() == suffix)
    if not ids:
        raise UsageError(f"--data {data}: the list {wanted.path or wanted.every} holds no image")
    return list(ids)


def expected(experiment: Experiment) -> str:
    """What the data folder of an experiment is, for messages."""
    return f"give the folder of {experiment.title}, usually {experiment.folder}"


def list_problems(wanted: ImageSet, ids: Sequence[str], name: str) -> list[str]:
    """How a list differs from the published one; none if it does not."""
    where = wanted.path or wanted.every or name
    if len(ids) != wanted.images:
        return [f"{where}: {len(ids)} images, the published list has {wanted.images}"]
    if wanted.digest is not None and list_digest(ids) != wanted.digest:
        return [f"{where}: {len(ids)} images as published, but others (digest {list_digest(ids)[:12]}...)"]
    return []


def missing_files(experiment: Experiment, ids: Sequence[str], data: Path, *, masks: bool) -> list[str]:
    """One line per kind of file that a list needs and that is not there, with the first names.

    Args:
        masks: true masks are needed.
    """
    photos = (data / experiment.photos["folder"], experiment.photos["suffix"], "photos")
    kinds = [photos]
    if "voc" in experiment.labels and experiment.labels.get("or") != "masks":
        kinds.append((data / experiment.labels["voc"], experiment.labels["suffix"], "annotations"))
    truth = experiment.masks or {}
    if masks or experiment.labels == {"or": "masks"}:
        for kind in ("folder", "pixelmaps"):
            if kind in truth:
                kinds.append((data / truth[kind], ".png", "true masks"))
    lines = []
    for folder, suffix, what in kinds:
        there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        absent = [f"{name}{suffix}" for name in ids if f"{name}{suffix}" not in there]
        if absent:
            more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
            lines.append(f"{folder}: {len(absent)} {what} missing: {', '.join(absent[:SHOWN])}{more}")
    files = [experiment.labels.get("coco"), truth.get("instances") if masks else None]
    lines += [f"{data / file}: missing" for file in dict.fromkeys(files) if file and not (data / file).is_file()]
    return lines
