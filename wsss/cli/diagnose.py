"""`tagclip diagnose`: what GCLIP looks for in a model."""

from __future__ import annotations

import argparse
from typing import Any

from wsss.cli.console import load_model, setup_logging
from wsss.cli.options import MODEL, pick
from wsss.cli.parser import add_command
from wsss.cli.screen import Output


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "diagnose", run=diagnose,
        help="Draw GCLIP's diagnostics of a model on a photo: attention received per patch, and weight norms.",
        example="diagnose --image photo.jpg --model ViT-B-16 --out diagnosis",
    )  # fmt: skip
    pick(
        parser, "image", "out", "max-long-side", "json", "quiet", *MODEL,
        required=("image", "out"), defaults={"max-long-side": 1024},
    )  # fmt: skip


def diagnose(args: argparse.Namespace) -> int:
    """Draws both pictures and shows what they say."""
    setup_logging(args.quiet)
    clip = load_model(args)
    from tagclip.images import decode_image, prepare_image
    from wsss.dense import diagnostics
    from wsss.files.atomic import disk_errors

    output = Output.of(args)
    rgb = decode_image(args.image)
    image = prepare_image(rgb, clip.patch_size, clip.mean, clip.std, max_long_side=args.max_long_side)
    found = diagnostics.diagnose(clip, image.to(clip.device))
    with disk_errors(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
        diagnostics.draw_attention(found, args.out / "attention.png", clip.name)
        diagnostics.draw_norms(found, args.out / "norms.png", clip.name)
    output.show(found.text())
    output.figures(
        {"blocks": list(found.blocks), "strength": [float(value) for value in found.strength],
         "largest_norms": list(found.ratios), "channels": [int(value) for value in found.channels]}
    )  # fmt: skip
    return 0
