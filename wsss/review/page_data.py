"""What the review page knows of a run: `data/run.js` and a chunk of `data/images-*.js` per 1,000 images."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from tagclip.config import TagRuleConfig
from tagclip.errors import TagclipError, UsageError
from tagclip.settings import overlay
from tagclip.tag_files import TagRecord
from wsss.files.corrections import CORRECTIONS_FILE, read_corrections
from wsss.files.mask_files import ignore_label
from wsss.files.photos import PhotoLocator
from wsss.files.run_files import read_manifest
from wsss.files.run_reader import RunReader
from wsss.review.doubt import DoubtWeights, doubt_settings
from wsss.review.score_levels import UNKNOWN, ScoreScale, class_handles
from wsss.review.thumbnail_store import ReviewImage, ThumbnailEntry

CHUNK = 1_000
DATA_FORMAT = 1
SAFE = "/!$'()*,;=@-_.~"  # characters of a path that an address may hold as they are


@dataclass
class RunContent:
    """A run as the page shows it: images in the run's order, then those rejected before, then those that only failed.

    Attributes:
        reader: of the run folder.
        manifest: of the run.
        records: tags of every image; those that only failed have none.
        failures: image id -> its line of failures.jsonl.
        photos: image id -> where its photo is, None where it is gone.
        levels: scores, (n, C) uint16, see `ScoreScale`; tags: (n, C) bool.
        scale: of the levels.
    """

    reader: RunReader
    manifest: Mapping[str, Any]
    records: list[TagRecord]
    failures: dict[str, dict[str, Any]]
    photos: dict[str, Path | None]
    scale: ScoreScale
    levels: np.ndarray
    tags: np.ndarray
    has_scores: bool
    image_root: Path | None = None
    weights: DoubtWeights = field(default_factory=DoubtWeights)

    @classmethod
    def read(cls, root: Path, image_root: Path | str | None = None) -> RunContent:
        """Reads everything but the pictures.

        Args:
            image_root: where the photos are now; None: where they were when the run was made.

        Raises:
            UsageError: no run folder.
            RunError: a run that is not complete, or damaged.
        """
        reader = RunReader(root)
        manifest = read_manifest(root)
        if manifest is None:
            raise UsageError(f"--run {root}: no manifest.json there; give a run folder")
        classes, locator = len(reader.vocabulary), PhotoLocator.of_run(root, image_root)
        records = [*reader.records(), *reader.rejected()]
        known = {record.id for record in records}
        failures: dict[str, dict[str, Any]] = {}
        for line in reader.failed():
            if not isinstance(line.get("id"), str):
                continue
            failures[line["id"]] = line
            if line["id"] not in known:
                known.add(line["id"])
                path = line.get("path")
                records.append(TagRecord(line["id"], (), path if isinstance(path, str) else None))
        scores = np.full((len(records), classes), np.nan, np.float32)
        tags = np.zeros((len(records), classes), bool)
        for place, record in enumerate(records):
            tags[place, list(record.indices)] = True
            if record.scores is not None:
                scores[place] = record.scores
        has_scores = bool((~np.isnan(scores)).any())
        scale = ScoreScale.of_scores(float(np.nanmin(scores)), float(np.nanmax(scores))) if has_scores else ScoreScale()
        photos = {record.id: _found(locator, record) for record in records}
        return cls(
            reader, manifest, records, failures, photos, scale, scale.levels(scores), tags, has_scores,
            locator.root,
        )  # fmt: skip

    @property
    def has_background(self) -> bool:
        """Whether label 0 of the masks is the background."""
        return self.reader.vocabulary.has_background

    @property
    def ignored(self) -> int:
        """The masks' ignore label."""
        configured = self.manifest.get("masks", {}).get("ignore_label")
        default = ignore_label(self.reader.vocabulary.label_count)
        return default if configured in (None, 255) else int(configured)

    @property
    def apply_exif(self) -> bool:
        """Whether the run turned photos upright first."""
        for stage in ("masks", "tagging"):
            image = (self.manifest.get(stage) or {}).get("image") or {}
            if "apply_exif" in image:
                return bool(image["apply_exif"])
        return True

    def images(self) -> Iterator[ReviewImage]:
        """The files of every image; those of rejected images are where the run has put them aside."""
        for record in self.records:
            reader = self.reader
            yield ReviewImage(
                record.id, self.photos[record.id], reader.stored(reader.mask_path(record.id)),
                reader.stored(reader.maps_path(record.id)), self._best_first(record),
                reader.stored(reader.confidence_path(record.id)),
            )  # fmt: skip

    def _best_first(self, record: TagRecord) -> tuple[int, ...]:
        if record.scores is None:
            return record.indices
        scores = np.nan_to_num(record.scores, nan=-np.inf)
        return tuple(sorted(record.indices, key=lambda index: (-scores[index], index)))

    def tag_rule(self) -> TagRuleConfig | None:
        """The rule that made the tags, None where they came from a file or the manifest does not say."""
        rule = (self.manifest.get("tagging") or {}).get("rule")
        if not isinstance(rule, dict) or not self.has_scores:
            return None
        try:
            return overlay(TagRuleConfig(), rule, "tagging.rule").for_classes(self.reader.vocabulary.names)
        except TagclipError:  # of a version with other fields
            return None

    def handles(self) -> np.ndarray:
        """Levels where the page's threshold handles start, (C,) int64."""
        rule = self.tag_rule()
        if rule is not None and rule.rule == "absolute":
            given = rule.class_thresholds or (rule.threshold,) * self.tags.shape[1]
            floor = rule.floor_for(self.tags.shape[1]) or 0.0
            handles = np.array([self.scale.nearest(max(float(value), floor)) for value in given], np.int64)
        else:
            handles = class_handles(self.levels, self.tags)
        for place, value in self.moved_before().items():
            handles[place] = self.scale.nearest(value)
        return handles

    def moved_before(self) -> dict[int, float]:
        """Class index -> threshold, of the classes whose threshold an earlier round of corrections has moved."""
        path = self.reader.root / CORRECTIONS_FILE
        if not path.is_file() or not self.has_scores:
            return {}
        known = {name: place for place, name in enumerate(self.reader.vocabulary.names)}
        return {known[name]: value for name, value in read_corrections(path).thresholds.items() if name in known}

    def relative_rule(self) -> dict[str, Any] | None:
        """What the page needs of a relative rule; None for any other."""
        rule = self.tag_rule()
        if rule is None or rule.rule != "relative":
            return None
        classes = self.tags.shape[1]
        floor = rule.floor_for(classes)
        return {
            "t": [float(value) for value in rule.class_thresholds or (rule.threshold,) * classes],
            "from_zero": floor is not None,
            "floor": -1.0 if floor is None else floor / self.scale.step - self.scale.base,
        }

    def rule_text(self) -> str:
        """The rule in words."""
        rule = self.tag_rule()
        if rule is None:
            return "Tags come from a file." if self.has_scores or self.tags.any() else "No rule is recorded."
        own = " (some classes have their own)" if rule.class_thresholds else ""
        if rule.rule == "top_k":
            return f"The {rule.top_k} best classes of each image are its tags."
        if rule.rule == "absolute":
            return f"A class is a tag above the score {rule.threshold:g}{own}."
        return (
            f"A class is a tag above {rule.threshold:g} of the image's own range of scores{own}. The handles stand "
            "where one threshold per class gives nearly the same tags; only a handle that you move replaces the rule."
        )


