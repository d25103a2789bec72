"""tools/make_env.sh on a virtual environment whose pip is a stand-in: which steps it takes, and what it says."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Notes its arguments; fails where PIP_FAILS is among them; "installs" what the script then imports.
PIP = """
import json, os, pathlib, sys
site = pathlib.Path(__file__).parents[1]
line = " ".join(sys.argv[1:])
with open(os.environ["PIP_CALLS"], "a") as file:
    file.write(json.dumps([part for part in sys.argv[1:] if part != "--disable-pip-version-check"]) + "\\n")
if os.environ.get("PIP_FAILS") and os.environ["PIP_FAILS"] in line:
    sys.exit("Collecting things\\nERROR: No matching distribution found for torch\\n")
if "opencv-python-headless" in line:
    (site / "cv2.py").write_text("")
if "pydensecrf2==1.1" in line:
    (site / "pydensecrf").mkdir()
    (site / "pydensecrf" / "densecrf.py").write_text("")
"""


class Machine:
    """A checkout's environment that setup_env.sh is asked for, in a folder of the test's own."""

    def __init__(self, folder: Path):
        self.venv = folder / "venv"
        self.folder = folder
        self.calls = folder / "calls"
        self.settings = {"VENV": str(self.venv), "PIP_CALLS": str(self.calls), "TMPDIR": str(folder)}
        venv.create(self.venv, with_pip=False, symlinks=True)
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.site = self.venv / "lib" / python / "site-packages"
        (self.site / "pip").mkdir()
        (self.site / "pip" / "__main__.py").write_text(PIP)
        self.has_cv2()
        self.has_crf()

    def has_cv2(self, error: str = "") -> None:
        (self.site / "cv2.py").write_text(f"raise ImportError({error!r})" if error else "")
        add_metadata(self.site, "opencv-python", "5.0.1")

    def has_crf(self, there: bool = True) -> None:
        (self.site / "pydensecrf").mkdir(exist_ok=True)
        (self.site / "pydensecrf" / "densecrf.py").write_text("")
        if not there:
            (self.site / "pydensecrf" / "densecrf.py").unlink()
            (self.site / "pydensecrf").rmdir()

    def set_up(self, root: Path = ROOT, **settings: str) -> tuple[int, list[str], list[list[str]]]:
        """Exit code, lines said, and calls of pip other than that for its version."""
        self.calls.write_text("")
        done = subprocess.run(
            ["bash", "-c", f". {root}/tools/setup_env.sh && echo PY=$PY"],
            env=os.environ | self.settings | settings, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            asked = settings.get("VENV", str(self.venv))
            assert done.stdout == f"PY={root / '.venv-system' if asked == 'system' else asked}/bin/python\n"
        calls = [json.loads(line) for line in self.calls.read_text().splitlines()]
        return done.returncode, done.stderr.splitlines(), [call for call in calls if call != ["--version"]]


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def add_metadata(site: Path, name: str, version: str) -> None:
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def without_venv(folder: Path, python: Path) -> str:
    """An interpreter like Debian's without its package python3-venv."""
    return script(folder / "bare", f'case "$*" in *ensurepip*|*virtualenv*) exit 1 ;; esac; exec {python} "$@"')


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def can_build() -> bool:
    return Path(sysconfig.get_path("include"), "Python.h").is_file()


def test_one_installation_then_nothing(machine):
    code, lines, calls = machine.set_up()
    assert (code, calls) == (0, [["install", "-e", f"{ROOT}[all]"]])
    assert lines == [f"setting up {machine.venv} (about 3 minutes and 6 GB, once)"]
    assert machine.set_up() == (0, [], [])
    assert not list(machine.folder.glob("tagclip-install*")), "logs of what went well are litter"


def test_a_missing_system_library_brings_the_headless_opencv_of_the_same_version(machine):
    machine.has_cv2("libGL.so.1: cannot open shared object file: No such file or directory")
    code, lines, calls = machine.set_up()
    assert code == 0
    assert calls[1:] == [
        ["uninstall", "-y", "opencv-python"],
        ["install", "--no-deps", "--force-reinstall", "opencv-python-headless==5.0.1"],
    ]
    assert lines[1:] == [
        "no libGL.so.1 on this machine: opencv-python-headless 5.0.1 takes the place of opencv-python"
    ]


def test_another_error_of_opencv_is_said(machine):
    machine.has_cv2("numpy.core.multiarray failed to import")
    code, lines, _ = machine.set_up()
    assert code == 2
    assert lines[1:] == [
        "error: import cv2: ImportError: numpy.core.multiarray failed to import; "
        f"delete {machine.venv} and start again"
    ]


@pytest.mark.skipif(not can_build(), reason="needs the headers of Python")
def test_the_crf_is_built_with_a_newer_cython(machine):
    machine.has_crf(False)
    code, lines, calls = machine.set_up(CXX="true")
    assert (code, len(lines)) == (0, 1)
    assert calls[1][:2] == ["install", "--target"]
    assert calls[1][3:] == ["setuptools", "wheel", "cython>=3"]
    assert calls[2] == ["install", "--no-deps", "--no-build-isolation", "pydensecrf2==1.1"]


