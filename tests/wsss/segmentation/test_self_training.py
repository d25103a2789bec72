"""Masks of a self-training round: the model's, the run's maps', and their mean."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tagclip.errors import ImageError, RunError, UsageError
from tagclip.images import decode_image
from tagclip.vocabulary import Vocabulary
from tests.wsss import runs
from tests.wsss.segmentation import squares
from wsss.config import CrfConfig, MaskConfig
from wsss.files.map_files import StoredMaps
from wsss.files.mask_files import read_mask
from wsss.files.sources import open_source
from wsss.masks.crf import crf_probabilities
from wsss.segmentation.checkpoints import load_segmentor
from wsss.segmentation.predictor import Predictor
from wsss.segmentation.run_maps import RunMaps
from wsss.segmentation.self_training import SelfTrainingConfig, new_labels, relabel

VOCABULARY = Vocabulary(squares.CLASSES)
MASKS = MaskConfig(alpha=2.0, crf=CrfConfig(iterations=3))


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor(load_segmentor(trained.checkpoint))


@pytest.fixture(scope="module")
def run(folders, tmp_path_factory):
    """The squares' run with drawn class maps on a grid of 4 x 4 patches. Do not write into it."""
    root = tmp_path_factory.mktemp("maps") / "run"
    shutil.copytree(folders / "run", root)
    manifest = json.loads((root / "manifest.json").read_text())
    (root / "manifest.json").write_text(json.dumps({**manifest, "masks": MASKS.to_dict()}))
    rng = np.random.default_rng(0)
    for sample in open_source(root).samples:
        classes = np.array(sorted(squares.CLASSES.index(name) for name in sample.tags), np.int16)
        path = root / "cams" / f"{sample.id}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            StoredMaps(rng.random((len(classes), 4, 4)).astype(np.float16), classes, (64, 64)).write(file)
    return root


def test_the_maps_are_those_that_the_runs_masks_come_from(finished):
    """Refined, they give the run's masks again, wherever these are sure."""
    maps = RunMaps.open(finished.run, runs.VOCABULARY)
    for sample in open_source(finished.run).samples:
        labels = [0, *sorted(runs.VOCABULARY.index(name) + 1 for name in sample.tags)]
        rgb, mask = decode_image(sample.image), read_mask(sample.mask)
        before = maps.probabilities(sample.id, labels, rgb.shape[:2])
        assert np.allclose(before.sum(axis=0), 1)
        after = np.array(labels)[maps.refine(rgb, before).argmax(axis=0)]
        assert (after == mask)[mask != 255].mean() > 0.99


def test_labels_without_a_map_get_nothing_and_order_is_the_callers(run):
    maps = RunMaps.open(run, VOCABULARY)
    sample = open_source(run).samples[0]
    there = sorted(VOCABULARY.index(name) + 1 for name in sample.tags)
    (absent,) = {1, 2, 3} - set(there)
    both = maps.probabilities(sample.id, [there[1], 0, there[0], absent], (64, 64))
    plain = maps.probabilities(sample.id, [0, *there], (64, 64))
    np.testing.assert_allclose(both[[1, 2, 0]], plain, rtol=1e-6)
    assert not both[3].any()


def test_the_mean_of_model_and_maps(run, predictor):
    maps, sample = RunMaps.open(run, VOCABULARY), open_source(run).samples[1]
    rgb = decode_image(sample.image)
    labels = np.array([0, *sorted(VOCABULARY.index(name) + 1 for name in sample.tags)])
    by_model = predictor.probabilities(rgb, labels.tolist())
    by_maps = maps.probabilities(sample.id, labels.tolist(), (64, 64))
    mean = 0.75 * by_model + 0.25 * by_maps
    config = SelfTrainingConfig(confidence=0.6, maps_share=0.25)
    made = new_labels(predictor, sample, VOCABULARY, config, maps)
    expected = np.where(mean.max(axis=0) < 0.6, 255, labels[mean.argmax(axis=0)])
    np.testing.assert_array_equal(made, expected)
    assert (expected == 255).any()
    assert (labels[by_model.argmax(axis=0)] != labels[mean.argmax(axis=0)]).any()

    refined = crf_probabilities(rgb, mean, MASKS.crf)
    made = new_labels(predictor, sample, VOCABULARY, replace(config, confidence=None, refine=True), maps)
    np.testing.assert_array_equal(made, labels[refined.argmax(axis=0)])
    assert (made != labels[mean.argmax(axis=0)]).any()


def test_a_round_goes_on_and_keeps_settings_apart(run, predictor, tmp_path):
    source, config = open_source(run), SelfTrainingConfig(confidence=None, maps_share=1.0)
    assert relabel(predictor, source, VOCABULARY, tmp_path / "masks", config) == 6
    first = tmp_path / "masks" / f"{source.samples[0].id}.png"
    before = first.read_bytes()
    first.unlink()
    assert relabel(predictor, source, VOCABULARY, tmp_path / "masks", replace(config, rounds=2)) == 1
    assert first.read_bytes() == before
    first.write_bytes(before[:-20])  # as a power cut leaves it
    assert relabel(predictor, source, VOCABULARY, tmp_path / "masks", config) == 1
    assert first.read_bytes() == before
    with pytest.raises(RunError, match=r"holds masks with other settings: maps_share 1\.0 there, 0\.5 here"):
        relabel(predictor, source, VOCABULARY, tmp_path / "masks", replace(config, maps_share=0.5))


def test_maps_are_missed_clearly(folders, run, predictor, tmp_path):
    config = SelfTrainingConfig(maps_share=0.5)
    with pytest.raises(UsageError, match="no run of stage two, so it has no class maps"):
        relabel(predictor, open_source(folders / "val"), VOCABULARY, tmp_path / "a", config)
    damaged = tmp_path / "run"
    shutil.copytree(run, damaged)
    first = open_source(damaged).samples[0]
    (damaged / "cams" / f"{first.id}.npz").unlink()
    with pytest.raises(ImageError, match="no such file of class maps"):
        relabel(predictor, open_source(damaged), VOCABULARY, tmp_path / "b", config)
    with (damaged / "cams" / f"{first.id}.npz").open("wb") as file:
        StoredMaps(np.zeros((0, 4, 4), np.float16), np.zeros(0, np.int16), (64, 65)).write(file)
    with pytest.raises(ImageError, match=r"maps of an image of \(64, 65\), which now has \(64, 64\)"):
        relabel(predictor, open_source(damaged), VOCABULARY, tmp_path / "c", config)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_a_share(share):
    with pytest.raises(UsageError, match=rf"maps_share {share} is not in \[0, 1\]"):
        SelfTrainingConfig(maps_share=share)
