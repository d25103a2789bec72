"""Published figure, measured figure, difference, verdict: as a table and as a report for an issue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagclip.text_files import parse_json
from wsss.reproduction.experiments import Figure, tolerance

COLUMNS = ("part", "figure", "published", "measured", "difference", "verdict")


@dataclass(frozen=True)
class Measured:
    """A figure beside its published one.

    Attributes:
        part: name of the part. figure: the published one.
        value: measured, in points (0..100); NaN where it could not be.
        interval: 95 % interval in points of a subset's figure; None for the whole set.
        images: how many images it is of.
        comparable: the data are the published ones, all of them.
    """

    part: str
    figure: Figure
    value: float
    images: int
    interval: tuple[float, float] | None = None
    comparable: bool = True

    @property
    def difference(self) -> float:
        """Measured minus published, in points; NaN without one of them."""
        return float("nan") if self.figure.published is None else self.value - self.figure.published

    @property
    def verdict(self) -> str:
        """pass or fail for the published data; for a subset whether its interval holds the published figure."""
        if self.figure.published is None:
            return "no published figure"
        if math.isnan(self.value):
            return "not measured"
        if not self.comparable:
            return "other data"
        if self.interval is not None:
            low, high = self.interval
            return "in the interval" if low <= self.figure.published <= high else "outside the interval"
        # Published figures have one decimal: a difference of 0.2 in them must not fail by a binary digit.
        return "pass" if abs(self.difference) <= tolerance() + 1e-9 else "fail"

    def row(self) -> tuple[str, ...]:
        """Cells of a table, see `COLUMNS`."""
        published = "-" if self.figure.published is None else f"{self.figure.published:.1f}"
        value = "-" if math.isnan(self.value) else f"{self.value:.2f}"
        if self.interval is not None and not math.isnan(self.interval[0]):
            value += f" [{self.interval[0]:.1f}, {self.interval[1]:.1f}]"
        difference = "-" if math.isnan(self.difference) else f"{self.difference:+.2f}"
        return (self.part, self.figure.name, published, value, difference, self.verdict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "part": self.part, "figure": self.figure.name, "published": self.figure.published, "measured": self.value,
            "difference": self.difference, "interval": None if self.interval is None else list(self.interval),
            "images": self.images, "verdict": self.verdict, "source": self.figure.source,
        }  # fmt: skip


def read_figure(path: Path, key: str) -> float:
    """A figure of an evaluation's JSON, in points; NaN where it is missing or null."""
    try:
        value: Any = parse_json(path.read_text(encoding="utf-8"))
        for name in key.split("."):
            value = value[name]
        return 100 * float(value)
    except (OSError, ValueError, KeyError, TypeError):
        return float("nan")


def markdown(
    title: str,
    rows: Sequence[Measured],
    *,
    problems: Sequence[str],
    commands: Sequence[str],
    versions: dict[str, str],
    model: str,
    subset: int | None,
) -> str:
    """The report, Markdown.

    Args:
        title: of the data set. problems: how the data differ from the published ones.
        commands: as they were run. model: in words. subset: images that were chosen, None for all.
    """
    lines = [f"# {title}: published and measured", "", f"Model: {model}.", ""]
    if subset is not None:
        lines += [f"A first look at {subset} images; brackets are 95 % bootstrap intervals over these images.", ""]
    if problems:
        lines += ["**The data are not the published ones, so that no figure is comparable:**", ""]
        lines += [f"- {problem}" for problem in problems] + [""]
    lines += [f"| {' | '.join(COLUMNS)} | images | source |", "|---|---|---:|---:|---:|---|---:|---|"]
    lines += [f"| {' | '.join(row.row())} | {row.images} | {row.figure.source} |" for row in rows]
    lines += ["", f"A difference of at most {tolerance()} points is a pass.", "", "## Commands", "", "```bash"]
    lines += [*commands, "```", "", "## Versions", ""]
    lines += [f"- {name} {version}" for name, version in versions.items()]
    return "\n".join(lines) + "\n"
