"""How good tag rules and calibrations are, and what false tags do to masks, on drawn scenes and the demo model.

    python -m wsss.benchmark.threshold_study --out runs/thresholds --count 80

Two sets of scenes in a style that the demo model has never seen: with 2 to 8 objects of VOC's classes, and with 1 to 3
objects of which, in every second scene, none is one of VOC's. Thresholds are found on the first half of a set and
measured on the second, except those of the published rules, which are fixed. Scores are kept in the folder, so that a
second call only takes the rules anew.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from tagclip.clip import FrozenCLIP, load_clip
from tagclip.config import TagRuleConfig
from tagclip.demo.scenes import SceneConfig, SceneRenderer
from tagclip.demo.sprites import HELD_OUT_STYLE
from tagclip.metrics import measure_tags
from tagclip.tag_files import TagRecord
from tagclip.tagger import TagCLIP
from tagclip.thresholds import select
from tagclip.vocabulary import Vocabulary
from wsss.demo.few_classes import SceneSettings, scenes
from wsss.evaluation.scorer import MaskEvaluationConfig, MaskScorer
from wsss.evaluation.threshold_calibration import CalibrationRequest, calibrate_records
from wsss.maps.class_maps import weigh_by_scores
from wsss.masks.label_map import mask_from_maps
from wsss.pipeline.recipe import dataset_settings

CROWDED = SceneConfig(side=(320, 448), objects=(2, 8), object_side=(64, 130), styles=(HELD_OUT_STYLE,))
FIXED_RULES: Mapping[str, TagRuleConfig] = {
    "relative 0.5 (published)": TagRuleConfig(floor=None, at_least_one=True),
    "relative 0.15 (demo config)": TagRuleConfig(threshold=0.15),
    "relative 0.5, allowing none": TagRuleConfig(at_least_one=False),
    "absolute 0.25": TagRuleConfig(rule="absolute", threshold=0.25),
    "absolute 0.5": TagRuleConfig(rule="absolute", threshold=0.5),
    "top 3": TagRuleConfig(rule="top_k", top_k=3),
}
LABELLED = (5, 10, 20)
POWERS = (0.0, 0.5, 1.0, 2.0)
Drawn = tuple[np.ndarray, list[int]]


@dataclass(frozen=True)
class StudyRow:
    """Figures of a rule on the second half of a set of scenes, in [0, 1].

    Attributes:
        scenes: which set. rule: its name.
        precision, recall, f1: over all pairs of images and classes. macro_f1: mean of the classes' F1.
        mean_ap: of the scores as the rule compares them, over images of one class.
        empty: share of the scenes that show no class and get no tag; NaN where all show one.
    """

    scenes: str
    rule: str
    precision: float
    recall: float
    f1: float
    macro_f1: float
    mean_ap: float
    empty: float


def crowded_scenes(classes: Sequence[str], count: int, seed: int) -> Iterator[Drawn]:
    """(image, indices of the classes in it) of scenes with 2 to 8 objects."""
    renderer = SceneRenderer(CROWDED, seed)
    for number in range(count):
        scene = renderer(number)
        there = [name for name, area in zip(scene.objects, scene.areas, strict=True) if area]
        yield scene.image, sorted(classes.index(name) for name in there)


def scored_scenes(
    clip: FrozenCLIP, vocabulary: Vocabulary, drawn: Iterable[Drawn], progress: Callable[[], object]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, C) float32 and truth (n, C) bool of scenes."""
    tagger = TagCLIP(clip, vocabulary)
    scores, truth = [], []
    for image, found in drawn:
        scores.append(tagger(image).scores)
        truth.append(np.isin(np.arange(len(vocabulary)), found))
        progress()
    return np.stack(scores), np.stack(truth)


def study_rules(name: str, scores: np.ndarray, truth: np.ndarray, vocabulary: Vocabulary) -> list[StudyRow]:
    """Every rule and calibration on a set of scenes; see the module for what is found and measured on which half."""
    half, names = len(scores) // 2, vocabulary.names
    records = [TagRecord(f"{place:05d}", (), scores=row) for place, row in enumerate(scores[:half])]
    labels = {f"{place:05d}": tuple(np.flatnonzero(row).tolist()) for place, row in enumerate(truth[:half])}
    share = float(truth[:half].mean())

    def found(request: CalibrationRequest) -> TagRuleConfig:
        return calibrate_records(records, names, request).thresholds.applied_to(TagRuleConfig()).for_classes(names)

    rules = dict(FIXED_RULES)
    rules["distribution"] = found(CalibrationRequest())
    for factor, said in ((1.0, "true"), (0.5, "half the true"), (2.0, "twice the true")):
        rules[f"prevalence, {said} share"] = found(CalibrationRequest(prevalence=min(1.0, factor * share)))
    for method in ("zscore", "class-zscore"):
        rules[method] = found(CalibrationRequest(method))
        rules[f"{method}, true share"] = found(CalibrationRequest(method, prevalence=share))
        rules[f"{method}, z > 2"] = found(CalibrationRequest(method, threshold=2.0))
    for count in LABELLED:
        few = {key: labels[key] for key in list(labels)[:count]}
        rules[f"{count} labelled images"] = found(CalibrationRequest(labels=few))
    return [_row(name, rule, config, scores[half:], truth[half:], names) for rule, config in rules.items()]


