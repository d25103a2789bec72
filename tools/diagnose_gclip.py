"""Draw GCLIP's two diagnostics: attention received per patch and block, and row norms of the MLP output projections."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tagclip.clip import load_clip
from tagclip.devices import resolve_device
from tagclip.errors import UsageError
from tagclip.images import decode_image, prepare_image
from wsss.cli import console as cli
from wsss.dense.diagnostics import diagnose, draw_attention, draw_norms


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = result.add_argument
    add("image", type=Path, help="a photo")
    add("--out", type=Path, required=True, metavar="DIR", help="attention.png and norms.png go here")
    add("--max-long-side", type=cli.positive, default=1024, metavar="PX", help="(default: %(default)s)")
    cli.add_model_options(result)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Draws both pictures and prints what they say."""
    args = parser().parse_args(argv)
    cli.setup_logging()
    cli.set_threads(args.threads)
    if args.model is None:
        raise UsageError('--model: needed, an open_clip name, a weights file, or "demo"')
    clip = load_clip(
        args.model, args.pretrained, device=resolve_device(args.device), dtype=args.dtype or "float32"
    )
    rgb = decode_image(args.image)
    image = prepare_image(rgb, clip.patch_size, clip.mean, clip.std, max_long_side=args.max_long_side)
    found = diagnose(clip, image.to(clip.device))
    args.out.mkdir(parents=True, exist_ok=True)
    draw_attention(found, args.out / "attention.png", clip.name)
    draw_norms(found, args.out / "norms.png", clip.name)
    print(found.text())
    return 0


if __name__ == "__main__":
    cli.run_main(main)
