"""From scores to tags: the paper's relative rule and others, and thresholds calibrated on data."""

from dataclasses import dataclass, replace

import numpy as np

from tagclip.config import TagRuleConfig
from tagclip.errors import UsageError


@dataclass(frozen=True)
class CalibrationConfig:
    """Bounds of calibrated thresholds (ours, not from the paper).

    Attributes:
        floor, ceiling: thresholds found without labels are kept in this range; the ceiling is the paper's t.
        prior: with labels, the number of positive images at which a class's own best threshold and the best common
            one weigh the same.
        min_images: images needed for a calibration.
    """

    floor: float = 0.2
    ceiling: float = 0.5
    prior: float = 5.0
    min_images: int = 2

    def __post_init__(self) -> None:
        if not self.floor <= self.ceiling:
            raise UsageError(f"calibration floor {self.floor} is above its ceiling {self.ceiling}")


def relative_scores(scores: np.ndarray, from_zero: bool = False) -> np.ndarray:
    """Each image's scores as (s - min) / (max - min): (n, C) -> (n, C) in [0, 1]; an image of equal scores gives 0.

    Args:
        from_zero: 0 takes the place of the minimum, as in a rule with a floor.
    """
    low = _lowest(scores, from_zero)
    span = scores.max(axis=1, keepdims=True) - low
    return np.where(span > 0, (scores - low) / np.where(span > 0, span, 1), 0)


def _lowest(scores: np.ndarray, from_zero: bool) -> np.ndarray:
    """Where the range of each image's scores begins, (n, 1)."""
    return np.zeros((len(scores), 1), scores.dtype) if from_zero else scores.min(axis=1, keepdims=True)


def select(scores: np.ndarray, config: TagRuleConfig) -> np.ndarray:
    """Which classes become tags.

    Args:
        scores: (n, C) float.
        config: the rule; "relative" is s_c > min(s) + t (max(s) - min(s)) (TagCLIP, section 1 step 6 of our
            specification), "absolute" s_c > t, "top_k" the k highest, the lower index first among equals, "zscore"
            z_c > t of `zscores`. Then the floor and `at_least_one`, see `TagRuleConfig`.

    Returns:
        (n, C) bool; an image may have none.

    Raises:
        UsageError: class_thresholds or class_scales of another length than C, or by name (see
            `TagRuleConfig.for_classes`).
    """
    scores = np.asarray(scores)
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise UsageError(f"scores of shape {scores.shape}: expected (images, classes)")
    classes = scores.shape[1]
    floor = config.floor_for(classes)
    ranking = scores
    if config.rule == "top_k":
        ranked = np.argsort(-scores, axis=1, kind="stable")[:, : config.top_k]
        chosen = np.zeros(scores.shape, dtype=bool)
        np.put_along_axis(chosen, ranked, True, axis=1)
    else:
        threshold = _thresholds(config, classes)
        if config.rule == "relative":
            low = _lowest(scores, floor is not None)
            chosen = scores > low + threshold * (scores.max(axis=1, keepdims=True) - low)
        elif config.rule == "zscore":
            ranking = zscores(scores, _scales(config, classes))
            chosen = ranking > threshold
        else:
            chosen = scores > threshold
    if floor is not None:
        chosen &= scores > np.float32(floor)
    if config.keeps_best(classes):
        empty = ~chosen.any(axis=1)
        chosen[empty, ranking[empty].argmax(axis=1)] = True
    return chosen


