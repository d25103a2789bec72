"""Folders of masks say which classes they hold, and nothing is guessed of those that do not."""

import json

import pytest

from tagclip.errors import RunError, UsageError, VocabularyError
from tagclip.vocabulary import Vocabulary
from tests.wsss.segmentation import squares
from wsss.files.classes import folder_vocabulary, require_vocabulary, write_classes, write_vocabulary


@pytest.mark.parametrize(
    "vocabulary", [Vocabulary.named("cocostuff"), Vocabulary(["cat", "été"], palette=[[0, 0, 0], [1, 2, 3], [4, 5, 6]])]
)
def test_a_vocabulary_is_read_back_whole(tmp_path, vocabulary):
    write_vocabulary(tmp_path, vocabulary)
    found = folder_vocabulary(tmp_path)
    assert found == vocabulary
    assert (found.palette == vocabulary.palette).all()
    labels = json.loads((tmp_path / "classes.json").read_text(encoding="utf-8"))["labels"]
    assert list(labels.values()) == list(vocabulary.label_names)


@pytest.mark.parametrize(
    ("names", "classes", "background"),
    [(("background", "cat", "dog"), ("cat", "dog"), True), (("cat", "dog", "cow"), ("cat", "dog", "cow"), False)],
)
def test_the_labels_of_a_model_are_enough(tmp_path, names, classes, background):
    palette = [[9, 9, 9], [1, 2, 3], [4, 5, 6]]
    write_classes(tmp_path, names, palette)
    (tmp_path / "masks").mkdir()
    found = folder_vocabulary(tmp_path / "masks")
    assert (found.names, found.has_background) == (classes, background)
    assert found.label_names == names
    assert found.label_palette.tolist() == palette


def test_a_run_says_its_classes(tmp_path):
    root = squares.run_folder(tmp_path / "run", count=1)
    assert folder_vocabulary(root).names == folder_vocabulary(root / "masks").names == squares.CLASSES


def test_nothing_is_guessed(tmp_path):
    assert folder_vocabulary(tmp_path) is None
    with pytest.raises(UsageError, match=r"nothing says which classes it holds .*--classes: coco, "):
        require_vocabulary(tmp_path, None)
    assert require_vocabulary(tmp_path, "cat,dog").names == ("cat", "dog")
    with pytest.raises(VocabularyError, match="unknown"):
        require_vocabulary(tmp_path, "vocc")


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"labels": {"1": "cat"}, "palette": []}', '{"vocabulary": {"colour": 1}}', '{"labels": 3}'],
)
def test_damaged_records(tmp_path, text):
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(RunError, match=r"classes.json: damaged .*delete it and name the classes"):
        folder_vocabulary(tmp_path)
