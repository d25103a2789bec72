"""Segment photos with a trained model: palette PNGs and overlays."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tagclip.devices import resolve_device
from tagclip.errors import RunError, UsageError
from tagclip.image_lists import find_images
from wsss.cli.console import positive, progress_bar, run_main, set_threads
from wsss.config import CrfConfig
from wsss.files.digests import file_digest
from wsss.segmentation.checkpoints import load_segmentor
from wsss.segmentation.predictor import InferenceConfig, Predictor
from wsss.segmentation.segment_images import segment_images


def parser() -> argparse.ArgumentParser:
    """The command line."""
    defaults = InferenceConfig()
    result = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = result.add_argument
    add("checkpoint", type=Path, help="checkpoint of tools/train_segmentor.py, or any mmseg one with --config")
    add("images", help="folder, file, glob or list of photos")
    add("--out", type=Path, required=True, metavar="DIR", help="masks/ and overlays/ go here")
    add("--root", type=Path, metavar="DIR", help="image root of a list")
    add("--config", type=Path, metavar="FILE", help="config of a checkpoint that does not describe itself")
    add("--mode", choices=("model", "whole", "slide"), default=defaults.mode,
        help="whole photo or sliding window (default: as configured)")
    add("--crop", type=positive, default=defaults.crop, metavar="PX", help="window (default: %(default)s)")
    add("--stride", type=positive, metavar="PX", help="step of the window (default: two thirds of it)")
    add("--scales", type=float, nargs="+", metavar="F", help="average over these factors of the base size")
    add("--flip", action="store_true", help="average with the mirrored photo")
    add("--tta", action="store_true", help="the scales and flip that the model's config gives for testing")
    add("--native-size", action="store_true", help="do not scale photos to the test size of the config first")
    add("--crf", action="store_true", help="refine with a dense CRF")
    add("--no-overlays", dest="overlays", action="store_false", help="write masks only")
    add("--overwrite", action="store_true", help="drop results of other work that are in --out")
    add("--limit", type=positive, metavar="N", help="only the first N photos")
    add("--strict", action="store_true", help="fail if a photo fails")
    add("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    add("--threads", type=positive, metavar="N", help="CPU threads (default: all cores)")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Segments and prints the counts."""
    args = parser().parse_args(argv)
    warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``")
    if args.tta and (args.scales or args.flip):
        raise UsageError("--tta sets scales and flip itself; leave --scales and --flip out")
    set_threads(args.threads)
    images = find_images(args.images, root=args.root)[: args.limit]
    segmentor = load_segmentor(args.checkpoint, args.config, str(resolve_device(args.device)))
    config = InferenceConfig(
        mode=args.mode,
        crop=args.crop,
        stride=args.stride or max(1, 2 * args.crop // 3),
        scales=tuple(args.scales or (1.0,)),
        flip=args.flip,
        base_size=not args.native_size,
        crf=CrfConfig() if args.crf else None,
    )
    if args.tta:
        tta = segmentor.multi_scale
        if not tta:
            raise UsageError("--tta: the model's config has no multi_scale_test; give --scales and --flip")
        config = replace(config, scales=tuple(tta["scales"]), flip=bool(tta["flip"]))
    with progress_bar(len(images), "segmenting") as bar:
        report = segment_images(
            Predictor(segmentor, config), images, args.out, overlays=args.overlays, overwrite=args.overwrite,
            checkpoint=file_digest(args.checkpoint),
            progress=bar.update,
        )
    failed = f", {len(report.failures)} failed (see {args.out / 'failures.jsonl'})" if report.failures else ""
    print(f"{report.written} segmented, {report.kept} kept{failed}: {args.out / 'masks'}")
    if report.failures and (args.strict or not report.written + report.kept):
        raise RunError(f"{len(report.failures)} of {len(images)} photos failed; first: {report.failures[0]['message']}")
    return 0


if __name__ == "__main__":
    run_main(main)
