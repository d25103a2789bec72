"""The page as files: what is written, what is kept, and runs of every kind."""

import json
import os
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from tagclip.errors import RunError, UsageError
from tagclip.tag_files import TagCorrection
from tests.wsss.review.page_reading import chunk_levels, read_chunks, read_run
from tests.wsss.review.synthetic_runs import NASTY, RunRecipe, make_run
from wsss.files.corrections import Corrections, write_corrections
from wsss.review.page import ReviewPage
from wsss.review.page_data import RunContent
from wsss.review.thumbnails import thumbnail_path


def reviewed(tmp_path, recipe, workers=1) -> Path:
    run = make_run(tmp_path / "run", tmp_path / "photos", recipe)
    page = ReviewPage.plan(run)
    page.make(workers)
    return page.folder


def digest(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_the_page_is_made_of(tmp_path):
    folder = reviewed(tmp_path, RunRecipe(["a", "b/c"]))
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("assets/")} == {
        "index.html", "data/run.js", "data/images-000.js", "thumbs/index.json", "thumbs/0000/000.webp",
        "thumbs/0000/000.js", "thumbs/0000/001.webp", "thumbs/0000/001.js",
    }  # fmt: skip
    html = (folder / "index.html").read_text()
    assert all((folder / "assets" / name.split("/")[1].split('"')[0]).is_file() for name in html.split('src="')[1:]
               if name.startswith("assets"))  # fmt: skip
    assert "http" not in html.replace("http-equiv", "")


def test_data_of_every_image(tmp_path):
    recipe = RunRecipe(["a", "b/c"], scores=np.array([[0.9, 0.1, 0.2], [0.1, 0.6, 0.5]], np.float32))
    folder = reviewed(tmp_path, recipe)
    run, (chunk,) = read_run(folder), read_chunks(folder)
    assert (run["images"], run["classes"], run["name"], run["has_scores"]) == (2, ["cat", "dog", "bird"], "run", True)
    assert run["relative"] == {"t": [0.5] * 3, "from_zero": False, "floor": -1.0}
    assert (chunk["id"], chunk["tags"], chunk["size"]) == (["a", "b/c"], [[0], [1, 2]], [48, 64, 48, 64])
    levels = chunk_levels(chunk, 3)
    assert np.abs(levels / 50_000 - recipe.scores).max() < 2.1e-5
    assert [sum(shares[1::2]) for shares in chunk["shares"]] == pytest.approx([10_000] * 2, abs=3)
    assert chunk["flags"] == [1 | 2 | 8, 1 | 2 | 8]


def test_nothing_is_made_twice(tmp_path):
    run = make_run(tmp_path / "run", tmp_path / "photos", RunRecipe(["a", "b", "c"]))
    first = ReviewPage.plan(run)
    first.make(1)
    before = digest(first.folder)
    again = ReviewPage.plan(run)
    assert again.jobs == []
    again.make(1)
    assert digest(first.folder) == before
    Image.new("RGB", (64, 48)).save(tmp_path / "photos" / "b.png")
    (run / "masks" / "c.png").unlink()
    jobs = ReviewPage.plan(run).jobs
    assert [(job.id, job.with_photo, job.with_overlay) for job in jobs] == [("b", True, False), ("c", False, True)]
    assert len(ReviewPage.plan(run, overwrite=True).jobs) == 3


def test_a_thumbnail_that_is_missing_or_an_index_that_is_damaged_is_made_again(tmp_path):
    run = make_run(tmp_path / "run", tmp_path / "photos", RunRecipe(["a", "b"]))
    page = ReviewPage.plan(run)
    page.make(1)
    thumbnail_path(page.folder / "thumbs", 1, ".webp").unlink()
    assert [job.id for job in ReviewPage.plan(run).jobs] == ["b"]
    (page.folder / "thumbs" / "index.json").write_text("{")
    assert [job.id for job in ReviewPage.plan(run).jobs] == ["a", "b"]


