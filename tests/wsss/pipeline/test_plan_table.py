"""Plans of very many images: the batches of the plain form, objects made when asked for, headers read once."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tagclip.batches import batch_limit, plan_batches
from tagclip.clip.trunk import Grid
from tagclip.config import ImageConfig
from tagclip.image_ids import is_plain, safe_id, without_suffix
from tagclip.image_lists import ImageFiles, find_images, list_images
from wsss.files.kept_plan import PLAN_FILE
from wsss.files.run_folder import RunFolder
from wsss.pipeline import planning
from wsss.pipeline.plan_table import BatchTable, Lazy, names_digest
from wsss.pipeline.planning import confirm_photos, plan_images
from wsss.pipeline.work_parts import cut_parts

GRIDS = [Grid(2, 3), Grid(4, 4), Grid(1, 9)]


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 2)), max_size=60), st.integers(1, 5),
    st.one_of(st.none(), st.integers(1, 60)),
)  # fmt: skip
def test_batches_are_those_of_the_plain_form(numbers, batch_size, batch_patches):
    expected = plan_batches([None if n is None else GRIDS[n] for n in numbers], batch_size, batch_patches)
    groups = np.array([-1 if n is None else n for n in numbers], np.int32)
    table = BatchTable.of(groups, [batch_limit(grid, batch_size, batch_patches) for grid in GRIDS])
    assert [table[place] for place in range(len(table))] == expected


@given(st.text(alphabet="aCcoOnN1. -_/\\:é\0", max_size=9), st.sampled_from([".png", ".JPG"]))
def test_plain_names_are_ids(stem, suffix):
    name = f"{stem}{suffix}"
    if is_plain(name) and stem.rpartition("/")[2]:
        assert safe_id(name) == name
        assert safe_id(without_suffix(name)) == without_suffix(name) == stem
        assert is_plain(stem)


@pytest.mark.parametrize("name", ["con.png", "a/aux", "lpt1 .png", "..", "a//b.png", "a\\b.png", "", "c:/a"])
def test_names_that_need_a_longer_look(name):
    assert not is_plain(name)


NAMES = ("b.png", "a/c.png", "a/x.PNG", "d e.png", "0.png")


def draw(folder, names=NAMES):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + number, 32)).save(folder / name, format="png")


@pytest.mark.parametrize("more", [(), ("a/c.jpg",), ("con.png",), ("é.png",), (".hidden.png", "Thumbs.db")])
@pytest.mark.parametrize("above", [False, True])
def test_a_folder_is_listed_alike(tmp_path, more, above):
    folder = tmp_path / "deep" / "photos"
    draw(folder, (*NAMES, *more))
    root = tmp_path if above else None
    files = list_images(folder, root=root)
    assert isinstance(files, ImageFiles)
    assert list(files) == find_images(folder, root=root) == [files[place] for place in range(len(files))]
    assert [files.id(place) for place in range(len(files))] == [file.id for file in files] == list(files.ids())
    assert [files.path_text(place) for place in range(len(files))] == [str(file.path) for file in files]
    assert list(files.suffixes()) == [file.path.suffix for file in files]
    assert files[:] is files
    assert files[1:3] == list(files)[1:3]
    assert names_digest(files) == names_digest(list(files))


def test_lazy_sequences():
    squares = Lazy(4, lambda place: place * place)
    assert list(squares) == [0, 1, 4, 9] == squares[:]
    assert squares == [0, 1, 4, 9]
    assert squares[-1] == 9
    assert 4 in squares
    with pytest.raises(IndexError):
        squares[4]


@pytest.fixture
def counted(monkeypatch):
    """Paths whose headers were read."""
    seen = []
    real = planning.image_size

    def count(path, **settings):
        seen.append(path.name)
        return real(path, **settings)

    monkeypatch.setattr(planning, "image_size", count)
    return seen


def plan_of(folder, out, **settings):
    config = ImageConfig(**settings)
    return plan_images(list_images(folder), config, 16, batch_size=2, batch_patches=None, workers=2, kept=out)


def test_headers_are_read_once(tmp_path, counted):
    folder, out = tmp_path / "photos", tmp_path / "out"
    draw(folder)
    (folder / "broken.png").write_bytes(b"no photo")
    first = plan_of(folder, out)
    assert sorted(counted) == sorted([*(name.rpartition("/")[2] for name in NAMES), "broken.png"])
    with RunFolder.open(out, {}, {}) as run:
        confirm_photos(first, run)
    assert (out / PLAN_FILE).is_file()
    counted.clear()
    again = plan_of(folder, out)
    assert counted == ["broken.png"]  # it may have been repaired
    assert list(again.batches) == list(first.batches)
    assert list(again.order) == list(first.order)
    assert [file.id for file, _ in again.unreadable] == ["broken"]
    # A photo that changed, one that is new and one that left: the others are known by their names.
    counted.clear()
    Image.new("RGB", (90, 70)).save(folder / "b.png")
    os.utime(folder / "b.png", ns=(1, 1))
    Image.new("RGB", (50, 50)).save(folder / "1.png")
    (folder / "0.png").unlink()
    other = plan_of(folder, out)
    assert sorted(counted) == ["1.png", "b.png", "broken.png"]
    assert {image.id: (image.size.width, image.size.height) for image in other.images} == {
        "1": (50, 50), "b": (90, 70), "a/c": (41, 32), "a/x": (42, 32), "d e": (43, 32),
    }  # fmt: skip
    # Photos that are not turned have other sizes: nothing that was kept tells them.
    counted.clear()
    plan_of(folder, out, apply_exif=False)
    assert len(counted) == 6


def test_a_part_needs_nothing_of_the_others(tmp_path):
    draw(tmp_path / "photos")
    plan = plan_of(tmp_path / "photos", None)
    parts = cut_parts(plan, 2)
    assert [name for part in parts for name in part.order] == [image.id for image in plan.images]
    assert [image for part in parts for image in part.images] == plan.images
    alone = parts[1].spelled_out()
    assert (alone.order, alone.batches) == (list(parts[1].order), list(parts[1].batches))
    assert isinstance(alone.order, list)
    assert isinstance(alone.batches, list)
    assert plan.sizes() == {image.size for image in plan.images}
    assert sorted(plan.photo_sizes()) == sorted((image.id, image.file_size) for image in plan.images)
