"""Variants of a strategy: which there are, and that the table is scored from them."""

import re

import pytest

from tagclip.errors import UsageError
from wsss.benchmark.strategy_parts import main, parts_of, variants
from wsss.dense.strategy import get_strategy


def test_parts_are_the_switches_that_are_on():
    assert parts_of(get_strategy("scclip")) == [
        "repair", "feature_calibration", "attention_calibration", "post_calibration", "multi_level"
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no option of it is a switch"):
        parts_of(get_strategy("clip"))


def test_no_two_variants_are_alike():
    assert list(variants("abc")) == [
        "whole", "without a", "without b", "without c", "a alone", "b alone", "c alone", "none of them"
    ]  # fmt: skip
    assert variants("abc")["b alone"] == {"a": False, "b": True, "c": False}
    assert variants("ab") == {
        "whole": {}, "without a": {"a": False}, "without b": {"b": False}, "none of them": {"a": False, "b": False}
    }  # fmt: skip


def test_the_table_of_a_few_scenes(tmp_path, capsys):
    from wsss.cli.main import main as tagclip

    scenes = tmp_path / "scenes"
    with pytest.raises(SystemExit, match=r"^0$"):
        tagclip(["demo", "scenes", "--out", str(scenes), "--count", "3", "--split", "val", "--quiet"])
    capsys.readouterr()
    assert main(["--strategy", "resclip", "--data", str(scenes), "--limit", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("2 images\n")
    figure, gain = r" \| (\d+\.\d)", r" \| ([+-]\d+\.\d)"
    rows = re.findall(rf"^\| (.+?){figure}{gain}{figure}{gain} \|$", printed, re.MULTILINE)
    assert [row[0] for row in rows] == ["whole", "without use_rcs", "without use_sfr", "none of them"]
    whole = rows[0]
    assert whole[2] == whole[4] == "+0.0"
    for row in rows:
        assert float(row[1]) - float(whole[1]) == pytest.approx(float(row[2]), abs=0.11)
    with pytest.raises(SystemExit):
        main(["--strategy", "nothing", "--data", str(scenes)])
    assert "unknown strategy 'nothing'" in capsys.readouterr().err
