"""`tools/evaluate.py masks`: pairs files, streams them through the scorer, prints the table, writes JSON and PNG."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from tagclip.errors import UsageError
from tagclip.vocabulary import Vocabulary
from wsss.evaluation.pairs import MaskPair, score_pairs
from wsss.evaluation.scorer import MaskEvaluationConfig, MaskScorer, MaskScores
from wsss.files.map_files import read_maps
from wsss.files.mask_files import IGNORE_8_BIT, ignore_label, label_dtype, read_mask
from wsss.files.run_folder import run_vocabulary


def register_masks(subparsers: argparse._SubParsersAction) -> None:
    """Adds the `masks` subcommand; its handler is in the parsed arguments as `run`."""
    defaults = MaskEvaluationConfig()
    parser = subparsers.add_parser("masks", help="mIoU and friends of masks, or of CAMs at a list of thresholds")
    parser.add_argument("--pred", type=Path, required=True, metavar="DIR",
                        help="folder of mask PNGs, or of CAM files (npz) together with --thresholds")
    parser.add_argument("--gt", type=Path, required=True, metavar="DIR", help="folder of ground-truth mask PNGs")
    parser.add_argument("--vocabulary", metavar="NAME|FILE",
                        help="class names: voc, coco, cocostuff, context, or a class file (default: the run folder's)")
    parser.add_argument("--list", type=Path, metavar="FILE",
                        help="score exactly these ids, one a line (default: every prediction)")
    parser.add_argument("--coarse", action="store_true",
                        help="map classes to their coarse groups first (cocostuff: 171 to 27)")
    parser.add_argument("--thresholds", metavar="T,T,...",
                        help="score CAMs with these constant background scores instead of masks")
    parser.add_argument("--ignore-index", type=int, metavar="ID",
                        help="ground-truth value that is not scored (default: 255, or 65535 of more than 254 classes)")
    parser.add_argument("--boundary-width", type=float, default=defaults.boundary_width, metavar="SHARE",
                        help="boundary band as a share of the image diagonal, 0: off (default: %(default)s)")
    parser.add_argument("--resize", action="store_true", help="bring predictions to the ground truth's size")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="reading threads (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    parser.add_argument("--confusion", type=Path, metavar="FILE", help="write the confusion matrix here, as PNG")
    parser.add_argument("--strict", action="store_true", help="fail if a pair cannot be scored")
    parser.set_defaults(run=evaluate_masks)


def evaluate_masks(args: argparse.Namespace) -> int:
    """Runs the subcommand; returns the exit code.

    Raises:
        UsageError: nothing to score, an unknown vocabulary, ids beyond its classes, or failures under `--strict`.
    """
    vocabulary = find_vocabulary(args.vocabulary, args.pred)
    if args.coarse and vocabulary.coarse is None:
        raise UsageError(f"--coarse: the vocabulary {vocabulary.name!r} has no coarse groups")
    names = label_names(vocabulary, args.coarse)
    ignored = ignore_label(vocabulary.label_count) if args.ignore_index is None else args.ignore_index
    config = MaskEvaluationConfig(ignored, args.boundary_width, args.resize)
    thresholds = parse_thresholds(args.thresholds)
    pairs = list(find_pairs(args.pred, args.gt, ".npz" if thresholds else ".png", args.list))
    groups = coarse_table(vocabulary) if args.coarse else None
    if thresholds:
        report = _score_cams(args, pairs, thresholds, config, vocabulary, names, groups)
    else:
        scorer = MaskScorer(config)
        reader = _grouped(read_mask, groups)
        failures = _stream(pairs, scorer, reader, reader, args)
        scores = scorer.scores(names)
        print(scores.table())
        if args.confusion:
            save_confusion(scores, args.confusion)
        report = {**scores.to_dict(), "failures": [message for _, message in failures]}
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if report["failures"]:
        print(f"{len(report['failures'])} of {len(pairs)} pairs not scored, first: {report['failures'][0]}")
    return 1 if report["failures"] and (args.strict or len(report["failures"]) == len(pairs)) else 0


def _score_cams(
    args: argparse.Namespace,
    pairs: Sequence[MaskPair],
    thresholds: Sequence[float],
    config: MaskEvaluationConfig,
    vocabulary: Vocabulary,
    names: Sequence[str],
    groups: np.ndarray | None,
) -> dict:
    # The boundary of a thresholded CAM says little and would dominate the time of a sweep.
    config = replace(config, boundary_width=0.0)
    rows, best, failures = [], None, []
    print(f"{'threshold':>9}{'mIoU':>9}{'pixel acc':>11}")
    for threshold in thresholds:
        scorer = MaskScorer(config)

        def label(path: Path, threshold: float = threshold) -> np.ndarray:
            return cam_labels(path, threshold, background=vocabulary.has_background, labels=vocabulary.label_count)

        failures = _stream(pairs, scorer, _grouped(label, groups), _grouped(read_mask, groups), args)
        scores = scorer.scores(names)
        rows.append({"threshold": threshold, **scores.to_dict()})
        print(f"{threshold:9.3f}{100 * scores.miou:9.2f}{100 * scores.pixel_accuracy:11.2f}")
        if best is None or scores.miou > best[1].miou:
            best = (threshold, scores)
    if best is None or np.isnan(best[1].miou):
        raise UsageError(f"{args.pred}: no CAM file could be scored, first: {failures[0][1] if failures else 'none'}")
    print(f"\nbest threshold {best[0]:g}")
    print(best[1].table())
    if args.confusion:
        save_confusion(best[1], args.confusion)
    return {"best_threshold": best[0], "thresholds": rows, "failures": [message for _, message in failures]}


def _stream(
    pairs: Sequence[MaskPair],
    scorer: MaskScorer,
    read_prediction: Callable[[Path], np.ndarray],
    read_truth: Callable[[Path], np.ndarray],
    args: argparse.Namespace,
) -> list[tuple[str, str]]:
    with tqdm(total=len(pairs), unit="image", leave=False, disable=None) as bar:
        return score_pairs(
            pairs,
            scorer,
            read_prediction=read_prediction,
            read_truth=read_truth,
            workers=args.workers,
            progress=lambda done: bar.update(),
        )


def find_pairs(predicted: Path, truth: Path, suffix: str, id_list: Path | None = None) -> Iterator[MaskPair]:
    """Pairs of files with equal relative paths, suffix apart.

    Args:
        id_list: file whose first word of each line is an id; without it every prediction that has a ground truth is
            taken (a data set's ground-truth folder usually holds more than one split).

    Raises:
        UsageError: a folder that does not exist, or nothing in common.
    """
    for option, folder in (("--pred", predicted), ("--gt", truth)):
        if not folder.is_dir():
            raise UsageError(f"{option} {folder}: no such folder")
    if id_list is not None:
        if not id_list.is_file():
            raise UsageError(f"--list {id_list}: no such file")
        ids = [line.split()[0] for line in id_list.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not ids:
            raise UsageError(f"--list {id_list}: no ids in it")
        yield from (MaskPair(i, predicted / f"{i}{suffix}", truth / f"{i}.png") for i in ids)
        return
    found = 0
    for path in sorted(predicted.rglob(f"*{suffix}")):
        relative = path.relative_to(predicted)
        counterpart = (truth / relative).with_name(f"{path.name.removesuffix(suffix)}.png")
        if counterpart.is_file():
            found += 1
            yield MaskPair(relative.as_posix().removesuffix(suffix), path, counterpart)
    if not found:
        raise UsageError(f"--pred {predicted}: none of its *{suffix} files has a mask of the same name in --gt {truth}")


def find_vocabulary(choice: str | None, predicted: Path) -> Vocabulary:
    """The named vocabulary, else the one of the run folder that the predictions lie in, else VOC.

    Raises:
        UsageError: no such vocabulary.
    """
    if choice is not None:
        return Vocabulary.load(choice)
    return run_vocabulary(predicted.parent) or Vocabulary.named("voc")


def label_names(vocabulary: Vocabulary, coarse: bool = False) -> list[str]:
    """Names by mask id: background first if the vocabulary has one; group numbers if `coarse`."""
    names = [f"group {i}" for i in sorted(set(vocabulary.coarse))] if coarse else list(vocabulary.names)
    return ["background", *names] if vocabulary.has_background else names


def coarse_table(vocabulary: Vocabulary) -> np.ndarray:
    """Table from mask id to coarse group, (256,) uint8 or (65536,) uint16; ids that are no class keep their value."""
    dtype = label_dtype(vocabulary.label_count)
    table = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    offset = 1 if vocabulary.has_background else 0
    for index, group in enumerate(vocabulary.coarse or ()):
        table[index + offset] = group + offset
    return table


def _grouped(read: Callable[[Path], np.ndarray], table: np.ndarray | None) -> Callable[[Path], np.ndarray]:
    return read if table is None else lambda path: table[read(path)]


def cam_labels(path: Path, threshold: float, *, background: bool, labels: int = IGNORE_8_BIT) -> np.ndarray:
    """Label map of stored CAMs with a constant background score.

    Args:
        threshold: pixels whose strongest map is below it are background (ignored if there is no background).
        background: whether class c is label c + 1.
        labels: of the vocabulary, see `label_dtype`.

    Returns:
        (H, W) uint8 or uint16.
    """
    stored = read_maps(path)
    height, width = stored.size
    below = 0 if background else ignore_label(labels)
    best = np.full((height, width), threshold, np.float32)
    winners = np.full((height, width), below, label_dtype(labels))
    for cam, index in zip(stored.maps, stored.classes.tolist(), strict=True):
        cam = cv2.resize(cam.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        above = cam > best
        winners[above] = index + (1 if background else 0)
        best[above] = cam[above]
    return winners


def parse_thresholds(text: str | None) -> list[float]:
    """ "0.1,0.2" -> [0.1, 0.2]; empty without an option.

    Raises:
        UsageError: not numbers in [0, 1].
    """
    if text is None:
        return []
    try:
        values = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        values = []
    if not values or not all(0 <= value <= 1 for value in values):
        raise UsageError(f"--thresholds {text!r}: give numbers between 0 and 1, separated by commas")
    return values


def save_confusion(scores: MaskScores, path: Path) -> None:
    """Row-normalised confusion matrix (of the classes that occur in the ground truth) as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    present = [i for i, row in enumerate(scores.confusion) if row.sum()]
    columns = [*present, *([-1] if scores.confusion[:, -1].sum() else [])]
    shares = scores.confusion[present] / scores.confusion[present].sum(1, keepdims=True)
    shares = shares[:, columns]
    side = min(24.0, 2.5 + 0.32 * len(columns))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="viridis")
    labels = [scores.names[i] for i in present]
    axes.set_xticks(range(len(columns)), labels + ["no answer"] * (len(columns) - len(present)), rotation=90)
    axes.set_yticks(range(len(present)), labels)
    axes.tick_params(labelsize=8 if len(columns) < 60 else 4)
    axes.set_xlabel("predicted")
    axes.set_ylabel("ground truth")
    axes.set_title(f"share of each class's pixels, mIoU {100 * scores.miou:.1f}")
    figure.colorbar(image, ax=axes, shrink=0.6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
