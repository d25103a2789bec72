"""Lists of a split: how they are named, and that each class is in all of them."""

from collections import Counter

import numpy as np
import pytest

from tagclip.errors import UsageError
from wsss.export.splits import parse_split, stratified


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("train", {"train": 1.0}),
        ("train=1", {"train": 1.0}),
        ("train=0.9,val=0.1", {"train": 0.9, "val": 0.1}),
        (" a=0.5 , b=.25,c=.25", {"a": 0.5, "b": 0.25, "c": 0.25}),
    ],
)
def test_shares_by_name(text, shares):
    assert parse_split(text) == shares


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train=0.9,val=0.2", "add up to 1.1, not to 1"),
        ("train=0.9,val", "'val' is not NAME=SHARE"),
        ("train,val", "'train' is not NAME=SHARE"),
        ("train=2,val=-1", "above 0 and at most 1"),
        ("train=nan,val=0.5", "above 0 and at most 1"),
        ("a=0.5,a=0.5", "'a' is there twice"),
        ("../up=1", "'../up' is no name of a list"),
        ("a_b=1", "'a_b' is no name of a list"),
        ("con=1", "'con' is no name of a list"),
        ("", "'' is no name of a list"),
        ("a/b", "'a/b' is no name of a list"),
    ],
)
def test_mistakes_name_the_value(text, message):
    with pytest.raises(UsageError, match=message):
        parse_split(text)


def drawn_tags(count: int = 600, seed: int = 0) -> list[tuple[int, ...]]:
    """Rare and frequent classes, several per image, and images without any."""
    rng = np.random.default_rng(seed)
    rates = np.array([0.5, 0.3, 0.1, 0.03, 0.02])
    return [tuple(np.flatnonzero(rng.random(5) < rates).tolist()) for _ in range(count)]


def test_every_class_is_shared_out_as_asked():
    tags = drawn_tags()
    lists = stratified(tags, {"train": 0.8, "val": 0.2}, seed=3)
    sizes = Counter(lists)
    assert abs(sizes["val"] - 120) <= 3
    for index in range(5):
        held = [name for name, one in zip(lists, tags, strict=True) if index in one]
        assert abs(held.count("val") - 0.2 * len(held)) <= 1.5
    empty = [name for name, one in zip(lists, tags, strict=True) if not one]
    assert 0 < empty.count("val") < len(empty)


def test_a_class_of_two_images_is_in_both_halves():
    tags = [(0,)] * 40 + [(0, 1), (0, 1)]
    lists = stratified(tags, {"a": 0.5, "b": 0.5})
    assert set(lists[-2:]) == {"a", "b"}


def test_the_seed_decides():
    tags = drawn_tags(80)
    shares = {"train": 0.5, "val": 0.5}
    assert stratified(tags, shares, seed=1) == stratified(tags, shares, seed=1)
    assert stratified(tags, shares, seed=1) != stratified(tags, shares, seed=2)


def test_one_list_takes_all():
    assert stratified([(0,), ()], {"train": 1.0}) == ["train", "train"]
    assert stratified([], {"a": 0.5, "b": 0.5}) == []


@pytest.mark.parametrize("count", [4, 5, 37])
def test_sizes_are_the_shares_however_few_images_there_are(count):
    """Four images of four classes: each class wants to be in the larger list, and one has to go to the other."""
    each = stratified([(index,) for index in range(count)], {"train": 0.75, "val": 0.25})
    for tags in ([(index,) for index in range(count)], drawn_tags(count, seed=count)):
        lists = stratified(tags, {"train": 0.75, "val": 0.25}, seed=1)
        assert abs(lists.count("val") - 0.25 * count) <= 1
    assert Counter(each)["val"] >= 1
