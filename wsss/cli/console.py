"""What the subcommands share: exit codes, messages, and what is set before PyTorch or mmseg are loaded."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tagclip.errors import TagclipError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from tagclip.clip import FrozenCLIP

INTERRUPTED = 130  # what shells report for a command ended by Ctrl-C
# Said at every start, and of no use to whoever runs our commands: mmcv-lite has no compiled operators (DeepLab needs
# none); mmseg explains a setting of its loss that our configs choose on purpose.
KNOWN_WARNINGS = ("Fail to import ``MultiScaleDeformableAttention``", "Default ``avg_non_ignore`` is False")


def run_main(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 or its return value, 2 for wrong usage, 1 for a run that failed.

    Errors of ours are one line on stderr; anything else is a bug and keeps its traceback.
    """
    try:
        code = main(argv)
    except TagclipError as error:
        _say_error(f"error: {' '.join(str(error).split())}")
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command resumes where it stopped", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output (`| head`) left
        sys.stderr.close()
        code = 1
    sys.exit(code or 0)


def _say_error(line: str) -> None:
    if sys.stderr.isatty():
        terminal().print(line, style="bold red", markup=False, highlight=False, soft_wrap=True)
    else:
        print(line, file=sys.stderr)


@lru_cache(maxsize=1)
def terminal() -> Console:
    """The one rich console on stderr, so that messages and progress bars do not overwrite each other."""
    from rich.console import Console

    return Console(stderr=True)


def setup_logging(quiet: bool = False) -> None:
    """Messages of this project to stderr; `quiet` leaves notes out and keeps warnings."""
    handler = _Handler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    for name in ("tagclip", "wsss"):
        package = logging.getLogger(name)
        package.handlers[:] = [handler]
        package.setLevel(logging.WARNING if quiet else logging.INFO)
        package.propagate = False


class _Handler(logging.Handler):
    """Plain lines; on a terminal in colour and above a progress bar that is being drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if sys.stderr.isatty():
            style = "yellow" if record.levelno >= logging.WARNING else "dim"
            terminal().print(text, style=style, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr)


def passive_threads() -> None:
    """Makes idle threads of the model sleep while mask workers need the cores. Before PyTorch is loaded."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def load_mmseg() -> None:
    """Loads mmseg without what it says on every start."""
    for message in KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    # mmseg prints, twice, that an optional package of its makers is not there.
    with contextlib.redirect_stdout(io.StringIO()):
        import mmseg.datasets  # noqa: F401


def set_threads(threads: int | None) -> None:
    """CPU threads of the model; None leaves PyTorch's choice."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def texts_folder(args: argparse.Namespace) -> Path:
    """Where text classifiers are kept between runs: --cache-dir, else in the user's cache."""
    from tagclip.folders import user_cache

    return user_cache("texts") if args.cache_dir is None else args.cache_dir


def load_model(args: argparse.Namespace, default: str | None = None) -> FrozenCLIP:
    """The CLIP that the model options name, on its device.

    Args:
        args: holds the options of `options.MODEL`.
        default: model where none is named.

    Raises:
        UsageError: no model named, unknown weights, or a device that is not there.
    """
    name = args.model or default
    if name is None:
        raise UsageError('--model: needed, an open_clip name, a weights file, or "demo"')
    from tagclip.clip import load_clip
    from tagclip.devices import resolve_device

    set_threads(args.threads)
    given: dict[str, Any] = {"pretrained": args.pretrained, "quick_gelu": args.quick_gelu}
    given = {name: value for name, value in given.items() if value is not None}
    return load_clip(name, device=resolve_device(args.device), dtype=args.dtype or "float32", **given)
