"""What setup.py declares: neither more nor less than what is imported, and a wheel that works without the clone."""

from __future__ import annotations

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools

from tagclip.demo.dataset import write_scenes
from tagclip.demo.scenes import SceneConfig
from tagclip.demo.sprites import TRAINING_STYLES
from tagclip.vocabulary import Vocabulary

ROOT = Path(__file__).parents[1]
OURS = ("tagclip", "wsss", "tools", "tests")
IMPORT_NAMES = {  # distribution -> module, where they differ
    "import-linter": "importlinter",
    "onedl-mmcv": "mmcv",
    "onedl-mmengine": "mmengine",
    "onedl-mmsegmentation": "mmseg",
    "open-clip-torch": "open_clip",
    "opencv-python": "cv2",
    "pillow": "PIL",
    "pydensecrf2": "pydensecrf",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
USED_WITHOUT_IMPORT = {  # distribution -> file that shows it
    "pytest-xdist": ("tools/test.sh", "--numprocesses"),
    "import-linter": ("tools/test.sh", "lint-imports"),
    "mypy": ("tools/test.sh", "-m mypy"),
    "ruff": ("tools/test.sh", "-m ruff"),
    "s3fs": ("tagclip/stored_files.py", "tagclip-wsss[s3]"),
    "tensorboard": ("configs/segmentation/_base_/runtime.py", "TensorboardVisBackend"),
    "ipykernel": ("tests/docs/test_quickstart.py", "kernel_name=\"python3\""),
}


@pytest.fixture(scope="module")
def declared() -> dict[str, set[str]]:
    """What setup.py hands to setuptools: names of distributions, those of the core and of each extra."""
    kept: dict = {}
    original = setuptools.setup
    setuptools.setup = kept.update
    try:
        runpy.run_path(str(ROOT / "setup.py"))
    finally:
        setuptools.setup = original
    lists = {"core": kept["install_requires"], **kept["extras_require"]}
    return {key: {_distribution(line) for line in lines} for key, lines in lists.items()}


def _distribution(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")


# What is imported there is installed by tools/test_exports.sh and tools/test_stores.sh.
READERS = ("tests/exports/", "tests/stores/")


def _readers() -> set[str]:
    """Modules that only the environments of these scripts have to have."""
    files = [path for folder in READERS for path in (ROOT / folder).glob("*.txt")]
    lines = [line for path in files for line in path.read_text().splitlines()]
    return {_distribution(line).replace("-", "_") for line in lines if line and not line.startswith("#")}


TYPE_CHECKERS = {"_typeshed"}  # modules that type checkers bring
OF_TORCH = {"triton"}  # modules that PyTorch brings where it can use them


def _imported(*folders: str) -> dict[str, str]:
    """Top-level modules that the code imports, each with a file that does."""
    found = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module]
                else:
                    continue
                for name in names:
                    found.setdefault(name.split(".")[0], path.relative_to(ROOT).as_posix())
    known = {*sys.stdlib_module_names, *OURS, *TYPE_CHECKERS, *OF_TORCH}
    return {name: place for name, place in found.items() if name not in known}


def test_what_is_imported_is_declared(declared):
    modules = {IMPORT_NAMES.get(name, name.replace("-", "_")) for names in declared.values() for name in names}
    imported = _imported("tagclip", "wsss", "tools", "tests")
    undeclared = {name: at for name, at in imported.items() if name not in modules}
    assert {name: at for name, at in undeclared.items() if not at.startswith(READERS)} == {}
    assert undeclared.keys() <= _readers()


def test_the_product_imports_nothing_that_only_its_development_declares(declared):
    product = set().union(*(names for key, names in declared.items() if key not in ("dev", "all")))
    modules = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in product}
    assert {name: place for name, place in _imported("tagclip", "wsss", "tools").items() if name not in modules} == {}


