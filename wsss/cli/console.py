"""What the command-line tools share: exit codes, logging, common options, the progress bar."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from tagclip.errors import TagclipError
from tagclip.requirements import explained_imports

INTERRUPTED = 130  # what shells report for a command ended by Ctrl-C
DTYPES = ("float32", "bfloat16", "float16")
logger = logging.getLogger(__name__)


def run_main(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> None:
    """Run a tool's `main` and exit: 0 or its return value, 2 for wrong usage, 1 for a run that failed.

    Errors of ours are one line on stderr; anything else is a bug and keeps its traceback.
    """
    try:
        with explained_imports():
            code = main(argv)
    except TagclipError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output (`| head`) left
        sys.stderr.close()
        code = 1
    sys.exit(code or 0)


def setup_logging(verbose: bool = False) -> None:
    """Messages of this project to stderr, between rather than through progress bars."""
    handler = _TqdmHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    for name in ("tagclip", "wsss"):
        package = logging.getLogger(name)
        package.handlers[:] = [handler]
        package.setLevel(logging.DEBUG if verbose else logging.INFO)
        package.propagate = False


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """--model, --pretrained, --device, --dtype, --threads, --cache-dir. None: whatever the config says."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", help="open_clip name, weights file, local-dir:PATH, or demo (the embedded model)")
    group.add_argument("--pretrained", help="open_clip tag or weights file for --model")
    group.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    group.add_argument("--dtype", choices=DTYPES, help="of the model's arithmetic")
    group.add_argument("--threads", type=positive, metavar="N", help="CPU threads of the model (default: all cores)")
    group.add_argument("--cache-dir", metavar="DIR", help="where text classifiers are kept between runs")


def positive(text: str) -> int:
    """argparse type of a whole number above zero."""
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value


def not_negative(text: str) -> int:
    """argparse type of a whole number, zero included."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def set_threads(threads: int | None) -> None:
    """CPU threads of the model; None leaves PyTorch's choice."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def progress_bar(total: int, description: str, *, initial: int = 0, unit: str = "img", **options: Any) -> tqdm:
    """A bar with images/s and the time left; in a log file a line every half minute."""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=initial,
        desc=description,
        unit=unit,
        smoothing=0.1,
        dynamic_ncols=terminal,
        mininterval=0.2 if terminal else 30,
        **options,
    )


class _TqdmHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
