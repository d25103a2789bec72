"""Files of class thresholds, by class name: written by hand or by `tagclip calibrate`, read before a model loads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

from tagclip.config import TagRuleConfig
from tagclip.errors import UsageError, VocabularyError
from tagclip.text_files import read_text
from tagclip.vocabulary_files import Node, class_name, file_tree

ThresholdRule = Literal["relative", "absolute", "zscore"]
THRESHOLD_RULES = get_args(ThresholdRule)


@dataclass(frozen=True)
class ClassThresholds:
    """What a file of thresholds says.

    Attributes:
        thresholds: class name -> t.
        rule: that the thresholds are for: "relative", "absolute" or "zscore"; None: whatever rule a run has.
        scales: of the rule "zscore": class name -> (mean, standard deviation), see `TagRuleConfig.class_scales`.
        notes: how they were found, for the reader; they change nothing.
    """

    thresholds: Mapping[str, float]
    rule: ThresholdRule | None = None
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    def applied_to(self, rule: TagRuleConfig) -> TagRuleConfig:
        """A run's rule with these thresholds in place of its class thresholds, and with their rule where they name one.

        Raises:
            UsageError: the run's rule is "top_k", and the file names none.
        """
        if self.rule is None and rule.rule == "top_k":
            raise UsageError("class thresholds: rule 'top_k' has none; choose --tag-rule relative or absolute")
        kind = rule.rule if self.rule is None else self.rule
        return replace(rule, rule=kind, class_thresholds=dict(self.thresholds), class_scales=dict(self.scales))

    def text(self) -> str:
        """As YAML, which `read_thresholds` reads."""
        values: dict[str, Any] = {} if self.rule is None else {"rule": self.rule}
        values |= self.notes
        values["thresholds"] = {name: float(value) for name, value in self.thresholds.items()}
        if self.scales:
            values["scales"] = {name: [float(mean), float(sd)] for name, (mean, sd) in self.scales.items()}
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


def read_thresholds(path: Path | str, classes: Sequence[str] | None = None) -> ClassThresholds:
    """Reads a file of class thresholds, YAML or JSON.

    It is a mapping from class to number, `cat: 0.3`, or has that mapping under `thresholds`, beside `rule` and `scales`
    as `tagclip calibrate` writes them; other keys are left alone, so that a class file with `thresholds` works, too.
    Classes that are not named keep the threshold of all.

    Args:
        classes: of the run; None leaves the names unchecked.

    Raises:
        UsageError: no such file, not a mapping, an unknown class or rule, a class twice, or a value that is no finite
            number; file, place and remedy are named.
    """
    path = Path(path)
    source = f"class thresholds {path}"
    try:
        root = file_tree(read_text(path, "class thresholds"), path.suffix.lower(), source)
    except VocabularyError as error:
        raise UsageError(str(error)) from None
    if not root.is_map:
        raise UsageError(f"{source}: not thresholds by class name; write one line per class, `cat: 0.3`")
    keys = root.pairs
    if "thresholds" not in keys or not keys["thresholds"].is_map:
        return ClassThresholds(_numbers(root, source, classes))
    rule = keys["rule"].value if "rule" in keys else None
    if rule is not None and rule not in THRESHOLD_RULES:
        raise UsageError(f"{source}: rule {rule!r:.60} is not one of {', '.join(THRESHOLD_RULES)}")
    scales = _scales_of(keys["scales"], source, classes) if "scales" in keys else {}
    if (rule == "zscore") != bool(scales):
        raise UsageError(f"{source}: `rule: zscore` and `scales` need each other; `tagclip calibrate` writes both")
    notes = {
        key: node.plain() for key, node in keys.items() if key not in ("thresholds", "rule", "scales", "classes")
    }
    thresholds = _numbers(keys["thresholds"], source, classes)
    return ClassThresholds(thresholds, cast("ThresholdRule | None", rule), scales, notes)


def _numbers(node: Node, source: str, classes: Sequence[str] | None) -> dict[str, float]:
    found = _by_class(node, source, classes)
    return {name: _number(value, f"{source}: the threshold of {name!r}") for name, value in found.items()}


def _scales_of(node: Node, source: str, classes: Sequence[str] | None) -> dict[str, tuple[float, float]]:
    found = {}
    for name, pair in _by_class(node, source, classes).items():
        if len(pair.items) != 2:
            raise UsageError(f"{source}: the scale of {name!r} is not [mean, standard deviation]")
        mean, deviation = (_number(value, f"{source}: the scale of {name!r}") for value in pair.items)
        if deviation <= 0:
            raise UsageError(f"{source}: the scale of {name!r}: standard deviation {deviation} is not above 0")
        found[name] = (mean, deviation)
    return found


def _by_class(node: Node, source: str, classes: Sequence[str] | None) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for key, value in node.value if node.is_map else []:
        if not key.is_text:
            raise UsageError(f"{source}, {key.place}: not a class name")
        name = class_name(key.value)
        if name in found:
            raise UsageError(f"{source}, {key.place}: {name!r} is there twice; remove one")
        if classes is not None and name not in classes:
            near = get_close_matches(name, classes, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the {len(classes)} classes begin with {classes[0]!r}"
            raise UsageError(f"{source}, {key.place}: {name!r} is not a class; {hint}")
        found[name] = value
    if not found:
        raise UsageError(f"{source}: no threshold in it; write one line per class, `cat: 0.3`")
    return found


def _number(node: Node, what: str) -> float:
    try:
        value = float(node.value)
    except (TypeError, ValueError):
        raise UsageError(f"{what} is not a number, in {node.place}") from None
    if not math.isfinite(value):
        raise UsageError(f"{what} is {node.value}, in {node.place}; give a finite number")
    return value
