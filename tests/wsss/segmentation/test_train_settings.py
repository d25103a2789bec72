"""From a config and a request to what is trained: the classes of a run reach every data set whole."""

import json

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from tagclip.vocabulary import Vocabulary
from tests.wsss.segmentation import squares
from wsss.segmentation.checkpoints import DESCRIPTION, read_training_checkpoint
from wsss.segmentation.train_settings import TrainRequest, resolve_config
from wsss.segmentation.training import train_segmentor

COLOURS = [[0, 0, 0], [220, 40, 40], [40, 200, 60], [50, 60, 220]]


@pytest.fixture(scope="module")
def stuff(tmp_path_factory):
    """A run and a VOC-layout folder whose classes are labels 0, 1, 2, as COCO-Stuff's are, in colours of their own."""
    base = tmp_path_factory.mktemp("stuff")
    vocabulary = Vocabulary(squares.CLASSES, has_background=False, palette=np.array(COLOURS), background=())
    squares.run_folder(base / "run", vocabulary=vocabulary)
    squares.voc_folder(base / "val", vocabulary=vocabulary)
    (base / "config.py").write_text(squares.CONFIG)
    return base


def test_a_run_without_background_keeps_labels_and_colours_in_validation(stuff):
    cfg, vocabulary = resolve_config(TrainRequest(stuff / "config.py", run=stuff / "run", val=stuff / "val"))
    init_default_scope("mmseg")
    data_sets = [DATASETS.build(cfg[f"{part}_dataloader"].dataset) for part in ("train", "val", "test")]
    assert vocabulary.has_background is False
    assert (cfg.model.decode_head.num_classes, cfg.model.auxiliary_head.num_classes) == (3, 3)
    for data_set in data_sets:
        assert data_set.metainfo["classes"] == squares.CLASSES
        assert data_set.metainfo["palette"] == COLOURS[1:]
    _, mask, _ = squares.scene(100)
    found = data_sets[1][0]["data_samples"].gt_sem_seg.data.numpy()[0]
    assert np.array_equal(found, np.where(mask == 0, 255, mask.astype(int) - 1))


def test_a_run_without_background_trains(stuff, tmp_path):
    options = {"train_cfg.val_interval": 2}
    request = TrainRequest(
        stuff / "config.py", run=stuff / "run", val=stuff / "val", work_dir=tmp_path, iterations=2, options=options
    )
    outcome = train_segmentor(request).outcomes[0]
    assert outcome.best > 0
    described = json.loads(read_training_checkpoint(outcome.checkpoint)["meta"][DESCRIPTION])
    assert (described["classes"], described["palette"]) == (list(squares.CLASSES), COLOURS[1:])
    assert described["model"]["decode_head"]["num_classes"] == 3


def test_a_class_file_is_handed_on_whole(stuff, tmp_path):
    path = tmp_path / "classes.yaml"
    path.write_text("classes: [red, green, blue]\nhas_background: false\n")
    request = TrainRequest(stuff / "config.py", run=stuff / "run", val=stuff / "val", vocabulary=str(path))
    cfg, vocabulary = resolve_config(request)
    path.unlink()
    for part in ("train", "val"):
        handed_on = Vocabulary.from_dict(cfg[f"{part}_dataloader"].dataset.vocabulary)
        assert handed_on == vocabulary
        assert handed_on.has_background is False


def test_a_built_in_name_stays_a_name(stuff):
    request = TrainRequest(stuff / "config.py", run=stuff / "run", val=stuff / "val", vocabulary="cocostuff")
    cfg, _ = resolve_config(request)
    assert cfg.train_dataloader.dataset.vocabulary == cfg.val_dataloader.dataset.vocabulary == "cocostuff"
    assert cfg.model.decode_head.num_classes == 171