def tag_margins(scores: np.ndarray, config: TagRuleConfig) -> np.ndarray:
    """How far each image is from other tags: the distance of that score which is nearest to where its tag changes.

    That is where a score exceeds its threshold and the floor, and with "top_k" the scores beside the last tag. An only
    tag that stays one for want of others (`at_least_one`) counts with its lead.

    Args:
        scores: (n, C) float. config: see `select`.

    Returns:
        (n,) float64, 0 or more, in the unit of the scores; infinite where no score decides anything, as when "top_k"
        takes all classes.

    Raises:
        UsageError: see `select`.
    """
    values = np.asarray(scores, dtype=np.float64)
    tags, classes, ranking, unit = select(scores, config), values.shape[1], values, np.ones(1)
    floor = config.floor_for(classes)
    least = np.full(values.shape, -np.inf if floor is None else floor)  # that a score must exceed to be a tag
    if config.rule == "top_k":
        ranked = np.sort(values, axis=1)[:, ::-1]
        if config.top_k < classes:
            inside, outside = ranked[:, config.top_k - 1 : config.top_k], ranked[:, config.top_k : config.top_k + 1]
            among = np.argsort(np.argsort(-values, axis=1, kind="stable"), axis=1) < config.top_k
            least = np.maximum(least, np.where(among, outside, inside))
    elif config.rule == "relative":
        low = _lowest(values, floor is not None)
        least = np.maximum(least, low + _thresholds(config, classes) * (values.max(axis=1, keepdims=True) - low))
    elif config.rule == "zscore":
        scales = _scales(config, classes)
        spread = values.std(axis=1, ddof=1, keepdims=True) if classes > 1 else np.zeros((len(values), 1))
        wanted = _thresholds(config, classes) * scales[:, 1] + scales[:, 0]
        least = np.maximum(least, values.mean(axis=1, keepdims=True) + spread * wanted)
        ranking, unit = zscores(values, scales), spread[:, 0] * scales[:, 1].min()
    else:
        least = np.maximum(least, _thresholds(config, classes))
    distances = np.abs(values - least)
    if config.keeps_best(classes):  # the only tag stays one, whatever it scores, as long as it is the best
        rows, best = np.arange(len(values)), ranking.argmax(axis=1)
        alone = (tags.sum(axis=1) == 1) & tags[rows, best]
        ranked = np.sort(ranking, axis=1)
        lead = (ranked[:, -1] - ranked[:, -2]) * unit if classes > 1 else np.full(len(values), np.inf)
        above = np.maximum((values - least)[rows, best], 0)
        distances[rows, best] = np.where(alone, np.maximum(above, lead), distances[rows, best])
    return distances.min(axis=1)


def image_zscores(scores: np.ndarray) -> np.ndarray:
    """Each image's scores less their mean, over their standard deviation (n - 1 in its denominator): (n, C) float64.

    The first step of SPARC (arXiv 2502.16911). An image of equal scores, or with a single class, gives 0.
    """
    scores = np.asarray(scores, dtype=np.float64)
    spread = scores.std(axis=1, ddof=1, keepdims=True) if scores.shape[1] > 1 else np.zeros((len(scores), 1))
    return (scores - scores.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, np.inf)


