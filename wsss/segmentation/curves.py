"""Scalars of a training run, read back from mmengine's logs and drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tagclip.text_files import parse_json


@dataclass(frozen=True)
class Curves:
    """Values by iteration.

    Attributes:
        loss: total training loss as logged (a running mean over the logging interval).
        learning_rate: of the first parameter group.
        miou: validation mIoU in per cent.
    """

    loss: dict[int, float] = field(default_factory=dict)
    learning_rate: dict[int, float] = field(default_factory=dict)
    miou: dict[int, float] = field(default_factory=dict)

    @property
    def best(self) -> tuple[int, float] | None:
        """Iteration and value of the highest mIoU, the first of equals."""
        return max(self.miou.items(), key=lambda point: (point[1], -point[0])) if self.miou else None

    @property
    def last(self) -> tuple[int, float] | None:
        """Iteration and mIoU of the last validation."""
        return (max(self.miou), self.miou[max(self.miou)]) if self.miou else None


def read_curves(work_dir: Path) -> Curves:
    """Scalars of every start of a run, so that a resumed run has one unbroken curve.

    Args:
        work_dir: mmengine's work folder; each start has its own `<time>/vis_data/scalars.json` in it.
    """
    curves = Curves()
    for row in read_scalars(work_dir):
        step = int(row.get("step", 0))
        if "loss" in row:
            curves.loss[step] = float(row["loss"])
            curves.learning_rate[step] = float(row.get("lr", float("nan")))
        if "mIoU" in row:
            curves.miou[step] = float(row["mIoU"])
    return curves


def read_scalars(work_dir: Path) -> Iterator[dict[str, Any]]:
    """What every start of a run has logged, in the order of the starts; see `read_curves`."""
    for path in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield parse_json(line)
            except ValueError:
                continue  # the last line of a killed run may be cut off


def draw_curves(curves: Curves, path: Path) -> None:
    """Writes a PNG: the loss on the left axis, validation mIoU on the right."""
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot()
    steps = sorted(curves.loss)
    left.plot(steps, [curves.loss[step] for step in steps], color="tab:blue", linewidth=1.2)
    left.set_xlabel("iteration")
    left.set_ylabel("training loss", color="tab:blue")
    left.set_ylim(bottom=0)
    left.grid(alpha=0.3)
    if curves.best is not None:
        right = left.twinx()
        steps = sorted(curves.miou)
        right.plot(steps, [curves.miou[step] for step in steps], color="tab:orange", marker="o", markersize=4)
        right.set_ylabel("validation mIoU (%)", color="tab:orange")
        step, value = curves.best
        right.annotate(f"best {value:.1f}", (step, value), textcoords="offset points", xytext=(0, 6), ha="center")
        right.set_ylim(0, max(5.0, 1.2 * value))
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary)
    temporary.replace(path)
