"""`tagclip remask`: a run's masks again from the class maps that it keeps, without a model."""

from __future__ import annotations

import argparse
from typing import Any

from wsss.cli.console import passive_threads, setup_logging
from wsss.cli.options import pick, settings_of
from wsss.cli.parser import add_command
from wsss.cli.progress import counted, progress_bar
from wsss.cli.screen import Output


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "remask", run=remask,
        help="Make a run's masks again from its class maps, with another refinement or confidence.",
        text="No model is needed. Train on the new masks with `tagclip train --run RUN --masks DIR`.",
        example="remask --run runs/mine --out runs/mine_sure --confidence 0.95",
    )  # fmt: skip
    pick(
        parser, "run", "image-root", "out", "set", "refine", "confidence", "save-confidence", "mask-workers", "device",
        "overwrite", "json", "quiet",
        required=("run", "out"),
        notes={"mask-workers": "default: one per core", "set": "only masks.*", "device": "of PAMR and the tensor CRF",
               "refine": "default: the run's", "confidence": "default: the run's",
               "save-confidence": "into OUT-confidence"},
    )  # fmt: skip


def remask(args: argparse.Namespace) -> int:
    """Makes the masks."""
    passive_threads()
    setup_logging(args.quiet)
    from tagclip.devices import resolve_device
    from wsss.pipeline.memory import cores
    from wsss.pipeline.remask import Remasking, mask_changes

    output = Output.of(args)
    given = {"masks.refiner": args.refine, "masks.confidence": args.confidence}
    changes = mask_changes({**settings_of(args.set), **given})
    device = str(resolve_device(args.device))
    work = Remasking.plan(
        args.run, args.out, changes, overwrite=args.overwrite, device=device, image_root=args.image_root,
        save_confidence=args.save_confidence,
    )  # fmt: skip
    masks = work.done + len(work.jobs)
    with progress_bar(masks, "masks", done=work.done, quiet=args.quiet) as bar:
        work.execute(args.mask_workers or cores(), counted(bar))
    output.show(f"{masks} masks in {args.out}")
    output.figures({"masks": masks, "made": len(work.jobs), "out": str(args.out)})
    return 0
