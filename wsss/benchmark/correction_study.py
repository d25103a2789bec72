"""What a person's hour is worth: a tenth of a run's images corrected, the most doubtful ones against random ones.

    python -m wsss.benchmark.correction_study --out runs/corrections --count 60

Scenes are drawn in a style that the demo model has never seen, and labelled by `demo/masks` without views. The person
knows the truth: the tags of an image that is looked at become the scene's. The order of doubt is that of the page
(`wsss.review.doubt`). Masks depend on their own image alone, so that one run, corrected whole, has the masks of every
choice of images.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from tagclip.config import TagRuleConfig
from tagclip.demo.dataset import write_scenes
from tagclip.demo.scenes import SceneConfig
from tagclip.demo.sprites import HELD_OUT_STYLE
from tagclip.labels import Labels, read_labels
from tagclip.thresholds import select
from wsss.evaluation.scorer import MaskEvaluationConfig, MaskScorer, PairCounts
from wsss.files.corrections import Corrections, ImageCorrection, write_corrections
from wsss.files.map_files import read_maps
from wsss.files.mask_files import read_mask
from wsss.files.run_reader import RunReader
from wsss.pipeline.label_folder import label_folder
from wsss.pipeline.mask_run import MaskRun
from wsss.pipeline.recipe import Recipe
from wsss.review.doubt import PARTS, DoubtInput, DoubtRule, doubt_order, doubts
from wsss.review.page_data import RunContent
from wsss.review.score_levels import ScoreScale
from wsss.review.thumbnails import ThumbnailConfig, rival_classes

SCENES = SceneConfig(objects=(2, 4), styles=(HELD_OUT_STYLE,))


@dataclass(frozen=True)
class WorthRow:
    """Figures of all images after some were corrected, in [0, 1].

    Attributes:
        chosen: how the images were chosen. share: of the images.
        f1: of the tags, over all pairs of images and classes. miou: of the masks.
        f1_spread, miou_spread: standard deviation over random choices, 0 for others.
        wrong_tags: of the images chosen, mean number of tags that were added or removed.
    """

    chosen: str
    share: float
    f1: float
    miou: float
    f1_spread: float = 0.0
    miou_spread: float = 0.0
    wrong_tags: float = 0.0


def order_of_doubt(run: Path) -> list[str]:
    """Ids of a run's images, the most doubtful first, as the review page has them."""
    content = RunContent.read(run)
    reader, count = content.reader, len(content.records)
    ignored, rivals = np.zeros(count, np.int64), []
    for place, record in enumerate(content.records):
        mask, stored = reader.mask(record.id), read_maps(reader.maps_path(record.id))
        ignored[place] = round(PARTS * float((mask == content.ignored).mean()))
        rivals.append(rival_classes(stored, ThumbnailConfig()))
    relative = content.relative_rule()
    unmoved = np.zeros(len(reader.vocabulary), bool)
    rule = DoubtRule(content.handles(), unmoved)
    if relative is not None:
        rule = DoubtRule(
            content.handles(), unmoved, np.array(relative["t"]), relative["from_zero"], relative["floor"]
        )
    known = DoubtInput(
        content.levels, content.tags, np.zeros_like(content.tags), np.zeros(count, bool), ignored, rivals,
        int(content.scale.nearest(0.0)),
    )  # fmt: skip
    return [content.records[place].id for place in doubt_order(doubts(known, rule))]


def corrections_of(run: Path, labels: Labels, ids: Collection[str]) -> Corrections:
    """What a person who knows the truth says of some images."""
    reader = RunReader(run)
    names = reader.vocabulary.names
    images = {}
    for record in reader.records():
        if record.id in ids:
            true, found = set(labels[record.id]), set(record.indices)
            add, remove = (tuple(names[index] for index in sorted(part)) for part in (true - found, found - true))
            images[record.id] = ImageCorrection(add, remove, "checked")
    return Corrections(reader.id, reader.manifest_sha256, "the truth", images=images)


@dataclass
class Study:
    """A run and its twin with all images corrected: counts of each image in both.

    Attributes:
        truth, before: tags by id, as sets of class indices.
        masks: (before, after) counts of each image's mask against the true one.
        names: of the labels.
    """

    truth: dict[str, set[int]]
    before: dict[str, set[int]]
    masks: dict[str, tuple[PairCounts, PairCounts]]
    names: tuple[str, ...]

    def figures(self, corrected: Collection[str]) -> tuple[float, float]:
        """F1 of the tags and mIoU of the masks after these images were corrected."""
        chosen = {name: self.truth[name] if name in corrected else tags for name, tags in self.before.items()}
        hits = sum(len(tags & self.truth[name]) for name, tags in chosen.items())
        total = sum(len(tags) + len(self.truth[name]) for name, tags in chosen.items())
        scorer = MaskScorer(MaskEvaluationConfig(boundary_width=0.0))
        for name, counts in self.masks.items():
            scorer.add(counts[name in corrected])
        return 2 * hits / total, float(scorer.scores(self.names).miou)

    def wrong(self, ids: Collection[str]) -> float:
        """Mean number of wrong tags of these images."""
        return float(np.mean([len(self.before[name] ^ self.truth[name]) for name in ids]))


def study(scenes: Path, run: Path, twin: Path, labels: Labels) -> Study:
    """Reads both runs and the true masks."""
    scorer, first, second = MaskScorer(MaskEvaluationConfig(boundary_width=0.0)), RunReader(run), RunReader(twin)
    before = {record.id: set(record.indices) for record in first.records()}
    masks = {}
    for name in before:
        true = read_mask(scenes / "SegmentationClass" / f"{name}.png")
        masks[name] = (scorer.measure(first.mask(name), true), scorer.measure(second.mask(name), true))
    truth = {name: set(labels[name]) for name in before}
    return Study(truth, before, masks, first.vocabulary.label_names)


