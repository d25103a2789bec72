"""Runs whose --out is an address: they grow in a folder of this machine."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tagclip.errors import TagclipError, UsageError

if TYPE_CHECKING:
    from wsss.files.run_mirror import RunMirror

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def staged(args: argparse.Namespace) -> Iterator[RunMirror | None]:
    """Where --out is an address: what the store has is fetched, --out becomes a folder, and in the end it is uploaded.

    Raises:
        UsageError: options that do not go together with an address. RunError: from the store.
    """
    if not isinstance(args.out, str):
        if args.staging is not None:
            raise UsageError("--staging: --out is a folder already; leave one of the two out")
        yield None
        return
    if args.overwrite or getattr(args, "train", None) is not None or args.layout == "files":
        option = "--overwrite" if args.overwrite else "--layout files" if args.layout == "files" else "--train"
        raise UsageError(f"{option}: --out {args.out} is in a store; leave {option} out, or run in a folder")
    from wsss.files.run_mirror import RunMirror

    mirror = RunMirror(args.out, args.staging)
    args.out, args.layout = mirror.folder, "tar"
    logger.info("%s grows in %s", mirror.url, mirror.folder)
    with mirror.messages():
        mirror.fetch()
        try:
            yield mirror
        except TagclipError:  # with --strict, say: what is done is done
            if not args.dry_run:
                mirror.push()
            raise
        if not args.dry_run:
            mirror.push()
