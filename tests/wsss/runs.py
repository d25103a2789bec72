"""Small runs for tests: a few drawn images, three classes, the golden model."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from tagclip.config import TagCLIPConfig
from tagclip.image_lists import find_images
from tagclip.tagger import TagCLIP
from tagclip.vocabulary import Vocabulary
from wsss.config import MaskConfig
from wsss.files.run_folder import RunFolder
from wsss.maps.gradcam_source import GradCamSource
from wsss.pipeline.masks import Pipeline, WorkShare, run_pipeline
from wsss.pipeline.planning import plan_images

VOCABULARY = Vocabulary(["cat", "dog", "bird"], background=("grass", "sky"))
SIZES = ((64, 48), (48, 64), (64, 48), (70, 70), (64, 48), (33, 90))  # width, height


def draw_images(folder: Path, sizes=SIZES) -> list[Path]:
    """Blobs on noise, each its own, in nested folders with equal stems."""
    paths = []
    for number, (width, height) in enumerate(sizes):
        rng = np.random.default_rng(number)
        rgb = rng.integers(60, 120, (height, width, 3), dtype=np.uint8)
        rgb[height // 4 : height // 2 + number, width // 4 : width // 2 + number] = rng.integers(0, 255, 3)
        path = folder / f"part{number % 2}" / f"{number // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rgb).save(path)
        paths.append(path)
    return paths


def start(
    clip, images: Path, out: Path, *, tags=None, ids=None, work=None, overwrite=False, cache_dir=None, **settings
):
    """An open run folder, its pipeline and its plan. `settings` are fields of MaskConfig."""
    config = MaskConfig.from_dict({"confidence": 0.6, **settings})
    tagging = TagCLIPConfig.from_dict({"batch_size": 2, "rule": {"threshold": 0.4, "floor": None}})
    maps = GradCamSource(clip, VOCABULARY, config=config, cache_dir=cache_dir)
    tagger = TagCLIP(clip, VOCABULARY, config=tagging, cache_dir=cache_dir) if tags is None else None
    plan = plan_images(find_images(images), config.image, clip.patch_size, batch_size=2, batch_patches=None)
    if ids is not None:
        plan = plan.restrict(ids)
    identity = {"masks": config.to_dict(), "vocabulary": VOCABULARY.to_dict(), "images": len(plan.order)}
    run = RunFolder.open(out, identity, {"masks": config.to_dict()}, overwrite=overwrite)
    pipeline = Pipeline(
        run, clip, VOCABULARY, maps, config, tagger=tagger, tags=tags,
        work=work or WorkShare(decoders=2, mask_workers=1),
    )  # fmt: skip
    return run, pipeline, plan


def complete(*args, **kwargs) -> dict:
    """A whole run; returns its counts."""
    run, pipeline, plan = start(*args, **kwargs)
    with run:
        return run_pipeline(pipeline, plan)


def contents(folder: Path, leave_out=("log.txt", "times.json", "plan.npz")) -> dict[str, str]:
    """Every file of a run folder by relative path, as digest."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in leave_out
    }
