"""The batch runner: halves what does not fit, fails the one image that never does, and writes no score that is none."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tagclip.clip import Grid
from tagclip.errors import RunError
from tagclip.image_lists import ImageFile
from tagclip.images import Size
from wsss.pipeline.batch import PATIENCE, BatchRunner, is_out_of_memory
from wsss.pipeline.planning import PlannedImage

CLIP = SimpleNamespace(device=torch.device("cpu"), number_format="float16", name="broken.pt")


def planned(count):
    return [PlannedImage(ImageFile(f"p{i}", Path(f"photos/p{i}.jpg")), Size(16, 16), Grid(1, 1)) for i in range(count)]


def run(work, count):
    runner = BatchRunner(CLIP, work)
    return runner, runner(planned(count), [torch.full((3, 4, 4), float(number)) for number in range(count)])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_a_batch_that_does_not_fit_is_halved_until_it_does():
    sizes = []

    def work(images, inputs):
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [float(values.mean()) for values in inputs]

    _, outcome = run(work, 7)
    assert [(image.id, value) for image, value in outcome.done] == [(f"p{number}", number) for number in range(7)]
    assert not outcome.failed
    assert sizes == [7, 3, 1, 2, 4, 2, 2]


def test_the_image_that_never_fits_fails_alone_and_the_remedy_is_named():
    def work(images, inputs):
        if any(image.id == "p3" for image in images):
            raise MemoryError
        return [image.id for image in images]

    _, outcome = run(work, 5)
    assert [value for _, value in outcome.done] == ["p0", "p1", "p2", "p4"]
    [(image, error)] = outcome.failed
    assert image.id == "p3"
    assert str(error).startswith("photos/p3.jpg: no memory for 1 x 1 patches; set a smaller ")


def test_other_errors_pass():
    def work(images, inputs):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        run(work, 4)


def test_an_image_without_finite_scores_fails_alone():
    runner, outcome = run(lambda images, inputs: [None if image.id == "p1" else 1 for image in images], 3)
    assert [image.id for image, _ in outcome.done] == ["p0", "p2"]
    assert "p1.jpg: its scores are not finite" in str(outcome.failed[0][1])
    runner.finish()


def test_a_model_that_gives_nothing_but_nan_ends_with_one_line():
    line = rf"broken\.pt: no image so far has finite scores \({PATIENCE} tried\).*use --dtype float32"
    with pytest.raises(RunError, match=line):
        run(lambda images, inputs: [None] * len(images), PATIENCE)
    runner, _ = run(lambda images, inputs: [None] * len(images), 2)
    with pytest.raises(RunError, match="2 tried"):
        runner.finish()
