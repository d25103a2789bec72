"""What a benchmark measures."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tagclip.config import PRESETS
from tagclip.errors import UsageError

BASELINE = "straightforward"  # name of the baseline in JSON files
RANDOM = "random:"  # before an open_clip architecture name: that model with random weights, nothing is downloaded


@dataclass(frozen=True)
class BenchmarkSettings:
    """Settings of a benchmark.

    Attributes:
        model, pretrained: as `tagclip.clip.load_clip` takes them, or "random:ARCHITECTURE".
        quick_gelu: activation of a model file that does not tell.
        config: config of the data set whose constants and classes are used, by name or path.
        vocabulary: other classes than the config's: built-in name or class file; sets the number of classes.
        preset: "reference" computes what the baseline computes; "default" is what users get.
        tags: numbers of tags per image; each is a case of its own, with as many CWR crops.
        size: (width, height) of the photos.
        images: folder of photos, of which those of `size` are taken; None makes textured noise.
        count: photos a case.
        repeats: timed rounds over the photos.
        batch: photos in one forward pass of ours; the baseline takes them one by one.
        dtypes: of ours, measured side by side. The first is the yardstick of the others' agreement.
        cam_precision: of the last block in Grad-CAM: "float32" or "model" (see `wsss.config.CamConfig`); None: the
            preset's.
        device: torch device of ours; the baseline runs on the CPU.
        threads: CPU threads of both.
        baseline: measure the baseline too.
        oracle: folder of the plain transcription that the baseline is, `tests/oracle` of a clone.
        crf: time the CRF, one image on one core.
        memory: peak RSS of each side in a process of its own.
        seed: of random weights and noise.
    """

    model: str = RANDOM + "ViT-B-16-quickgelu"
    pretrained: str | None = None
    quick_gelu: bool | None = None
    config: str = "masks/voc2012"
    vocabulary: str | None = None
    preset: str = "reference"
    tags: tuple[int, ...] = (1, 2, 4)
    size: tuple[int, int] = (500, 375)
    images: Path | None = None
    count: int = 8
    repeats: int = 3
    batch: int = 1
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    cam_precision: str | None = None
    device: str = "cpu"
    threads: int = 2
    baseline: bool = True
    oracle: Path | None = None
    crf: bool = True
    memory: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("count", "repeats", "batch", "threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)} must be at least 1")
        if not self.tags or min(self.tags) < 1:
            raise UsageError(f"tags {self.tags}: numbers above 0 are needed")
        if self.preset not in PRESETS:
            raise UsageError(f"unknown preset {self.preset!r}: use one of {', '.join(PRESETS)}")
        if self.baseline and self.device.split(":")[0] != "cpu":
            raise UsageError(f"the baseline runs on the CPU: with --device {self.device} "
                             "leave it out (--no-baseline)")  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """For the JSON; of files and folders only the names, so that it says nothing of the machine."""
        values = dataclasses.asdict(self)
        for name in ("model", "pretrained", "config", "vocabulary", "images", "oracle"):
            value = values[name]
            if value is not None and Path(value).exists():
                values[name] = Path(value).name
        return values
