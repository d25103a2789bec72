"""Run folders without a model, for tests of the review page: as many images, classes and oddities as a test wants."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tagclip.config import TagCLIPConfig
from tagclip.tag_files import TagCorrection, TagRecord, tag_line
from tagclip.thresholds import select
from tagclip.vocabulary import Vocabulary
from wsss.files.confidence_files import encode_confidence
from wsss.files.map_files import StoredMaps
from wsss.files.mask_files import encode_mask, ignore_label, label_dtype
from wsss.files.run_files import ASIDE, REJECTED_FILE

NASTY = (
    "a b", "1#2", "50%", "what?", 'say "hi"', "it's", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>",
    "deep/er/photo", "日本/猫 🐈", "e\u0301te\u0301", "a;b,c&d=e", "trailing.", "x.jpg", "__proto__", "constructor",
)  # fmt: skip


@dataclass
class RunRecipe:
    """What a synthetic run has.

    Attributes:
        ids: of the images. names: of the classes.
        size: (height, width) of the photos.
        rule: fields of the tag rule; None: the manifest says nothing of one.
        has_scores, has_masks, has_maps, has_background: what there is.
        failures: image id -> stage.
        corrections: image id -> what a person said before.
        scores: (n, C); None draws them: most low, one to three of each image high.
        confidence: of each image's mask, the same in all pixels; None: none is stored.
    """

    ids: Sequence[str]
    names: Sequence[str] = ("cat", "dog", "bird")
    size: tuple[int, int] = (48, 64)
    rule: dict[str, Any] | None = field(default_factory=lambda: {"rule": "relative", "threshold": 0.5, "floor": None})
    has_scores: bool = True
    has_masks: bool = True
    has_maps: bool = True
    has_background: bool = True
    failures: dict[str, str] = field(default_factory=dict)
    corrections: dict[str, TagCorrection] = field(default_factory=dict)
    scores: np.ndarray | None = None
    confidence: Sequence[float] | None = None
    with_photos: bool = True
    seed: int = 0


def drawn_scores(count: int, classes: int, seed: int = 0) -> np.ndarray:
    """Scores as the tagger gives them: near 0 for most classes, one to three high: (count, classes) float32."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(0.4, 14, (count, classes))
    for row in scores:
        for place in rng.choice(classes, min(classes, int(rng.integers(1, 4))), replace=False):
            row[place] = rng.beta(4, 5)
    return scores.astype(np.float32)


def make_run(root: Path, photos: Path, recipe: RunRecipe) -> Path:
    """Writes photos and a finished run folder; returns the run folder."""
    rng = np.random.default_rng(recipe.seed)
    vocabulary = Vocabulary(list(recipe.names), has_background=recipe.has_background)
    scores = recipe.scores if recipe.scores is not None else drawn_scores(len(recipe.ids), len(vocabulary), recipe.seed)
    tagging = TagCLIPConfig.from_dict({"rule": recipe.rule or {}})
    tags = select(scores, tagging.rule.for_classes(vocabulary.names))
    root.mkdir(parents=True)
    lines, rejected, failures = [], [], []
    for place, name in enumerate(recipe.ids):
        path = f"{name}.png"
        if recipe.with_photos:
            (photos / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (*recipe.size, 3), dtype=np.uint8)).save(photos / path)
        if name in recipe.failures:
            failure = {"id": name, "path": path, "stage": recipe.failures[name], "error": "ImageError",
                       "message": f"{path}: <b>damaged</b>"}  # fmt: skip
            failures.append(failure)
            continue
        said = recipe.corrections.get(name)
        indices = set(np.flatnonzero(tags[place]).tolist())
        if said is not None:
            indices = (indices | said.added.keys()) - said.removed.keys()
        record = TagRecord(
            name, tuple(sorted(indices)), path, recipe.size, scores[place] if recipe.has_scores else None, 1, said
        )
        (rejected if record.is_rejected else lines).append(tag_line(record, vocabulary))
        home = root / ASIDE if record.is_rejected else root
        _write_pictures(home, recipe, vocabulary, record, rng)
        if recipe.confidence is not None:
            stored = home / "confidence" / f"{name}.png"
            stored.parent.mkdir(parents=True, exist_ok=True)
            stored.write_bytes(encode_confidence(np.full(recipe.size, recipe.confidence[place], np.float32)))
    (root / "tags.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    if rejected:
        (root / REJECTED_FILE).write_text("".join(json.dumps(line) + "\n" for line in rejected), encoding="utf-8")
    (root / "failures.jsonl").write_text("".join(json.dumps(line) + "\n" for line in failures), encoding="utf-8")
    manifest = {
        "format": 1, "state": "complete", "stage": "masks", "vocabulary": vocabulary.to_dict(),
        "masks": {"image": {"apply_exif": True}, "ignore_label": 255},
        "photos": {"root": str(photos), "sizes": "-"}, "images": {"count": len(recipe.ids), "digest": "-"},
        "versions": {"tagclip-wsss": "0"}, "counts": {},
    }  # fmt: skip
    if recipe.rule is not None:
        manifest["tagging"] = tagging.to_dict()
    (root / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return root


def _write_pictures(
    root: Path, recipe: RunRecipe, vocabulary: Vocabulary, record: TagRecord, rng: np.random.Generator
) -> None:
    height, width = recipe.size
    offset = 1 if recipe.has_background else 0
    if recipe.has_masks:
        ignored = ignore_label(vocabulary.label_count)
        mask = np.zeros(recipe.size, label_dtype(vocabulary.label_count))
        for order, index in enumerate(record.indices):
            left = (order * width) // (len(record.indices) + 1)
            mask[height // 4 : 3 * height // 4, left : left + width // 4] = index + offset
        mask[: int(rng.integers(0, height // 3))] = ignored
        path = root / "masks" / f"{record.id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_mask(mask, vocabulary.label_palette, ignored))
    if recipe.has_maps and record.indices:
        maps = rng.random((len(record.indices), 4, 6)).astype(np.float16)
        path = root / "cams" / f"{record.id}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            StoredMaps(maps, np.array(record.indices, np.int64), recipe.size).write(file)
