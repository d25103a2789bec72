"""`tagclip evaluate`: tags, masks and training-free segmentors against the truth."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagclip.errors import UsageError
from wsss.cli.console import load_mmseg, set_threads, setup_logging, texts_folder
from wsss.cli.options import MODEL, pick, settings_of
from wsss.cli.parser import add_command, add_family
from wsss.cli.progress import counted, progress_bar
from wsss.cli.screen import Output, Table
from wsss.configs import read_config

if TYPE_CHECKING:
    from tagclip.vocabulary import Vocabulary

OF_THE_FOLDER = {"classes": "default: what the folder says"}
BOUNDARY_WIDTH = 0.02


def register(commands: Any) -> None:
    """Adds the subcommand and its own: tags, masks, dense."""
    family = add_family(commands, "evaluate", help="Score tags, masks or a training-free segmentor against the truth.")
    parser = add_command(
        family, "tags", run=evaluate_tags,
        help="Score tags: mAP, precision, recall and F1.",
        example="evaluate tags --tags runs/mine --labels labels.txt --curves curves.png",
    )  # fmt: skip
    pick(
        parser, "tags", "tag-ids", "labels", "label-ids", "classes", "skip-difficult", "absent-classes", "per-class",
        "curves", "json", "quiet",
        required=("tags", "labels"), notes=OF_THE_FOLDER,
        defaults={"tag-ids": "index", "label-ids": "auto", "absent-classes": "leave_out"},
    )  # fmt: skip
    parser = add_command(
        family, "masks", run=evaluate_masks,
        help="Score masks: mIoU, accuracy and boundary IoU; or class maps at a list of background scores.",
        text="Files are matched by their relative paths.",
        example="evaluate masks --run runs/mine --ground-truth VOC2012/SegmentationClass",
    )  # fmt: skip
    pick(
        parser, "run", "masks", "maps", "ground-truth", "classes", "list", "coarse", "thresholds", "ignore-index",
        "binary", "boundary-width", "resize", "confusion", "workers", "strict", "json", "quiet",
        required=("ground-truth",), notes=OF_THE_FOLDER,
        defaults={"boundary-width": BOUNDARY_WIDTH, "workers": 2},
    )  # fmt: skip
    parser = add_command(
        family, "dense", run=evaluate_dense,
        help="Score a training-free segmentor on the data set of its config.",
        example="evaluate dense --config dense/voc21 --method naclip --data VOC2012",
    )  # fmt: skip
    pick(
        parser, "config", "set", "data", "limit", "method", "restrict", "mode", "pixel-threshold", "refine", "loop",
        "boundary-width", "json", "quiet", *MODEL,
        required=("config",), choices={"mode": ("whole", "slide"), "refine": ("pamr", "none")},
        defaults={"loop": "ours", "boundary-width": 0.0},
    )  # fmt: skip


def evaluate_tags(args: argparse.Namespace) -> int:
    """Scores tags."""
    setup_logging(args.quiet)
    from tagclip.labels import read_labels
    from tagclip.tag_files import read_tags
    from wsss.evaluation.tag_scores import save_curves, score_tags

    output = Output.of(args)
    vocabulary = _vocabulary(args.classes, args.tags if args.tags.is_dir() else args.tags.parent)
    records = read_tags(args.tags, vocabulary, ids=args.tag_ids)
    labels = read_labels(args.labels, vocabulary, ids=args.label_ids, difficult=not args.skip_difficult)
    try:
        found = score_tags(records, labels, vocabulary, absent=args.absent_classes)
    except UsageError as error:
        raise UsageError(f"--tags {args.tags}, --labels {args.labels}: {error}") from None
    output.show(found.metrics.table(classes=args.per_class))
    output.figures({"vocabulary": vocabulary.name, **found.to_dict()})
    if args.curves:
        save_curves(found, args.curves)
    return 0


def evaluate_masks(args: argparse.Namespace) -> int:
    """Scores masks, or class maps with --thresholds."""
    setup_logging(args.quiet)
    from wsss.evaluation.mask_folders import FolderScorer, save_confusion
    from wsss.evaluation.pairs import find_pairs
    from wsss.evaluation.scorer import MaskEvaluationConfig
    from wsss.files.mask_files import ignore_label

    output = Output.of(args)
    folder, option = _predictions(args)
    vocabulary = _vocabulary(args.classes, args.run or folder)
    ignored = ignore_label(vocabulary.label_count) if args.ignore_index is None else args.ignore_index
    config = MaskEvaluationConfig(ignored, args.boundary_width, args.resize)
    scorer = FolderScorer(vocabulary, config, args.coarse, args.workers, args.binary or None)
    pairs = find_pairs(folder, args.ground_truth, ".npz" if args.thresholds else ".png", args.list, option=option)
    with progress_bar(len(pairs) * len(args.thresholds or "1"), "scoring", quiet=args.quiet) as bar:
        if args.thresholds:
            sweep = scorer.maps(pairs, args.thresholds, counted(bar))
        else:
            found = scorer.masks(pairs, counted(bar))
    if args.thresholds:
        rows = [(f"{t:g}", f"{100 * s.miou:.2f}", f"{100 * s.pixel_accuracy:.2f}") for t, s in sweep.rows]
        output.show(Table(("threshold", "mIoU", "pixel acc"), rows))
        best, scores = sweep.best
        output.show(f"\nbest threshold {best:g}")
        figures, failures = sweep.to_dict(), sweep.failures
    else:
        figures, failures, scores = found.to_dict(), found.failures, found.scores
    output.show(scores.table())
    if args.confusion:
        save_confusion(scores, args.confusion)
    output.figures(figures)
    if failures:
        output.show(f"{len(failures)} of {len(pairs)} pairs not scored, first: {failures[0]}")
    return 1 if failures and (args.strict or len(failures) == len(pairs)) else 0


def evaluate_dense(args: argparse.Namespace) -> int:
    """Scores a training-free segmentor."""
    setup_logging(args.quiet)
    from tagclip.devices import resolve_device

    set_threads(args.threads)
    load_mmseg()
    from wsss.dense.dataset_scores import (
        adapt,
        build_dataset,
        build_model,
        check_dataset,
        run_mmseg_loop,
        score_dataset,
        summary,
    )

    output = Output.of(args)
    config = adapt(
        read_config(args.config),
        clip={"path_or_name": args.model, "pretrained": args.pretrained, "dtype": args.dtype,
              "quick_gelu": args.quick_gelu},
        dense={
            "strategy": args.method, "vocabulary": args.restrict, "mode": args.mode,
            "background_threshold": args.pixel_threshold, "pamr": args.refine == "pamr" or None,
        },
        data_root=None if args.data is None else str(args.data),
        cache_dir=str(texts_folder(args)),
        limit=args.limit,
        options=settings_of(args.set),
    )  # fmt: skip
    if args.refine == "none":
        config.model.dense.pamr = None
    dataset = build_dataset(config)
    check_dataset(dataset)
    if args.loop == "mmseg":
        scores = run_mmseg_loop(config)
        output.figures({"dense": config.model.dense.to_dict(), **{key: float(value) for key, value in scores.items()}})
        return 0
    model = build_model(config)
    with progress_bar(len(dataset), "segmenting", quiet=args.quiet) as bar:
        found = score_dataset(
            dataset, model, device=resolve_device(args.device), boundary_width=args.boundary_width, check=False,
            progress=bar.update,
        )  # fmt: skip
    figures = summary(found, config)
    output.show(f"{found.table()}\n{figures['settings']}")
    output.figures(figures)
    return 0


def _predictions(args: argparse.Namespace) -> tuple[Path, str]:
    """The folder that is scored, and the option that named it."""
    kind, own = ("maps", args.maps) if args.thresholds else ("masks", args.masks)
    other = args.masks if args.thresholds else args.maps
    if other is not None:
        raise UsageError(
            f"--masks {other}: --thresholds are scored on class maps; give --maps or --run" if args.thresholds
            else f"--maps {other}: class maps need --thresholds, the background scores to try"
        )  # fmt: skip
    if own is not None:
        return own, f"--{kind}"
    if args.run is None:
        raise UsageError(f"--run or --{kind}: one is needed")
    return args.run / ("cams" if args.thresholds else "masks"), "--run"


def _vocabulary(choice: str | None, folder: Path) -> Vocabulary:
    from wsss.files.classes import require_vocabulary

    return require_vocabulary(folder, choice)
