"""The page of the CRF: its command is accepted, and its tables are what it says of them."""

import re
from pathlib import Path

from tests.docs.pages import commands
from wsss.benchmark.crf_engines import CLOSE, parser

PAGE = Path(__file__).parents[2] / "docs" / "results" / "crf.md"


def table(first_cell):
    """Cells of the rows below a heading whose first cell is given."""
    lines = PAGE.read_text(encoding="utf-8").split(f"| {first_cell} |")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_command_is_accepted():
    (command,) = commands(PAGE)
    assert parser().parse_args(command.words[3:]).golden == Path("golden")


def test_agreement_meets_the_targets():
    rows, left = table("label scores"), 0
    for _, _, pixels, equal, other, largest, far, _ in rows:
        differ, undecided = map(int, re.findall(r"\d+", other))
        left += differ
        assert float(equal.rstrip("%")) >= 99.9
        assert differ == undecided
        assert f"{100 - 100 * differ / int(pixels.replace(',', '')):.5f}%" == equal
        assert (float(largest.split()[0]) < CLOSE, far) == (True, "0")
    assert len(rows) == 5
    assert f"{left} pixels of " in PAGE.read_text(encoding="utf-8")


def test_speed_meets_the_targets():
    rows = table("threads")
    assert [row[:2] for row in rows] == [[threads, labels] for threads in "12" for labels in ("2", "5", "21")]
    for threads, labels, _, _, wall, _, _ in rows:
        if threads == "1":
            assert float(wall) <= 1.7
        elif int(labels) >= 5:
            assert float(wall) < 1
