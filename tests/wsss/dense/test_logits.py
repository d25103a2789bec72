import itertools
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from wsss.dense.logits import (
    PatchField,
    ResizedField,
    Window,
    WindowField,
    argmax_labels,
    class_probabilities,
    log_normaliser,
    row_chunks,
    small_labels,
    windows_of,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole(field):
    return field.rows(0, field.height)


def stretch(values, height, width):
    return F.interpolate(values[None], size=(height, width), mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("size", [(64, 96), (50, 97), (4, 6), (3, 5)])
def test_patch_field_is_bilinear_interpolation(size):
    logits = random(3, 4, 6)
    field = PatchField(logits, *size)
    expected = stretch(logits, *size)
    assert (whole(field) - expected).abs().max() <= 1e-5
    assert (field.rows(1, 3, slice(1, 3)) - expected[1:3, 1:3]).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (224, 224, [(0, 0)]),
        (224, 336, [(0, 0), (0, 112)]),
        (230, 224, [(0, 0), (6, 0)]),
        (100, 300, [(0, 0), (0, 76)]),
    ],
)
def test_windows(height, width, expected):
    windows = windows_of(height, width, 224, 112)
    assert [(w.top, w.left) for w in windows] == expected
    assert {(w.bottom - w.top, w.right - w.left) for w in windows} == {(min(224, height), min(224, width))}
    covered = torch.zeros(height, width, dtype=torch.bool)
    for w in windows:
        covered[w.top : w.bottom, w.left : w.right] = True
    assert covered.all()


def test_window_field_is_the_mean_of_its_windows():
    windows = windows_of(70, 50, 32, 16)
    logits = random(len(windows), 3, 2, 2)
    total, seen = torch.zeros(3, 70, 50), torch.zeros(70, 50)
    for w, one in zip(windows, logits, strict=True):
        total[:, w.top : w.bottom, w.left : w.right] += stretch(one, 32, 32)
        seen[w.top : w.bottom, w.left : w.right] += 1
    field = WindowField(windows, [PatchField(one, 32, 32) for one in logits], 70, 50)
    assert (whole(field) - total / seen).abs().max() <= 1e-5
    assert (field.rows(13, 41) - (total / seen)[:, 13:41]).abs().max() <= 1e-5


@pytest.mark.parametrize("size", [(35, 25), (140, 101)])
def test_resized_field(size):
    inner = WindowField([Window(0, 0, 70, 50)], [PatchField(random(3, 5, 4), 70, 50)], 70, 50)
    field = ResizedField(inner, *size)
    expected = stretch(whole(inner), *size)
    assert (whole(field) - expected).abs().max() <= 1e-5
    assert (field.rows(7, 20) - expected[:, 7:20]).abs().max() <= 1e-5


def test_labels_take_the_best_name_of_a_class():
    names = torch.tensor([1, 1, 2, 0])  # class 1 has two names
    logits = random(4, 5, 7, seed=3)
    field = PatchField(logits, 5, 7)
    result = argmax_labels(field, names, logit_scale=4.0, chunk_bytes=1)
    merged = torch.stack([logits[3], logits[:2].amax(0), logits[2]])
    assert torch.equal(result.labels, merged.argmax(0))
    probabilities = (4.0 * logits).softmax(0)
    expected = torch.stack([probabilities[3], probabilities[:2].amax(0), probabilities[2]])
    assert (result.confidence - expected.amax(0)).abs().max() <= 1e-6
    normaliser = log_normaliser(field, logit_scale=4.0, chunk_bytes=100)
    for label in range(3):
        one = class_probabilities(field, names, label, normaliser, logit_scale=4.0)
        assert (one - expected[label]).abs().max() <= 1e-6


def test_chunks_do_not_change_the_answer():
    field = PatchField(random(9, 7, 11), 100, 160)
    names = torch.arange(9)
    once = argmax_labels(field, names, logit_scale=10.0, chunk_bytes=2**30)
    assert len(list(row_chunks(field, 2**30))) == 1
    assert len(list(row_chunks(field, 30000))) > 10
    often = argmax_labels(field, names, logit_scale=10.0, chunk_bytes=30000)
    assert torch.equal(once.labels, often.labels)
    assert (once.confidence - often.confidence).abs().max() <= 1e-6


def test_bands_of_a_large_image_stay_small():
    field = PatchField(torch.zeros(171, 64, 128), 1024, 2048)
    bands = list(row_chunks(field, 256 * 2**20))
    assert bands[0][0] == 0
    assert bands[-1][1] == 1024
    assert all(before[1] == after[0] for before, after in itertools.pairwise(bands))
    assert max(last - first for first, last in bands) * 171 * 2048 * 4 <= 256 * 2**20


PEAK = """
import resource, sys, torch
from wsss.dense.logits import PatchField, argmax_labels
torch.set_num_threads(2)
field = PatchField(torch.randn(171, 32, 64), 512, 1024)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
argmax_labels(field, torch.arange(171), logit_scale=40.0, chunk_bytes=2**24)
print(peak() - before)
"""


def test_the_full_array_never_exists():
    output = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True).stdout
    full = 171 * 512 * 1024 * 4
    assert int(output) < full / 2


def test_small_labels_by_hand():
    labels = torch.zeros(10, 10, dtype=torch.long)
    labels[:5] = 1  # 50 of 60 pixels of the foreground
    labels[5, :6] = 4  # 6 of 60
    labels[6, :4] = 2  # 4 of 60
    assert small_labels(labels, 0.1) == [2, 4]  # at most the share, and not more
    assert small_labels(labels, 0.09) == [2]
    assert small_labels(labels, 0.0) == []
    assert small_labels(torch.zeros(3, 3, dtype=torch.long), 0.5) == []


def test_labels_left_out_lose_to_the_next_best():
    field = PatchField(random(4, 3, 5), 30, 50)
    names = torch.tensor([0, 1, 1, 2])
    probabilities = (2.0 * whole(field)).softmax(dim=0)
    result = argmax_labels(field, names, logit_scale=2.0, chunk_bytes=2**12, left_out=[1])
    kept = probabilities[[0, 3]]
    assert torch.equal(result.labels, torch.tensor([0, 2])[kept.argmax(dim=0)])
    assert (result.confidence - kept.amax(dim=0)).abs().max() <= 1e-6  # probabilities are those among all names
