"""Thresholds per class from the scores that a run has stored, with or without labelled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from tagclip.config import TagRuleConfig
from tagclip.errors import UsageError
from tagclip.labels import Labels, find_labels
from tagclip.tag_files import TagRecord, to_arrays
from tagclip.threshold_files import ClassThresholds, ThresholdRule
from tagclip.thresholds import (
    CalibrationConfig,
    calibrate_with_labels,
    calibrate_without_labels,
    image_zscores,
    relative_scores,
    select,
    split_threshold,
)
from wsss.files.run_files import read_manifest
from wsss.files.run_reader import RunReader

CalibrationMethod = Literal["distribution", "prevalence", "zscore", "class-zscore", "labels"]
METHODS = get_args(CalibrationMethod)
LEAST_CLASSES = 3  # of an image's scores that are scaled by their own mean and deviation; of two, one is always +0.7
Interval = tuple[float, float]


@dataclass(frozen=True)
class BootstrapConfig:
    """How sure thresholds from labels are.

    Attributes:
        rounds: labelled images are drawn anew, with replacement, this often.
        level: share of the rounds inside of an interval.
        seed: of the draws.
    """

    rounds: int = 500
    level: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class LabelFit:
    """What labelled images have said.

    Attributes:
        images: with labels. positives: of them, by class name.
        intervals: of the threshold of each class, over the rounds of the bootstrap.
        f1: over all pairs of labelled images and classes, of the thresholds found on the same images: too good.
        unseen_f1: mean over the rounds, on the images that a round had not drawn; unseen_interval: of it.
    """

    images: int
    positives: Mapping[str, int]
    intervals: Mapping[str, Interval]
    f1: float
    unseen_f1: float
    unseen_interval: Interval


@dataclass(frozen=True)
class Calibration:
    """Thresholds, and what they do.

    Attributes:
        thresholds: for a file that `tagclip tag`, `run` and `review` read.
        images: whose scores were looked at.
        before, after: images that have the tag, by class name: as the run has it, and with the thresholds.
        fit: of labelled images; None without.
    """

    thresholds: ClassThresholds
    images: int
    before: Mapping[str, int]
    after: Mapping[str, int]
    fit: LabelFit | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        fit = None
        if self.fit is not None:
            fit = {**vars(self.fit), "intervals": {name: list(pair) for name, pair in self.fit.intervals.items()}}
        own = self.thresholds
        return {
            "rule": own.rule, "thresholds": dict(own.thresholds), "notes": dict(own.notes), "images": self.images,
            "before": dict(self.before), "after": dict(self.after), "labels": fit,
        }  # fmt: skip


@dataclass(frozen=True)
class CalibrationRequest:
    """What is asked for.

    Attributes:
        method: "distribution" splits the images of each class in two by their scores (Otsu); "prevalence" takes the
            share of images that is expected to show the class; "zscore" scales scores per image and per class (SPARC,
            arXiv 2502.16911, *normalise only*), so that one threshold serves all classes; "class-zscore" scales them
            per class alone, which comes to one threshold per class on the scores themselves; "labels" takes the best F1
            on labelled images, drawn towards a common threshold where a class has few. None: "labels" where there are
            some, "prevalence" where it is given, otherwise "distribution".
        rule: "absolute" or "relative": what the thresholds of the methods that find some per class are compared with.
        prevalence: expected share of the images that show a class: one number for all classes, or by class name.
        threshold: in standard deviations, of the two z-score methods; None: from the prevalence, or else the split of
            all scaled scores in two.
        labels: true tags by image id.
        settings: bounds and shrinkage. bootstrap: how intervals are made.
    """

    method: CalibrationMethod | None = None
    rule: Literal["absolute", "relative"] = "absolute"
    prevalence: float | Mapping[str, float] | None = None
    threshold: float | None = None
    labels: Labels | None = None
    settings: CalibrationConfig = field(default_factory=CalibrationConfig)
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)

    @property
    def chosen(self) -> CalibrationMethod:
        """The method that is used."""
        if self.method is not None:
            return self.method
        if self.labels is not None:
            return "labels"
        return "distribution" if self.prevalence is None else "prevalence"


def calibrate_run(run: Path | str, request: CalibrationRequest | None = None) -> Calibration:
    """Thresholds per class from the scores of a run.

    Args:
        run: a run folder. Images that a person has rejected do not count.

    Raises:
        UsageError: no run, too few images, scores that were not all stored, no labelled image among them, or a request
            that contradicts itself.

    Example:
        >>> found = calibrate_run("runs/mine", CalibrationRequest(prevalence=0.1))  # doctest: +SKIP
        >>> Path("thresholds.yaml").write_text(found.thresholds.text())  # doctest: +SKIP
    """
    reader = RunReader(run)
    records = list(reader.records())
    found = calibrate_records(records, reader.vocabulary.names, request or CalibrationRequest())
    notes = {"run": reader.id, **found.thresholds.notes}
    return replace(found, thresholds=replace(found.thresholds, notes=notes))


def calibrate_records(
    records: Sequence[TagRecord], names: Sequence[str], request: CalibrationRequest
) -> Calibration:
    """See `calibrate_run`; of records with scores."""
    tags, scores = to_arrays(records, len(names))
    if scores is None or np.isnan(scores).any():
        raise UsageError(
            "not all scores of this run were stored (--keep-scores or --score-floor), so that nothing can be calibrated"
        )
    method, fit = request.chosen, None
    notes: dict[str, Any] = {"method": method, "images": len(scores)}
    rule: ThresholdRule = request.rule
    scales: dict[str, tuple[float, float]] = {}
    if method == "distribution":
        _refuse_prevalence(request, method)
        base = TagRuleConfig(rule=rule)
        values = np.array(calibrate_without_labels(scores, base, request.settings).class_thresholds)
    elif method == "prevalence":
        shares = _shares(request.prevalence, names)
        values = np.array([quantile_threshold(column, share) for column, share in zip(
            _read(scores, rule).T, shares, strict=True)])  # fmt: skip
        notes["prevalence"] = {name: float(share) for name, share in zip(names, shares, strict=True)}
    elif method == "labels":
        values, fit = _from_labels(records, scores, names, request)
        notes |= {"labelled_images": fit.images, "positives": dict(fit.positives)}
    else:
        rule = "zscore" if method == "zscore" else "absolute"
        base_values = scores if method == "class-zscore" else image_zscores(scores)
        if method == "zscore" and len(names) < LEAST_CLASSES:
            raise UsageError(
                f"zscore: {len(names)} classes are too few to scale an image's scores by; use class-zscore"
            )
        means, deviations = _class_scales(base_values, names)
        cut = _common_threshold((base_values - means) / deviations, names, request)
        notes["threshold"] = round(cut, 6)
        if method == "zscore":
            values = np.full(len(names), cut)
            pairs = zip(names, means.tolist(), deviations.tolist(), strict=True)
            scales = {name: (mean, deviation) for name, mean, deviation in pairs}
        else:
            values = means + cut * deviations
    found = ClassThresholds(dict(zip(names, values.tolist(), strict=True)), rule, scales, notes)
    chosen = select(scores, found.applied_to(TagRuleConfig()).for_classes(names))
    before, after = (dict(zip(names, one.sum(axis=0).tolist(), strict=True)) for one in (tags, chosen))
    return Calibration(found, len(scores), before, after, fit)


def quantile_threshold(values: np.ndarray, share: float) -> float:
    """A threshold that (about) this share of the values exceeds, halfway between two of them: (n,) -> t.

    Equal values are all above it or all below: the cut nearest to the share is taken.
    """
    ordered = np.sort(values)[::-1].astype(np.float64)
    count = len(ordered)
    cuts = [place for place in range(1, count) if ordered[place - 1] > ordered[place]]
    wanted = share * count
    best = min((0, *cuts, count), key=lambda place: (abs(place - wanted), place))
    if best == 0:
        return float(ordered[0])
    if best == count:
        return float(np.nextafter(np.float32(ordered[-1]), np.float32(-np.inf)))
    return float((ordered[best - 1] + ordered[best]) / 2)


def checked_labels(run: Path) -> Labels | None:
    """Tags of the images that a person has checked in a run; None if the folder is no run.

    Raises:
        UsageError: no image was checked.
    """
    if not run.is_dir() or read_manifest(run) is None:
        return None
    found = {
        record.id: record.indices
        for record in RunReader(run).records()
        if record.correction is not None and record.correction.state == "checked"
    }
    if not found:
        raise UsageError(f"--labels {run}: no image of this run was checked; check some in `tagclip review`")
    return found


def _read(scores: np.ndarray, rule: str) -> np.ndarray:
    """Scores as the rule compares them with a threshold."""
    if rule != "relative":
        return scores
    return relative_scores(scores, from_zero=TagRuleConfig().floor_for(scores.shape[1]) is not None)


def _refuse_prevalence(request: CalibrationRequest, method: str) -> None:
    if request.prevalence is not None:
        raise UsageError(f"--prevalence: method {method} does not use it; leave it out, or choose prevalence")


def _shares(prevalence: float | Mapping[str, float] | None, names: Sequence[str]) -> np.ndarray:
    if prevalence is None:
        raise UsageError(
            "--prevalence: needed, the share of images that show a class; or one per class, cat=0.1 dog=0.3"
        )
    if not isinstance(prevalence, Mapping):
        return np.full(len(names), float(prevalence))
    unknown = [name for name in prevalence if name not in names]
    missing = [name for name in names if name not in prevalence]
    if unknown or missing:
        problem = f"{unknown[0]!r} is not a class" if unknown else f"none of {missing[0]!r}; give one per class"
        raise UsageError(f"--prevalence: {problem}")
    return np.array([float(prevalence[name]) for name in names])


def _class_scales(values: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n - 1 in its denominator) of each class over the images, (C,) each."""
    if len(values) < LEAST_CLASSES:
        raise UsageError(f"{len(values)} images are too few for a mean and a deviation of each class")
    means, deviations = values.mean(axis=0, dtype=np.float64), values.std(axis=0, ddof=1, dtype=np.float64)
    flat = [name for name, deviation in zip(names, deviations, strict=True) if not deviation > 0]
    if flat:
        raise UsageError(f"class {flat[0]!r} has the same score in every image, so that it cannot be scaled")
    return means, deviations


