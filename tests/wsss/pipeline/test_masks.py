"""The one-pass pipeline: equal masks by both ways in, failures, untagged images, resuming, refusing, full disks."""

import errno
import json
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tagclip.config import ImageConfig
from tagclip.errors import RunError, UsageError
from tagclip.image_lists import find_images
from tagclip.tag_files import TagRecord
from tagclip.tagger import TagCLIP
from tests.wsss.runs import SIZES, VOCABULARY, complete, contents, draw_images, start
from wsss.config import MaskConfig
from wsss.files.map_files import StoredMaps, read_maps
from wsss.files.mask_files import read_mask
from wsss.files.run_folder import PARTIAL, RunFolder
from wsss.masks.generator import MaskGenerator
from wsss.pipeline.given_tags import read_given_tags
from wsss.pipeline.masks import Pipeline, run_pipeline
from wsss.pipeline.planning import plan_images, survey
from wsss.pipeline.shared_pass import check_same_input

ROOT = Path(__file__).parents[3]


def masks_of(files):
    return {name: digest for name, digest in files.items() if name.startswith(("masks/", "cams/"))}


def copy_of(finished, tmp_path):
    """A copy of the finished run, to take something away from."""
    shutil.copytree(finished.run, tmp_path / "run")
    return tmp_path / "run"


