"""Score what the other tools made: `evaluate.py tags` and `evaluate.py masks`."""

import argparse
from collections.abc import Sequence

from wsss.cli.console import run_main, setup_logging
from wsss.cli.evaluate_masks import register_masks
from wsss.cli.evaluate_tags import register_tags


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run the subcommand; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="WHAT", title="what to score")
    register_tags(subparsers)
    register_masks(subparsers)
    args = parser.parse_args(argv)
    setup_logging()
    return args.run(args)


if __name__ == "__main__":
    run_main(main)
