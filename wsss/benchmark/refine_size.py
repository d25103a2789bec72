"""What refining large photos at a smaller size costs in mIoU and saves in seconds, on drawn scenes.

    python -m wsss.benchmark.refine_size --scenes 6 --sides 2000 3000

Each scene is drawn at the full size and its class maps are made by the embedded demo model for the scene's true tags.
The masks of every setting are scored against the drawn truth.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from tagclip.clip import load_clip
from tagclip.demo.scenes import SceneConfig, SceneRenderer
from tagclip.vocabulary import Vocabulary
from wsss.config import MaskConfig
from wsss.evaluation.scorer import MaskEvaluationConfig, MaskScorer
from wsss.maps.gradcam_source import GradCamSource
from wsss.masks.label_map import mask_from_maps

BASE_SIDE = 400  # of the scenes that the model knows; larger ones are drawn with larger objects


@dataclass(frozen=True)
class LargeScene:
    """A drawn photo, (H, W, 3) uint8, its true label map, (H, W) uint8, the class of each map, and the maps."""

    rgb: np.ndarray
    truth: np.ndarray
    indices: list[int]
    maps: np.ndarray


def large_scenes(source: GradCamSource, count: int, side: int, seed: int = 5) -> Iterator[LargeScene]:
    """Scenes whose longer side is about `side` pixels, with class maps for their true tags."""
    factor = side / BASE_SIDE
    config = SceneConfig(
        side=(round(0.7 * side), side), object_side=(round(96 * factor), round(190 * factor)), objects=(2, 4)
    )
    renderer = SceneRenderer(config, seed)
    for number in range(count):
        scene = renderer(number)
        indices = [source.vocabulary.index(name) for name in scene.objects]
        truth = np.zeros_like(scene.mask)
        for place, index in enumerate(indices):
            truth[scene.mask == place + 1] = index + 1
        # The model sees the scene at the size that it was trained on.
        height, width = scene.mask.shape
        scale = BASE_SIDE / max(height, width)
        small = cv2.resize(scene.image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
        trunk = source.trunk(source.prepare(small)[None])
        yield LargeScene(scene.image, truth, indices, source.maps_from_trunk(trunk, [indices])[0].maps)


def settings(limits: Sequence[int]) -> dict[str, MaskConfig]:
    """Name of each row and its settings; every pixel keeps its label."""
    plain = MaskConfig(confidence=None, max_refine_side=None)
    rows = {"full size": plain}
    for limit in limits:
        for upsampling in ("guided", "nearest"):
            rows[f"{limit} px, {upsampling}"] = replace(plain, max_refine_side=limit, upsampling=upsampling)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a Markdown table per size; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=6, metavar="N", help="Scenes per size")
    parser.add_argument("--sides", type=int, nargs="+", default=[2000, 3000], metavar="PX", help="Longer sides")
    help_limits = "Values of masks.max_refine_side"
    parser.add_argument("--limits", type=int, nargs="+", default=[512, 1024], metavar="PX", help=help_limits)
    args = parser.parse_args(argv)
    clip, vocabulary = load_clip("demo"), Vocabulary.named("voc")
    source = GradCamSource(clip, vocabulary, config=MaskConfig())
    names = ("background", *vocabulary.names)
    for side in args.sides:
        rows = settings(args.limits)
        scorers = {name: MaskScorer(MaskEvaluationConfig(boundary_width=0.0)) for name in rows}
        seconds, pixels = dict.fromkeys(rows, 0.0), 0
        for scene in large_scenes(source, args.scenes, side):
            pixels += scene.truth.size
            for name, config in rows.items():
                start = time.thread_time()
                found = mask_from_maps(scene.rgb, scene.maps, scene.indices, config)
                seconds[name] += time.thread_time() - start
                scorers[name].update(found.mask, scene.truth)
        print(f"\n{args.scenes} scenes of {pixels / args.scenes / 1e6:.1f} megapixels on average\n")
        print("| refined at | mIoU | lost | processor seconds per scene |\n|---|---:|---:|---:|")
        whole = 100 * scorers["full size"].scores(names).miou
        for name, scorer in scorers.items():
            miou = 100 * scorer.scores(names).miou
            print(f"| {name} | {miou:.2f} | {whole - miou:+.2f} | {seconds[name] / args.scenes:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