def test_images_that_left_the_run_leave_the_page_and_new_ones_get_a_number_of_their_own(tmp_path):
    run = make_run(tmp_path / "run", tmp_path / "photos", RunRecipe(["a", "b", "c"]))
    page = ReviewPage.plan(run)
    page.make(1)
    lines = (run / "tags.jsonl").read_text().splitlines()
    new = json.dumps({**json.loads(lines[0]), "id": "new", "path": "new.png"})
    (run / "tags.jsonl").write_text("\n".join([new, *lines[1:]]) + "\n")
    shutil.copy(tmp_path / "photos" / "a.png", tmp_path / "photos" / "new.png")
    page = ReviewPage.plan(run)
    assert [job.id for job in page.jobs] == ["new"]
    page.make(1)
    (chunk,) = read_chunks(page.folder)
    assert (chunk["id"], chunk["thumb"]) == (["new", "b", "c"], [0, 1, 2])
    assert not thumbnail_path(page.folder / "thumbs", 0, ".js").exists()  # of `a`, whose number it had


def test_processes_make_the_same_files(tmp_path):
    ids = [f"{place:02d}" for place in range(60)]
    one = reviewed(tmp_path / "one", RunRecipe(ids))
    two = reviewed(tmp_path / "two", RunRecipe(ids), workers=2)
    thumbs = {name: data for name, data in digest(one).items() if name.startswith("thumbs/0")}
    assert {name: data for name, data in digest(two).items() if name.startswith("thumbs/0")} == thumbs
    assert len(thumbs) == 120


def test_a_killed_call_leaves_the_old_page_and_keeps_what_it_made(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", tmp_path / "photos", RunRecipe(["a", "b", "c"]))
    page = ReviewPage.plan(run)

    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        page.make(1, stop)
    assert not page.path.exists()
    assert not (page.folder / ".partial").exists()
    ReviewPage.plan(run).make(1)
    assert len(read_chunks(page.folder)[0]["id"]) == 3


def test_nasty_ids_become_addresses_that_lead_to_the_photos(tmp_path):
    folder = reviewed(tmp_path, RunRecipe(list(NASTY)))
    (chunk,), run = read_chunks(folder), read_run(folder)
    assert chunk["id"] == list(NASTY)
    assert all(flags & 8 for flags in chunk["flags"])
    for name, link in zip(chunk["id"], chunk["photo"], strict=True):
        if link.startswith(".") and "/" not in link:
            target = os.path.normpath(folder / unquote(run["photo_roots"][0]) / f"{name}{link}")
        else:
            assert "#" not in link
            assert "?" not in link
            target = os.path.normpath(folder / unquote(link))
        assert Path(target).is_file()
        assert Path(target) == tmp_path / "photos" / f"{name}.png"
    html = (folder / "index.html").read_text()
    assert "alert" not in html


def test_a_hostile_folder_name_is_text(tmp_path):
    name = "<img src=x onerror=alert(1)> & \"x\""
    run = make_run(tmp_path / name, tmp_path / "photos", RunRecipe(["a"]))
    page = ReviewPage.plan(run)
    page.make(1)
    html = page.path.read_text()
    assert "<img" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert read_run(page.folder)["name"] == name


def test_a_name_that_is_not_utf_8(tmp_path):
    run = make_run(tmp_path / "run", tmp_path / "photos", RunRecipe(["caf%E9"], with_photos=False))
    photo = Path(os.fsdecode(os.fsencode(str(tmp_path / "photos")) + b"/caf\xe9.png"))
    photo.parent.mkdir()
    try:
        Image.new("RGB", (64, 48)).save(photo)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    line = json.loads((run / "tags.jsonl").read_text())
    (run / "tags.jsonl").write_text(json.dumps({**line, "path": os.fsdecode(b"caf\xe9.png")}) + "\n")
    page = ReviewPage.plan(run)
    page.make(1)
    (chunk,) = read_chunks(page.folder)
    assert chunk["photo"] == ["../../photos/caf%E9.png"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"has_masks": False}, 2 | 8), ({"has_maps": False}, 1 | 8), ({"has_masks": False, "has_maps": False}, 8),
        ({"with_photos": False}, 1 | 2 | 16),
    ],
)  # fmt: skip
def test_runs_that_lack_something(tmp_path, changes, expected):
    folder = reviewed(tmp_path, RunRecipe(["a", "b"], **changes))
    assert set(read_chunks(folder)[0]["flags"]) == {expected}


