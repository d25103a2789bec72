"""Measures tag rules on short class lists: drawn scenes of which half show none of the classes.

    python -m tests.few_classes --count 60
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tagclip.clip import load_clip
from tagclip.demo.sprites import HELD_OUT_STYLE, STYLES, TRAINING_STYLES
from wsss.cli import console
from wsss.demo.few_classes import LISTS, SceneSettings, measure, rules_table


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table of docs/results/none.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--count", type=console.positive, default=60, help="scenes per class list")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same scenes")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=[HELD_OUT_STYLE],
                        help=f"sprite styles; the demo model saw {', '.join(TRAINING_STYLES)} only")
    args = parser.parse_args(argv)
    settings = SceneSettings(args.count, args.seed, tuple(args.styles))
    with console.progress_bar(len(LISTS) * args.count, "scenes") as bar:
        print(rules_table(measure(load_clip("demo"), settings, progress=bar.update)))
    return 0


if __name__ == "__main__":
    console.run_main(main)
