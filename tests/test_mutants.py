"""The places that `tests/mutants.py` finds, and what it makes of them."""

import ast

import pytest

from tests.mutants import draw, judges_of, mutated, places, table

SOURCE = '''"""A text."""
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from a import b


def f(x: int = 3, *, y=None):
    """Another."""
    if x < 2 and not y:
        raise ValueError(x)
    g(x, strict=True, size=max(x, 1))
    logger.info("nothing")
    x += 1
    return x
'''


def found(kind):
    return [number for number, place in enumerate(places(ast.parse(SOURCE))) if place.kind == kind]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("comparison", ["if x <= 2 and (not y):"]),
        ("and/or", ["if x < 2 or not y:"]),
        ("condition", ["if not (x < 2 and (not y)):"]),
        ("keyword", ["g(x, strict=True)"]),
        ("min/max", ["g(x, strict=True, size=min(x, 1))"]),
        ("statement", ["pass", "pass", "pass"]),  # raise, g(...), x += 1; nothing that is logged, no text
    ],
)
def test_changes(kind, expected):
    assert [mutated(SOURCE, number)[1] for number in found(kind)] == expected


def test_numbers_are_one_off():
    assert sorted(mutated(SOURCE, number)[1] for number in found("one off")) == [
        "def f(x: int=4, *, y=None):", "g(x, strict=True, size=max(x, 2))", "if x < 3 and (not y):", "x += 2",
    ]  # fmt: skip


def test_a_draw_is_the_same_for_the_same_seed_and_from_every_package(tmp_path):
    for name, copies in (("tagclip/a.py", 1), ("wsss/b/c.py", 9)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(SOURCE.replace("\n\n\ndef f", "".join(f"\n\nX{n} = {n}" for n in range(copies)) +
                                     "\n\n\ndef f"))  # fmt: skip
    drawn = draw(tmp_path, 8, seed=1)
    assert drawn == draw(tmp_path, 8, seed=1) != draw(tmp_path, 8, seed=2)
    assert {mutant.module for mutant in drawn} == {"tagclip/a.py", "wsss/b/c.py"}
    assert len({mutant.key for mutant in drawn}) == 8


def test_judges_are_the_mirror_the_importers_and_then_the_folder(tmp_path):
    for name, text in {
        "wsss/masks/test_crf.py": "", "wsss/masks/test_other.py": "",
        "wsss/test_far.py": "from wsss.masks.crf import x",
        "wsss/test_none.py": "from wsss.masks.crf_tensors import y",
    }.items():  # fmt: skip
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / name).write_text(text)
    assert judges_of(tmp_path, "wsss/masks/crf.py") == (
        ["tests/wsss/masks/test_crf.py", "tests/wsss/test_far.py"], ["tests/wsss/masks/test_other.py"]
    )  # fmt: skip


def test_the_table_names_who_survived():
    record = {"module": "a.py", "line": 3, "kind": "one off", "change": "in `1`", "reads": "x = 2", "verdict": "killed"}
    text = table([record, {**record, "line": 4, "verdict": "survived"}])
    assert "| all 2 | 1 | 1 | 0 |" in text
    assert "a.py:4, one off" in text
    assert "a.py:3" not in text
