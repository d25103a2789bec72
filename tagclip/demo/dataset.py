"""Demo scenes on disk, in PASCAL VOC's layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image

from tagclip.demo.scenes import SceneConfig, SceneRenderer
from tagclip.demo.sprites import DemoNames, demo_names
from tagclip.errors import UsageError
from tagclip.vocabulary import Vocabulary


def names_of(classes: tuple[str, ...]) -> DemoNames:
    """The demo names cut down to some objects, in the order given. Raises UsageError for one without a sprite."""
    known = demo_names()
    return DemoNames(tuple(replace(known.object(name), voc=True) for name in classes), known.backgrounds)


def write_scenes(
    out: Path | str,
    count: int,
    config: SceneConfig | None = None,
    *,
    seed: int = 0,
    split: str = "train",
    vocabulary: Vocabulary | None = None,
    progress: Callable[[range], Iterable[int]] = iter,
) -> Path:
    """Renders scenes into a VOC-layout folder.

    Writes ``JPEGImages/<id>.jpg`` (quality 95), ``SegmentationClass/<id>.png`` (palette PNG, 0 background, class
    c as c + 1), ``ImageSets/Segmentation/<split>.txt`` (ids), ``<split>_labels.txt`` (``id class class ...``,
    indices), ``classes.txt`` and ``<split>_scenes.json`` (how it was made).

    Args:
        out: folder to write; must not hold another data set's split of that name.
        count: number of scenes. config: their look, None for the usual one; every object has a class, whatever its
            `voc_share` says.
        seed: of the scenes. vocabulary: the classes to draw (default VOC); each needs a sprite of the demo.
        progress: wraps the range of scenes, for a progress bar.

    Returns:
        The folder.

    Raises:
        UsageError: a class without a sprite, or fewer than one scene.
    """
    if count < 1:
        raise UsageError(f"the number of scenes must be at least 1, not {count}")
    vocabulary = vocabulary or Vocabulary.named("voc")
    config = config or SceneConfig()
    renderer = SceneRenderer(replace(config, voc_share=1.0), seed, names_of(vocabulary.names))
    out = Path(out)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(vocabulary) + 1] = vocabulary.palette
    names, ids, labels = list(vocabulary.names), [], []
    for index in progress(range(count)):
        scene = renderer(index)
        image_id = f"{split}_{index:05d}"
        classes = [names.index(name) for name in scene.objects]
        lookup = np.asarray([0, *[c + 1 for c in classes]], np.uint8)
        mask = Image.fromarray(lookup[scene.mask]).convert("P")
        mask.putpalette(palette.tobytes())
        Image.fromarray(scene.image).save(out / f"JPEGImages/{image_id}.jpg", quality=95)
        mask.save(out / f"SegmentationClass/{image_id}.png")
        ids.append(image_id)
        visible = [c for c, area in zip(classes, scene.areas, strict=True) if area]
        labels.append(" ".join([image_id, *map(str, sorted(visible))]))
    (out / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    (out / f"{split}_labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    (out / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    made = {"count": count, "seed": seed, "classes": names, **asdict(config)}
    (out / f"{split}_scenes.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    return out
