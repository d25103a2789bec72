import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tagclip.errors import RequirementError, TagclipError
from tagclip.requirements import explained_imports, import_advice

ROOT = Path(__file__).parents[2]
NO_LIBRARY = "libGL.so.1: cannot open shared object file: No such file or directory"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ModuleNotFoundError("No module named 'mmseg.models'", name="mmseg.models"), ["mmseg", "tagclip-wsss[seg]"]),
        (ModuleNotFoundError("No module named 'mmcv'", name="mmcv"), ["mmcv", "tagclip-wsss[seg]"]),
        (ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime"), ["tagclip-wsss[seg]"]),
        (ModuleNotFoundError("No module named 'pydensecrf'", name="pydensecrf"), ["--no-build-isolation", "g++"]),
        (ModuleNotFoundError("No module named 'cv2'", name="cv2"), ["pip install opencv-python,"]),
        (ImportError(NO_LIBRARY), ["libGL.so.1", "apt-get install", "opencv-python-headless"]),
        (ImportError("libxcb.so.1: cannot open shared object file: x", name="cv2"), ["libxcb.so.1"]),
    ],
)
def test_each_missing_thing_has_its_remedy(error, expected):
    with pytest.raises(RequirementError) as caught, explained_imports():
        raise error
    message = str(caught.value)
    assert all(part in message for part in expected), message
    assert "\n" not in message
    assert isinstance(caught.value, TagclipError)
    assert isinstance(caught.value, ImportError)


def test_the_headless_build_has_the_version_that_is_installed():
    found = import_advice(ImportError(NO_LIBRARY))
    try:
        assert f"opencv-python-headless=={version('opencv-python')}" in found
    except ModuleNotFoundError:  # this machine has the headless build already
        assert "opencv-python-headless" in found


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'tagclip.nothing'", name="tagclip.nothing"),
        ImportError("cannot import name 'nothing' from 'mmseg'", name="mmseg"),
        ImportError("libcudart.so.12: cannot open shared object file: No such file", name="torch._C"),
        ValueError("no import error"),
    ],
)
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught, explained_imports():
        raise error
    assert caught.value is error


def run_without_libraries(tmp_path, *command):
    """Runs Python where `import cv2` fails as it does on a machine without X libraries."""
    (tmp_path / "cv2.py").write_text(f"raise ImportError({NO_LIBRARY!r})\n")
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )


def test_a_tool_says_it_in_one_line(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"")
    done = run_without_libraries(
        tmp_path, "tools/pipeline.py", "--config", "demo/masks", "--images", str(photos), "--out", str(tmp_path / "out")
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: OpenCV wants the system library libGL.so.1")
    assert done.stderr.count("\n") == 1


def test_the_public_names_say_it(tmp_path):
    code = """
import tagclip, wsss
from tagclip.errors import RequirementError
for package, name in ((tagclip, "TagCLIP"), (wsss, "MaskGenerator")):
    try:
        getattr(package, name)
    except RequirementError as error:
        print(error)
"""
    done = run_without_libraries(tmp_path, "-c", code)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    assert all(line.startswith("OpenCV wants the system library libGL.so.1") for line in lines)
