"""Damaged and hostile files for every reader: each must be understood or refused with an error of ours.

    python -m tests.fuzz --minutes 30
    python -m tests.fuzz --minutes 1 --only masks maps --seed 7

A case is a valid file with pieces cut, doubled, swapped or replaced. What a reader raises beyond `TagclipError`, or a
path that it lets out of its folder, is a finding: the case is kept in the folder of `--keep` and named.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tagclip.errors import TagclipError
from tagclip.image_lists import find_images
from tagclip.images import decode_image
from tagclip.labels import read_labels
from tagclip.tag_files import read_tags
from tagclip.vocabulary import Vocabulary
from wsss.files.journal import Journal
from wsss.files.lists import read_ids
from wsss.files.map_files import StoredMaps, read_maps
from wsss.files.mask_files import read_mask
from wsss.files.provenance import claim_masks
from wsss.files.run_files import read_manifest

VOCABULARY = Vocabulary(["cat", "dog", "traffic light"], background=["grass"])
NASTY = (
    b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\r\n", b"\r", b"\n\n", b"\t", b" ", b"..", b"../", b"..\\",
    b"/", b"C:\\", b"\\\\host\\", b"~", b"%s", b"{}", b"[]", b"{", b"]", b'"', b"'", b"#", b"-", b":", b",", b"null",
    b"NaN", b"Infinity", b"-1", b"1e309", b"999999999999999999999", b"0.5", b"true", b"cat", b"\xc3\xa9", b"e\xcc\x81",
    "\u202e".encode(), "\U0001f600".encode(), b"&x;", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"<a>", b"</object>",
    b"!!python/object:os.system", b"&a [*a]", b"background", b"CON", b"aux.png", b"." * 300, b"9" * 5000, b"[" * 5000,
    b'{"a":' * 5000,
)  # fmt: skip


CONFIGS = (
    b"preset = 'default'\nmasks = dict(alpha=1.0, crf=dict(iterations=5, bilateral_srgb=5.0), views=dict(flip=True))\n",
    b"_base_ = __import__('wsss').config_path('masks/voc2012')\ntagging = dict(rule=dict(threshold=0.4, floor=None))\n",
    b"# a run of mine\nvocabulary = 'cat,dog'\nmethod = ('cam', 'sclip')\nimages = dict(source='photos', root=None)\n"
    b"tagging = dict(batch_size=4, templates=['a photo of {}'], cwr=dict(threshold=0.5), dmar=dict(first_block=-4))\n",
)


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes:
        name: for the command line and the report.
        file: name that a case gets; a "/" makes folders.
        seeds: valid files.
        read: called with the case's path and the folder that it lies in.
    """

    name: str
    file: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path, Path], object]


def png(values: np.ndarray, mode: str | None = None, kind: str = "PNG") -> bytes:
    """An image file."""
    buffer = io.BytesIO()
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(buffer, kind)
    return buffer.getvalue()


def maps() -> bytes:
    """A file of class maps."""
    buffer = io.BytesIO()
    StoredMaps(np.ones((2, 3, 4), np.float16), np.array([0, 2]), (48, 64), np.ones((2, 3, 4), np.float16)).write(buffer)
    return buffer.getvalue()


def inside(folder: Path, found: list) -> None:
    """Images of a list lie in its folder, and so does what is written under their ids."""
    for image in found:
        if not image.path.resolve().is_relative_to(folder.resolve()):
            raise AssertionError(f"{image.path} is outside its folder")
        check_id(image.id)


