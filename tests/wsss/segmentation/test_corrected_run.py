"""A run that a person has corrected trains, exports and evaluates like any other, without the rejected images."""

import json
import shutil

import numpy as np
import pytest

from tests.tools.commands import command
from tests.wsss.runs import draw_images
from wsss.export import export_run
from wsss.files.corrections import Corrections, ImageCorrection, write_corrections
from wsss.files.mask_files import read_mask
from wsss.files.run_reader import RunReader
from wsss.files.sources import open_source
from wsss.pipeline.label_folder import label_folder
from wsss.segmentation.train_settings import TrainRequest
from wsss.segmentation.training import train_segmentor

REJECTED, CORRECTED, CHECKED = "part0/1", "part0/0", "part1/1"


@pytest.fixture(scope="module")
def corrected(golden_model_path, tmp_path_factory):
    """(run, truth): a corrected run of six photos, and the masks that it had before as the truth, in VOC layout."""
    base = tmp_path_factory.mktemp("corrected")
    draw_images(base / "photos", sizes=((64, 64),) * 6)
    settings = {
        "tagging.batch_size": 1, "tagging.templates": ["a photo of a {}."], "masks.pamr.iterations": 1,
        "masks.confidence": None, "masks.alpha": 8.0,
    }  # fmt: skip
    run = label_folder(
        base / "photos", ["cat", "dog", "bird"], base / "run", model=golden_model_path, refine="pamr", device="cpu",
        settings=settings,
    ).root  # fmt: skip
    shutil.copytree(run / "masks", base / "truth")
    reader = RunReader(run)
    (before,) = [record.indices for record in reader.records() if record.id == CORRECTED]
    names = reader.vocabulary.names
    said = {
        CORRECTED: ImageCorrection(
            tuple(name for place, name in enumerate(names) if place not in before),
            tuple(names[place] for place in before), "checked",
        ),
        REJECTED: ImageCorrection(state="rejected"),
        CHECKED: ImageCorrection(state="checked"),
    }  # fmt: skip
    file = base / "corrections.json"
    write_corrections(Corrections(reader.id, reader.manifest_sha256, "ann", images=said), file)
    assert command("mask")(["--run", str(run), "--corrections", str(file), "--device", "cpu", "--quiet"]) == 0
    return run, base / "truth"


def test_the_data_set_is_what_is_left(corrected):
    run, truth = corrected
    source = open_source(run)
    ids = [sample.id for sample in source.samples]
    assert len(ids) == 5
    assert REJECTED not in ids
    assert source.missing == ()
    changed = {name for name in ids if not np.array_equal(read_mask(run / "masks" / f"{name}.png"),
                                                          read_mask(truth / f"{name}.png"))}  # fmt: skip
    assert changed == {CORRECTED}


def test_it_trains(corrected, config_file, folders, tmp_path):
    run, _ = corrected
    options = {"train_cfg.max_iters": 2, "train_cfg.val_interval": 2, "default_hooks.checkpoint.interval": 2}
    found = train_segmentor(TrainRequest(config=config_file, run=run, work_dir=tmp_path / "work", options=options))
    assert found.images == 5
    assert found.checkpoint.is_file()


@pytest.mark.parametrize("name", ["coco", "yolo", "voc", "csv"])
def test_it_exports(corrected, tmp_path, name):
    run, _ = corrected
    summary = export_run(run, name, out=tmp_path / "all")
    assert (summary.images, summary.left_out) == (5, {"rejected": 1})
    written = "".join(path.as_posix() for path in (tmp_path / "all").rglob("*"))
    assert REJECTED not in written
    checked = export_run(run, name, out=tmp_path / "checked", only_checked=True)
    assert checked.images == 2


def test_coco_has_the_corrected_tags(corrected, tmp_path):
    run, _ = corrected
    export_run(run, "coco", out=tmp_path / "out")
    content = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    images = {one["id"]: one["file_name"] for one in content["images"]}
    found = {images[one["image_id"]] for one in content["annotations"]}
    (record,) = [record for record in RunReader(run).records() if record.id == CORRECTED]
    categories = {one["category_id"] - 1 for one in content["annotations"]
                  if images[one["image_id"]] == f"{CORRECTED}.png"}  # fmt: skip
    assert categories <= set(record.indices)
    assert not any(name.startswith(REJECTED) for name in (*images.values(), *found))


def test_it_is_evaluated(corrected, tmp_path):
    run, truth = corrected
    figures = tmp_path / "figures.json"
    arguments = ["--run", str(run), "--ground-truth", str(truth), "--json", str(figures), "--quiet"]
    assert command("evaluate", "masks")(arguments) == 0
    found = json.loads(figures.read_text())
    assert found["images"] == 5
    labels = tmp_path / "labels.txt"
    lines = [" ".join([record.id, *map(str, record.indices)]) for record in RunReader(run).records()]
    labels.write_text("\n".join(lines))
    arguments = ["--tags", str(run / "tags.jsonl"), "--labels", str(labels), "--classes", "cat,dog,bird"]
    assert command("evaluate", "tags")([*arguments, "--json", str(figures), "--quiet"]) == 0
    assert json.loads(figures.read_text())["micro"]["f1"] == 1
