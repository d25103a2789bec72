"""Where the golden cases are: a small copy in tests/data, and the full set beside the checkout when it is there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from wsss.pipeline.recipe import Recipe, dataset_settings

DATA = Path(__file__).parent / "data"
COPY = DATA / "golden"
SHARED = Path(__file__).resolve().parents[2] / "shared"
CONFIGS = {"voc": "masks/voc2012", "coco": "masks/coco2017", "cocostuff": "masks/cocostuff"}


@dataclass(frozen=True)
class GoldenCase:
    """One recorded image: kind is "tag", "cam" or "dense"; vocabulary is "" for dense cases."""

    kind: str
    vocabulary: str
    name: str
    arrays_path: Path
    image_path: Path

    def __str__(self) -> str:
        return "_".join(part for part in (self.kind, self.vocabulary, self.name) if part)

    def arrays(self) -> dict[str, np.ndarray]:
        """All recorded arrays by name."""
        with np.load(self.arrays_path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    def image(self) -> Image.Image:
        """The image, RGB."""
        return Image.open(self.image_path).convert("RGB")


def golden_settings(vocabulary: str, preset: str = "reference") -> Recipe:
    """Classes and constants of a golden vocabulary, from the config that ships for it."""
    return dataset_settings(CONFIGS[vocabulary], preset)


def golden_root() -> Path:
    """The full golden folder when it lies beside the checkout, otherwise the copy in tests/data (same layout)."""
    full = SHARED / "golden"
    return full if full.is_dir() else COPY


def golden_cases(kind: str) -> list[GoldenCase]:
    """All cases of a kind that can be run here, sorted by name; never empty, as tests/data has some of each kind."""
    root, cases = golden_root(), []
    for path in sorted(root.glob(f"{kind}_*.npz")):
        rest = path.stem.removeprefix(f"{kind}_")
        vocabulary, name = ("", rest) if kind == "dense" else rest.split("_", 1)
        for image in (root / "images" / f"{name}.png", SHARED / "data" / "voc" / "JPEGImages" / f"{name}.jpg"):
            if image.is_file():
                cases.append(GoldenCase(kind, vocabulary, name, path, image))
                break
    return cases


def golden_text(name: str) -> dict[str, np.ndarray]:
    """Recorded unit-norm text rows: name is "tagging" or "cam"."""
    with np.load(golden_root() / f"text_{name}.npz", allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def undecided_votes(maps: Sequence[torch.Tensor], margin: float = 1e-6) -> np.ndarray:
    """Entries of the affinity whose vote float error may turn.

    Another processor sums in another order: an attention within float error of its layer's mean may lie on either side
    of it, and with it a vote of a third of the layers that is one short or just enough.

    Args:
        maps: head-averaged attention of every layer, each (N, N).
        margin: how near an attention lies to its layer's mean that float error may turn it.

    Returns:
        (N, N) bool.
    """
    distances = torch.stack([attention - attention.mean() for attention in maps])
    above = (distances > margin).sum(dim=0)
    open_layers = (distances.abs() <= margin).sum(dim=0)
    needed = -(-len(maps) // 3)
    return ((above < needed) & (above + open_layers >= needed)).numpy()


def worth_of_votes(maps: Sequence[torch.Tensor], layers: slice, margin: float = 1e-6) -> np.ndarray:
    """(N, N) float: what each entry of the affinity may change by where `undecided_votes`; 0 elsewhere."""
    return torch.stack(list(maps[layers])).mean(dim=0).numpy() * undecided_votes(maps, margin)