def check_id(name: str) -> None:
    """An id names a place inside any folder, on any platform."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith("/") or ".." in parts or any(part[1:2] == ":" for part in parts):
        raise AssertionError(f"id {name!r} leaves its folder")


def tags(path: Path, folder: Path) -> None:
    for record in read_tags(path, VOCABULARY, ids="auto"):
        check_id(record.id)


def labels(path: Path, folder: Path) -> None:
    for name in read_labels(path, VOCABULARY):
        check_id(name)


def journal(path: Path, folder: Path) -> None:
    found = Journal(folder / "final.jsonl", path, folder)
    found.append([{"id": "one more", "tags": []}])
    found.finish(sorted(found.ids()))


def setting(path: Path, folder: Path) -> None:
    """`--set KEY=VALUE` as a command line takes it, up to the settings of a run."""
    from wsss.cli.key_values import key_value

    key, value = key_value(path.read_text(encoding="utf-8", errors="replace"))
    resolve("masks/custom", {key: value})


def config(path: Path, folder: Path) -> None:
    """A config file, up to the settings of a run."""
    resolve(path, {})


def checkpoint() -> bytes:
    """A trained model's file, as far as its reader looks."""
    import torch

    buffer = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.ones(2, 3)}, "meta": {"epoch": 1, "classes": ("a", "b")}}, buffer)
    return buffer.getvalue()


def training_checkpoint(path: Path, folder: Path) -> None:
    from wsss.segmentation.checkpoints import read_training_checkpoint

    read_training_checkpoint(path)


def resolve(name: Path | str, options: dict[str, object]) -> None:
    from wsss.pipeline.recipe import Recipe
    from wsss.pipeline.run_config import MaskRunConfig, load_run_config

    Recipe.resolve(load_run_config(name, {"vocabulary": "cat,dog", **options}, MaskRunConfig()))