def test_what_is_declared_is_imported(declared):
    everywhere = _imported("tagclip", "wsss", "tools", "tests")
    names = set().union(*declared.values())
    idle = {name for name in names if IMPORT_NAMES.get(name, name.replace("-", "_")) not in everywhere}
    assert idle == set(USED_WITHOUT_IMPORT)
    for place, text in USED_WITHOUT_IMPORT.values():
        assert text in (ROOT / place).read_text(encoding="utf-8")


def test_all_is_every_extra_that_installs_everywhere(declared):
    extras = ("seg", "heif", "export", "simulation", "dev")
    assert declared["all"] == set().union(*(declared[name] for name in extras))


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the built and unpacked wheel, and nothing of the clone."""
    base = tmp_path_factory.mktemp("wheel")
    source = base / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("tagclip", "wsss", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(base), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = base.glob("*.whl")
    target = base / "site"
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", str(target), str(wheel)], check=True)
    shutil.rmtree(source)
    return target


def run_installed(installed: Path, folder: Path, *command: str) -> str:
    """Runs Python in `folder` with the installed packages and without the clone; its output."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env |= {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_has_every_config(installed, tmp_path):
    code = "import wsss, wsss.configs as c; print(wsss.__file__); print(*c.list_configs())"
    place, names = run_installed(installed, tmp_path, "-c", code).splitlines()
    assert Path(place).parent == installed / "wsss"

    def files(top: Path) -> set[str]:
        found = (path.relative_to(top).as_posix() for path in top.rglob("*.*"))
        return {name for name in found if "__pycache__" not in name}

    assert files(installed / "wsss" / "_configs") == files(ROOT / "configs")
    assert {"masks/custom", "segmentation/deeplabv3plus_r18_custom"} <= set(names.split())


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """A working directory that is no clone, with two demo scenes in photos/."""
    folder = tmp_path_factory.mktemp("elsewhere")
    look = SceneConfig(styles=TRAINING_STYLES[:1], side=(96, 128), object_side=(40, 60))
    write_scenes(folder, 2, look, seed=3, vocabulary=Vocabulary(["cat", "dog"]))
    (folder / "JPEGImages").rename(folder / "photos")
    return folder


@pytest.fixture(scope="module")
def run_of_the_wheel(installed, elsewhere) -> Path:
    """A run of the installed package over the two scenes."""
    command = "run --images photos --classes cat,dog --model demo --out made --refine none --mask-workers 1 --quiet"
    run_installed(installed, elsewhere, "-m", "wsss.cli.main", *command.split())
    return elsewhere / "made"


def test_a_wheel_makes_masks_without_the_clone(run_of_the_wheel):
    assert len((run_of_the_wheel / "tags.jsonl").read_text().splitlines()) == 2
    assert len(list((run_of_the_wheel / "masks").rglob("*.png"))) == 2


def test_a_wheel_makes_a_review_page_without_the_clone(installed, elsewhere, run_of_the_wheel):
    run_installed(installed, elsewhere, "-m", "wsss.cli.main", "review", "--run", "made", "--quiet")
    names = {path.name for path in (run_of_the_wheel / "review" / "assets").iterdir()}
    assert names == {path.name for path in (ROOT / "wsss" / "review" / "assets").glob("*.[jc]s*")}
    assert (run_of_the_wheel / "review" / "index.html").is_file()


def test_a_wheel_trains_without_the_clone(installed, elsewhere, run_of_the_wheel):
    small = {  # crops of 64 pixels, so that two iterations take seconds
        "train_dataloader.batch_size": 2, "train_dataloader.num_workers": 0, "model.data_preprocessor.size": "(64,64)",
        "train_dataloader.dataset.pipeline.2.scale": "(256,64)",
        "train_dataloader.dataset.pipeline.3.crop_size": "(64,64)",
    }  # fmt: skip
    command = "train --config segmentation/deeplabv3plus_r18_custom --run made --iterations 2 --backbone-weights none"
    settings = [f"train.{key}={value}" for key, value in small.items()]
    run_installed(installed, elsewhere, "-m", "wsss.cli.main", *command.split(), "--quiet", "--set", *settings)
    assert (run_of_the_wheel / "segmentation" / "iter_2.pth").is_file()
