"""`tagclip mask`: class maps and masks of images whose tags are known."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tagclip.errors import UsageError
from wsss.cli import making
from wsss.cli.console import passive_threads, setup_logging
from wsss.cli.options import MODEL, TAG_RULE, pick, settings_of
from wsss.cli.parser import add_command
from wsss.cli.run_options import is_given
from wsss.cli.screen import Output
from wsss.cli.staging import staged

if TYPE_CHECKING:
    from wsss.pipeline.recipe import Recipe

NO_RULE = "the tags come from --tags, so a rule for tags has no effect; leave it out, or use `tagclip run`"


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "mask", run=mask,
        help="Make class maps and masks of images whose tags are in a file.",
        text="The tags are those of an earlier run, a published list, or the truth of a data set. --run continues a "
        "run with its own settings: with --corrections FILE, only images whose tags change get new masks.",
        example="mask --tags runs/tags --images photos --classes cat,dog --out runs/masks",
        refused={f"--{name}": NO_RULE for name in (*TAG_RULE, "no-at-least-one", "keep-scores", "score-floor")},
    )  # fmt: skip
    pick(
        parser, "tags", "tag-ids", "run", *making.OPTIONS, *MODEL,
        several=("method",), notes={**making.NOTES, "tag-ids": "default: auto", "run": "and continue it"},
    )  # fmt: skip


def mask(args: argparse.Namespace) -> int:
    """Class maps and masks."""
    passive_threads()
    setup_logging(args.quiet)
    settings = settings_of(args.set)
    if ignored := [key for key in settings if key.split(".")[:2] == ["tagging", "rule"]]:
        raise UsageError(f"--set {ignored[0]}: {NO_RULE}")
    output, recipe = Output.of(args), None
    if args.run is not None:
        recipe = _recipe_of_run(args, settings)
    elif args.tags is None and "tags" not in settings:
        raise UsageError("--tags: needed, a file of tags; or --run with a run that shall go on")
    with staged(args) as mirror:
        _, figures = making.make_masks(args, settings, output, recipe, mirror)
    output.figures(figures)
    return 0


def _recipe_of_run(args: argparse.Namespace, settings: dict[str, Any]) -> Recipe:
    """The settings of a run that goes on; what they depend on cannot be given anew."""
    fixed = [
        name.replace("_", "-") for name in (
            "tags", "tag_ids", "images", "image_root", "classes", "config", "out", "preset", "method", "scales", "flip",
            "refine", "confidence", "batch_size", "model", "pretrained", "quick_gelu", "dtype",
        )
        if is_given(name, getattr(args, name))
    ]  # fmt: skip
    if fixed or settings:
        option = f"--{fixed[0]}" if fixed else f"--set {next(iter(settings))}"
        raise UsageError(f"{option}: --run continues a run with its own settings; leave one of the two out")
    from wsss.pipeline.recipe import Recipe

    recipe = Recipe.of_run(args.run)
    work = recipe.run.work
    workers = {"workers": args.workers, "mask_workers": args.mask_workers}
    work = replace(work, **{name: value for name, value in workers.items() if value is not None})
    saves = recipe.run.save_confidence or args.save_confidence
    layout = args.layout or recipe.run.layout
    return replace(recipe, run=replace(recipe.run, work=work, save_confidence=saves, layout=layout))
