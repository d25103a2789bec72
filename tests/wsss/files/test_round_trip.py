"""What is written under an image's id is found and read back under it, whatever the id."""

import io
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings

from tagclip.folders import files_by_id
from tagclip.tag_files import TagRecord, parse_tag_line, read_plain, read_tags, tag_line, write_plain
from tagclip.vocabulary import Vocabulary
from tests import nasty_names
from wsss.files.atomic import atomic_file
from wsss.files.journal import Journal
from wsss.files.map_files import StoredMaps, read_maps
from wsss.files.mask_files import encode_mask, read_mask

PETS = Vocabulary(["cat", "dog", "été"])


@given(nasty_names.id_lists)
@settings(max_examples=60, deadline=None)
def test_masks_and_maps(ids):
    ids = [name for name in ids if not any(other.startswith(f"{name}.png/") for other in ids)]
    with tempfile.TemporaryDirectory() as folder:
        root, scratch = Path(folder, "out"), Path(folder)
        for label, name in enumerate(ids):
            with atomic_file(root / f"{name}.png", scratch) as file:
                file.write(encode_mask(np.full((2, 3), label, np.uint8), PETS.label_palette))
            with atomic_file(root / f"{name}.npz", scratch) as file:
                StoredMaps(np.full((1, 2, 2), label, np.float16), np.array([1], np.int16), (2, 3)).write(file)
        masks, maps = files_by_id(root, ".png"), files_by_id(root, ".npz")
        assert sorted(masks) == sorted(maps) == sorted(ids)
        for label, name in enumerate(ids):
            assert (read_mask(masks[name]) == label).all()
            assert (read_maps(maps[name]).maps == label).all()


@given(nasty_names.id_lists)
@settings(max_examples=60, deadline=None)
def test_tags(ids):
    records = [TagRecord(name, (row % 3,), f"{name}.jpg", (2, 3), np.float32([0.25, 0.5, 1])) for row, name in
               enumerate(ids)]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        journal = Journal(root / "tags.jsonl", root / "partial", root)
        journal.append(tag_line(record, PETS) for record in records)
        again = Journal(root / "tags.jsonl", root / "partial", root)
        assert [parse_tag_line(again[name], PETS).path for name in ids] == [record.path for record in records]
        again.finish(ids)
        for found, record in zip(read_tags(root / "tags.jsonl", PETS), records, strict=True):
            assert (found.id, found.indices, found.path) == (record.id, record.indices, record.path)
        text = io.StringIO()
        write_plain([(record.id, record.indices) for record in records], text)
        (root / "tags.txt").write_bytes(text.getvalue().encode())
        assert read_plain(root / "tags.txt") == [(record.id, record.indices) for record in records]