def _common_threshold(values: np.ndarray, names: Sequence[str], request: CalibrationRequest) -> float:
    if request.threshold is not None:
        return request.threshold
    if request.prevalence is not None:
        return quantile_threshold(values.ravel(), float(_shares(request.prevalence, names).mean()))
    return split_threshold(values.ravel())


def _from_labels(
    records: Sequence[TagRecord], scores: np.ndarray, names: Sequence[str], request: CalibrationRequest
) -> tuple[np.ndarray, LabelFit]:
    _refuse_prevalence(request, "labels")
    if request.labels is None:
        raise UsageError("--labels: needed by method labels, true tags of some images")
    labels = request.labels
    pairs = [(row, find_labels(labels, record.id, record.path)) for row, record in enumerate(records)]
    rows = [row for row, found in pairs if found is not None]
    if not rows:
        raise UsageError(f"--labels: none of their {len(labels)} images is among the {len(records)} of the run")
    truth = np.zeros((len(rows), len(names)), bool)
    for place, row in enumerate(rows):
        truth[place, list(pairs[row][1] or ())] = True
    own, rule = scores[rows], TagRuleConfig(rule=request.rule)

    def found_on(chosen: np.ndarray) -> TagRuleConfig:
        return calibrate_with_labels(own[chosen], truth[chosen], rule, request.settings)

    everything = np.arange(len(rows))
    best = found_on(everything)
    rng = np.random.default_rng(request.bootstrap.seed)
    drawn, unseen = [], []
    for _ in range(request.bootstrap.rounds):
        chosen = rng.integers(0, len(rows), len(rows))
        if not truth[chosen].any():
            continue
        again = found_on(chosen)
        drawn.append(again.class_thresholds)
        left = np.setdiff1d(everything, chosen)
        if len(left) and truth[left].any():
            unseen.append(_f1(truth[left], select(own[left], again)))
    low, high = _interval(np.array(drawn), request.bootstrap.level)
    bounds = _interval(np.array(unseen), request.bootstrap.level) if unseen else np.full(2, np.nan)
    fit = LabelFit(
        len(rows),
        dict(zip(names, truth.sum(axis=0).tolist(), strict=True)),
        {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)},
        _f1(truth, select(own, best)),
        float(np.mean(unseen)) if unseen else float("nan"),
        (float(bounds[0]), float(bounds[1])),
    )  # fmt: skip
    return np.array(best.class_thresholds), fit


def _interval(values: np.ndarray, level: float) -> np.ndarray:
    return np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)


def _f1(truth: np.ndarray, chosen: np.ndarray) -> float:
    return float(2 * (truth & chosen).sum() / max(1, truth.sum() + chosen.sum()))