def zscores(scores: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Both steps of SPARC's normalisation (arXiv 2502.16911): per image, then per class.

    Args:
        scores: (n, C).
        scales: mean and standard deviation of each class over a collection of `image_zscores`, (C, 2).

    Returns:
        (n, C) float64.
    """
    return (image_zscores(scores) - scales[:, 0]) / scales[:, 1]


def _scales(config: TagRuleConfig, classes: int) -> np.ndarray:
    if isinstance(config.class_scales, dict):
        raise UsageError("class_scales by name: bring them into the order of the classes with rule.for_classes")
    if len(config.class_scales) != classes:
        raise UsageError(f"{len(config.class_scales)} class scales for {classes} classes")
    return np.asarray(config.class_scales, dtype=np.float64)


def _thresholds(config: TagRuleConfig, classes: int) -> np.ndarray:
    """t, () or (C,) float32."""
    if isinstance(config.class_thresholds, dict):
        raise UsageError("class_thresholds by name: bring them into the order of the classes with rule.for_classes")
    if config.class_thresholds and len(config.class_thresholds) != classes:
        raise UsageError(f"{len(config.class_thresholds)} class thresholds for {classes} classes")
    return np.asarray(config.class_thresholds or config.threshold, dtype=np.float32)


def calibrate_without_labels(
    scores: np.ndarray, rule: TagRuleConfig, config: CalibrationConfig | None = None
) -> TagRuleConfig:
    """One threshold a class from the distribution of its scores over a data set, no labels needed.

    Otsu's criterion: the threshold halfway between the two groups of images that differ most in the class's score,
    kept between `floor` and `ceiling`. Classes whose present images score low in every image (small objects) get a
    lower threshold than the common one, which is where the recall is lost.

    Args:
        scores: (n, C) over the data set.
        rule: "relative" or "absolute"; thresholds are found on the scores as that rule reads them.

    Returns:
        `rule` with class_thresholds.

    Raises:
        UsageError: too few images, or the rule "top_k".
    """
    config = config or CalibrationConfig()
    values = _as_read(scores, rule, config)
    thresholds = np.array([split_threshold(values[:, place]) for place in range(values.shape[1])])
    return _with_thresholds(rule, thresholds.clip(config.floor, config.ceiling))


def split_threshold(values: np.ndarray) -> float:
    """Otsu's criterion: halfway between the two groups of values that differ most, (n,) -> t, n >= 2."""
    values = np.sort(np.asarray(values, dtype=np.float64))
    count = len(values)
    below = np.arange(1, count)
    sums = values.cumsum()
    mean_low, mean_high = sums[:-1] / below, (sums[-1] - sums[:-1]) / (count - below)
    split = int((below * (count - below) * (mean_high - mean_low) ** 2).argmax())
    return float((values[split] + values[split + 1]) / 2)


def calibrate_with_labels(
    scores: np.ndarray, labels: np.ndarray, rule: TagRuleConfig, config: CalibrationConfig | None = None
) -> TagRuleConfig:
    """One threshold a class from a few labelled images: the best F1 of the class, drawn towards the best common one.

    With p positive images, a class's threshold is (p own + prior common) / (p + prior): without positives the common
    threshold, which maximises micro-F1, is used as it is.

    Args:
        scores: (n, C).
        labels: (n, C) bool.
        rule: "relative" or "absolute"; thresholds are found on the scores as that rule reads them.

    Returns:
        `rule` with class_thresholds.

    Raises:
        UsageError: shapes that differ, no positive label, too few images, or the rule "top_k".
    """
    config = config or CalibrationConfig()
    values, labels = _as_read(scores, rule, config), np.asarray(labels, dtype=bool)
    if labels.shape != values.shape:
        raise UsageError(f"labels of shape {labels.shape} for scores of shape {values.shape}")
    if not labels.any():
        raise UsageError("no positive label among the images given for calibration")
    common = best_threshold(values.ravel(), labels.ravel())
    positives = labels.sum(axis=0)
    own = [best_threshold(values[:, c], labels[:, c]) if positives[c] else common for c in range(values.shape[1])]
    weight = positives / np.maximum(positives + config.prior, 1e-12)
    return _with_thresholds(rule, common + weight * (np.array(own) - common))


def best_threshold(values: np.ndarray, labels: np.ndarray) -> float:
    """The t whose rule `value > t` has the highest F1, halfway between two neighbouring values: (n,), (n,) bool."""
    order = np.argsort(-values, kind="stable")
    values, hits = values[order], labels[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(values) + 1) + hits[-1])
    # A cut between equal values is no cut.
    f1[:-1][values[:-1] == values[1:]] = -1
    last = int(f1.argmax())
    lower = values[last + 1] if last + 1 < len(values) else values[last] - 1
    return float((values[last] + lower) / 2)


def _as_read(scores: np.ndarray, rule: TagRuleConfig, config: CalibrationConfig) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if rule.rule == "top_k":
        raise UsageError("the rule 'top_k' has no threshold to calibrate: use 'relative' or 'absolute'")
    if scores.ndim != 2 or len(scores) < config.min_images:
        raise UsageError(f"scores of shape {scores.shape}: a calibration needs at least {config.min_images} images")
    if rule.rule != "relative":
        return scores
    return relative_scores(scores, from_zero=rule.floor_for(scores.shape[1]) is not None)


def _with_thresholds(rule: TagRuleConfig, thresholds: np.ndarray) -> TagRuleConfig:
    return replace(rule, class_thresholds=tuple(float(value) for value in thresholds))
