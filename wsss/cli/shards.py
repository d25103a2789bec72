"""A share of a run beside other machines, and the merge of all shares."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagclip.errors import UsageError
from wsss.cli.screen import Output

if TYPE_CHECKING:
    from wsss.pipeline.mask_run import MaskRun
    from wsss.pipeline.tag_run import TagRun
    from wsss.pipeline.work_parts import Shard


def check_shard(args: argparse.Namespace) -> Shard | None:
    """The shard that --shard names, None for the whole run.

    Raises:
        UsageError: no such share, or --overwrite beside it.
    """
    if args.shard is None:
        return None
    from wsss.pipeline.work_parts import Shard

    if args.overwrite:
        raise UsageError("--overwrite: every shard would start anew; delete the folder once, then start the shards")
    return Shard(*args.shard)


def do_share(
    run: MaskRun | TagRun, shard: Shard, out: Path, args: argparse.Namespace, output: Output, watch: Callable[..., Any]
) -> dict[str, Any]:
    """Does a shard's parts; the shard that finds all parts done merges the run.

    Returns:
        The figures of --json.

    Raises:
        RunError: see `MaskRun.execute_parts` and `merge`.
    """
    from wsss.files.locks import FolderBusyError
    from wsss.pipeline.work_parts import missing_parts

    own, parts = shard.own(len(run.parts)), len(run.parts)
    images = sum(len(run.parts[number].order) for number in own)
    output.show(f"shard {shard.number}/{shard.count}: {len(own)} of {parts} parts, {images} images")
    left = set(missing_parts(out, parts))
    run.execute_parts([number for number in own if number in left], watch=watch)
    if run.mirror is not None:
        run.mirror.fetch()  # what other machines have done meanwhile
    figures = {"run": str(out), "shard": [shard.number, shard.count], "parts": len(own), "merged": False}
    if missing := missing_parts(out, parts):
        output.show(f"{len(missing)} of {parts} parts are left to other shards; the last one merges {out}")
        return figures
    try:
        counts = run.merge(strict=args.strict, watch=watch).counts
    except FolderBusyError:
        output.show(f"all {parts} parts are done; another shard merges {out}")
        return figures
    output.show(f"all {parts} parts are done and merged: {out}")
    return {**figures, "merged": True, "counts": counts}
