"""What a comparison of strategies found, as a page, a table and a chart."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wsss.evaluation.scorer import MaskScores

CHARACTERS_PER_INCH = 11  # of a title of 10 points


@dataclass(frozen=True)
class Row:
    """One combination of a strategy and a vocabulary.

    Attributes:
        miou, pixel_accuracy: in [0, 1].
        seconds: per image by itself, relative: to clip under the same vocabulary; NaN where it was not timed.
        classes: IoU by name, NaN for classes that occur nowhere.
        background, true_background: shares of the pixels that are called background, and that are; NaN without one.
    """

    strategy: str
    vocabulary: str
    miou: float
    pixel_accuracy: float
    seconds: float
    relative: float
    classes: Mapping[str, float] = field(default_factory=dict)
    background: float = float("nan")
    true_background: float = float("nan")

    @classmethod
    def of(
        cls, strategy: str, vocabulary: str, scores: MaskScores, seconds: float, relative: float, has_background: bool
    ) -> Row:
        """The row of a combination's scores."""
        true, predicted = scores.shares if has_background else (np.full(1, np.nan), np.full(1, np.nan))
        classes = dict(zip(scores.names, scores.iou.tolist(), strict=True))
        return cls(
            strategy, vocabulary, scores.miou, scores.pixel_accuracy, seconds, relative, classes, float(predicted[0]),
            float(true[0]),
        )  # fmt: skip


def to_csv(rows: Sequence[Row]) -> str:
    """One line per combination: mIoU, accuracy, share of background and each class's IoU in per cent, and times."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = list(rows[0].classes) if rows else []
    writer.writerow(["strategy", "vocabulary", "miou", "pixel_accuracy", "seconds_per_image", "time_relative_to_clip",
                     "background_share", "true_background_share", *(f"iou_{name}" for name in classes)])  # fmt: skip
    for row in rows:
        shares = (row.background, row.true_background, *(row.classes[name] for name in classes))
        writer.writerow([row.strategy, row.vocabulary, f"{100 * row.miou:.2f}", f"{100 * row.pixel_accuracy:.2f}",
                         f"{row.seconds:.4f}", f"{row.relative:.3f}",
                         *(f"{100 * share:.2f}" for share in shares)])  # fmt: skip
    return text.getvalue()


def to_markdown(rows: Sequence[Row], caption: str) -> str:
    """A page: mIoU and times by strategy and vocabulary, the share of background, and a table of classes each."""
    vocabularies = list(dict.fromkeys(row.vocabulary for row in rows))
    lines = [
        caption,
        "",
        "`tagclip evaluate dense` takes these settings from its config, by default others (sliding windows, a short "
        "side, a pixel threshold): figures compare only under equal settings.",
        "",
    ]  # fmt: skip
    columns: list[tuple[str, Callable[[Row], str]]] = [("mIoU", lambda row: _percent(row.miou))]
    if any(not np.isnan(row.seconds) for row in rows):
        columns.append(("time", _time))
    lines += _table(rows, columns)
    if len(columns) > 1:
        brackets = any(not np.isnan(row.relative) for row in rows)
        relative = ", and in brackets relative to clip with the same vocabulary" if brackets else ""
        lines += ["", f"Time: milliseconds per image, each combination by itself{relative}."]
    if any(not np.isnan(row.background) for row in rows):
        true = _percent(rows[0].true_background)
        lines += ["", f"Share of the pixels called background, in per cent ({true} are):", ""]
        lines += _table(rows, [("background", lambda row: _percent(row.background))])
    for vocabulary in vocabularies:
        found = [row for row in rows if row.vocabulary == vocabulary and row.classes]
        if found:
            lines += ["", f"IoU per class, vocabulary {vocabulary}, in per cent (-: in no image):", ""]
            lines += _class_table(found)
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row], columns: Sequence[tuple[str, Callable[[Row], str]]]) -> list[str]:
    """One line per strategy, each column once per vocabulary."""
    vocabularies = list(dict.fromkeys(row.vocabulary for row in rows))
    by_key = {(row.strategy, row.vocabulary): row for row in rows}
    head = ["strategy", *(f"{name}, {vocabulary}" for name, _ in columns for vocabulary in vocabularies)]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for strategy in dict.fromkeys(row.strategy for row in rows):
        cells = [cell(by_key[strategy, vocabulary]) for _, cell in columns for vocabulary in vocabularies]
        lines.append(f"| {strategy} | {' | '.join(cells)} |")
    return lines


def _class_table(rows: Sequence[Row]) -> list[str]:
    """One line per class, one column per strategy."""
    lines = [f"| class | {' | '.join(row.strategy for row in rows)} |", f"|---|{'---:|' * len(rows)}"]
    lines += [f"| {name} | {' | '.join(_percent(row.classes[name]) for row in rows)} |" for name in rows[0].classes]
    return lines


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.1f}"


def _time(row: Row) -> str:
    if np.isnan(row.seconds):
        return "-"
    relative = "" if np.isnan(row.relative) else f" ({row.relative:.2f})"
    return f"{1000 * row.seconds:.0f}{relative}"


def draw_bars(rows: Sequence[Row], path: Path, title: str) -> None:
    """Bar chart of mIoU, one group per strategy, one colour per vocabulary; a long title takes several lines."""
    from matplotlib.figure import Figure

    strategies = list(dict.fromkeys(row.strategy for row in rows))
    vocabularies = list(dict.fromkeys(row.vocabulary for row in rows))
    inches = 2.4 + 1.1 * len(strategies)
    figure = Figure(figsize=(inches, 4.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(vocabularies)
    for place, vocabulary in enumerate(vocabularies):
        heights = [100 * row.miou for row in rows if row.vocabulary == vocabulary]
        bars = axes.bar([i + (place + 0.5) * width - 0.4 for i in range(len(strategies))], heights, width,
                        label=vocabulary)  # fmt: skip
        axes.bar_label(bars, fmt="%.0f", fontsize=7)
    axes.set_xticks(range(len(strategies)), strategies, rotation=25, ha="right")
    axes.set_ylabel("mIoU (%)")
    figure.suptitle(textwrap.fill(title, int(inches * CHARACTERS_PER_INCH)), fontsize=10)
    axes.legend(title="vocabulary", loc="upper left", bbox_to_anchor=(1, 1))  # beside the bars, never over one
    figure.savefig(path, dpi=120)