def worth_rows(found: Study, order: Sequence[str], shares: Sequence[float], draws: int, seed: int) -> list[WorthRow]:
    """Nothing, each share by doubt and at random, and everything corrected."""
    rows, rng = [WorthRow("nothing", 0.0, *found.figures(()))], np.random.default_rng(seed)
    for share in shares:
        count = round(share * len(order))
        best = order[:count]
        rows.append(WorthRow("most doubtful", share, *found.figures(best), wrong_tags=found.wrong(best)))
        picked = [rng.choice(len(order), count, replace=False) for _ in range(draws)]
        some = [[order[place] for place in places] for places in picked]
        figures = np.array([found.figures(ids) for ids in some])
        wrong = float(np.mean([found.wrong(ids) for ids in some]))
        mean, spread = figures.mean(axis=0).tolist(), figures.std(axis=0).tolist()
        rows.append(WorthRow("at random", share, mean[0], mean[1], spread[0], spread[1], wrong))
    rows.append(WorthRow("everything", 1.0, *found.figures(order), wrong_tags=found.wrong(order)))
    return rows


def tag_rows(scores: np.ndarray, truth: np.ndarray, shares: Sequence[float], draws: int, seed: int) -> list[WorthRow]:
    """The same of tags alone, from stored scores: the demo config's rule, doubt without masks and maps; mIoU is NaN.

    Args:
        scores: (n, C) float32. truth: (n, C) bool.
    """
    count, classes = truth.shape
    rule = TagRuleConfig(threshold=0.15)
    tags = select(scores, rule)
    scale = ScoreScale.of_scores(float(scores.min()), float(scores.max()))
    levels, none = scale.levels(scores), np.zeros(count, np.int64)
    known = DoubtInput(
        levels, tags, np.zeros_like(tags), np.zeros(count, bool), none, [()] * count, int(scale.nearest(0.0))
    )
    relative = DoubtRule(np.zeros(classes, np.int64), np.zeros(classes, bool), np.full(classes, rule.threshold))
    order = doubt_order(doubts(known, relative))

    def row(chosen: str, share: float, picks: Sequence[np.ndarray]) -> WorthRow:
        figures = []
        for places in picks:
            corrected = tags.copy()
            corrected[places] = truth[places]
            figures.append(2 * (corrected & truth).sum() / (corrected.sum() + truth.sum()))
        mistakes = (tags != truth).sum(axis=1)
        wrong = float(np.mean([mistakes[places].mean() for places in picks])) if share else 0.0
        return WorthRow(chosen, share, float(np.mean(figures)), float("nan"), float(np.std(figures)), 0.0, wrong)

    rng = np.random.default_rng(seed)
    rows = [row("nothing", 0.0, [np.zeros(0, np.int64)])]
    for share in shares:
        part = round(share * count)
        rows.append(row("most doubtful", share, [order[:part]]))
        rows.append(row("at random", share, [rng.choice(count, part, replace=False) for _ in range(draws)]))
        most = np.argsort(-(tags != truth).sum(axis=1), kind="stable")[:part]
        rows.append(row("most wrong (an oracle)", share, [most]))
    return rows


def worth_text(rows: Sequence[WorthRow]) -> str:
    """As Markdown, figures in per cent."""
    head = "| corrected | share | wrong tags per corrected image | F1 of tags | mIoU of masks |"
    lines = [head, "|---|---:|---:|---:|---:|"]
    for row in rows:
        spread = [f" ± {100 * value:.1f}" * (row.chosen == "at random") for value in (row.f1_spread, row.miou_spread)]
        lines.append(
            f"| {row.chosen} | {100 * row.share:.0f} % | {row.wrong_tags:.2f} | {100 * row.f1:.1f}{spread[0]} | "
            f"{'-' if np.isnan(row.miou) else f'{100 * row.miou:.1f}{spread[1]}'} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints the table; writes the figures as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/corrections"), help="folder of scenes and runs")
    parser.add_argument("--count", type=int, default=60, help="scenes")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.2], help="shares of images")
    parser.add_argument("--draws", type=int, default=50, help="random choices of images")
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--scores", type=Path, nargs="+", help="tags alone, of scores of threshold_study")
    args = parser.parse_args(argv)
    for file in args.scores or ():
        with np.load(file, allow_pickle=False) as stored:
            rows = tag_rows(stored["scores"], stored["truth"], args.shares, args.draws, args.seed)
        print(f"{file.name}\n\n{worth_text(rows)}\n")
    if args.scores:
        return 0
    scenes, run, twin = args.out / "scenes", args.out / "run", args.out / "corrected"
    if not (scenes / "train_labels.txt").is_file():
        write_scenes(scenes, args.count, SCENES, seed=args.seed)
    plain = {"masks.views.scales": (1.0,), "masks.views.flip": False, "work.mask_workers": 1}
    reader = label_folder(scenes / "JPEGImages", None, run, config="demo/masks", settings=plain)
    labels = read_labels(scenes / "train_labels.txt", reader.vocabulary, ids="index")
    if not twin.is_dir():
        shutil.copytree(run, twin)
    file = args.out / "corrections.json"
    write_corrections(corrections_of(run, labels, set(labels)), file)
    recipe = Recipe.of_run(twin)
    recipe = replace(recipe, run=replace(recipe.run, work=replace(recipe.run.work, mask_workers=1)))
    MaskRun(recipe, corrections=file).execute()
    rows = worth_rows(study(scenes, run, twin, labels), order_of_doubt(run), args.shares, args.draws, args.seed)
    print(worth_text(rows))
    (args.out / "figures.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
