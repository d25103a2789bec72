"""`tagclip demo`: drawn scenes, the demo's report, and the trainings behind what the demo ships."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wsss.cli.console import setup_logging
from wsss.cli.options import pick
from wsss.cli.parser import add_command, add_family
from wsss.cli.progress import progress_bar, watched
from wsss.cli.screen import Output

HELD_OUT_STYLE = "fluent-3d"


def register(commands: Any) -> None:
    """Adds the subcommand and its own: scenes, report, train-clip, train-backbone, tag-rules, sprites."""
    family = add_family(commands, "demo", help="Draw demo scenes, report on a demo run, or train the demo's models.")
    parser = add_command(
        family, "scenes", run=scenes,
        help="Draw scenes (emoji on backgrounds) as a VOC-layout data set with masks and labels.",
        text=f"The demo model has seen all styles but {HELD_OUT_STYLE}.",
        example="demo scenes --out scenes --count 50 --seed 7",
    )  # fmt: skip
    pick(
        parser, "out", "classes", "count", "split", "styles", "objects", "object-side", "side", "seed", "json", "quiet",
        required=("out",),
        defaults={"count": 200, "seed": 0, "split": "train", "styles": [HELD_OUT_STYLE], "classes": "voc"},
        notes={"split": "here one name, the prefix of the ids, too; default: train"},
    )  # fmt: skip
    parser = add_command(
        family, "report", run=report,
        help="Sum up a demo run in a table and a picture (demo.md, demo.png).",
        example="demo report --run runs/demo",
    )  # fmt: skip
    pick(parser, "run", "limit", "json", "quiet", required=("run",), defaults={"limit": 3})
    parser = add_command(
        family, "train-clip", run=train_clip,
        help="Train the embedded demo model on drawn scenes (about two hours on two cores, torch 2.9 or later).",
        example="demo train-clip --out runs/demo_clip",
    )  # fmt: skip
    pick(
        parser, "out", "load-from", "iterations", "lr", "batch-scale", "bf16", "cam-objects", "eval-every",
        "eval-scenes", "workers", "seed", "overwrite", "threads",
        defaults={"out": Path("runs/demo_clip")},
    )  # fmt: skip
    parser = add_command(
        family, "train-backbone", run=train_backbone,
        help="Train the demo's small ResNet-18 on drawn objects that are not VOC's.",
        example="demo train-backbone --out runs/demo_backbone",
    )  # fmt: skip
    pick(
        parser, "out", "iterations", "lr", "eval-every", "batch-size", "workers", "seed", "threads",
        defaults={"out": Path("runs/demo_backbone")},
    )  # fmt: skip
    parser = add_command(
        family, "tag-rules", run=tag_rules,
        help="Measure tag rules on short class lists, on scenes of which half show none of the classes.",
        example="demo tag-rules --count 60",
    )  # fmt: skip
    pick(
        parser, "count", "styles", "seed", "json", "quiet",
        defaults={"count": 60, "seed": 0, "styles": [HELD_OUT_STYLE]},
    )  # fmt: skip
    parser = add_command(
        family, "sprites", run=sprites,
        help="Pack the sprite packages of the npm registry into the atlases that the demo ships.",
        text="Unpack each package with `npm pack NAME && tar xzf`; `pip install resvg-py` draws them.",
        example="demo sprites --packages packages --out atlases",
    )  # fmt: skip
    pick(parser, "packages", "out", required=("packages",), notes={"out": "default: the package's own folder"})


def scenes(args: argparse.Namespace) -> int:
    """Draws scenes."""
    setup_logging(args.quiet)
    from tagclip.demo.dataset import write_scenes
    from tagclip.demo.scenes import SceneConfig
    from tagclip.vocabulary import Vocabulary

    look = {"side": args.side, "objects": args.objects, "object_side": args.object_side, "styles": args.styles}
    given: dict[str, Any] = {name: tuple(value) for name, value in look.items() if value is not None}
    config = SceneConfig(**given)
    output = Output.of(args)
    with progress_bar(args.count, "drawing", unit="scenes", quiet=args.quiet) as bar:
        write_scenes(
            args.out, args.count, config, seed=args.seed, split=args.split,
            vocabulary=Vocabulary.load(args.classes), progress=lambda indices: watched(indices, bar),
        )  # fmt: skip
    output.show(f"{args.count} scenes in {args.out}")
    output.figures({"scenes": args.count, "out": str(args.out)})
    return 0


def report(args: argparse.Namespace) -> int:
    """Writes demo.md and demo.png into the demo's folder and shows the table."""
    setup_logging(args.quiet)
    from PIL import Image

    from wsss.demo.demo_report import demo_picture, demo_table
    from wsss.files.atomic import disk_errors

    output = Output.of(args)
    table, picture = demo_table(args.run), demo_picture(args.run, args.limit)
    with disk_errors(args.run):
        (args.run / "demo.md").write_text(table, encoding="utf-8")
        Image.fromarray(picture).save(args.run / "demo.png")
    output.markdown(table)
    output.figures({"table": table.splitlines()})
    return 0


def train_clip(args: argparse.Namespace) -> int:
    """Trains the demo model; its weights, log and checkpoint are in --out."""
    from tagclip.demo.training import Training, TrainingConfig

    names = {"load_from": "start", "iterations": "steps"}
    Training(TrainingConfig(**_given(args, names))).run()
    return 0


def train_backbone(args: argparse.Namespace) -> int:
    """Trains the backbone and says where the weights are."""
    from wsss.demo import backbone

    names = {"iterations": "steps", "batch_size": "batch"}
    print(f"weights: {backbone.train_backbone(backbone.BackboneTraining(**_given(args, names)))}")
    return 0


def tag_rules(args: argparse.Namespace) -> int:
    """Measures and shows the table of docs/results/none.md."""
    setup_logging(args.quiet)
    from tagclip.clip import load_clip
    from wsss.demo.few_classes import LISTS, SceneSettings, measure, rules_table

    output, settings = Output.of(args), SceneSettings(args.count, args.seed, tuple(args.styles))
    with progress_bar(len(LISTS) * args.count, "scoring", unit="scenes", quiet=args.quiet) as bar:
        rows = measure(load_clip("demo"), settings, progress=bar.update)
    output.markdown(rules_table(rows))
    output.figures([asdict(row) for row in rows])
    return 0


def sprites(args: argparse.Namespace) -> int:
    """Packs the atlases."""
    from wsss.demo.sprite_packages import ASSETS, pack_packages

    for style, count, missing in pack_packages(args.packages, args.out or ASSETS):
        print(f"{style}: {count} sprites, missing {missing}")
    return 0


def _given(args: argparse.Namespace, names: dict[str, str]) -> dict[str, Any]:
    """The options that were given, by their fields' names."""
    return {
        names.get(name, name): value for name, value in vars(args).items() if name != "handler" and value is not None
    }
