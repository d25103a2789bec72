"""The architecture page is true: every package and module that it names exists, and none is missing."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def packages_and_modules():
    """(package, module) of the table's rows."""
    for line in PAGE.splitlines():
        cells = line.split("|")
        if len(cells) == 5 and cells[1].strip().startswith("`"):
            names = re.findall(r"`(\w+\.py)`", cells[3])
            for package in re.findall(r"`([\w/]+)`", cells[1]):
                yield package, names


def test_every_module_of_the_table_exists():
    rows = list(packages_and_modules())
    assert len(rows) > 12
    for package, _names in rows:
        assert (ROOT / package / "__init__.py").is_file(), package
    for line in PAGE.splitlines():
        cells = line.split("|")
        if len(cells) == 5 and cells[1].strip().startswith("`"):
            folders = [ROOT / package for package in re.findall(r"`([\w/]+)`", cells[1])]
            for name in re.findall(r"`(\w+\.py)`", cells[2] + cells[3]):
                assert any((folder / name).is_file() for folder in folders), (cells[1], name)


def test_every_package_of_wsss_is_in_the_table():
    named = {package for package, _ in packages_and_modules()}
    there = {f"wsss/{path.parent.name}" for path in (ROOT / "wsss").glob("*/__init__.py")}
    assert there <= named


def test_every_path_on_the_page_exists():
    for path in re.findall(r"`((?:wsss|tagclip|tests|tools|configs|docs)/[\w./]+?)/?`", PAGE):
        assert (ROOT / path).exists(), path
