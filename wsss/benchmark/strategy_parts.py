"""What each part of a training-free strategy brings: whole, without one part, with one part alone, with none.

    python -m wsss.benchmark.strategy_parts --strategy scclip --data scenes --model demo --classes voc

A part is an option that is a switch and on: the five of scclip, the two of resclip. All variants see the same trunk
pass of each image. Prints mIoU with all classes and with the true labels of each image as the vocabulary.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tagclip.clip import load_clip
from tagclip.errors import TagclipError, UsageError
from wsss.dense.comparison import CompareConfig, Comparison
from wsss.dense.strategy import Strategy, get_strategy
from wsss.files.sources import load_vocabulary, open_source

RESTRICTIONS = ("all", "labels")
VARIANT = """from dataclasses import replace

from wsss.dense.strategy import get_strategy

STRATEGY = replace(get_strategy({name!r}, {options!r}), name={title!r})
"""


def parts_of(strategy: Strategy) -> list[str]:
    """Its switches that are on.

    Raises:
        UsageError: it has none.
    """
    found = [one.name for one in dataclasses.fields(strategy.options) if getattr(strategy.options, one.name) is True]
    if not found:
        raise UsageError(f"strategy {strategy.name}: no option of it is a switch that is on")
    return found


def variants(parts: Sequence[str]) -> dict[str, dict[str, bool]]:
    """Title of each variant -> its options, the whole first; no two are alike."""
    found = {"whole": {}, **{f"without {part}": {part: False} for part in parts}}
    found |= {f"{part} alone": {other: other == part for other in parts} for part in parts}
    found |= {"none of them": dict.fromkeys(parts, False)}
    alike: dict[tuple[bool, ...], str] = {}
    for title, options in found.items():
        alike.setdefault(tuple(options.get(part, True) for part in parts), title)
    return {title: found[title] for title in alike.values()}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a Markdown table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", default="scclip", help="Name of the strategy")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="VOC-layout folder")
    parser.add_argument("--classes", default="voc", help="Classes of the data")
    parser.add_argument("--model", default="demo", help="CLIP model")
    parser.add_argument("--limit", type=int, metavar="N", help="Only the first N images")
    args = parser.parse_args(argv)
    try:
        chosen = variants(parts_of(get_strategy(args.strategy)))
        samples = open_source(args.data, layout="voc").samples[: args.limit]
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for number, (title, options) in enumerate(chosen.items()):
                file = Path(folder) / f"variant_{number}.py"
                file.write_text(VARIANT.format(name=args.strategy, options=options, title=title), encoding="utf-8")
                files.append(str(file))
            config = CompareConfig(tuple(files), RESTRICTIONS, timed_images=0)
            comparison = Comparison(load_clip(args.model), load_vocabulary(args.classes), config)
            rows = comparison.run([(sample.image, sample.mask) for sample in samples])
    except TagclipError as error:
        parser.exit(2, f"error: {error}\n")
    scores = {(row.strategy, row.vocabulary): 100 * row.miou for row in rows}
    print(f"{len(samples)} images\n\n| {args.strategy} | mIoU, all | | mIoU, labels | |\n|---|---:|---:|---:|---:|")
    for title in chosen:
        cells = [(scores[title, name], scores[title, name] - scores["whole", name]) for name in RESTRICTIONS]
        print(f"| {title} | " + " | ".join(f"{score:.1f} | {gain:+.1f}" for score, gain in cells) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