def test_a_photo_that_went_away_keeps_its_thumbnail(tmp_path):
    run = make_run(tmp_path / "run", tmp_path / "photos", RunRecipe(["a", "b"]))
    ReviewPage.plan(run).make(1)
    (tmp_path / "photos" / "a.png").unlink()
    page = ReviewPage.plan(run)
    assert page.figures()["photos_gone"] == 1
    assert page.jobs == []
    page.make(1)
    (chunk,) = read_chunks(page.folder)
    assert chunk["flags"] == [1 | 2 | 8 | 16, 1 | 2 | 8]
    assert chunk["photo"][0] == 0


def test_photos_that_were_moved(tmp_path):
    run = make_run(tmp_path / "run", tmp_path / "photos", RunRecipe(["a/b"]))
    (tmp_path / "photos").rename(tmp_path / "moved here")
    assert ReviewPage.plan(run).figures()["photos_gone"] == 1
    page = ReviewPage.plan(run, image_root=tmp_path / "moved here")
    page.make(1)
    assert read_run(page.folder)["photo_roots"][0] == "../../moved%20here/"


def test_failures_are_in_the_page(tmp_path):
    folder = reviewed(tmp_path, RunRecipe(["a", "b", "c"], failures={"b": "tags"}))
    (chunk,) = read_chunks(folder)
    assert chunk["id"] == ["a", "c", "b"]
    assert chunk["failed"] == {"2": ["tags", "ImageError", "b.png: <b>damaged</b>"]}
    assert chunk["flags"][2] & 8  # the photo itself can be seen


def test_a_photo_that_cannot_be_read_is_said(tmp_path):
    run = make_run(tmp_path / "run", tmp_path / "photos", RunRecipe(["a"]))
    (tmp_path / "photos" / "a.png").write_bytes(b"damaged")
    page = ReviewPage.plan(run)
    page.make(1)
    (chunk,) = read_chunks(page.folder)
    assert "not an image" in chunk["problems"]["0"]
    assert not chunk["flags"][0] & 8


def test_a_run_without_scores_has_no_thresholds(tmp_path):
    folder = reviewed(tmp_path, RunRecipe(["a"], has_scores=False, rule=None))
    assert read_run(folder)["has_scores"] is False
    assert read_chunks(folder)[0]["scores"] == ""


def test_300_classes(tmp_path):
    names = [f"class {place}" for place in range(300)]
    folder = reviewed(tmp_path, RunRecipe(["a", "b"], names=names))
    (chunk,), run = read_chunks(folder), read_run(folder)
    assert len(run["colours"]) == len(run["handles"]) == 300
    assert chunk_levels(chunk, 300).shape == (2, 300)
    labels = {label for shares in chunk["shares"] for label in shares[::2]}
    assert labels <= {-1, 0, *(tag + 1 for tags in chunk["tags"] for tag in tags)}


def test_an_absolute_rule_gives_the_handles(tmp_path):
    rule = {"rule": "absolute", "threshold": 0.35, "class_thresholds": {"dog": 0.2}}
    run = read_run(reviewed(tmp_path, RunRecipe(["a", "b"], rule=rule)))
    assert run["handles"] == [17_500, 10_000, 17_500]
    assert run["relative"] is None


def test_top_k_is_said(tmp_path):
    run = read_run(reviewed(tmp_path, RunRecipe(["a", "b"], rule={"rule": "top_k", "top_k": 2})))
    assert run["rule"] == "The 2 best classes of each image are its tags."
    assert run["relative"] is None


def test_a_floor_is_a_threshold_too(tmp_path):
    run = read_run(reviewed(tmp_path, RunRecipe(["a"], rule={"rule": "relative", "floor": 0.25})))
    assert run["relative"] == {"t": [0.5] * 3, "from_zero": True, "floor": pytest.approx(12_500)}


def test_a_corrected_run_says_what_was_corrected(tmp_path):
    said = TagCorrection((0,), {1: "Anna"}, {0: ""}, "checked", "a note", "Anna")
    scores = np.array([[0.9, 0.1, 0.1]], np.float32)
    folder = reviewed(tmp_path, RunRecipe(["a"], scores=scores, corrections={"a": said}))
    (chunk,) = read_chunks(folder)
    assert chunk["tags"] == [[1]]
    assert chunk["said"] == {"0": {"machine": [0], "added": {"1": "Anna"}, "removed": {"0": ""}, "state": "checked",
                                   "note": "a note", "by": "Anna"}}  # fmt: skip


