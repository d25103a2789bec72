"""A tiny data set that DeepLab learns in a few iterations: coloured squares on grey, three classes."""

from pathlib import Path

import numpy as np
from PIL import Image

from tagclip.vocabulary import Vocabulary
from wsss.files.run_folder import RunFolder
from wsss.segmentation.overlays import save_label_map

CLASSES = ("red", "green", "blue")
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 220)}
CONFIGS = Path(__file__).parents[3] / "configs" / "segmentation"

# An R18 with an eighth of the channels and nothing random in its pipeline, so that two trainings can be compared.
CONFIG = f'''
_base_ = r"{CONFIGS / "deeplabv3plus_r18_custom.py"}"
meta_keys = ("img_path", "sample_id", "image_weight", "ori_shape", "img_shape", "pad_shape", "flip")
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(stem_channels=8, base_channels=8),
    decode_head=dict(in_channels=64, channels=16, c1_in_channels=8, c1_channels=4, dropout_ratio=0.0,
                     dilations=(1, 2, 3, 4)),
    auxiliary_head=dict(in_channels=32, channels=8, dropout_ratio=0.0),
)
train_pipeline = [
    dict(type="LoadUprightImage"),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs", meta_keys=meta_keys),
]
test_pipeline = [dict(type="LoadUprightImage"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = [dict(type="PolyLR", eta_min=1e-4, power=0.9, begin=0, end=8, by_epoch=False)]
train_cfg = dict(max_iters=8, val_interval=4)
default_hooks = dict(checkpoint=dict(interval=4, max_keep_ckpts=3), logger=dict(interval=1))
'''


def scene(seed: int, size: int = 64) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(size, size, 3) photo, (size, size) mask and the names in it."""
    rng = np.random.default_rng(seed)
    rgb = rng.integers(110, 140, (size, size, 3), dtype=np.uint8)
    mask = np.zeros((size, size), np.uint8)
    names = []
    for label in sorted(rng.choice(3, 2, replace=False)):
        side = int(rng.integers(size // 3, size // 2))
        y, x = rng.integers(0, size - side, 2)
        rgb[y : y + side, x : x + side] = COLOURS[CLASSES[label]]
        mask[y : y + side, x : x + side] = label + 1
        names.append(CLASSES[label])
    return rgb, mask, [name for name in names if CLASSES.index(name) + 1 in mask]


def write_pair(folder: Path, masks: Path, id_: str, seed: int, vocabulary: Vocabulary | None = None) -> list[str]:
    vocabulary = vocabulary or Vocabulary(CLASSES)
    rgb, mask, names = scene(seed)
    if not vocabulary.has_background:
        mask = mask - np.uint8(1)  # what was background is 255, ignored
    path = folder / f"{id_}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path)
    save_label_map(masks / f"{id_}.png", mask, vocabulary.label_palette)
    return names


def voc_folder(root: Path, count: int = 6, first_seed: int = 100, vocabulary: Vocabulary | None = None) -> Path:
    """JPEGImages and SegmentationClass; ids s100, s101, ..."""
    for seed in range(first_seed, first_seed + count):
        write_pair(root / "JPEGImages", root / "SegmentationClass", f"s{seed}", seed, vocabulary)
    return root


def run_folder(root: Path, count: int = 6, first_seed: int = 0, vocabulary: Vocabulary | None = None) -> Path:
    """A finished run folder over images in nested folders, with true masks; ids a/s0, b/s1, a/s2, ..."""
    vocabulary = vocabulary or Vocabulary(CLASSES)
    images = root.parent / f"{root.name}_images"
    run = RunFolder.open(root, {"vocabulary": vocabulary.to_dict()}, {"classes": list(CLASSES)})
    with run:
        order = []
        for seed in range(first_seed, first_seed + count):
            id_ = f"{'ab'[seed % 2]}/s{seed}"
            names = write_pair(images, root / "masks", id_, seed, vocabulary)
            scores = [0.9 if name in names else 0.05 for name in CLASSES]
            scores[CLASSES.index(names[0])] = 0.5
            line = {"id": id_, "path": str(images / f"{id_}.png"), "size": [64, 64], "scores": scores, "tags": names}
            run.tags.append([line])
            order.append(id_)
        run.complete(order, {})
    return root
