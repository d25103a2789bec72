"""Settings: presets, dicts, wrong values."""

from dataclasses import replace

import pytest

from tagclip.config import CWRConfig, DMARConfig, ImageConfig, TagCLIPConfig, TagRuleConfig
from tagclip.errors import UsageError


@pytest.mark.parametrize("preset", ["reference", "default"])
def test_presets_survive_the_way_through_a_dict(preset):
    config = TagCLIPConfig.preset(preset)
    assert TagCLIPConfig.from_dict(config.to_dict()) == config
    assert config.rule.threshold == config.cwr.threshold == 0.5
    assert config.dmar.block_range(12) == (9, 11)


def test_reference_has_every_quirk_and_default_none():
    reference, default = TagCLIPConfig.preset("reference"), TagCLIPConfig.preset("default")
    assert (default.image.apply_exif, default.image.max_long_side, default.image.position_rounding) == (
        True,
        1024,
        "none",
    )
    assert (default.dmar.clip_boxes, default.cwr.clip_boxes, default.cwr.stop_at_degenerate) == (False, False, False)
    assert default.local_attention == "local"
    assert (reference.image.apply_exif, reference.image.max_long_side) == (False, None)
    assert reference.image.position_rounding == "float16_off_native"
    assert (reference.dmar.clip_boxes, reference.cwr.clip_boxes, reference.cwr.stop_at_degenerate) == (True, True, True)
    assert reference.local_attention == "masked_local"


def test_dict_is_written_over_a_base():
    base = replace(TagCLIPConfig.preset("reference"), cwr=CWRConfig(threshold=0.1))
    config = TagCLIPConfig.from_dict({"cwr": {"enabled": False}, "batch_size": 2, "templates": ["a {}."]}, base)
    assert not config.cwr.enabled
    assert config.cwr.threshold == 0.1
    assert config.batch_size == 2
    assert config.templates == ("a {}.",)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cwrr": {}}, "unknown setting tagging.cwrr"),
        ({"cwr": {"treshold": 0.5}}, "unknown setting tagging.cwr.treshold"),
        ({"cwr": {"threshold": "high"}}, "tagging.cwr.threshold is 'high'"),
        ({"cwr": {"enabled": 1}}, "tagging.cwr.enabled is 1"),
        ({"rule": {"rule": "best"}}, "tagging.rule.rule is 'best'"),
        ({"dmar": None}, "tagging.dmar must be a dict"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"templates": "a {}."}, "tagging.templates"),
        ({"rule": {"class_thresholds": {"cat": "low"}}}, "tagging.rule.class_thresholds.cat is 'low'"),
        ({"rule": {"class_thresholds": "cat"}}, "tagging.rule.class_thresholds is 'cat'"),
    ],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(UsageError, match=message):
        TagCLIPConfig.from_dict(values)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TagCLIPConfig.preset("fast"),
        lambda: DMARConfig(vote_divisor=0),
        lambda: DMARConfig(first_block=9, last_block=4).block_range(12),
        lambda: DMARConfig(last_block=13).block_range(12),
        lambda: CWRConfig(local_weight=1.5),
        lambda: CWRConfig(chunk_size=0),
        lambda: ImageConfig(max_long_side=0),
    ],
)
def test_values_out_of_range_are_refused(make):
    with pytest.raises(UsageError):
        make()


def test_affinity_of_a_shallow_model_begins_at_its_first_block():
    assert DMARConfig().block_range(3) == (1, 2)


@pytest.mark.parametrize(
    ("given", "expected"),
    [((), ()), ({}, ()), ({"dog": 0.25}, (0.5, 0.25, 0.5)), ((0.1, 0.2, 0.3), (0.1, 0.2, 0.3))],
)
def test_class_thresholds_take_the_order_of_the_classes(given, expected):
    rule = TagCLIPConfig.from_dict({"rule": {"class_thresholds": given}}).rule
    assert rule.for_classes(["cat", "dog", "bird"]).class_thresholds == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dgo": 0.3}, r"'dgo' is not a class; did you mean 'dog'\?"),
        ({"zebra crossing": 0.3}, "the 3 classes begin with 'cat'"),
        ((0.1, 0.2), "2 values for 3 classes"),
    ],
)
def test_class_thresholds_that_do_not_fit_the_classes(given, message):
    with pytest.raises(UsageError, match=message):
        TagRuleConfig(class_thresholds=given).for_classes(["cat", "dog", "bird"])
