"""A picture of a photo through methods."""

import numpy as np
import pytest
from PIL import Image

from tagclip.clip import load_clip
from tagclip.demo.scenes import SceneConfig, SceneRenderer
from tagclip.errors import UsageError
from tagclip.vocabulary import Vocabulary
from wsss.dense.dense_config import DenseConfig
from wsss.dense.inference import DenseSegmenter
from wsss.review.method_pictures import draw_methods, main, method_labels


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return SceneRenderer(SceneConfig(), 3)(0).image[:160, :160]


def test_labels_are_those_of_each_method(photo):
    clip, vocabulary = load_clip("demo"), Vocabulary.named("voc")
    found = method_labels(clip, vocabulary, photo, ["naclip", "excel"], ["cat", "dog"])
    allowed = {0, vocabulary.index("cat") + 1, vocabulary.index("dog") + 1}
    assert list(found) == ["naclip", "excel"]
    assert all(labels.shape == photo.shape[:2] and set(np.unique(labels)) <= allowed for labels in found.values())
    alone = DenseSegmenter(clip, vocabulary, DenseConfig(strategy="naclip"))(photo, classes=["cat", "dog"]).labels
    assert np.array_equal(found["naclip"], alone)
    with pytest.raises(UsageError, match="unknown strategy 'nothing'"):
        method_labels(clip, vocabulary, photo, ["nothing"])


def test_the_picture_shows_every_panel(photo):
    vocabulary = Vocabulary.named("voc")
    mask = np.zeros(photo.shape[:2], np.uint8)
    one = draw_methods(photo, {"a": mask}, vocabulary, None, columns=2)
    more = draw_methods(photo, {"a": mask, "b": mask}, vocabulary, mask, columns=2)
    assert one.shape[1] == more.shape[1]
    assert more.shape[0] == 2 * one.shape[0]


def test_the_script(photo, tmp_path, capsys):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    argv = ["--image", str(tmp_path / "photo.png"), "--tags", "cat", "--methods", "clip"]
    argv += ["--out", str(tmp_path / "a.png")]
    assert main(argv) == 0
    assert Image.open(tmp_path / "a.png").size[0] > 300
    with pytest.raises(SystemExit, match="2"):
        main([*argv, "--tags", "unicorn"])
    assert "unicorn" in capsys.readouterr().err
