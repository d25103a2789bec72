"""Packaging of tagclip-wsss: image tags and segmentation from class names alone."""

from pathlib import Path

from setuptools import find_packages, setup

CLIP = ["open_clip_torch>=3.2,<4", "safetensors>=0.4,<1"]
# A source distribution that needs a C++ compiler and, from Python 3.13 on, another Cython than the one it pins:
# tools/make_env.sh builds it where it can be built. Not in `all`, which must install everywhere.
CRF = ["pydensecrf2>=1.1,<2; python_version < '3.13'"]
# The kept forks; they are imported as mmengine, mmcv and mmseg.
SEG = [
    "onedl-mmcv>=2.3.6,<2.4",
    "onedl-mmsegmentation>=1.4.2,<1.5",
    "tensorboard>=2.16,<3",
    "onnx>=1.16,<2",
    "onnxruntime>=1.18,<2",
]
REPORT = ["jinja2>=3.1", "pycocotools>=2.0.8"]
DEV = ["pytest>=8", "hypothesis>=6.100", "ruff>=0.6"]

setup(
    name="tagclip-wsss",
    version="0.1.0",
    description="Classify, then segment, without annotation: TagCLIP tags, CLIP-ES pseudo masks, DeepLab training",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.15",
    packages=find_packages(include=["tagclip*", "wsss*"]),
    include_package_data=True,
    package_data={"tagclip": ["vocabularies/*.yaml", "demo/assets/*"], "wsss": ["demo/assets/*"]},
    install_requires=[
        "torch>=2.5,<3",
        "torchvision",
        "numpy>=2.0.1,<3",
        "pillow>=10,<14",
        "opencv-python>=4.9,<6",
        "onedl-mmengine>=0.10.12,<0.11",
        "pyyaml>=6,<7",
        "tqdm>=4.66,<5",
        "scikit-learn>=1.4,<2",
        "matplotlib>=3.8,<4",
        "psutil>=5.9",
        *CLIP,
    ],
    extras_require={
        "clip": CLIP,
        "crf": CRF,
        "seg": SEG,
        "report": REPORT,
        "dev": DEV,
        "all": sorted({*CLIP, *SEG, *REPORT, *DEV}),
    },
)
