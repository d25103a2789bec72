"""The command line's options of a run as fields of its config."""

from __future__ import annotations

import argparse
from typing import Any


def command_line_options(args: argparse.Namespace) -> dict[str, Any]:
    """Options of `tools/generate_tags.py` as dotted config fields; those not given are left out."""
    named = {
        "model.name": args.model,
        "model.pretrained": args.pretrained,
        "model.dtype": args.dtype,
        "vocabulary": args.classes or args.vocabulary,
        "preset": args.preset,
        "images.source": args.images,
        "images.root": args.image_root,
        "work.workers": args.workers,
        "top_k": args.top_k,
        "out": args.out,
        "tagging.batch_size": args.batch_size,
        "tagging.rule.rule": args.threshold_rule,
        "tagging.rule.threshold": args.threshold,
        "tagging.rule.top_k": args.tags_per_image,
    }
    given = {name: value for name, value in named.items() if value is not None}
    if args.images is not None and args.image_root is None:
        given["images.root"] = None  # the config's root belongs to the config's list
    return {**given, **(args.set or {})}


def mask_options(args: argparse.Namespace) -> dict[str, Any]:
    """Options of stage two on the command line as dotted config fields; those not given are left out."""
    named = {
        "tags": args.tags,
        "tag_ids": args.tag_ids,
        "masks.refiner": args.refine,
        "masks.confidence": args.confidence,
        "masks.views.scales": args.scales,
        "masks.views.flip": args.flip,
        "method": args.method,
        "work.mask_workers": args.crf_workers,
    }
    return {name: value for name, value in named.items() if value is not None}
