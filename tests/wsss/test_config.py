"""Settings of stage two: presets, dicts, wrong values."""

from dataclasses import replace

import pytest

from tagclip.errors import UsageError
from wsss import MaskConfig
from wsss.config import AffinityConfig


@pytest.mark.parametrize("preset", ["reference", "default"])
def test_presets(preset):
    config = MaskConfig.preset(preset)
    assert config.affinity.block_range(12) == (5, 12)
    assert config.affinity.box_threshold == 0.4
    assert MaskConfig.from_dict(config.to_dict()) == config


def test_reference_has_every_quirk_and_default_none():
    reference, default = MaskConfig.preset("reference"), MaskConfig.preset("default")

    def quirks(config):
        return (
            config.image.apply_exif, config.image.max_long_side, config.image.position_rounding,
            config.affinity.clip_boxes, config.crf.wrap_dark_pixels, config.cam.reference_names,
            config.round_upsampled, config.storage_dtype,
        )  # fmt: skip

    assert quirks(reference) == (False, None, "float16", True, True, True, True, "float32")
    assert quirks(default) == (True, 1024, "none", False, False, False, False, "float16")


@pytest.mark.parametrize(
    ("first", "last", "depth", "expected"),
    [(-8, -1, 12, (5, 12)), (-8, -2, 24, (17, 23)), (-8, -1, 4, (1, 4)), (2, 3, 4, (2, 3)), (-8, -2, 2, (1, 1))],
)
def test_block_range(first, last, depth, expected):
    assert AffinityConfig(first_block=first, last_block=last).block_range(depth) == expected


@pytest.mark.parametrize(("first", "last"), [(5, 12), (0, 3), (3, 2), (-1, -2)])
def test_blocks_that_do_not_exist(first, last):
    with pytest.raises(UsageError, match=f"blocks {first}..{last}"):
        AffinityConfig(first_block=first, last_block=last).block_range(4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"confidence": 1.5}, "confidence 1.5"),
        ({"alpha": 0}, "alpha 0"),
        ({"refiner": "crff"}, "masks.refiner is 'crff'"),
        ({"crf": {"iteration": 3}}, "unknown setting masks.crf.iteration"),
        ({"crf": {"iterations": 1.5}}, "masks.crf.iterations is 1.5"),
        ({"storage_dtype": "int8"}, "masks.storage_dtype is 'int8'"),
        ({"pamr": [1]}, "masks.pamr must be a dict"),
    ],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(UsageError, match=message):
        MaskConfig.from_dict(values)


def test_unknown_preset():
    with pytest.raises(UsageError, match="'best'"):
        MaskConfig.preset("best")


def test_dict_is_written_over_a_base():
    config = MaskConfig.from_dict(
        {"confidence": None, "pamr": {"dilations": [1, 2]}}, replace(MaskConfig(), affinity=AffinityConfig(-8, -1, 0.7))
    )
    assert config.confidence is None
    assert config.pamr.dilations == (1, 2)
    assert config.affinity.box_threshold == 0.7