def test_without_a_compiler_there_is_no_crf_until_one_comes(machine):
    machine.has_crf(False)
    code, lines, calls = machine.set_up(CXX="/nowhere/c++")
    assert (code, len(calls)) == (0, 1)
    assert lines[1:] == [
        "no pydensecrf: building it needs a C++ compiler (g++); torch computes the CRF in its place "
        "(only --preset reference needs pydensecrf); to have it, install that and start again"
    ]
    assert machine.set_up(CXX="/nowhere/c++") == (0, [], [])
    if can_build():
        assert machine.set_up(CXX="true")[2][-1][-1] == "pydensecrf2==1.1"


@pytest.mark.skipif(not can_build(), reason="needs the headers of Python")
def test_a_crf_that_does_not_build_ends_nothing(machine):
    machine.has_crf(False)
    code, lines, _ = machine.set_up(CXX="true", PIP_FAILS="pydensecrf2")
    assert code == 0
    assert lines[1:] == [
        "no pydensecrf: it does not build here (No matching distribution found for torch); torch computes the CRF "
        "in its place (only --preset reference needs pydensecrf)"
    ]


def test_a_failed_installation_is_one_line_and_tried_again(machine):
    code, lines, _ = machine.set_up(PIP_FAILS="[all]")
    log = next(machine.folder.glob("tagclip-install*"))
    assert code == 2
    assert lines[1:] == [
        f"error: installing the packages: No matching distribution found for torch; see {log}, check the network and "
        "the disk (6 GB), and start again"
    ]
    assert "Collecting things" in log.read_text()
    assert machine.set_up()[0] == 0


@pytest.mark.parametrize(
    ("python", "expected"),
    [
        ("/nowhere/python3", "error: no interpreter: /nowhere/python3 is not on the PATH; install Python 3.10 to 3.14"),
        ("old", "it is Python 3.9.1, tried are 3.10 to 3.14; set PYTHON= to one of these"),
        ("bare", "has neither venv with ensurepip nor virtualenv; apt-get install python3-venv (Debian, Ubuntu), or"),
    ],
)
def test_interpreters_that_do_not_do(machine, tmp_path, python, expected):
    if python == "old":
        python = script(tmp_path / "old", 'case "$1" in -V) echo Python 3.9.1 ;; *) exit 1 ;; esac')
    if python == "bare":
        python = without_venv(tmp_path, Path(sys.executable))
    script(tmp_path / "virtualenv", "exit 1")
    path = f"{tmp_path}:{os.environ['PATH']}"
    code, lines, calls = machine.set_up(PYTHON=python, VENV=str(tmp_path / "new"), PATH=path)
    assert (code, calls) == (2, [])
    assert expected in lines[-1]
    assert lines[-1].startswith("error: ")


def test_virtualenv_stands_in_for_venv(machine, tmp_path):
    bare = without_venv(tmp_path, Path(sys.executable))
    script(tmp_path / "virtualenv", f'[ "$1" = --version ] || cp -r {machine.venv} "$3"')
    new = tmp_path / "new"
    code, _, calls = machine.set_up(PYTHON=bare, VENV=str(new), PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (code, len(calls)) == (0, 1)
    assert (new / ".tagclip-installed").is_file()


def test_system_reuses_the_torch_of_the_interpreter(machine, tmp_path):
    owner = tmp_path / "owner"
    venv.create(owner, with_pip=False, symlinks=True)
    packages = owner / machine.site.relative_to(machine.venv)
    python = without_venv(tmp_path, owner / "bin" / "python")
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "tools", root / "tools")
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    script(tmp_path / "virtualenv", f'[ "$1" = --version ] || cp -r {machine.venv} "$3"')
    settings = {"PYTHON": python, "VENV": "system", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    code, lines, calls = machine.set_up(root, **settings)
    assert (code, calls) == (2, [])
    assert lines[-1] == (
        f"error: VENV=system: {python} cannot import torch; set PYTHON= to an interpreter that can, "
        "or leave VENV=system out"
    )
    (packages / "torch.py").write_text("__version__ = '2.9.1+cu130'\n")
    add_metadata(packages, "torch", "2.9.1")  # what pip goes by
    code, _, calls = machine.set_up(root, **settings)
    made = root / ".venv-system"
    assert (code, calls) == (0, [["install", "-e", f"{root}[all]", "-c", f"{made}/tagclip-constraints.txt"]])
    assert (made / "tagclip-constraints.txt").read_text() == "torch==2.9.1\n"
    found = subprocess.run(
        [made / "bin" / "python", "-c", "import torch, cv2; print(torch.__file__, cv2.__file__)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    own = made / machine.site.relative_to(machine.venv)
    assert found.stdout.split() == [str(packages / "torch.py"), str(own / "cv2.py")]
    assert machine.set_up(root, **settings) == (0, [], [])


def test_an_environment_of_another_python_is_refused(machine, tmp_path):
    other = script(tmp_path / "other", "echo 3.99")
    code, lines, calls = machine.set_up(PYTHON=other)
    assert (code, calls) == (2, [])
    assert lines[-1].endswith("set VENV= to another folder, or delete that one")


def test_the_tried_pythons_are_the_declared_ones():
    text = (ROOT / "tools" / "make_env.sh").read_text()
    assert "(3, 10) <= sys.version_info < (3, 15)" in text
    assert 'python_requires=">=3.10,<3.15"' in (ROOT / "setup.py").read_text()
