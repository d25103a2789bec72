"""`tagclip export`: a run in the formats of other tools."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, Any

from tagclip.errors import UsageError
from wsss.cli.console import setup_logging
from wsss.cli.options import alias, pick
from wsss.cli.parser import add_command
from wsss.cli.progress import Bar, progress_bar
from wsss.cli.screen import Output, Table

if TYPE_CHECKING:
    from wsss.export import ExportOptions, ExportSummary


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "export", run=export, first="--run",
        help="Export a run to COCO, VOC, YOLO, mmseg, Label Studio, CVAT, FiftyOne, Hugging Face, tables and more.",
        text="Each export is a folder with a README.md on how to import it. Photos that EXIF turns are written\n"
        "upright, as the masks are. Rejected and failed images are left out.",
        example="export --run runs/mine --format coco yolo --split train=0.9,val=0.1",
    )  # fmt: skip
    pick(
        parser, "run", "image-root", "out", "format", "list-formats", "photos", "split", "min-confidence",
        "only-checked", "merge-into", "instances", "stuff", "polygons", "ignored", "bom", "seed", "overwrite", "strict",
        "dry-run", "json", "quiet",
        defaults={"photos": "copy", "instances": "class", "ignored": "background", "seed": 0},
        notes={"out": "default: RUN/export/FORMAT; with several formats a folder of its own in it for each",
               "split": "default: one list, train, or default for cvat"},
    )  # fmt: skip
    alias(parser, "photos", "images")
    alias(parser, "list-formats", "list")


def export(args: argparse.Namespace) -> int:
    """Exports and says what was left out, changed or lost."""
    setup_logging(args.quiet)
    from wsss.export import FORMATS, ExportOptions, export_run

    output = Output.of(args)
    if args.list_formats:
        output.show(Table(("format", "what it is"), [(one.name, one.summary) for one in FORMATS.values()], left=True))
        output.figures({one.name: one.summary for one in FORMATS.values()})
        return 0
    if args.run is None or args.format is None:
        raise UsageError(f"--{'run' if args.run is None else 'format'}: needed; --list-formats shows the formats")
    formats = list(dict.fromkeys(args.format))
    if args.merge_into is not None and len(formats) > 1:
        raise UsageError("--merge-into: takes one --format, that of the data set")
    options: ExportOptions = ExportOptions(
        photos=args.photos, split=args.split, seed=args.seed, min_confidence=args.min_confidence,
        only_checked=args.only_checked, instances=args.instances, stuff=tuple(_names(args.stuff)),
        polygons=args.polygons, ignored=args.ignored, bom=args.bom,
    )  # fmt: skip
    request = {
        "options": options, "image_root": args.image_root, "merge_into": args.merge_into, "overwrite": args.overwrite,
        "strict": args.strict, "dry_run": args.dry_run,
    }  # fmt: skip
    summaries = []
    for name in formats:
        out = args.out / name if args.out is not None and len(formats) > 1 else args.out
        with Watch(name, args.quiet) as watch:
            summaries.append(export_run(args.run, name, out=out, progress=watch, **request))
        for line in summary_lines(summaries[-1], dry=args.dry_run):
            output.show(line)
    output.figures([summary.to_dict() for summary in summaries])
    return 0


class Watch:
    """A progress bar that begins when the number of images is known."""

    def __init__(self, name: str, quiet: bool):
        self.name, self.quiet, self.stack = name, quiet, contextlib.ExitStack()
        self.bar: Bar | None = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def __call__(self, done: int, total: int) -> None:
        if self.bar is None:
            self.bar = self.stack.enter_context(progress_bar(total, self.name, quiet=self.quiet))
        self.bar.update(done - self.bar.done)


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def summary_lines(summary: ExportSummary, *, dry: bool = False) -> list[str]:
    """What an export did, in a few lines."""
    lists = ", ".join(f"{name} {count}" for name, count in summary.splits.items())
    verb = "would be exported" if dry else "exported"
    lines = [f"{summary.format}: {summary.images} images {verb} ({lists}): {summary.out}"]
    if summary.counts.get("annotations"):
        lines.append(f"  {summary.counts['annotations']} annotations")
    if summary.megabytes is not None:
        lines.append(f"  photos and masks take about {summary.megabytes:g} MB")
    if summary.merged is not None:
        counts = summary.merged
        lines.append(
            f"  {counts['added']} files added, {counts['combined']} extended, {counts['left_alone']} left alone; "
            f"{summary.left_out.get('there already', 0)} images were there already, their annotations stay"
        )
    rest = {why: count for why, count in summary.left_out.items() if why != "there already"}
    if rest:
        lines.append("  left out: " + ", ".join(f"{count} {why}" for why, count in rest.items()))
    if summary.failed:
        lines.append(f"  {len(summary.failed)} could not be exported, first: {summary.failed[0]['message']}")
    return [*lines, *(f"  {note}" for note in summary.notes)]
