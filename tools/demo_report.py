"""One table and one picture of what `tools/demo.sh` has done; it is the demo's last step."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from wsss.cli.console import positive, run_main
from wsss.demo.demo_report import demo_picture, demo_table
from wsss.files.atomic import disk_errors


def main(argv: Sequence[str] | None = None) -> int:
    """Writes demo.md and demo.png into the demo's folder and prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, metavar="DIR", help="the demo's folder, runs/demo")
    parser.add_argument("--count", type=positive, default=3, metavar="N", help="scenes of each kind in the picture")
    args = parser.parse_args(argv)
    table, picture = demo_table(args.root), demo_picture(args.root, args.count)
    with disk_errors(args.root):
        (args.root / "demo.md").write_text(table, encoding="utf-8")
        Image.fromarray(picture).save(args.root / "demo.png")
    print(table)
    return 0


if __name__ == "__main__":
    run_main(main)
