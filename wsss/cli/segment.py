"""`tagclip segment`: photos through a trained model."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from typing import Any

from tagclip.errors import RunError, UsageError
from wsss.cli.console import load_mmseg, set_threads, setup_logging
from wsss.cli.options import pick
from wsss.cli.parser import add_command
from wsss.cli.progress import progress_bar
from wsss.cli.screen import Output
from wsss.configs import find_config

CROP = 512


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "segment", run=segment,
        help="Segment photos with a trained model: label maps (palette PNG) and overlays.",
        text="The same command resumes one that was interrupted.",
        example="segment --checkpoint runs/mine/segmentation/iter_4000.pth --images photos --out segmented",
    )  # fmt: skip
    pick(
        parser, "checkpoint", "images", "image-root", "out", "config", "limit", "mode", "crop", "stride", "scales",
        "flip", "tta", "native-size", "refine", "overlays", "overwrite", "strict", "json", "quiet", "device", "threads",
        required=("checkpoint", "images", "out"), choices={"refine": ("crf", "none")},
        defaults={"mode": "model", "crop": CROP, "refine": "none", "overlays": True},
        notes={"config": "for a checkpoint that does not describe itself", "stride": "default: two thirds of --crop"},
    )  # fmt: skip


def segment(args: argparse.Namespace) -> int:
    """Segments and shows the counts."""
    setup_logging(args.quiet)
    if args.tta and (args.scales or args.flip):
        raise UsageError("--tta sets scales and flip itself; leave --scales and --flip out")
    from tagclip.devices import resolve_device
    from wsss.files.photo_sources import find_photos

    set_threads(args.threads)
    images = find_photos(args.images, root=args.image_root, exclude=args.out)[: args.limit]
    load_mmseg()
    from wsss.config import CrfConfig
    from wsss.files.digests import file_digest
    from wsss.segmentation.checkpoints import load_segmentor
    from wsss.segmentation.predictor import InferenceConfig, Predictor
    from wsss.segmentation.segment_images import segment_images

    output = Output.of(args)
    config_file = None if args.config is None else find_config(args.config)
    segmentor = load_segmentor(args.checkpoint, config_file, str(resolve_device(args.device)))
    config = InferenceConfig(
        mode=args.mode,
        crop=args.crop,
        stride=args.stride or max(1, 2 * args.crop // 3),
        scales=tuple(args.scales or (1.0,)),
        flip=args.flip,
        base_size=not args.native_size,
        crf=CrfConfig() if args.refine == "crf" else None,
    )
    if args.tta:
        tta = segmentor.multi_scale
        if not tta:
            raise UsageError("--tta: the model's config has no multi_scale_test; give --scales and --flip")
        config = replace(config, scales=tuple(tta["scales"]), flip=bool(tta["flip"]))
    with progress_bar(len(images), "segmenting", quiet=args.quiet) as bar:
        report = segment_images(
            Predictor(segmentor, config), images, args.out, overlays=args.overlays, overwrite=args.overwrite,
            checkpoint=file_digest(args.checkpoint), progress=bar.update,
        )  # fmt: skip
    failed = f", {len(report.failures)} failed (see {args.out / 'failures.jsonl'})" if report.failures else ""
    output.show(f"{report.written} segmented, {report.kept} kept{failed}: {args.out / 'masks'}")
    output.figures(asdict(report))
    if report.failures and (args.strict or not report.written + report.kept):
        raise RunError(f"{len(report.failures)} of {len(images)} photos failed; first: {report.failures[0]['message']}")
    return 0
