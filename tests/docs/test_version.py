"""The version stands in one file; the command, the package and the changelog agree with it."""

import runpy
import subprocess
from pathlib import Path

import pytest
import setuptools

import tagclip
from wsss.files.provenance import installed_versions

ROOT = Path(__file__).parents[2]


def test_setup_py_reads_it(monkeypatch):
    given = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    assert given["version"] == tagclip.__version__


def test_manifests_record_it():
    assert installed_versions()["tagclip-wsss"] == tagclip.__version__


def test_the_changelog_begins_with_it():
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines() if line[:3] == "## "]
    assert headings[0].split()[1].rstrip(",") == tagclip.__version__


def test_no_other_file_of_the_packages_has_it():
    found = subprocess.run(
        ["git", "grep", "-lF", f'"{tagclip.__version__}"', "--", "*.py", "*.toml", "*.cfg"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if found.returncode > 1:
        pytest.skip("not a git clone")
    assert found.stdout.split() == ["tagclip/version.py"]
