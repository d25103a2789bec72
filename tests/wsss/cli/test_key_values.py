"""KEY=VALUE: the types that a value has, and what is refused."""

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsss.cli.key_values import key_value, parse_value

PLAIN = st.text("abcdefgh XYZ_-/.:*=#%0123456789", max_size=12)
SCALARS = st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.none(), PLAIN)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple))


@given(VALUES)
def test_what_python_writes_is_read_back_with_its_types(value):
    found = parse_value(repr(value))
    assert found == value
    assert repr(found) == repr(value)  # 1, 1.0 and True are equal


@given(st.lists(st.integers() | st.floats(allow_nan=False, allow_infinity=False), min_size=2))
def test_a_list_needs_no_brackets(values):
    assert parse_value(",".join(map(str, values))) == values


def test_brackets_as_deep_as_anybody_needs():
    assert parse_value("[" * 20 + "]" * 20) is not None
    assert parse_value("[1],[2],[3]," * 20 + "[4]")[-1] == [4]
    for text in ("[" * 21 + "]" * 21, "[(" * 5000, "1,[" * 5000):
        with pytest.raises(ValueError, match="brackets are nested more than 20 deep"):
            parse_value(text)


@given(VALUES.filter(lambda value: isinstance(value, list | tuple) and value), st.data())
def test_a_missing_bracket_is_refused(value, data):
    text = repr(value)
    place = data.draw(st.sampled_from([0, len(text) - 1]))
    with pytest.raises(ValueError, match=r"missing|closes nothing|out of place"):
        parse_value(text[:place] + text[place + 1 :])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-3", -3),
        ("5.", 5.0),
        ("1e-3", 1e-3),
        ("inf", float("inf")),
        ("true", True),
        ("False", False),
        ("None", None),
        ("none", "none"),  # of masks.refiner
        ("'5'", "5"),
        ("''", ""),
        ('"a, b"', "a, b"),
        ("1,", [1]),
        ("(1,)", (1,)),
        ("()", ()),
        ("[]", []),
        ("[(1, 2), [a, None]]", [(1, 2), ["a", None]]),
        (" 4 ", 4),
        ("photos/my dog (1).jpg", "photos/my dog (1).jpg"),
        ("data[0]", "data[0]"),
        ("f(a,b),c", ["f(a,b)", "c"]),
        ("1_000", "1_000"),
        ("a=b", "a=b"),
    ],
)
def test_values(text, value):
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_types_are_those_of_mmengine():
    """Its DictAction is what `--set` used before."""
    from mmengine.config import DictAction

    for text in ("5", "0.5", "true", "None", "abc", "1,2", "[1,2]", "(0.4,0.5)", "[(1,2),[a,b],c]", "1e-5", "a.b"):
        assert repr(parse_value(text)) == repr(DictAction._parse_iterable(text))


@pytest.mark.parametrize("text", ["", " ", "[1", "1]", "(1]", "'a", "1,,2", "[,]", "(1) 2", "'a'b", "a(", "[a)]"])
def test_malformed_values(text):
    with pytest.raises(argparse.ArgumentTypeError, match="key="):
        key_value(f"key={text}")


@pytest.mark.parametrize("text", ["masks.alpha", "=3", "masks..alpha=3", "masks.=3", "a b=3", ""])
def test_malformed_keys(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not KEY=VALUE, like masks\.crf\.iterations=5"):
        key_value(text)


def test_keys_are_dotted_names():
    assert key_value("train_dataloader.dataset.pipeline.0.apply_exif=False") == (
        "train_dataloader.dataset.pipeline.0.apply_exif", False,
    )  # fmt: skip