def _found(locator: PhotoLocator, record: TagRecord) -> Path | None:
    try:
        return locator.find(record.id, record.path)
    except (UsageError, OSError, ValueError):
        return None


def data_files(
    content: RunContent, entries: Mapping[str, ThumbnailEntry], folder: Path
) -> Iterator[tuple[str, str]]:
    """(name, JavaScript) of every file of `review/data`, `run.js` last; each assigns to the one global REVIEW.

    Args:
        entries: thumbnails by image id.
        folder: `review`, which links to photos are relative to.
    """
    count = len(content.records)
    chunks = -(-count // CHUNK)
    photos = _PhotoLinks(content, folder)
    digest = hashlib.sha256()
    texts = []
    for place in range(chunks):
        rows = range(place * CHUNK, min(count, (place + 1) * CHUNK))
        texts.append(_json(_chunk(content, entries, rows, photos)))
        digest.update(texts[-1].encode())
    run = run_facts(content, chunks, photos)
    digest.update(_json(run).encode())
    build = digest.hexdigest()[:16]
    for place, text in enumerate(texts):
        yield f"images-{place:03d}.js", f'REVIEW.chunks[{place}] = {{"build":"{build}","images":{text}}};\n'
    run["build"] = build
    yield "run.js", f"var REVIEW = {{chunks: [], overlays: {{}}, masks: {{}}, run: {_json(run)}}};\n"


def run_facts(content: RunContent, chunks: int, photos: _PhotoLinks) -> dict[str, Any]:
    """What `run.js` holds."""
    vocabulary, manifest = content.reader.vocabulary, content.manifest
    relative = content.relative_rule()
    model = manifest.get("model") or {}
    facts = {
        "model": model.get("architecture", ""),
        "method": manifest.get("method", ""),
        "versions": manifest.get("versions") or {},
    }
    return {
        "format": DATA_FORMAT,
        "id": content.reader.id,
        "manifest_sha256": content.reader.manifest_sha256,
        "name": content.reader.root.resolve().name or "run",
        "folder": os.fsencode(str(content.reader.root)).decode("utf-8", "replace"),
        "images": len(content.records),
        "chunks": chunks,
        "classes": list(vocabulary.names),
        "colours": [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in vocabulary.palette.tolist()[1:]],
        "scale": content.scale.to_dict(),
        "unknown": UNKNOWN,
        "handles": content.handles().tolist(),
        "moved_before": sorted(content.moved_before()),
        "relative": relative,
        "rule": content.rule_text(),
        "has_scores": content.has_scores,
        "doubt": doubt_settings(content.weights),
        "photo_roots": photos.roots,
        "facts": facts,
    }


def _chunk(
    content: RunContent, entries: Mapping[str, ThumbnailEntry], rows: range, photos: _PhotoLinks
) -> dict[str, Any]:
    columns: dict[str, list[Any]] = {
        name: [] for name in ("id", "photo", "size", "thumb", "flags", "tags", "shares", "rivals", "confidence")
    }
    failed, said, problems = {}, {}, {}
    for place, row in enumerate(rows):
        record = content.records[row]
        entry = entries[record.id]
        figures = entry.figures
        height, width = record.size or (0, 0)
        columns["id"].append(record.id)
        columns["photo"].append(photos.link(record, turned=entry.turned))
        columns["size"] += [height, width]
        columns["thumb"].append(entry.number)
        columns["flags"].append(
            (1 if figures.has_mask else 0) | (2 if figures.has_maps else 0) | (4 if figures.has_full else 0)
            | (8 if entry.photo is not None else 0) | (16 if content.photos[record.id] is None else 0)
        )  # fmt: skip
        columns["tags"].append(list(record.indices))
        columns["shares"].append([value for pair in figures.shares for value in pair])
        columns["rivals"].append([value for pair in figures.rivals for value in pair])
        columns["confidence"].append(-1 if figures.confidence is None else figures.confidence)
        if entry.problem is not None:
            problems[place] = entry.problem
        failure = content.failures.get(record.id)
        if failure is not None:
            failed[place] = [str(failure.get(key, "")) for key in ("stage", "error", "message")]
        if record.correction is not None:
            said[place] = {
                "machine": list(record.correction.machine),
                "added": {str(index): by for index, by in record.correction.added.items()},
                "removed": {str(index): by for index, by in record.correction.removed.items()},
                "state": record.correction.state, "note": record.correction.note, "by": record.correction.by,
            }  # fmt: skip
    levels = np.ascontiguousarray(content.levels[rows.start : rows.stop], "<u2")
    scores = base64.b64encode(levels.tobytes()).decode() if content.has_scores else ""
    return {**columns, "failed": failed, "said": said, "problems": problems, "scores": scores}


class _PhotoLinks:
    """Addresses of photos, relative to the page where they can be."""

    def __init__(self, content: RunContent, folder: Path):
        self.photos, self.folder, self.apply_exif = content.photos, folder.resolve(), content.apply_exif
        self.top = None if content.image_root is None else content.image_root.resolve()
        # The relative one first: it holds where run and photos move together. The other holds where the run is reached
        # by a symbolic link, from which a browser goes up another way.
        tops = [] if self.top is None else [_address(self._relative(self.top)), self.top.as_uri()]
        self.roots = [top.rstrip("/") + "/" for top in tops]

    def link(self, record: TagRecord, *, turned: bool) -> str | int:
        """A suffix where the address is root + id + suffix, else the whole address; 0 where there is none.

        There is none either for a photo that the browser would turn, and the run did not.
        """
        photo = self.photos[record.id]
        if photo is None or (turned and not self.apply_exif):
            return 0
        if self.top is not None and record.path is not None and record.path.startswith(record.id):
            suffix = record.path[len(record.id) :]
            if suffix.startswith(".") and suffix[1:].isalnum() and suffix.isascii():
                return suffix
        return _address(self._relative(photo.absolute()))

    def _relative(self, path: Path) -> str:
        try:
            return os.path.relpath(path, self.folder).replace(os.sep, "/")
        except ValueError:  # another drive
            return path.as_uri()


def _address(path: str) -> str:
    """A path as a browser takes it, whatever bytes it has; an address stays as it is."""
    return path if path.startswith("file:") else quote(os.fsencode(path), safe=SAFE)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def page_images(content: RunContent) -> Sequence[ReviewImage]:
    """The files of every image of a run."""
    return list(content.images())
