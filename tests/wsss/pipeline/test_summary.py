"""The closing lines of a run: every class has its row, found or not."""

import pytest

from wsss.pipeline.summary import MOST_ROWS_OF_ZEROS, class_rows, duration, summary_text

COUNTS = {
    "images": 4, "masks": 3, "failures": 1, "untagged": 1, "tags": {"cat": 2, "dog": 0, "bird": 1},
    "pixels": {"background": 60, "cat": 30, "bird": 10}, "ignored_share": 0.25,
}  # fmt: skip


def test_classes_that_were_never_found_are_in_the_table():
    assert class_rows(COUNTS) == [("background", "-", 0.6), ("cat", 2, 0.3), ("dog", 0, 0.0), ("bird", 1, 0.1)]
    text = summary_text(COUNTS)
    assert "dog               0              0.00 %" in text.splitlines()
    assert "never found" not in text


def test_many_of_them_are_one_line_instead():
    names = [f"class {number}" for number in range(MOST_ROWS_OF_ZEROS + 2)]
    counts = {**COUNTS, "tags": {"cat": 2, **dict.fromkeys(names, 0)}, "pixels": {"cat": 5}}
    assert class_rows(counts) == [("cat", 2, 1.0)]
    last = summary_text(counts).splitlines()[-1]
    assert last.startswith(f"never found, {len(names)} of {len(names) + 1} classes: class 0, class 1, ")
    assert last.endswith(names[-1])


def test_a_run_without_a_mask():
    counts = {**COUNTS, "masks": 0, "tags": {"cat": 0}, "pixels": {}, "ignored_share": 0.0}
    assert class_rows(counts) == [("cat", 0, 0.0)]


def test_times():
    times = {"seconds": {"trunk": 12.34, "masks": 5.0}, "images": {}, "wall": 15.5, "core_seconds": 20.0}
    lines = summary_text(COUNTS, times).splitlines()
    assert lines[-2:] == ["time: trunk 12.3 s, masks 5.0 s", "wall 15.5 s, 20.0 core-seconds with start-up"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5.0 s"), (89, "89.0 s"), (120, "2 min"), (5340, "89 min"), (3600 * 1.5, "1 h 30 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
