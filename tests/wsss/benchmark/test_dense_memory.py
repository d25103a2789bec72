"""Memory of strategies on a large photo: that the script measures what it says."""

import re

import pytest

from wsss.benchmark.dense_memory import main


def test_a_small_photo(capsys):
    assert main(["--model", "demo", "--classes", "voc", "--size", "160", "96", "--strategies", "pearl", "excel"]) == 0
    rows = re.findall(r"^\| (\w+) \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \|$", capsys.readouterr().out, re.MULTILINE)
    assert [row[0] for row in rows] == ["pearl", "excel"]
    for _, loaded, peak, seconds in rows:
        assert 100 < int(loaded.replace(",", "")) <= int(peak.replace(",", ""))
        assert float(seconds) > 0


def test_an_unknown_strategy_is_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--model", "demo", "--classes", "voc", "--size", "160", "96", "--strategies", "nothing"])
    assert "error: unknown strategy 'nothing'" in capsys.readouterr().err
