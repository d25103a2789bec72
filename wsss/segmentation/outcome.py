"""What a training has reached: pseudo masks beside ground truth, as table and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tagclip.errors import RunError
from wsss.evaluation.pairs import MaskPair, score_pairs
from wsss.evaluation.scorer import MaskEvaluationConfig, MaskScorer
from wsss.files.atomic import disk_errors
from wsss.files.mask_files import ignore_label
from wsss.files.sources import MaskSource
from wsss.segmentation.curves import read_curves

ITERATION = re.compile(r"iter_(\d+)\.pth$")


@dataclass
class Outcome:
    """One training.

    Attributes:
        title: what it was trained on.
        work_dir: its folder.
        checkpoint: the best one by validation mIoU, the last one without validation.
        iterations: of the last checkpoint.
        best, best_iteration, last: validation mIoU in per cent, None without validation.
        final_loss: last logged training loss.
    """

    title: str
    work_dir: str
    checkpoint: str
    iterations: int
    best: float | None = None
    best_iteration: int | None = None
    last: float | None = None
    final_loss: float | None = None

    @classmethod
    def read(cls, title: str, work_dir: Path) -> Outcome:
        """From the files of a finished training.

        Raises:
            RunError: there is no checkpoint.
        """
        last = _newest(work_dir.glob("iter_*.pth"))
        if last is None:
            raise RunError(f"{work_dir}: training left no checkpoint")
        best = _newest(work_dir.glob("best_mIoU_iter_*.pth"))
        curves = read_curves(work_dir)
        top, final = curves.best, curves.last
        return cls(
            title=title,
            work_dir=str(work_dir),
            checkpoint=str(best or last),
            iterations=_iteration(last),
            best=top[1] if top else None,
            best_iteration=top[0] if top else None,
            last=final[1] if final else None,
            final_loss=curves.loss[max(curves.loss)] if curves.loss else None,
        )


@dataclass
class Summary:
    """A call of `train_segmentor`.

    Attributes:
        config, run, val: what was asked for.
        images: number of training images.
        ignored_share: share of the training pixels that are ignored.
        masks: scores of the training masks against the ground truth, None without it.
        outcomes: the trainings: pseudo masks, self-training rounds, ground truth.
    """

    config: str
    run: str
    val: str | None
    images: int
    ignored_share: float
    masks: dict | None = None
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def checkpoint(self) -> Path:
        """Checkpoint of the last training on pseudo masks (after self-training, if there was any)."""
        return Path([outcome for outcome in self.outcomes if outcome.title != "ground truth"][-1].checkpoint)

    def ratio(self, outcome: Outcome) -> float | None:
        """Best mIoU as a share of the ground-truth training's."""
        truth = next((other for other in self.outcomes if other.title == "ground truth"), None)
        if truth is None or not truth.best or outcome.best is None:
            return None
        return outcome.best / truth.best

    def table(self) -> str:
        """For the screen."""
        lines = [f"{'trained on':<24}{'best mIoU':>10}{'at':>9}{'last mIoU':>11}{'share':>10}{'loss':>8}"]
        for outcome in self.outcomes:
            ratio = self.ratio(outcome)
            lines.append(
                f"{outcome.title:<24}{_cell(outcome.best):>10}"
                f"{'-' if outcome.best_iteration is None else outcome.best_iteration:>9}{_cell(outcome.last):>11}"
                f"{'-' if ratio is None else f'{100 * ratio:.1f} %':>10}{_cell(outcome.final_loss, 3):>8}"
            )
        lines.append(f"{self.images} images, {100 * self.ignored_share:.1f} % of their pixels ignored")
        if self.masks is not None:
            lines.append(
                f"the masks themselves, on the true masks: mIoU {100 * (self.masks['miou'] or 0):.1f}, "
                f"without ignored pixels {100 * (self.masks['miou_answered'] or 0):.1f}"
            )
        if self.val is None:
            lines.append("no --val folder, so nothing was validated and the last checkpoint is kept")
        lines.append(f"checkpoint: {self.checkpoint}")
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """`summary.json` and `summary.txt`."""
        values = asdict(self) | {"checkpoint": str(self.checkpoint)}
        for outcome, stored in zip(self.outcomes, values["outcomes"], strict=True):
            stored["share_of_ground_truth"] = self.ratio(outcome)
        with disk_errors(folder):
            (folder / "summary.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
            (folder / "summary.txt").write_text(self.table() + "\n", encoding="utf-8")


def mask_quality(source: MaskSource, truth: MaskSource, names: Sequence[str]) -> dict:
    """mIoU of the training masks against the true ones (share, not per cent)."""
    true_masks = {sample.id: sample.mask for sample in truth.samples}
    pairs = [
        MaskPair(sample.id, sample.mask, true_masks[sample.id]) for sample in source.samples if sample.id in true_masks
    ]
    scorer = MaskScorer(MaskEvaluationConfig(ignore_label(len(names)), boundary_width=0))
    failures = score_pairs(pairs, scorer)
    if failures:
        raise RunError(f"{truth.root}: {failures[0][1]} ({len(failures)} true masks cannot be compared)")
    scores = scorer.scores(names).to_dict()
    return {key: scores[key] for key in ("images", "miou", "miou_answered", "pixel_accuracy")}


def _newest(paths: Iterable[Path]) -> Path | None:
    return max(paths, key=_iteration, default=None)


def _iteration(path: Path) -> int:
    """Of a checkpoint, by its name; -1 for another file."""
    found = ITERATION.search(path.name)
    return int(found[1]) if found else -1


def _cell(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