def _row(
    name: str, rule: str, config: TagRuleConfig, scores: np.ndarray, truth: np.ndarray, names: tuple[str, ...]
) -> StudyRow:
    from tagclip.thresholds import relative_scores, zscores

    chosen, ranked = select(scores, config), scores
    if config.rule == "relative":
        ranked = relative_scores(scores)
    elif config.rule == "zscore":
        ranked = zscores(scores, np.asarray(config.class_scales))
    figures = measure_tags(truth, chosen, ranked, names)
    nothing = ~truth.any(axis=1)
    empty = float((~chosen[nothing].any(axis=1)).mean()) if nothing.any() else float("nan")
    micro = figures.micro
    return StudyRow(
        name, rule, micro.precision, micro.recall, micro.f1, figures.macro.f1, float(figures.mean_ap or 0), empty
    )


@dataclass(frozen=True)
class FalseTagRow:
    """mIoU of masks, in [0, 1], with a `score_power`: of true tags, and of those with one false tag per image."""

    power: float
    true_tags: float
    with_false: float


def study_false_tags(clip: FrozenCLIP, count: int, seed: int, progress: Callable[[], object]) -> list[FalseTagRow]:
    """Score-weighted maps: masks of true tags, and with the best-scored absent class of each image as a false tag.

    Masks are those before the CRF, of the plain view alone.
    """
    recipe = dataset_settings("demo/masks")
    vocabulary, views = recipe.vocabulary, replace(recipe.masks.views, scales=(1.0,), flip=False)
    masks = replace(recipe.masks, views=views, refiner="none")
    tagger, source = recipe.tagger(clip), recipe.maps(clip)
    source.config = masks
    scorers = {
        (power, false): MaskScorer(MaskEvaluationConfig(boundary_width=0.0))
        for power in POWERS
        for false in (False, True)
    }
    renderer = SceneRenderer(replace(CROWDED, objects=(2, 4), object_side=(96, 190)), seed)
    for number in range(count):
        scene = renderer(number)
        indices = [vocabulary.index(name) for name in scene.objects]
        truth = np.zeros_like(scene.mask)
        for place, index in enumerate(indices):
            truth[scene.mask == place + 1] = index + 1
        scores = tagger(scene.image).scores
        absent = max(set(range(len(vocabulary))) - set(indices), key=lambda index: scores[index])
        trunk = source.trunk(source.prepare(scene.image)[None])
        for false in (False, True):
            chosen = sorted([*indices, absent] if false else indices)
            maps = source.maps_from_trunk(trunk, [chosen])[0]
            for power in POWERS:
                weighed = weigh_by_scores(maps, scores[chosen].tolist(), power)
                mask = mask_from_maps(scene.image, weighed.maps, chosen, masks).mask
                scorers[power, false].update(mask, truth)
        progress()
    return [
        FalseTagRow(power, *(scorers[power, false].scores(vocabulary.label_names).miou for false in (False, True)))
        for power in POWERS
    ]


def rules_text(rows: Sequence[StudyRow]) -> str:
    """As Markdown, figures in per cent."""
    lines = ["| scenes | rule | precision | recall | F1 | F1, mean of classes | mAP | empty scenes without tags |",
             "|---|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for row in rows:
        figures = (row.precision, row.recall, row.f1, row.macro_f1, row.mean_ap)
        cells = [f"{100 * value:.1f}" for value in figures] + ["-" if np.isnan(row.empty) else f"{100 * row.empty:.0f}"]
        lines.append(f"| {row.scenes} | {row.rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


def false_tags_text(rows: Sequence[FalseTagRow]) -> str:
    """As Markdown, figures in per cent."""
    lines = ["| `masks.score_power` | mIoU, true tags | mIoU, one false tag per image |", "|---:|---:|---:|"]
    lines += [f"| {row.power:g} | {100 * row.true_tags:.1f} | {100 * row.with_false:.1f} |" for row in rows]
    return "\n".join(lines)


def _kept(path: Path, make: Callable[[], tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    if path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            return stored["scores"], stored["truth"]
    scores, truth = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, scores=scores, truth=truth)
    return scores, truth


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints the tables; writes the figures as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/thresholds"), help="folder for scores and figures")
    parser.add_argument("--count", type=int, default=80, help="scenes of each set")
    parser.add_argument("--masks", type=int, default=24, help="scenes whose masks are made with false tags; 0: none")
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args(argv)
    vocabulary, clip = Vocabulary.named("voc"), load_clip("demo")
    done = 0

    def tell() -> None:
        nonlocal done
        done += 1
        if done % 10 == 0:
            print(f"{done} scenes", flush=True)

    sets: dict[str, Callable[[], Iterable[Drawn]]] = {
        "2 to 8 objects": lambda: crowded_scenes(list(vocabulary.names), args.count, args.seed),
        "half show nothing": lambda: scenes(list(vocabulary.names), SceneSettings(args.count, args.seed)),
    }
    rows: list[StudyRow] = []
    for number, (name, draw) in enumerate(sets.items()):
        file = args.out / f"scores-{number}-{args.count}-{args.seed}.npz"
        scores, truth = _kept(file, lambda draw=draw: scored_scenes(clip, vocabulary, draw(), tell))  # type: ignore[misc]
        rows += study_rules(name, scores, truth, vocabulary)
    print(rules_text(rows))
    figures = {"rules": [asdict(row) for row in rows]}
    if args.masks:
        false = study_false_tags(clip, args.masks, args.seed, tell)
        print(f"\n{false_tags_text(false)}")
        figures["false_tags"] = [asdict(row) for row in false]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