def test_rejected_images_are_still_in_the_page(tmp_path):
    said = {"b": TagCorrection((0,), {}, {}, "rejected", "", "Anna")}
    folder = reviewed(tmp_path, RunRecipe(["a", "b", "c"], corrections=said))
    (chunk,) = read_chunks(folder)
    assert chunk["id"] == ["a", "c", "b"]
    assert chunk["said"]["2"]["state"] == "rejected"
    assert chunk["flags"] == [1 | 2 | 8] * 3  # with mask and maps, which the run has put aside
    assert chunk["shares"][2]
    assert (folder / "thumbs" / "0000" / "002.js").is_file()


def test_the_confidence_of_masks_is_told_and_noticed_when_it_changes(tmp_path):
    recipe = RunRecipe(["a", "b", "c"], confidence=[0.9, 0.6, 1.0])
    folder = reviewed(tmp_path, recipe)
    (chunk,) = read_chunks(folder)
    assert chunk["confidence"] == pytest.approx([9_000, 6_000, 10_000], abs=20)  # 8 bits
    assert ReviewPage.plan(tmp_path / "run").jobs == []
    (tmp_path / "run" / "confidence" / "b.png").write_bytes(b"damaged")
    page = ReviewPage.plan(tmp_path / "run")
    assert [(job.id, job.with_photo) for job in page.jobs] == [("b", False)]
    page.make(1)
    assert read_chunks(folder)[0]["confidence"][1] == -1
    assert read_chunks(reviewed(tmp_path / "other", RunRecipe(["a"])))[0]["confidence"] == [-1]


def test_a_rejection_costs_no_thumbnail(tmp_path):
    run = make_run(tmp_path / "run", tmp_path / "photos", RunRecipe(["a", "b"]))
    ReviewPage.plan(run).make(1)
    for name in ("masks/b.png", "cams/b.npz"):
        (run / "aside" / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).rename(run / "aside" / name)
    assert ReviewPage.plan(run).jobs == []


def test_thresholds_of_an_earlier_round_are_where_the_handles_start(tmp_path):
    run = make_run(tmp_path / "run", tmp_path / "photos", RunRecipe(["a", "b"]))
    write_corrections(Corrections("id", thresholds={"dog": 0.123, "gone": 0.5}), run / "corrections.json")
    page = ReviewPage.plan(run)
    page.make(1)
    facts = read_run(page.folder)
    assert (facts["moved_before"], facts["handles"][1]) == ([1], 6_150)


def test_an_empty_run(tmp_path):
    folder = reviewed(tmp_path, RunRecipe([]))
    assert read_run(folder)["images"] == 0
    assert read_chunks(folder) == []


def test_more_than_one_chunk(tmp_path):
    ids = [f"{place:04d}" for place in range(1_003)]
    recipe = RunRecipe(ids, has_masks=False, has_maps=False, with_photos=False)
    run = make_run(tmp_path / "run", tmp_path / "photos", recipe)
    page = ReviewPage.plan(run)
    page.make(1)
    assert [len(chunk["id"]) for chunk in read_chunks(page.folder)] == [1_000, 3]
    assert read_run(page.folder)["chunks"] == 2


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no manifest\.json there; give a run folder"):
        ReviewPage.plan(tmp_path)
    run = make_run(tmp_path / "run", tmp_path / "photos", RunRecipe(["a"]))
    (run / "tags.jsonl").unlink()
    with pytest.raises(RunError, match="not complete"):
        RunContent.read(run)


def test_photos_that_the_run_did_not_turn_have_no_link(tmp_path):
    run = make_run(tmp_path / "run", tmp_path / "photos", RunRecipe(["a"]))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "photos" / "a.png", exif=exif)
    manifest = json.loads((run / "manifest.json").read_text())
    for apply_exif, link in ((True, ".png"), (False, 0)):
        manifest["masks"]["image"]["apply_exif"] = apply_exif
        (run / "manifest.json").write_text(json.dumps(manifest))
        page = ReviewPage.plan(run)
        page.make(1)
        assert read_chunks(page.folder)[0]["photo"] == [link]
