"""Exports of several runs in all formats, and what they must hold, for `read_back.py` in another environment.

    python -m tests.exports.make_exports OUT [--voc FOLDER]

OUT gets a folder per run (`names`, `wide`, `plain`, `scenes`, and `voc` of real photos) with `truth/` (masks as npy,
index.json) and `export/FORMAT`. Only this side needs the project; the other one reads plain files.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from tagclip.tag_files import TagRecord, tag_line
from tagclip.vocabulary import Vocabulary
from tests.wsss.export.small_runs import small_run
from wsss.export import FORMATS, export_run
from wsss.export.export_plan import export_names
from wsss.files.mask_files import ignore_label
from wsss.files.run_reader import RunReader

SPLIT = "train=0.6,val=0.4"
FLAT = {f"photo {number}": (".jpg", 1 if number % 3 else 6) for number in range(6)} | {"empty": (".jpg", 1)}


def write_truth(run: Path, target: Path) -> None:
    """Masks as class indices (-1 background, -2 ignored), tags and scores by name of the export."""
    reader = RunReader(run)
    first, ignored = int(reader.vocabulary.has_background), ignore_label(reader.vocabulary.label_count)
    target.mkdir(parents=True)
    records = list(reader.records())
    names, index = export_names(record.id for record in records), {}
    for number, record in enumerate(records):
        labels = reader.mask(record.id)
        truth = labels.astype(np.int32) - first
        truth[labels == ignored] = -2
        np.save(target / f"{number}.npy", truth)
        index[names[record.id]] = {
            "id": record.id,
            "mask": f"{number}.npy",
            "labels": labels.dtype.name,
            "tags": list(record.indices),
            "scores": None if record.scores is None else record.scores.tolist(),
        }
    content = {"classes": list(reader.vocabulary.names), "has_background": bool(first), "images": index}
    (target / "index.json").write_text(json.dumps(content), encoding="utf-8")


def export_all(run: Path, target: Path, split: str | None, formats: tuple[str, ...] = tuple(FORMATS)) -> None:
    """Every format, COCO with polygons, CVAT with a label for ignored pixels."""
    write_truth(run, target / "truth")
    for name in formats:
        summary = export_run(run, name, out=target / "export" / name, split=split)
        print(target.name, name, summary.images, summary.counts, *summary.notes, sep="; ")
    if "coco" in formats:
        export_run(run, "coco", out=target / "export" / "coco-polygons", split=split, polygons=True)
        export_run(run, "coco", out=target / "export" / "coco-parts", split=split, instances="component")
    if "cvat" in formats:
        export_run(run, "cvat", out=target / "export" / "cvat-ignored", split=split, ignored="label")


def scenes_run(folder: Path, count: int) -> Path:
    """Drawn scenes through the demo model."""
    from tagclip.demo.dataset import write_scenes
    from wsss.pipeline.label_folder import label_folder

    write_scenes(folder / "scenes", count, seed=11)
    run = label_folder(folder / "scenes" / "JPEGImages", "voc", folder / "run", config="demo/masks", model="demo")
    return run.root


def voc_run(folder: Path, data: Path, count: int) -> Path:
    """A run of real photos whose masks are the true ones of PASCAL VOC."""
    words, run = Vocabulary.named("voc"), folder / "run"
    (run / "masks").mkdir(parents=True)
    lines = []
    for mask_path in sorted((data / "SegmentationClass").glob("*.png"))[:count]:
        mask = np.asarray(Image.open(mask_path))
        tags = tuple(int(value) - 1 for value in np.unique(mask) if 0 < value < 255)
        record = TagRecord(mask_path.stem, tags, f"{mask_path.stem}.jpg", mask.shape)
        lines.append(json.dumps(tag_line(record, words)) + "\n")
        (run / "masks" / mask_path.name).write_bytes(mask_path.read_bytes())
    (run / "tags.jsonl").write_text("".join(lines))
    manifest = {"format": 1, "vocabulary": words.to_dict(), "photos": {"root": str((data / "JPEGImages").absolute())}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--voc", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--scenes", type=int, default=12)
    args = parser.parse_args()
    out = args.out
    export_all(small_run(out / "names" / "made"), out / "names", SPLIT)
    export_all(small_run(out / "wide" / "made", classes=300), out / "wide", None)
    export_all(small_run(out / "plain" / "made", has_background=False, photos=FLAT), out / "plain", SPLIT)
    if args.scenes:
        export_all(scenes_run(out / "scenes" / "made", args.scenes), out / "scenes", SPLIT)
    if args.voc:
        export_all(voc_run(out / "voc" / "made", args.voc, args.count), out / "voc", SPLIT)


if __name__ == "__main__":
    main()