def test_a_finished_run_holds_everything(finished):
    ids = sorted(path.relative_to(finished.images).with_suffix("").as_posix() for path in finished.paths)
    assert finished.counts["images"] == finished.counts["masks"] == len(SIZES)
    assert finished.counts["failures"] == 0
    assert sorted(finished.files) == sorted(
        [f"cams/{name}.npz" for name in ids]
        + [f"masks/{name}.png" for name in ids]
        + ["config.py", "failures.jsonl", "manifest.json", "tags.jsonl"]
    )
    lines = [json.loads(line) for line in (finished.run / "tags.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ids
    pixels = sum(read_mask(finished.run / "masks" / f"{name}.png").size for name in ids)
    answered = pixels * (1 - finished.counts["ignored_share"])
    assert sum(finished.counts["pixels"].values()) == pytest.approx(answered, abs=1)
    assert not (finished.run / PARTIAL).exists()


def test_the_model_goes_on_while_maps_are_written(finished, golden_clip, tmp_path, monkeypatch):
    run, pipeline, plan = start(golden_clip, finished.images, tmp_path / "run", cache_dir=finished.cache)
    second, seen, work, write = threading.Event(), [], pipeline.batches.work, StoredMaps.write

    def counted(images, inputs):
        seen.append("model")
        if len(seen) > 1:
            second.set()
        return work(images, inputs)

    def waiting(stored, file):
        assert second.wait(60)  # for the model to begin the next batch
        seen.append("write")
        write(stored, file)

    pipeline.batches.work = counted
    monkeypatch.setattr(StoredMaps, "write", waiting)
    with run:
        run_pipeline(pipeline, plan)
    assert seen[:3] == ["model", "model", "write"]
    assert masks_of(contents(tmp_path / "run")) == masks_of(finished.files)


def test_maps_that_cannot_be_written_end_the_run(finished, golden_clip, tmp_path, monkeypatch):
    run, pipeline, plan = start(golden_clip, finished.images, tmp_path / "run", cache_dir=finished.cache)

    def full(stored, file):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(StoredMaps, "write", full)
    with run, pytest.raises(RunError, match="no space left on the disk"):
        run_pipeline(pipeline, plan)
    assert not list((tmp_path / "run" / "cams").rglob("*.npz"))
    monkeypatch.undo()
    complete(golden_clip, finished.images, tmp_path / "run", cache_dir=finished.cache)
    assert masks_of(contents(tmp_path / "run")) == masks_of(finished.files)


@pytest.mark.parametrize("form", ["jsonl", "plain"])
def test_masks_from_a_tags_file_are_the_same_bit_for_bit(finished, golden_clip, tmp_path, form):
    source = finished.run / "tags.jsonl"
    if form == "plain":
        lines = [json.loads(line) for line in source.read_text().splitlines()]
        source = tmp_path / "tags.txt"
        rows = [[line["id"], *(str(VOCABULARY.index(tag)) for tag in reversed(line["tags"]))] for line in lines]
        source.write_text("\n".join(" ".join(row) for row in reversed(rows)))
    tags = read_given_tags(source, VOCABULARY)
    complete(golden_clip, finished.images, tmp_path / "run", tags=tags, cache_dir=finished.cache)
    files = contents(tmp_path / "run")
    assert masks_of(files) == masks_of(finished.files)
    assert (files["tags.jsonl"] == finished.files["tags.jsonl"]) == (form == "jsonl")


def test_one_bad_image_is_a_failure_and_ends_nothing(finished, golden_clip, tmp_path):
    images = tmp_path / "images"
    paths = draw_images(images)
    data = paths[2].read_bytes()
    paths[2].write_bytes(data[: len(data) // 2])  # the header is whole
    paths[3].write_bytes(b"")
    counts = complete(golden_clip, images, tmp_path / "run", cache_dir=finished.cache)
    assert (counts["images"], counts["masks"], counts["failures"]) == (6, 4, 2)
    failures = [json.loads(line) for line in (tmp_path / "run" / "failures.jsonl").read_text().splitlines()]
    assert [(row["id"], row["stage"], row["error"]) for row in failures] == [
        ("part0/1", "decode", "ImageError"), ("part1/1", "decode", "ImageError")
    ]  # fmt: skip
    assert "empty file" in failures[1]["message"]
    once = contents(tmp_path / "run")
    # The tags file knows nothing of the broken image, whose batch companion must see the same batch all the same.
    tags = read_given_tags(tmp_path / "run", VOCABULARY)
    complete(golden_clip, images, tmp_path / "two", tags=tags, ids=set(tags), cache_dir=finished.cache)
    assert masks_of(contents(tmp_path / "two")) == masks_of(once)
    # Mended, the same command does what was missing.
    draw_images(images)
    assert complete(golden_clip, images, tmp_path / "run", cache_dir=finished.cache)["failures"] == 0
    assert masks_of(contents(tmp_path / "run")) == masks_of(finished.files)


def test_images_without_tags_are_background(finished, golden_clip, tmp_path):
    tags = read_given_tags(finished.run, VOCABULARY)
    tags["part0/0"] = TagRecord("part0/0", ())
    counts = complete(golden_clip, finished.images, tmp_path / "run", tags=tags, cache_dir=finished.cache)
    assert counts["untagged"] == 1
    mask = read_mask(tmp_path / "run" / "masks" / "part0" / "0.png")
    assert mask.shape == (48, 64)
    assert not mask.any()
    assert json.loads((tmp_path / "run" / "tags.jsonl").read_text().splitlines()[0])["tags"] == []


def test_a_finished_run_has_nothing_left_to_do(finished, golden_clip, tmp_path):
    out = copy_of(finished, tmp_path)
    complete(golden_clip, finished.images, out, cache_dir=finished.cache)
    assert contents(out) == finished.files


def test_what_is_missing_or_damaged_is_made_again(finished, golden_clip, tmp_path):
    out = copy_of(finished, tmp_path)
    (out / "masks" / "part0" / "0.png").unlink()
    (out / "masks" / "part1" / "0.png").unlink()
    damaged = out / "cams" / "part1" / "0.npz"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    (out / "cams" / "part0" / "2.npz").unlink()
    (out / "masks" / "part1" / "2.png").write_bytes(b"")  # as a power cut may leave it
    complete(golden_clip, finished.images, out, cache_dir=finished.cache)
    assert contents(out) == finished.files
    assert "class maps of part1/0 were damaged" in (out / "log.txt").read_text()


def test_another_config_is_refused_unless_overwritten(finished, golden_clip, tmp_path):
    out = copy_of(finished, tmp_path)
    refusal = r"masks\.alpha 1\.0 there, 2\.0 here; .*: choose another folder, or --overwrite"
    with pytest.raises(RunError, match=refusal):
        start(golden_clip, finished.images, out, alpha=2.0, cache_dir=finished.cache)
    assert contents(out) == finished.files
    run, _, _ = start(golden_clip, finished.images, out, alpha=2.0, overwrite=True, cache_dir=finished.cache)
    with run:
        assert sorted(contents(out)) == [".partial/lock", "config.py", "manifest.json"]


def test_two_processes_cannot_share_a_folder(finished, golden_clip, tmp_path):
    run, _, _ = start(golden_clip, finished.images, tmp_path / "run", cache_dir=finished.cache)
    with run, pytest.raises(RunError, match="another process is working in this folder"):
        start(golden_clip, finished.images, tmp_path / "run", cache_dir=finished.cache)


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "masks").mkdir()
    with pytest.raises(UsageError, match=r"holds masks, but no manifest\.json"):
        RunFolder.open(tmp_path, {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["masks"]
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file, not a folder"):
        RunFolder.open(tmp_path / "file", {}, {})


@contextmanager
def full_disk(limit: int):
    """No file can grow beyond `limit` bytes: what a full disk does, for this process and its workers."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_one_clear_line_and_the_run_goes_on_later(finished, golden_clip, tmp_path):
    run, pipeline, plan = start(golden_clip, finished.images, tmp_path / "run", cache_dir=finished.cache)
    with run, full_disk(300), pytest.raises(RunError, match=r"no space left on the disk .*run the same command again"):
        run_pipeline(pipeline, plan)
    assert not [name for name in contents(tmp_path / "run") if name.startswith(("cams/", "masks/"))]
    complete(golden_clip, finished.images, tmp_path / "run", cache_dir=finished.cache)
    assert contents(tmp_path / "run") == finished.files


def test_killed_at_any_moment_it_ends_with_the_same_bytes(finished, golden_clip, golden_model_path, tmp_path):
    out = tmp_path / "run"
    # The same number of threads: sums over another number of parts differ in the last digit.
    arguments = [golden_model_path, finished.images, out, finished.cache, str(torch.get_num_threads())]
    command = [sys.executable, "-m", "tests.wsss.pipeline_child", *arguments]
    kills = 0
    for enough in (1, 7):  # artefacts on disk when the kill comes: in the first batch, among the masks
        child = subprocess.Popen(command, cwd=ROOT)
        while child.poll() is None:
            if len([*out.glob("cams/*/*.npz"), *out.glob("masks/*/*.png")]) >= enough:
                child.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        assert child.wait() in (-signal.SIGKILL, 0)
        kills += child.returncode == -signal.SIGKILL
    assert kills  # a child that was done before its kill shows nothing
    complete(golden_clip, finished.images, out, cache_dir=finished.cache)
    assert contents(out) == finished.files


def test_both_stages_must_see_the_same_image():
    with pytest.raises(UsageError, match=r"tagging\.image\.max_long_side is 512, masks\.image\.max_long_side is 1024"):
        check_same_input(ImageConfig(max_long_side=512), ImageConfig())


def test_stored_cams_are_the_generators(finished, golden_clip):
    generator = MaskGenerator(golden_clip, VOCABULARY, config=MaskConfig(confidence=0.6), cache_dir=finished.cache)
    stored = read_maps(finished.run / "cams" / "part1" / "1.npz")  # alone in its batch
    found = generator(finished.paths[3], [VOCABULARY.names[index] for index in stored.classes])
    np.testing.assert_array_equal(stored.maps, found.maps.astype(np.float16))
    np.testing.assert_array_equal(stored.raw, found.raw.astype(np.float16))
    np.testing.assert_array_equal(read_mask(finished.run / "masks" / "part1" / "1.png"), found.mask)


def test_pamr_runs_in_the_process_of_the_model(finished, golden_clip, tmp_path):
    counts = complete(golden_clip, finished.images, tmp_path / "run", refiner="pamr", cache_dir=finished.cache)
    assert counts["masks"] == len(SIZES)
    generator = MaskGenerator(
        golden_clip, VOCABULARY, config=MaskConfig(confidence=0.6, refiner="pamr"), cache_dir=finished.cache
    )
    stored = read_maps(tmp_path / "run" / "cams" / "part1" / "1.npz")
    found = generator(finished.paths[3], [VOCABULARY.names[index] for index in stored.classes])
    np.testing.assert_array_equal(read_mask(tmp_path / "run" / "masks" / "part1" / "1.png"), found.mask)


@pytest.mark.pydensecrf
def test_the_reference_preset_sees_positions_as_each_publication_does(finished, golden_clip, tmp_path):
    """On the native grid TagCLIP rounds nothing and CLIP-ES does: the one case that needs two trunks."""
    (path,) = draw_images(tmp_path / "images", ((224, 224),))
    tagger = TagCLIP(golden_clip, VOCABULARY, "reference", cache_dir=finished.cache)
    generator = MaskGenerator(golden_clip, VOCABULARY, "reference", cache_dir=finished.cache)
    plan = plan_images(
        find_images(tmp_path / "images"), generator.config.image, golden_clip.patch_size, batch_size=2,
        batch_patches=None,
    )  # fmt: skip
    with RunFolder.open(tmp_path / "run", {}, {}) as run:
        pipeline = Pipeline(run, golden_clip, VOCABULARY, generator.source, generator.config, tagger=tagger)
        run_pipeline(pipeline, plan)
    (line,) = (tmp_path / "run" / "tags.jsonl").read_text().splitlines()
    expected = tagger([path])[0]
    np.testing.assert_allclose(json.loads(line)["scores"], expected.scores, atol=1e-6)
    found = generator(path, expected.tags)
    stored = read_maps(tmp_path / "run" / "cams" / "part0" / "0.npz")
    assert stored.maps.dtype == np.float32
    np.testing.assert_allclose(stored.maps, found.maps, atol=1e-4)  # all maps were computed here, not there
    assert pipeline.times.images["trunk"] == 2


@pytest.mark.parametrize("noted", [True, False])
def test_a_damaged_mask_is_made_again(finished, golden_clip, tmp_path, noted):
    """A power cut after the mask was renamed; the second time its content is damaged and nobody had counted it."""
    out = copy_of(finished, tmp_path)
    damaged = out / "masks" / "part1" / "0.png"
    data = damaged.read_bytes()
    damaged.write_bytes(data[:-20] if noted else data[:40] + b"damaged" + data[47:])
    (out / "masks" / ".DS_Store").write_bytes(b"Bud1")  # what a file manager leaves is no mask
    (out / "masks" / "part0" / "._0.png").write_bytes(b"\0\5\x16\7")
    complete(golden_clip, finished.images, out, cache_dir=finished.cache)
    files = contents(out)
    assert {name: files[name] for name in finished.files} == finished.files
    assert noted or "mask of part1/0 was damaged" in (out / "log.txt").read_text()



@pytest.mark.parametrize("everywhere", [False, True])
def test_scores_that_are_not_finite(finished, golden_clip, tmp_path, monkeypatch, everywhere):
    """One image's is a failure, and tags.jsonl stays JSON; a model that gives nothing else ends the run."""
    original = TagCLIP.score_trunk

    def broken(self, trunk, images):
        scores = original(self, trunk, images).clone()
        scores[:: 1 if everywhere else 2, 0] = float("nan")
        return scores

    monkeypatch.setattr(TagCLIP, "score_trunk", broken)
    if everywhere:
        with pytest.raises(RunError, match=r"no image so far has finite scores .* use other weights"):
            complete(golden_clip, finished.images, tmp_path / "run", cache_dir=finished.cache)
        return
    counts = complete(golden_clip, finished.images, tmp_path / "run", cache_dir=finished.cache)
    assert counts["failures"] > 0
    assert counts["masks"] == len(SIZES) - counts["failures"] > 0
    text = (tmp_path / "run" / "tags.jsonl").read_text()
    assert "NaN" not in text
    failures = [json.loads(line) for line in (tmp_path / "run" / "failures.jsonl").read_text().splitlines()]
    assert {(row["stage"], row["error"]) for row in failures} == {("tags", "ImageError")}
    monkeypatch.undo()
    assert complete(golden_clip, finished.images, tmp_path / "run", cache_dir=finished.cache)["failures"] == 0
    assert masks_of(contents(tmp_path / "run")) == masks_of(finished.files)


def test_a_batch_that_does_not_fit_is_halved_and_the_run_goes_on(finished, golden_clip, tmp_path, monkeypatch):
    run, pipeline, plan = start(golden_clip, finished.images, tmp_path / "run", cache_dir=finished.cache)
    original = pipeline._infer

    def narrow(batch, images):
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(batch, images)

    pipeline.batches.work = narrow
    with run:
        counts = run_pipeline(pipeline, plan)
    assert (counts["masks"], counts["failures"]) == (len(SIZES), 0)


def test_a_mask_that_cannot_be_made_is_a_recorded_failure(finished, golden_clip, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("wsss.pipeline.mask_workers.mask_from_maps", broken)
    counts = complete(golden_clip, finished.images, tmp_path / "run", refiner="pamr", cache_dir=finished.cache)
    assert (counts["masks"], counts["failures"]) == (0, len(SIZES))
    failures = [json.loads(line) for line in (tmp_path / "run" / "failures.jsonl").read_text().splitlines()]
    assert {row["stage"] for row in failures} == {"masks"}
    assert all("no memory for its mask" in row["message"] and row["path"] for row in failures)


def test_turned_photos_keep_their_pixels_in_the_reference_preset(golden_clip, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 32)).save(tmp_path / "photos" / "turned.jpg", exif=exif)
    files = find_images(tmp_path / "photos")
    limits = {"batch_size": 1, "batch_patches": None}
    upright, stored = (
        plan_images(files, ImageConfig(apply_exif=turn), golden_clip.patch_size, **limits).images[0]
        for turn in (True, False)
    )
    assert (upright.size.height, upright.size.width) == (64, 32)
    assert (stored.size.height, stored.size.width) == (32, 64)
    assert (stored.grid.height, stored.grid.width) == (2, 4)


def test_a_photo_that_still_does_not_decode_is_not_given_to_the_model_again(finished, golden_clip, tmp_path):
    images = tmp_path / "images"
    paths = draw_images(images)
    paths[2].write_bytes(paths[2].read_bytes()[:-200])
    complete(golden_clip, images, tmp_path / "run", cache_dir=finished.cache)
    run, pipeline, plan = start(golden_clip, images, tmp_path / "run", cache_dir=finished.cache)
    with run:
        todo = survey(plan, run, pipeline.config.image)
        assert (todo.batches, todo.masks) == ([], [])
        assert run.failures.ids() == {"part0/1"}
        run.is_complete = True
