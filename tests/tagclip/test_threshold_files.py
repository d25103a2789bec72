"""Thresholds by class name: read, checked, and applied to a rule."""

import pytest

from tagclip.config import TagRuleConfig
from tagclip.errors import TagclipError, UsageError
from tagclip.threshold_files import ClassThresholds, read_thresholds
from tagclip.vocabulary import Vocabulary

CLASSES = ("cat", "no", "fire truck", "1")


def file(tmp_path, text, name="t.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.yaml", "cat: 0.3\nno: 1\nfire  truck: 2e-1\n1: .5\n"),
        ("t.json", '{"cat": 0.3, "no": 1, "fire truck": 0.2, "1": 0.5}'),
        ("t.yml", "thresholds: {cat: 0.3, no: 1, fire truck: 0.2, 1: 0.5}\nclasses: [a, b]\n"),
    ],
)
def test_thresholds_by_name(tmp_path, name, text):
    found = read_thresholds(file(tmp_path, text, name), CLASSES)
    assert found.thresholds == {"cat": 0.3, "no": 1.0, "fire truck": 0.2, "1": 0.5}
    assert found.rule is None
    rule = found.applied_to(TagRuleConfig(class_thresholds={"cat": 0.9})).for_classes(CLASSES)
    assert (rule.rule, rule.class_thresholds) == ("relative", (0.3, 1.0, 0.2, 0.5))


def test_a_calibration_reads_back(tmp_path):
    found = ClassThresholds({"cat": 1.5, "no": 1.5}, "zscore", {"cat": (0.1, 0.5), "no": (-1.0, 2.0)}, {"method": "x"})
    assert read_thresholds(file(tmp_path, found.text()), ("cat", "no")) == found
    rule = found.applied_to(TagRuleConfig()).for_classes(("no", "cat"))
    assert rule.rule == "zscore"
    assert rule.class_scales == ((-1.0, 2.0), (0.1, 0.5))
    with pytest.raises(UsageError, match="class_scales: none of 'cow'"):
        found.applied_to(TagRuleConfig()).for_classes(("no", "cat", "cow"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cta: 0.3", r"line 1: 'cta' is not a class; did you mean 'cat'\?"),
        ("cat: 0.3\ncat: 0.4", "line 2: 'cat' is there twice"),
        ("cat: .nan", "the threshold of 'cat' is not a number"),
        ("cat: nan", "the threshold of 'cat' is nan, in line 1; give a finite number"),
        ("cat: inf", "give a finite number"),
        ("cat: [0.3, 0.4]", "the threshold of 'cat' is not a number"),
        ("[0.3, 0.4, 0.5, 0.6]", "not thresholds by class name"),
        ("", "not thresholds by class name"),
        ("{", "not valid YAML"),
        ("thresholds: {}", "no threshold in it"),
        ("rule: top_k\nthresholds: {cat: 1}", "rule 'top_k' is not one of relative, absolute, zscore"),
        ("rule: zscore\nthresholds: {cat: 1}", "need each other"),
        ("rule: zscore\nthresholds: {cat: 1}\nscales: {cat: [1]}", r"the scale of 'cat' is not \[mean"),
        ("rule: zscore\nthresholds: {cat: 1}\nscales: {cat: [1, 0]}", "is not above 0"),
        ("? [a]\n: 0.3", "not a class name"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    path = file(tmp_path, text)
    with pytest.raises(UsageError, match=message) as caught:
        read_thresholds(path, CLASSES)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_top_k_has_no_thresholds():
    with pytest.raises(UsageError, match="rule 'top_k' has none"):
        ClassThresholds({"cat": 0.3}).applied_to(TagRuleConfig(rule="top_k"))


def test_thresholds_of_a_class_file(tmp_path):
    classes = Vocabulary.from_file(file(tmp_path, "classes: [cat, dog]\nthresholds: {dog: 0.4}\n"))
    assert classes.thresholds == {"dog": 0.4}
    assert TagRuleConfig().or_thresholds(classes.thresholds).for_classes(classes.names).class_thresholds == (0.5, 0.4)
    own = TagRuleConfig(class_thresholds={"cat": 0.1})
    assert own.or_thresholds(classes.thresholds) is own
    assert "thresholds" not in classes.to_dict()
    assert Vocabulary.from_dict(classes.to_dict()) == classes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [cat]\nthresholds: {dog: 0.4}", "thresholds: 'dog' is not a class"),
        ("classes: [cat]\nthresholds: {cat: high}", "the threshold of 'cat' is 'high', not a number"),
        ("classes: [cat]\nthresholds: {cat: nan}", "the threshold of 'cat' is nan, no finite number"),
        ("classes: [cat]\nthresholds: [0.4]", "`thresholds` has the wrong kind of value"),
    ],
)
def test_bad_thresholds_of_a_class_file_are_named(tmp_path, text, message):
    with pytest.raises(TagclipError, match=message):
        Vocabulary.from_file(file(tmp_path, text))
