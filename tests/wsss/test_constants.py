"""docs/constants.md is what the settings and the shipped configs say today."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tagclip.config import TagRuleConfig
from wsss.config import AffinityConfig
from wsss.constants import Attribute, attributes_of, page

PAGE = Path(__file__).parents[2] / "docs" / "constants.md"


@pytest.fixture(scope="module")
def written() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_page_is_current(written):
    assert written == page(), "make it again: python -m wsss.constants docs/constants.md"


@pytest.mark.parametrize(
    "row",
    [
        "| `threshold` | t | 0.5 |  | `masks/cocostuff` 0.1 | A class is asked about again if its score",
        "| `first_block` |  | -4 |  | `masks/cocostuff` 1 | The blocks whose mean attention spreads scores",
        "| `last_block` |  | -1 |  | `masks/voc2012` -2 | With `first_block`. |",
        "| `storage_dtype` |  | \"float16\" | \"float32\" |  | Number format",
        "| `short_side` |  | None |  | `dense/ade20k` 448, `dense/cityscapes` 560,",
    ],
)
def test_values_of_defaults_presets_and_data_sets(written, row):
    assert f"\n{row}" in written


def test_newcomers_words(written):
    assert "with 3, a model of L = 12 blocks needs 4 votes" in written
    assert "divided by its column sums and then by its row sums" in written


def test_symbols_and_shared_lines():
    assert attributes_of(AffinityConfig)["box_threshold"].symbol == "lambda"
    assert attributes_of(TagRuleConfig)["class_thresholds"].symbol == "t_c"
    assert attributes_of(AffinityConfig)["last_block"] == Attribute("", "With `first_block`.")


def test_a_field_without_a_line_is_an_error():
    @dataclass
    class Odd:
        """Settings.

        Attributes:
            told (x): it is told,
                in two lines: with a colon.

        Example:
            untold: not an attribute.
        """

        told: int = 0

    assert attributes_of(Odd) == {"told": Attribute("x", "It is told, in two lines: with a colon.")}

    @dataclass
    class Worse(Odd):
        """Settings.

        Attributes:
            told: it is told.
        """

        untold: int = 0

    with pytest.raises(LookupError, match="Worse: its docstring does not say what untold is"):
        attributes_of(Worse)
