"""One photo through every training-free method and source of class maps, as a picture.

    python -m wsss.review.method_pictures --image photo.jpg --classes voc --model demo --out methods.png
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tagclip.clip import FrozenCLIP, load_clip
from tagclip.errors import TagclipError
from tagclip.images import decode_image
from tagclip.vocabulary import Vocabulary
from wsss.config import MaskConfig
from wsss.dense.comparison import SOURCES
from wsss.dense.dense_config import DenseConfig
from wsss.dense.inference import DenseSegmenter
from wsss.dense.strategy import strategy_names
from wsss.files.mask_files import label_dtype, read_mask
from wsss.files.sources import load_vocabulary
from wsss.masks.generator import MaskGenerator
from wsss.review.panels import PictureConfig, below, mask_panel, panel_row


def method_labels(
    clip: FrozenCLIP, vocabulary: Vocabulary, rgb: np.ndarray, methods: Iterable[str], tags: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Label maps of one photo, without CRF.

    Args:
        rgb: (H, W, 3) uint8.
        methods: names of strategies, "cam", "excel".
        tags: classes that it may have; None: all of the vocabulary.

    Returns:
        method -> (H, W) labels, see `wsss.dense.DenseResult`.

    Raises:
        UsageError: no such method or class.
    """
    classes = [vocabulary.index(name) for name in tags] if tags is not None else list(range(len(vocabulary)))
    found = {}
    for method in methods:
        if method in SOURCES:
            source = SOURCES[method](clip, vocabulary, config=MaskConfig(refiner="none", confidence=None))
            maps = source.maps_from_trunk(source.trunk(source.prepare(rgb)[None]), [classes])[0].maps
            found[method] = MaskGenerator(source).mask_from_maps(rgb, maps, classes).labels
        else:
            found[method] = DenseSegmenter(clip, vocabulary, DenseConfig(strategy=method))(rgb, classes=classes).labels
    return found


def draw_methods(
    rgb: np.ndarray, labels: dict[str, np.ndarray], vocabulary: Vocabulary, truth: np.ndarray | None, columns: int = 5
) -> np.ndarray:
    """The photo, its true mask if there is one, and each label map, titled: (H, W, 3) uint8."""
    config = PictureConfig(height=150)
    maps = labels if truth is None else {"truth": truth, **labels}
    panels = [("photo", rgb)]
    for name, mask in maps.items():
        mask = mask.astype(label_dtype(vocabulary.label_count))
        panel = mask_panel(rgb, mask, vocabulary.label_palette, config, background=vocabulary.has_background)
        panels.append((name, panel))
    return below([panel_row(panels[first : first + columns], config) for first in range(0, len(panels), columns)])


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the picture; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True, metavar="FILE", help="The photo")
    parser.add_argument("--mask", type=Path, metavar="FILE", help="Its true mask")
    parser.add_argument("--classes", default="voc", help="Built-in vocabulary, class file or names with commas")
    parser.add_argument("--tags", metavar="NAMES", help="Classes that it may have, with commas (default: all)")
    parser.add_argument("--model", default="demo", help="CLIP model")
    parser.add_argument("--pretrained", help="Its weights")
    parser.add_argument("--methods", nargs="+", default=[*strategy_names(), *SOURCES], metavar="NAME", help="Which")
    parser.add_argument("--columns", type=int, default=5, metavar="N", help="Panels side by side")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="Where the picture goes")
    args = parser.parse_args(argv)
    try:
        vocabulary, rgb = load_vocabulary(args.classes), decode_image(args.image)
        tags = None if args.tags is None else args.tags.split(",")
        truth = None if args.mask is None else read_mask(args.mask)
        labels = method_labels(load_clip(args.model, args.pretrained), vocabulary, rgb, args.methods, tags)
        picture = draw_methods(rgb, labels, vocabulary, truth, args.columns)
    except TagclipError as error:
        parser.exit(2, f"error: {error}\n")
    Image.fromarray(picture).save(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
