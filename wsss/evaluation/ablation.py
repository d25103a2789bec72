"""The ablation table of TagCLIP on labelled images: what each part of the method adds, and what calibration does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from tagclip.image_lists import ImageFile
from tagclip.labels import Labels, find_labels
from tagclip.metrics import TagMetrics, measure_tags
from tagclip.tagger import TagCLIP
from tagclip.thresholds import calibrate_without_labels, select


@dataclass(frozen=True)
class AblationRow:
    """One row: what the scores or the rule are, and its figures."""

    name: str
    metrics: TagMetrics

    def to_dict(self) -> dict:
        return {"name": self.name, "mAP": self.metrics.mean_ap, **asdict(self.metrics.micro)}


def ablate_tags(
    tagger: TagCLIP,
    files: Sequence[ImageFile],
    labels: Labels,
    *,
    chunk: int = 32,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[AblationRow]:
    """Scores every row of the ablation on the labelled files.

    Args:
        tagger: the method; its rule turns every row's scores into tags.
        files: images; those without a label are left out.
        labels: image id -> class indices. chunk: images read at a time. progress: wraps the chunks.

    Returns:
        CLIP's global answer, patch scores, + DMAR, + CWR, then the last one's scores under thresholds calibrated per
        class without labels.
    """
    found = [(file, find_labels(labels, file.id, str(file.path))) for file in files]
    labelled = [(file, classes) for file, classes in found if classes is not None]
    files = [file for file, _ in labelled]
    truth = np.zeros((len(files), len(tagger.vocabulary)), bool)
    for row, (_, classes) in enumerate(labelled):
        truth[row, list(classes)] = True
    parts: dict[str, list[np.ndarray]] = {}
    for start in progress(range(0, len(files), chunk)):
        for name, scores in tagger.ablation([file.path for file in files[start : start + chunk]]).items():
            parts.setdefault(name, []).append(scores)
    names, rule = tagger.vocabulary.names, tagger.config.rule
    table = {name: np.concatenate(scores) for name, scores in parts.items()}
    rows = [
        AblationRow(name, measure_tags(truth, select(scores, rule), scores, names)) for name, scores in table.items()
    ]
    last = next(reversed(table.values()))
    calibrated = select(last, calibrate_without_labels(last, rule))
    return [*rows, AblationRow("+ thresholds per class", measure_tags(truth, calibrated, last, names))]


def ablation_table(rows: Sequence[AblationRow]) -> str:
    """The table as Markdown, figures in percent."""
    lines = ["| scores | mAP | P | R | micro-F1 |", "|---|---|---|---|---|"]
    for row in rows:
        micro = row.metrics.micro
        mean_ap = row.metrics.mean_ap if row.metrics.mean_ap is not None else float("nan")
        figures = (mean_ap, micro.precision, micro.recall, micro.f1)
        lines.append(f"| {row.name} | " + " | ".join(f"{100 * value:.1f}" for value in figures) + " |")
    return "\n".join(lines)
