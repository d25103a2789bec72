"""What to do when a package that the work needs cannot be imported: one line instead of a traceback."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

from tagclip.errors import RequirementError

_EXTRAS = {
    "mmcv": "seg", "mmengine": "seg", "mmseg": "seg", "onnx": "seg", "onnxruntime": "seg", "tensorboard": "seg",
    "pyarrow": "export", "pycocotools": "export", "transformers": "sam",
}  # fmt: skip
_BUILD_CRF = (
    'pip install setuptools wheel "cython>=3" && pip install --no-deps --no-build-isolation pydensecrf2==1.1 '
    "(needs a C++ compiler and the headers of Python: Debian and Ubuntu have them as g++ and python3-dev)"
)
_SYSTEM_LIBRARY = re.compile(r"(?P<library>\S+\.so[.\d]*): cannot open shared object file")


@contextmanager
def explained_imports() -> Iterator[None]:
    """Imports in this block that fail for a reason known here raise one line of advice; any other error passes.

    Raises:
        RequirementError: a package of ours is missing, or a system library that it wants.
    """
    try:
        yield
    except RequirementError:
        raise
    except ImportError as error:
        advice = import_advice(error)
        if advice is None:
            raise
        raise RequirementError(advice) from error


def import_advice(error: ImportError) -> str | None:
    """One line on what is missing and how to get it; None where the error is not about a requirement.

    Args:
        error: as raised by an import statement, e.g. "libGL.so.1: cannot open shared object file: ...".
    """
    package = (error.name or "").partition(".")[0]
    library = _SYSTEM_LIBRARY.search(str(error))
    if library and (package in ("", "cv2")):
        return (
            f"OpenCV wants the system library {library['library']}: apt-get install libgl1 libglib2.0-0 libxcb1 "
            "(Debian, Ubuntu), or take the build that needs none: pip uninstall -y opencv-python && "
            f"pip install --no-deps --force-reinstall opencv-python-headless{_same_version('opencv-python')}"
        )
    if not isinstance(error, ModuleNotFoundError):
        return None
    if package == "pydensecrf":
        return f"the package pydensecrf is missing: {_BUILD_CRF}"
    if package == "cv2":
        return "OpenCV is missing: pip install opencv-python, or opencv-python-headless where there is no screen"
    if package in _EXTRAS:
        return f"the package {package} is missing: pip install 'tagclip-wsss[{_EXTRAS[package]}]'"
    return None


def _same_version(distribution: str) -> str:
    try:
        return f"=={version(distribution)}"
    except PackageNotFoundError:
        return ""
