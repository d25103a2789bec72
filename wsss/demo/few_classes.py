"""Tag rules on short class lists, on demo scenes of which half show none of the classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tagclip.clip import FrozenCLIP
from tagclip.config import TagRuleConfig
from tagclip.demo.scenes import SceneConfig, SceneRenderer
from tagclip.demo.sprites import HELD_OUT_STYLE, DemoNames, demo_names
from tagclip.errors import UsageError
from tagclip.metrics import measure_tags
from tagclip.tagger import TagCLIP
from tagclip.thresholds import select
from tagclip.vocabulary import Vocabulary

LISTS: tuple[tuple[str, ...], ...] = (
    ("dog",),
    ("cat", "bus"),
    ("bird", "car", "bottle"),
    ("horse", "boat", "person", "chair", "train"),
    Vocabulary.named("voc").names,
)
RULES: Mapping[str, TagRuleConfig] = {
    "published (relative)": TagRuleConfig(at_least_one=True, floor=None),
    "default": TagRuleConfig(),
    "relative, allowing none": TagRuleConfig(at_least_one=False),
    "relative, floor 0.1": TagRuleConfig(floor=0.1),
    "relative, floor 0.5": TagRuleConfig(floor=0.5),
    "absolute 0.25": TagRuleConfig(rule="absolute", threshold=0.25),
}


@dataclass(frozen=True)
class SceneSettings:
    """Which scenes.

    Attributes:
        count: scenes per list; every second shows none of its classes.
        seed: of the scenes.
        styles: of the sprites; the demo model never saw the default one.
    """

    count: int = 60
    seed: int = 0
    styles: tuple[str, ...] = (HELD_OUT_STYLE,)

    def __post_init__(self) -> None:
        if self.count < 2:
            raise UsageError(f"count {self.count}: at least one scene with and one without the classes are needed")


@dataclass(frozen=True)
class RuleRow:
    """How a rule does on one list.

    Attributes:
        classes: length of the list. rule: its name.
        precision: share of the scenes without tags that show no class; NaN if all have tags.
        recall: share of the scenes without a class that get no tag.
        f1: micro F1 of the tags of all scenes.
    """

    classes: int
    rule: str
    precision: float
    recall: float
    f1: float


def scenes(classes: Sequence[str], settings: SceneSettings) -> Iterator[tuple[np.ndarray, list[int]]]:
    """(image, indices of the classes in it) of each scene: with a class, without, with, ...

    One to three objects per scene: half of them of the list where a class is wanted, else all of other kinds.
    """
    known = demo_names()
    listed = DemoNames(tuple(replace(one, voc=one.name in classes) for one in known.objects), known.backgrounds)
    look = SceneConfig(side=(224, 320), objects=(1, 3), object_side=(80, 160), styles=settings.styles)
    renderers = [
        SceneRenderer(replace(look, voc_share=share), settings.seed + place, listed)
        for place, share in enumerate((0.5, 0.0))
    ]
    numbers = [0, 0]
    for place in range(settings.count):
        wanted = place % 2 == 0
        while True:
            scene = renderers[place % 2](numbers[place % 2])
            numbers[place % 2] += 1
            there = [name for name, area in zip(scene.objects, scene.areas, strict=True) if area]
            found = sorted(classes.index(name) for name in there if name in classes)
            if bool(found) == wanted:
                yield scene.image, found
                break


def measure(
    clip: FrozenCLIP,
    settings: SceneSettings,
    *,
    lists: Sequence[Sequence[str]] = LISTS,
    rules: Mapping[str, TagRuleConfig] = RULES,
    progress: Callable[[int], object] = lambda done: None,
) -> list[RuleRow]:
    """Every rule on every list; the scores of an image are made once.

    Args:
        clip: the model; only the demo's knows such scenes.
        settings: which scenes.
        lists: class names.
        rules: by name.
        progress: called with 1 after each scene.
    """
    rows = []
    for classes in lists:
        tagger = TagCLIP(clip, Vocabulary(classes))
        scores, truth = [], np.zeros((settings.count, len(classes)), bool)
        for place, (image, found) in enumerate(scenes(list(classes), settings)):
            scores.append(tagger([image])[0].scores)
            truth[place, found] = True
            progress(1)
        table = np.stack(scores)
        rows += [rule_row(name, select(table, rule), truth, table, tuple(classes)) for name, rule in rules.items()]
    return rows


def rule_row(
    name: str, chosen: np.ndarray, truth: np.ndarray, scores: np.ndarray, classes: tuple[str, ...]
) -> RuleRow:
    """The figures of a rule whose tags, (n, C) bool, are `chosen`."""
    said, nothing = ~chosen.any(axis=1), ~truth.any(axis=1)
    right = int((said & nothing).sum())
    precision = right / said.sum() if said.any() else float("nan")
    f1 = measure_tags(truth, chosen, scores, classes).micro.f1
    return RuleRow(len(classes), name, float(precision), float(right / nothing.sum()), f1)


def rules_table(rows: Sequence[RuleRow]) -> str:
    """The table as Markdown, figures in per cent."""
    lines = ["| classes | rule | \"nothing here\": precision | recall | micro F1 |", "|---:|---|---:|---:|---:|"]
    for row in rows:
        precision = "-" if np.isnan(row.precision) else f"{100 * row.precision:.0f}"
        lines.append(f"| {row.classes} | {row.rule} | {precision} | {100 * row.recall:.0f} | {100 * row.f1:.1f} |")
    return "\n".join(lines)
