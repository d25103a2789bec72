"""A trained model in one line."""

import numpy as np
import pytest
from PIL import Image

from tagclip.errors import UsageError, WeightsError
from tests.wsss.segmentation import squares
from wsss import Segmentor
from wsss.config import CrfConfig
from wsss.masks.crf import crf_probabilities
from wsss.segmentation.checkpoints import load_segmentor
from wsss.segmentation.predictor import InferenceConfig, Predictor


@pytest.fixture(scope="module")
def segmentor(trained):
    return Segmentor(trained.checkpoint, device="cpu")


@pytest.fixture(scope="module")
def photo():
    return squares.scene(7, size=96)[0]


def test_one_photo_gives_labels_names_and_confidence(segmentor, trained, photo):
    found = segmentor(photo)
    probabilities = Predictor(load_segmentor(trained.checkpoint)).probabilities(photo)
    assert np.array_equal(found.labels, probabilities.argmax(axis=0))
    assert np.array_equal(found.confidence, probabilities.max(axis=0))
    assert found.labels.dtype == np.uint8
    assert found.classes == segmentor.classes == ("background", *squares.CLASSES)
    assert np.array_equal(found.image, photo)


def test_lists_in_lists_out(segmentor, photo, tmp_path):
    Image.fromarray(photo).save(tmp_path / "a.png")
    one = segmentor(str(tmp_path / "a.png"))
    both = segmentor([tmp_path / "a.png", photo[:48]])
    assert np.array_equal(both[0].labels, one.labels)
    assert both[1].labels.shape == (48, 96)
    assert segmentor([]) == []


def test_shares_are_largest_first_and_sum_to_one(segmentor, photo):
    found = segmentor(photo)
    assert list(found.shares.values()) == sorted(found.shares.values(), reverse=True)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.shares == {
        found.classes[label]: pytest.approx((found.labels == label).mean()) for label in np.unique(found.labels)
    }


def test_the_crf_decides_among_the_labels_found(segmentor, photo, monkeypatch):
    raw = np.random.default_rng(0).random((len(segmentor.classes), 96, 96), np.float32) ** 4
    raw[2:] = 0
    raw /= raw.sum(axis=0)
    monkeypatch.setattr(Predictor, "probabilities", lambda self, rgb: raw)
    crf = CrfConfig(iterations=2)
    predictor = Predictor(segmentor._predictor.segmentor, InferenceConfig(crf=crf))
    labels, confidence = predictor.labels_with_confidence(photo)
    expected = crf_probabilities(photo, np.ascontiguousarray(raw[:2]), crf)
    assert np.array_equal(labels, expected.argmax(axis=0))
    assert np.array_equal(confidence, expected.max(axis=0))
    assert 0 < (labels != raw.argmax(axis=0)).mean() < 1
    assert np.array_equal(predictor.labels(photo), labels)


def test_the_plot_names_the_labels(segmentor, photo):
    found = segmentor(photo)
    figure = found.plot()
    assert [axes.get_title() for axes in figure.axes] == ["image", "labels"]
    names = [found.classes[label] for label in np.unique(found.labels) if label]
    legend = figure.axes[1].get_legend()
    assert ([text.get_text() for text in legend.get_texts()] if legend else []) == names


def test_wrong_checkpoints_and_devices(tmp_path, trained):
    with pytest.raises(WeightsError, match="does not exist"):
        Segmentor(tmp_path / "nothing.pth")
    with pytest.raises(UsageError, match="abacus"):
        Segmentor(trained.checkpoint, device="abacus")
