"""One or many: a string is one image or one name, never its letters."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagclip.arguments import as_images, as_names, is_one_image
from tagclip.errors import UsageError

ARRAY = np.zeros((4, 5, 3), np.uint8)
PICTURE = Image.new("RGB", (5, 4))


ONES = {"name": "a.jpg", "path": Path("a.jpg"), "picture": PICTURE, "array": ARRAY, "grey": ARRAY[..., 0]}


@pytest.mark.parametrize("one", ONES.values(), ids=ONES)
def test_one_image_is_a_list_of_one(one):
    assert is_one_image(one)
    assert as_images(one) == [one] if not isinstance(one, np.ndarray) else as_images(one)[0] is one
    images = as_images([one, one])
    assert len(images) == 2
    assert images[1] is one


def test_batches_generators_and_tuples_are_many():
    assert [image.shape for image in as_images(np.zeros((2, 4, 5, 3), np.uint8))] == [(4, 5, 3)] * 2
    assert as_images(name for name in ("a.jpg", "b.jpg")) == ["a.jpg", "b.jpg"]
    assert as_images(("a.jpg",)) == ["a.jpg"]
    assert as_images([]) == []


@pytest.mark.parametrize("wrong", [None, 3, b"a.jpg", {"a.jpg": 1}, [None], [["a.jpg"]], [np.zeros((1, 4, 5, 3))]])
def test_other_things_are_refused(wrong):
    with pytest.raises(UsageError, match=r"give a path|give paths"):
        as_images(wrong)


def test_names():
    assert as_names("cat", "tags") == ("cat",)
    assert as_names(["dog", "cat"], "tags") == ("dog", "cat")
    assert as_names((name for name in ("dog",)), "tags") == ("dog",)
    assert as_names([], "tags") == ()
    for wrong in (3, None, b"cat"):
        with pytest.raises(UsageError, match=r"tags: .* is no name and no list of names"):
            as_names(wrong, "tags")
    with pytest.raises(UsageError, match="tags: 3 is not a name"):
        as_names(["cat", 3], "tags")
