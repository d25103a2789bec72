"""Tags and true tags brought together."""

import numpy as np
import pytest

from tagclip.errors import UsageError
from tagclip.tag_files import TagRecord
from tagclip.vocabulary import Vocabulary
from wsss.evaluation.tag_scores import match, score_tags

PETS = Vocabulary(["cat", "dog"])


def test_images_that_differ_only_in_suffix_find_their_own_labels():
    labels = {"a.jpg": (0,), "a.png": (1,), "b": (0,)}
    records = [TagRecord("a", (1,), "photos/a.png"), TagRecord("b", (0,), "photos/b.jpg"), TagRecord("c", ())]
    found, missing = match(records, labels)
    assert [(record.id, classes) for record, classes in found] == [("a", (1,)), ("b", (0,))]
    assert missing == 1
    scores = score_tags(records, labels, PETS)
    assert (scores.unlabelled, scores.untagged) == (1, 1)
    np.testing.assert_array_equal(scores.truth, [[False, True], [True, False]])
    assert scores.metrics.micro.f1 == 1


@pytest.mark.parametrize(
    ("records", "labels", "message"),
    [
        ([TagRecord("a", ())], {"x": ()}, r"none of the 1 images with tags \(first 'a'\) is among the 1 .*'x'"),
        ([], {"x": ()}, "no image with tags and labels"),
        ([TagRecord("a", ())], {}, "no image with tags and labels"),
    ],
)
def test_nothing_in_common(records, labels, message):
    with pytest.raises(UsageError, match=message):
        score_tags(records, labels, PETS)
