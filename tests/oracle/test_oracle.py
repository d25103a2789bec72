"""The transcription reproduces what the published implementations recorded: that entitles it to be an oracle."""

import numpy as np
import pytest
import torch

from tests.golden import golden_cases, golden_text
from tests.oracle.clip_es import CAM_TEMPLATE, class_maps, label_map
from tests.oracle.crf import dense_crf, wrapped_image
from tests.oracle.dense import dense_features
from tests.oracle.model import tagging_templates
from tests.oracle.tagclip import tag_image
from tests.oracle.vocabularies import VOC, VOC_BACKGROUND, VOC_CAM

TARGETS = {"voc": 20, "coco": 80, "cocostuff": 171}


def difference(got, expected) -> float:
    return float(np.abs(np.asarray(got) - expected).max())


@pytest.mark.parametrize("case", golden_cases("tag"), ids=str)
def test_tagging_equals_the_published_arrays(oracle_clip, case):
    stuff = case.vocabulary == "cocostuff"
    trace = tag_image(
        oracle_clip,
        oracle_clip.prepare(case.image()),
        torch.from_numpy(golden_text("tagging")[case.vocabulary]),
        TARGETS[case.vocabulary],
        threshold=0.1 if stuff else 0.5,
        all_layers=stuff,
    )
    recorded = case.arrays()
    assert trace.grid == tuple(recorded["grid"])
    for name in ("patch_features", "coarse", "affinity", "first", "refined", "local", "scores"):
        if name in recorded:
            assert difference(getattr(trace, name), recorded[name]) < 5e-6, name
    if "vote_mask" in recorded:
        np.testing.assert_array_equal(trace.vote_mask.numpy(), recorded["vote_mask"])
    assert trace.tags == recorded["tags"].tolist()


@pytest.mark.parametrize("case", golden_cases("cam"), ids=str)
def test_maps_and_masks_equal_the_published_arrays(oracle_clip, case):
    recorded, image = case.arrays(), case.image()
    ids, text = recorded["ids"].tolist(), golden_text("cam")
    trace = class_maps(
        oracle_clip,
        oracle_clip.prepare(image),
        (image.height, image.width),
        torch.from_numpy(text["voc"])[ids],
        torch.from_numpy(text["voc_background"]),
    )
    assert difference(trace.cams, recorded["cam"]) < 5e-6
    assert difference(trace.refined, recorded["refined"]) < 5e-6
    assert difference(trace.probabilities, recorded["probs"]) < 5e-6
    if "affinity" in recorded:
        assert difference(trace.affinity, recorded["affinity"]) < 5e-6
    assert (label_map(trace.stacked, ids) != recorded["cam_label"]).sum() <= 2
    crf = dense_crf(wrapped_image(np.asarray(image)), trace.stacked)
    assert (label_map(crf, ids) != recorded["crf_label"]).sum() <= 2
    assert ((crf.max(axis=0) >= 0.95) != recorded["crf_confident"]).sum() <= 2


@pytest.mark.parametrize("case", golden_cases("dense"), ids=str)
def test_dense_features_equal_the_recorded_arrays(oracle_clip, case):
    image = oracle_clip.prepare(case.image())
    for strategy, recorded in case.arrays().items():
        assert difference(dense_features(oracle_clip, image, strategy), recorded) < 5e-6, strategy


@pytest.mark.parametrize("index", [0, 4, 19, 33])
def test_tagging_text_rows_equal_the_recorded_rows(oracle_clip, index):
    row = oracle_clip.text_row((VOC + VOC_BACKGROUND)[index], tagging_templates())
    assert difference(row.numpy(), golden_text("tagging")["voc"][index]) < 5e-6


def test_cam_text_rows_equal_the_recorded_rows(oracle_clip):
    recorded = golden_text("cam")
    for names, rows in ((VOC_CAM, recorded["voc"]), (VOC_BACKGROUND, recorded["voc_background"])):
        got = torch.stack([oracle_clip.text_row(name, [CAM_TEMPLATE]) for name in names])
        assert difference(got.numpy(), rows) < 5e-6


def test_dense_features_of_gclip_are_unit_norm_and_leave_the_weights_alone(oracle_clip):
    before = {name: value.clone() for name, value in oracle_clip.p.items()}
    case = golden_cases("dense")[0]
    image = oracle_clip.prepare(case.image())
    features = dense_features(oracle_clip, image, "gclip")
    assert difference(features.norm(dim=1).numpy(), 1.0) < 1e-5
    assert difference(features, case.arrays()["clearclip"]) > 1e-3
    assert all(torch.equal(before[name], value) for name, value in oracle_clip.p.items())
