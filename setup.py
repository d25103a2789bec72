"""Packaging of tagclip-wsss: image tags and segmentation from class names alone."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

CONFIGS = Path(__file__).with_name("configs")
VERSION = re.search('__version__ = "(.+)"', Path(__file__).with_name("tagclip").joinpath("version.py").read_text())[1]

# A source distribution that needs a C++ compiler and, from Python 3.13 on, another Cython than the one it pins:
# tools/make_env.sh builds it where it can be built. Not in `all`, which must install everywhere.
CRF = ["pydensecrf2>=1.1,<2; python_version < '3.13'"]
# The kept forks; they are imported as mmengine, mmcv and mmseg.
SEG = [
    "onedl-mmcv>=2.3.6,<2.4",
    "onedl-mmsegmentation>=1.4.2,<1.5",
    "tensorboard>=2.16,<3",
    "onnx>=1.16,<2",
    "onnxruntime>=1.19,<2",  # the first for numpy 2
]
SAM = ["transformers>=5,<6"]  # `--refine sam`
S3 = ["s3fs>=2024.9"]  # photos and results in S3, and in stores that speak its language
HEIF = ["pillow-heif>=1,<2"]  # photos of phones; Pillow reads all other formats
EXPORT = ["pycocotools>=2.0.8,<3", "pyarrow>=17,<26"]  # what some formats of `tagclip export` are written with
RAY = ["ray>=2.40,<3"]  # `tagclip run --engine ray`
DEV = [
    "hypothesis>=6.100,<7",
    "import-linter>=2.1,<3",
    "ipykernel>=6.29,<8",  # docs/quickstart.ipynb, which a test executes
    "mypy>=1.11,<3",
    "nbclient>=0.10,<1",
    "nbformat>=5.10,<6",
    "pytest>=8,<10",
    "pytest-xdist>=3.6,<4",  # tests on several cores
    "ruff>=0.6,<1",
    "setuptools>=70.1",  # builds the wheel that a test installs
]
BROWSER = ["playwright>=1.48,<2"]  # tools/test_browser.sh, with the browser of the system
SIMULATION = ["simpy>=4.1,<5"]  # wsss.benchmark.cluster_simulation
SPRITES = ["resvg-py"]  # tools/make_demo_sprites.py


class BuildWithConfigs(build_py):
    """Packs configs/ as wsss/_configs; an editable installation finds them in the clone (see wsss/configs.py)."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "wsss", "_configs")
            shutil.rmtree(target, ignore_errors=True)  # an earlier build may have left configs that are gone
            shutil.copytree(CONFIGS, target, ignore=shutil.ignore_patterns("__pycache__"))


setup(
    name="tagclip-wsss",
    version=VERSION,
    description="Classify, then segment, without annotation: TagCLIP tags, CLIP-ES pseudo masks, DeepLab training",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.15",
    packages=find_packages(include=["tagclip*", "wsss*"]),
    cmdclass={"build_py": BuildWithConfigs},
    include_package_data=True,
    package_data={
        "tagclip": ["py.typed", "vocabularies/*.yaml", "demo/assets/*"],
        "wsss": ["py.typed", "demo/assets/*", "files/*.schema.json", "reproduction/*.yaml", "review/assets/*"],
    },
    install_requires=[
        "torch>=2.5,<3",
        "open_clip_torch>=3.2,<4",
        "torchvision>=0.20,<1",  # open_clip brings it; here only `tagclip train-tagger` imports it
        "safetensors>=0.4,<1",
        "huggingface_hub>=0.23,<3",
        "numpy>=2.0.1,<3",
        "pillow>=10,<14",
        "opencv-python>=4.10.0.84,<6",  # the first for numpy 2
        "onedl-mmengine>=0.10.12,<0.11",
        "pyyaml>=6,<7",
        "tqdm>=4.66,<5",
        "rich>=13,<16",
        "argcomplete>=3.1,<4",
        "scikit-learn>=1.4,<2",
        "scipy>=1.11,<2",
        "matplotlib>=3.8,<4",
        "psutil>=5.9,<8",
        "filelock>=3.12,<4",
        "fsspec>=2024.6",
        "jinja2>=3.1,<4",
        "jsonschema>=4.18,<5",
    ],
    entry_points={"console_scripts": ["tagclip=wsss.cli.main:main"]},
    extras_require={
        "crf": CRF,
        "seg": SEG,
        "heif": HEIF,
        "sam": SAM,
        "s3": S3,
        "export": EXPORT,
        "ray": RAY,
        "dev": DEV,
        "browser": BROWSER,
        "simulation": SIMULATION,
        "sprites": SPRITES,
        "all": sorted({*SEG, *HEIF, *EXPORT, *SIMULATION, *DEV}),
    },
)
