"""Seconds and bytes of every photo in every stage, one photo at a time: what `cluster_simulation` replays.

python -m wsss.benchmark.stage_times --images photos --limit 100 --out stage_times.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from tagclip.errors import TagclipError, UsageError
from tagclip.images import decode_image, find_images
from tagclip.tag_files import TagRecord, tag_line
from wsss.benchmark.measure import machine
from wsss.benchmark.settings import BenchmarkSettings
from wsss.benchmark.workload import make_clip, read_recipe
from wsss.files.atomic import atomic_file
from wsss.files.mask_files import encode_mask
from wsss.masks.label_map import mask_from_maps
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.shared_pass import SharedPass

STAGES = ("decode", "model", "crf", "write")


@dataclass
class PhotoTimes:
    """One number of every photo, in order.

    Attributes:
        decode: core-seconds to read and decode the file.
        model: core-seconds of the model: tags and class maps from one pass.
        crf: core-seconds of the CRF, or of whatever refines the label map.
        write: core-seconds to write the mask.
        tags: how many tags it has.
        photo_bytes, mask_bytes, record_bytes: of its file, its mask, and its line of tags.
        start: seconds until the model is there.
        machine: what they were measured on.
    """

    decode: list[float] = field(default_factory=list)
    model: list[float] = field(default_factory=list)
    crf: list[float] = field(default_factory=list)
    write: list[float] = field(default_factory=list)
    tags: list[int] = field(default_factory=list)
    photo_bytes: list[int] = field(default_factory=list)
    mask_bytes: list[int] = field(default_factory=list)
    record_bytes: list[int] = field(default_factory=list)
    start: float = 0.0
    machine: dict[str, object] = field(default_factory=dict)

    def table(self) -> str:
        """Means as a Markdown table."""
        rows = [f"| {stage} | {mean(getattr(self, stage)):.4f} s |" for stage in STAGES]
        rows += [f"| {name.replace('_', ' ')} | {mean(getattr(self, name)):.0f} |" for name in BYTES]
        return "\n".join(
            [f"| {len(self.model)} photos | mean |", "|---|---:|", *rows, f"| start | {self.start:.1f} s |"]
        )

    @classmethod
    def read(cls, path: Path) -> PhotoTimes:
        """From a file that `main` wrote.

        Raises:
            UsageError: another file.
        """
        try:
            times = cls(**json.loads(path.read_text(encoding="utf-8")))
            if not times.model or len({len(getattr(times, stage)) for stage in STAGES}) != 1:
                raise ValueError("no photos, or not as many of each stage")
        except (OSError, TypeError, ValueError) as error:
            raise UsageError(f"{path}: not a file of wsss.benchmark.stage_times ({error})") from None
        return times


BYTES = ("photo_bytes", "mask_bytes", "record_bytes")


def measure_stages(recipe: Recipe, settings: BenchmarkSettings, photos: Sequence[Path], dtype: str) -> PhotoTimes:
    """Takes photos through all stages, one after the other, the first one twice: it warms up.

    Args:
        recipe: classes and constants.
        settings: of them the model and the threads are used.
        photos: files.
        dtype: of the model.
    """
    torch.set_num_threads(settings.threads)
    begin = time.perf_counter()
    clip = make_clip(settings, dtype)
    model = SharedPass(recipe.maps(clip, None), recipe.tagger(clip, None))
    times = PhotoTimes(start=time.perf_counter() - begin, machine=machine(settings.device, settings.threads))
    _measure_one(model, recipe, photos[0], PhotoTimes())
    for photo in photos:
        _measure_one(model, recipe, photo, times)
    return times


def _measure_one(model: SharedPass, recipe: Recipe, photo: Path, times: PhotoTimes) -> None:
    moments = [time.process_time()]
    rgb = decode_image(photo, apply_exif=recipe.masks.image.apply_exif)
    moments.append(time.process_time())
    with torch.no_grad():
        (found,) = model(model.source.prepare(rgb)[None])
    if found is None or found.scores is None:
        raise UsageError(f"{photo}: its scores are not finite; measure in float32")
    moments.append(time.process_time())
    labels = mask_from_maps(rgb, found.maps.maps, found.indices, recipe.masks,
                            has_background=recipe.vocabulary.has_background)  # fmt: skip
    moments.append(time.process_time())
    with tempfile.TemporaryDirectory() as folder, atomic_file(Path(folder) / "mask.png", Path(folder)) as stream:
        times.mask_bytes.append(stream.write(encode_mask(labels.mask, recipe.vocabulary.label_palette)))
    moments.append(time.process_time())
    for stage, seconds in zip(STAGES, np.diff(moments).tolist(), strict=True):
        getattr(times, stage).append(seconds)
    record = TagRecord(photo.stem, tuple(found.indices), photo.name, rgb.shape[:2], found.scores, photo.stat().st_size)
    times.tags.append(len(found.indices))
    times.photo_bytes.append(photo.stat().st_size)
    times.record_bytes.append(len(json.dumps(tag_line(record, recipe.vocabulary))) + 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and writes the file; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="Folder of photos")
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="Photos, evenly from the folder")
    parser.add_argument("--config", default="masks/voc2012", help="Config of the classes and constants")
    parser.add_argument("--model", default="demo", help="As `tagclip benchmark --model` takes it")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="Of the model")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="Threads of the model")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="Where the numbers go, JSON")
    args = parser.parse_args(argv)
    try:
        settings = BenchmarkSettings(model=args.model, config=args.config, preset="default", threads=args.threads)
        found = [image.path for image in find_images(args.images)]
        chosen = found[:: max(1, len(found) // args.limit)][: args.limit]
        times = measure_stages(read_recipe(settings), settings, chosen, args.dtype)
    except TagclipError as error:
        parser.exit(2, f"error: {error}\n")
    args.out.write_text(json.dumps(asdict(times)), encoding="utf-8")
    print(times.table())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
