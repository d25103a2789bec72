"""From photos to masks on the disk: `tagclip run` beside the plain transcription of the published scripts, in one run.

    python -m wsss.benchmark.end_to_end --images VOC2012/JPEGImages --limit 12 --work DIR --oracle tests/oracle

The published way is three scripts one after the other: tags of all photos; class maps of all photos, upsampled and
stored; the CRF over them, in as many processes as threads, and the masks. Ours is one command. Both see the same
photos, weights (random ones of ViT-B/16), text rows and constants (preset `reference`), give each photo its two best
classes, and are timed from the start of Python to the last mask, in turn. Two numbers of photos tell start-up and pace
apart.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from tagclip.clip import load_clip
from tagclip.images import decode_image, find_images
from wsss.benchmark.baseline import load_oracle
from wsss.benchmark.measure import machine
from wsss.benchmark.settings import BenchmarkSettings
from wsss.benchmark.workload import make_clip
from wsss.config import CrfConfig, MaskConfig
from wsss.files.mask_files import read_mask
from wsss.maps.gradcam_source import GradCamSource
from wsss.masks.crf import crf_probabilities
from wsss.pipeline.recipe import Recipe
from wsss.pipeline.run_config import MaskRunConfig, load_run_config

ARCHITECTURE = "ViT-B-16-quickgelu"
TAGS = 2
CANDIDATES = 0.85  # CWR's t: about as many crops as tags with random weights
PUBLISHED = "published scripts"


@dataclass(frozen=True)
class EndToEnd:
    """One side.

    Attributes:
        name: of the side.
        seconds: medians by number of photos.
        pace: seconds per photo beyond start-up.
        speed: pace as a multiple of the published scripts', median over rounds.
        same: share of pixels with the published scripts' label.
    """

    name: str
    seconds: dict[int, float]
    pace: float
    speed: float
    same: float


def _recipe(weights: Path, images: Path, out: Path) -> Recipe:
    fields = {
        "model.name": ARCHITECTURE, "model.pretrained": str(weights), "images.source": str(images),
        "preset": "reference", "images.root": None, "tagging.rule.rule": "top_k", "tagging.rule.top_k": TAGS,
        "tagging.cwr.threshold": CANDIDATES, "masks.confidence": 0.0, "out": str(out),
    }  # fmt: skip
    return Recipe.resolve(load_run_config("masks/voc2012", fields, MaskRunConfig()))


def published(weights: Path, images: Path, out: Path, oracle: Path, threads: int) -> None:
    """The three scripts, in this process."""
    torch.set_num_threads(threads)
    recipe = _recipe(weights, images, out)
    clip = load_clip(ARCHITECTURE, str(weights), device="cpu")
    tagger = recipe.tagger(clip)
    source = GradCamSource(clip, recipe.vocabulary, config=recipe.masks)
    stage_one, stage_two = load_oracle("tagclip", oracle), load_oracle("clip_es", oracle)
    model = load_oracle("model", oracle).OracleCLIP(clip.model.state_dict(), quick_gelu=True)
    photos = [Path(str(file.path)) for file in find_images(images)]
    tags = {}
    for photo in photos:
        image = model.prepare(Image.open(photo))
        traced = stage_one.tag_image(
            model, image, tagger.classifier, len(recipe.vocabulary), threshold=CANDIDATES,
            all_layers=recipe.tagging.dmar.block_range(clip.depth)[0] == 1,
        )  # fmt: skip
        best = np.argsort(-traced.scores.numpy(), kind="stable")[:TAGS]
        tags[photo.stem] = sorted(best.tolist())
    out.mkdir(parents=True)
    (out / "tags.json").write_text(json.dumps(tags))
    first, last = recipe.masks.affinity.block_range(clip.depth)
    for photo in photos:
        rgb = Image.open(photo)
        maps = stage_two.class_maps(
            model, model.prepare(rgb), rgb.size[::-1], source.tag_rows[tags[photo.stem]], source.background_rows,
            first_block=first, last_block=last, box_threshold=recipe.masks.affinity.box_threshold,
        )  # fmt: skip
        np.save(out / f"{photo.stem}.npy", maps.stacked.astype(np.float16))
    (out / "masks").mkdir()
    crf = MaskConfig.preset("reference").crf
    with ProcessPoolExecutor(threads) as processes:
        list(processes.map(_mask_of, photos, tags.values(), repeat(out), repeat(crf)))


def _mask_of(photo: Path, tags: list[int], out: Path, crf: CrfConfig) -> None:
    torch.set_num_threads(1)
    stacked = np.load(out / f"{photo.stem}.npy", allow_pickle=False).astype(np.float32)
    found = crf_probabilities(decode_image(photo), stacked, crf).argmax(axis=0)
    labels = np.array([0, *(tag + 1 for tag in tags)], np.uint8)
    Image.fromarray(labels[found]).save(out / "masks" / f"{photo.stem}.png")


def same_pixels(ours: Path, theirs: Path) -> float:
    """Share of all pixels with the same label."""
    pairs = [(read_mask(path), read_mask(ours / path.name)) for path in sorted(theirs.glob("*.png"))]
    return sum(int((one == other).sum()) for one, other in pairs) / sum(one.size for one, _ in pairs)


def measure_sides(
    images: Path, counts: tuple[int, int], dtypes: Sequence[str], work: Path, oracle: Path, *, threads: int, rounds: int
) -> list[EndToEnd]:
    """All sides in turn, `rounds` times with each number of photos."""
    weights = work / "weights.safetensors"
    clip = make_clip(BenchmarkSettings(), "float32")
    save_file({name: value.contiguous() for name, value in clip.model.state_dict().items()}, str(weights))
    del clip
    folders = {count: work / f"photos-{count}" for count in counts}
    paths = [Path(str(file.path)).resolve() for file in find_images(images)]
    for count, folder in folders.items():
        folder.mkdir()
        for path in paths[:count]:
            (folder / path.name).symlink_to(path)
    seconds: dict[str, dict[int, list[float]]] = {}
    for number in range(rounds):
        for count, folder in folders.items():
            for side in (PUBLISHED, *dtypes):
                out = work / f"{side.split()[0]}-{count}-{number}"
                child = [
                    sys.executable, "-m", "wsss.benchmark.end_to_end", "--images", str(folder), "--work", str(out),
                    "--oracle", str(oracle), "--threads", str(threads), "--published", str(weights),
                ]  # fmt: skip
                command = child if side == PUBLISHED else run_command(weights, folder, out, side, threads)
                start = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                seconds.setdefault(side, {}).setdefault(count, []).append(time.perf_counter() - start)
    few, many = counts
    paces = {
        side: [(long - short) / (many - few) for short, long in zip(times[few], times[many], strict=True)]
        for side, times in seconds.items()
    }
    theirs = work / f"published-{many}-0" / "masks"
    return [
        EndToEnd(
            side, {count: median(found) for count, found in times.items()}, median(paces[side]),
            median(slow / fast for slow, fast in zip(paces[PUBLISHED], paces[side], strict=True)),
            same_pixels(work / f"{side.split()[0]}-{many}-0" / "masks", theirs),
        )
        for side, times in seconds.items()
    ]  # fmt: skip


def run_command(weights: Path, images: Path, out: Path, dtype: str, threads: int) -> list[str]:
    """`tagclip run` with the same classes, constants and tags."""
    return [
        sys.executable, "-m", "wsss.cli.main", "run", "--config", "masks/voc2012", "--preset", "reference",
        "--images", str(images), "--model", ARCHITECTURE, "--pretrained", str(weights), "--dtype", dtype,
        "--device", "cpu", "--threads", str(threads), "--confidence", "0", "--tag-rule", "top_k",
        "--tags-per-image", str(TAGS), "--set", f"tagging.cwr.threshold={CANDIDATES}", "--out", str(out), "--quiet",
    ]  # fmt: skip


def side_table(sides: Sequence[EndToEnd]) -> str:
    """Markdown."""
    few, many = sides[0].seconds
    lines = [
        f"| side | seconds, {few} photos | {many} photos | seconds per photo beyond start-up | x | pixels equal |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for one in sides:
        lines.append(
            f"| {one.name} | {one.seconds[few]:.1f} | {one.seconds[many]:.1f} | {one.pace:.2f} | {one.speed:.2f} | "
            f"{one.same:.3%} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="folder of photos")
    add("--limit", type=int, nargs=2, default=[4, 12], metavar="N", help="two numbers of photos (4 12)")
    add("--dtypes", nargs="+", default=["float32", "bfloat16"], metavar="DTYPE", help="of ours")
    add("--rounds", type=int, default=2, metavar="N", help="how often each is timed (2)")
    add("--threads", type=int, default=2, metavar="N", help="of both sides (2)")
    add("--oracle", type=Path, default=Path("tests/oracle"), metavar="DIR", help="the plain transcription, of a clone")
    add("--work", type=Path, required=True, metavar="DIR", help="folder for everything, must not exist")
    add("--published", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.published is not None:
        published(args.published, args.images, args.work, args.oracle, args.threads)
        return 0
    args.work.mkdir(parents=True)
    few, many = args.limit
    sides = measure_sides(
        args.images, (few, many), args.dtypes, args.work, args.oracle, threads=args.threads, rounds=args.rounds
    )
    print(json.dumps(machine("cpu", args.threads)))
    print(side_table(sides))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
