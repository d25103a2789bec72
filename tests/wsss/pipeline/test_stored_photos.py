"""Runs over photos in shards, tables and stores: the bytes of a run over the same photos as a folder."""

import json

import fsspec
import pytest

from tagclip.errors import UsageError
from tests.wsss.files.shards import split_in_two, upload, write_parquet
from tests.wsss.runs import contents, draw_images
from wsss.cli.main import execute
from wsss.export import export_run
from wsss.files.run_reader import RunReader
from wsss.pipeline.remask import Remasking
from wsss.review.page import ReviewPage

VOLATILE = ("config.py", "manifest.json")  # they say where the photos are


def call(images: str, out, *more: str) -> None:
    assert execute([
        "run", "--images", images, "--classes", "voc", "--model", "demo", "--config", "demo/masks", "--out", str(out),
        "--threads", "1", "--mask-workers", "1", "--quiet", *more,
    ]) == 0  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos, and the run over them."""
    top = tmp_path_factory.mktemp("folder")
    draw_images(top / "photos")
    call(str(top / "photos"), top / "run")
    return top


@pytest.fixture(scope="module", params=["tar", "parquet", "memory"])
def stored(request, folder, tmp_path_factory):
    """(source, run) of the same photos in another form."""
    top = tmp_path_factory.mktemp(request.param)
    if request.param == "tar":
        split_in_two(folder / "photos", top / "shards")
        source = str(top / "shards")
    elif request.param == "parquet":
        source = str(write_parquet(top / "photos.parquet", folder / "photos"))
    else:
        source = upload(folder / "photos", "memory://stored-photos")
    call(source, top / "run")
    yield source, top / "run"
    fsspec.filesystem("memory").store.clear()


def test_the_bytes_of_a_folder(folder, stored):
    _, run = stored
    expected, found = (
        {name: digest for name, digest in contents(top).items() if name not in VOLATILE and "review/" not in name}
        for top in (folder / "run", run)
    )
    assert found == expected
    assert len(found) == 6 * 2 + 2
    ours, theirs = (json.loads((top / "manifest.json").read_text()) for top in (folder / "run", run))
    assert isinstance(theirs["photos"].pop("root"), list)
    ours["photos"].pop("root")
    assert ours == theirs


def test_once_more_changes_nothing(stored):
    source, run = stored
    before = contents(run)
    call(source, run)
    assert contents(run) == before


def test_photos_are_opened_downstream(folder, stored, tmp_path):
    _, run = stored
    for record in RunReader(run).records():
        mine = RunReader(folder / "run").photo(record)
        assert RunReader(run).photo(record).read_bytes() == mine.read_bytes()
    names = ("local", "stored")
    for name, top in zip(names, (folder / "run", run), strict=True):
        assert export_run(top, "voc", out=tmp_path / name).images == 6
        page = ReviewPage.plan(top)
        page.make(1)
        assert page.figures()["photos_gone"] == 0
    assert contents(tmp_path / "local" / "JPEGImages") == contents(tmp_path / "stored" / "JPEGImages")
    thumbs = [contents(top / "review" / "thumbs", leave_out=("index.json",)) for top in (folder / "run", run)]
    assert thumbs[0] == thumbs[1]
    assert thumbs[0]
    with pytest.raises(UsageError, match=r"--photos symlink: .*use --photos copy"):
        export_run(run, "voc", out=tmp_path / "links", photos="symlink")
    again = Remasking.plan(run, tmp_path / "again", {})
    again.execute(1)
    masks = contents(tmp_path / "again", leave_out=("masks.json", "classes.json"))
    assert masks == contents(run / "masks")


def test_photos_that_were_moved_into_shards(folder, stored, tmp_path):
    source, _ = stored
    summary = export_run(folder / "run", "voc", out=tmp_path / "out", image_root=source)
    assert summary.images == 6