def targets() -> list[Target]:
    """All readers."""
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5) % 3
    line = {"id": "a/b", "path": "a/b.jpg", "size": [4, 5], "scores": [0.5, 0.25, 0.1], "tags": ["cat"]}
    named = {"id": "c", "path": "c.jpg", "size": [4, 5], "scores": {"dog": 0.5}, "tags": ["dog"]}
    jsonl = "".join(json.dumps(row) + "\n" for row in (line, named)).encode()
    coco = {
        "images": [{"id": 1, "file_name": "a/b.jpg"}], "categories": [{"id": 3, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 3}],
    }  # fmt: skip
    xml = b"<?xml version='1.0' encoding='utf-8'?><annotation><filename>x.jpg</filename><object><name>cat</name>" \
          b"<difficult>0</difficult></object></annotation>"
    photo = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    manifest = {"format": 1, "state": "complete", "vocabulary": VOCABULARY.to_dict(), "counts": {}}
    return [
        Target("classes-text", "classes.txt", (b"cat\ndog\n# no\ntraffic light, signal\n", b"cat: kitty, puss\n"),
               lambda path, folder: Vocabulary.from_file(path)),
        Target("classes-yaml", "classes.yaml",
               (b"- cat\n- dog: [puppy]\n", b"classes: [cat, dog]\nbackground: [grass]\n", b"0: cat\n1: dog\n"),
               lambda path, folder: Vocabulary.from_file(path)),
        Target("classes-csv", "classes.csv", (b"name\ncat\n\"hot dog, big\"\n",),
               lambda path, folder: Vocabulary.from_file(path)),
        Target("classes-json", "classes.json",
               (b'["cat", {"dog": ["puppy"]}]', b'{"0": "cat", "1": "dog"}', json.dumps(coco).encode()),
               lambda path, folder: Vocabulary.from_file(path)),
        Target("id-list", "ids.txt", (b'a\nb/c 1 2\n# d\n\n"e\\tf" 1\ng h\t2\n',), lambda path, folder: read_ids(path)),
        Target("image-list", "images.txt", (b"here.png\nhere.png 1\n",),
               lambda path, folder: inside(folder, find_images(path, root=folder))),
        Target("tags-jsonl", "tags.jsonl", (jsonl,), tags),
        Target("tags-plain", "tags.txt", (b"a/b 0 2\nc 1\nd\n",), tags),
        Target("labels-xml", "xml/x.xml", (xml,), lambda path, folder: labels(path.parent, folder)),
        Target("labels-coco", "coco.json", (json.dumps(coco).encode(),), labels),
        Target("masks", "mask.png",
               (png(grey), png(grey, "P"), png(grey > 1), png(grey.astype(np.uint16) * 300)),
               lambda path, folder: read_mask(path)),
        Target("maps", "maps.npz", (maps(),), lambda path, folder: read_maps(path)),
        Target("photos", "photo.img", tuple(png(photo, kind=kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP")),
               lambda path, folder: decode_image(path)),
        Target("manifest", "manifest.json", (json.dumps(manifest).encode(),),
               lambda path, folder: read_manifest(folder)),
        Target("journal", "journal.jsonl", (jsonl,), journal),
        Target("mask-record", "masks.json", (json.dumps({"masks": {"alpha": 1.0}}).encode(),),
               lambda path, folder: claim_masks(folder, {"masks": {"alpha": 1.0}}, overwrite=False, name="--out x")),
        Target("set", "set.txt",
               (b"masks.crf.iterations=5", b"tagging.templates=['a photo of a {}.', 'it']", b"method=(cam, sclip)",
                b"masks.views.scales=[1, 1.5]", b"tagging.rule.class_thresholds={'cat': 0.4}", b"vocabulary=cat,dog",
                b"tagging.rule.floor=None", b"masks.confidence=.9", b"work.mask_workers=2", b"model.dtype=bfloat16"),
               setting),
        Target("checkpoints", "iter_1.pth", (checkpoint(),), training_checkpoint),
        Target("configs", "config.py", CONFIGS, config),
    ]  # fmt: skip


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A valid file with a few pieces cut, doubled, swapped, flipped or replaced."""
    for _ in range(rng.randint(1, 4)):
        start = rng.randint(0, len(data))
        end = min(len(data), start + rng.choice((0, 1, 2, 4, 16, len(data))))
        piece = data[start:end]
        choice = rng.randrange(6)
        if choice == 0:
            data = data[:start] + data[end:]
        elif choice == 1:
            data = data[:end] + piece + data[end:]
        elif choice == 2:
            data = data[:start] + rng.choice(NASTY) + data[end:]
        elif choice == 3:
            data = data[:start] + rng.choice(NASTY) + data[start:]
        elif choice == 4 and data:
            place = rng.randrange(len(data))
            data = data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]
        else:
            data = data[:start]
    return data


def attempt(target: Target, case: bytes, folder: Path) -> str | None:
    """None if a case was understood or refused properly, else the traceback."""
    path = folder / target.file
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(folder / "here.png")
    path.write_bytes(case)
    try:
        target.read(path, folder)
    except TagclipError as error:
        if not str(error).strip():
            return "an error without a word"
    except argparse.ArgumentTypeError:  # becomes a line of usage
        pass
    except Exception:
        return traceback.format_exc(limit=-4)
    return None


def _kind(problem: str) -> str:
    """The error's type and the line of ours that it came through, so that each kind is told once."""
    lines = problem.strip().splitlines()
    ours = [line.strip() for line in lines if "/tagclip/" in line or "/wsss/" in line]
    return f"{lines[-1].partition(':')[0]} at {ours[-1].rpartition('/')[2] if ours else '?'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long")
    parser.add_argument("--only", nargs="+", help="these readers")
    parser.add_argument("--seed", type=int, default=0, help="of the cases")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="folder for cases that are findings")
    args = parser.parse_args()
    chosen = [target for target in targets() if args.only is None or target.name in args.only]
    rng, end = random.Random(args.seed), time.monotonic() + 60 * args.minutes
    tried: Counter[str] = Counter()
    findings: dict[str, str] = {}
    while time.monotonic() < end:
        target = rng.choice(chosen)
        case = mutate(rng.choice(target.seeds), rng)
        with tempfile.TemporaryDirectory() as folder:
            problem = attempt(target, case, Path(folder))
        tried[target.name] += 1
        kind = None if problem is None else f"{target.name}: {_kind(problem)}"
        if problem is not None and kind not in findings:
            findings[kind] = problem
            args.keep.mkdir(parents=True, exist_ok=True)
            (args.keep / f"{target.name}-{len(findings)}").write_bytes(case)
            print(f"{kind}\n{problem}", file=sys.stderr, flush=True)
    print("| reader | cases |\n|---|---:|\n" + "\n".join(f"| {name} | {tried[name]} |" for name in sorted(tried)))
    print(f"{sum(tried.values())} cases, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
