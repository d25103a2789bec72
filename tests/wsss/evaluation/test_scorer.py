"""The mask scorer against plain per-pixel loops and cases worked out by hand."""

import numpy as np
import pytest
from PIL import Image

from tagclip.errors import ImageError, UsageError
from wsss.evaluation.pairs import MaskPair, score_pairs
from wsss.evaluation.scorer import MaskEvaluationConfig, MaskScorer, boundary_band
from wsss.files.mask_files import read_mask

NAMES = ["background", "cat", "dog"]


def plain_iou(pairs, classes, ignore=255):
    """Per class, by sets of pixels; an unanswered pixel is a miss."""
    result = []
    for c in range(classes):
        inter = union = 0
        for pred, truth in pairs:
            valid = truth != ignore
            inter += int(((pred == c) & (truth == c) & valid).sum())
            union += int((((pred == c) | (truth == c)) & valid).sum())
        result.append(inter / union if union else np.nan)
    return np.array(result)


def random_pairs(seed, count=4):
    rng = np.random.default_rng(seed)
    shapes = [(5, 7), (9, 4), (1, 1), (16, 16)][:count]
    ids = np.array([0, 1, 2, 255], np.uint8)
    return [(rng.choice(ids, shape), rng.choice(ids, shape)) for shape in shapes]


@pytest.mark.parametrize("seed", range(5))
def test_iou_equals_the_plain_count(seed):
    pairs = random_pairs(seed)
    scorer = MaskScorer()
    for pred, truth in pairs:
        scorer.update(pred, truth)
    scores = scorer.scores(NAMES)
    np.testing.assert_allclose(scores.iou, plain_iou(pairs, 3))
    assert scores.miou == pytest.approx(np.nanmean(plain_iou(pairs, 3)))
    assert scores.images == 4
    valid = sum(int((truth != 255).sum()) for _, truth in pairs)
    assert scores.confusion.sum() == valid
    right = sum(int(((pred == truth) & (truth != 255)).sum()) for pred, truth in pairs)
    assert scores.pixel_accuracy == pytest.approx(right / valid)


def test_order_and_grouping_do_not_matter():
    pairs = random_pairs(1)
    forward, backward = MaskScorer(), MaskScorer()
    for pred, truth in pairs:
        forward.update(pred, truth)
    for pred, truth in reversed(pairs):
        backward.update(pred, truth)
    assert forward.scores(NAMES).to_dict() == backward.scores(NAMES).to_dict()


def test_ignored_truth_counts_nowhere_and_ignored_prediction_is_a_miss():
    truth = np.array([[1, 1, 1, 255]], np.uint8)
    scorer = MaskScorer(MaskEvaluationConfig(boundary_width=0))
    scorer.update(np.array([[1, 255, 1, 2]], np.uint8), truth)
    scores = scorer.scores(NAMES)
    assert scores.iou[1] == pytest.approx(2 / 3)
    assert scores.iou_answered[1] == 1
    assert np.isnan(scores.iou[[0, 2]]).all()
    assert scores.ignored_share == pytest.approx(1 / 3)
    assert scores.to_dict()["classes"]["dog"]["iou"] is None
    assert "33.33 % of the pixels ignored" in scores.table()


def test_class_that_only_the_prediction_has_scores_zero():
    scorer = MaskScorer(MaskEvaluationConfig(boundary_width=0))
    scorer.update(np.array([[0, 2]], np.uint8), np.array([[0, 0]], np.uint8))
    assert scorer.scores(NAMES).iou.tolist()[::2] == [0.5, 0]


def test_ids_beyond_the_classes_are_an_error():
    scorer = MaskScorer()
    scorer.update(np.array([[0, 7]], np.uint8), np.array([[0, 0]], np.uint8))
    with pytest.raises(UsageError, match="predictions hold id 7, but there are 3 classes"):
        scorer.scores(NAMES)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_boundary_band_is_the_chessboard_distance_to_the_outside(width):
    rng = np.random.default_rng(width)
    member = rng.random((20, 17)) < 0.9
    expected = np.zeros_like(member)
    padded = np.pad(member, width)
    for y in range(20):
        for x in range(17):
            window = padded[y : y + 2 * width + 1, x : x + 2 * width + 1]
            expected[y, x] = member[y, x] and not window.all()
    np.testing.assert_array_equal(boundary_band(member, width), expected)


def test_boundary_iou_punishes_a_shift_more_than_iou_does():
    truth = np.zeros((100, 100), np.uint8)
    truth[20:80, 20:80] = 1
    shifted = np.roll(truth, 3, axis=1)
    scorer = MaskScorer()
    scorer.update(shifted, truth)
    scores = scorer.scores(NAMES)
    assert scores.iou[1] == pytest.approx(57 / 63)
    # Bands 3 wide (2 % of 141): the two horizontal sides still overlap (2 x 3 x 57), the vertical ones hardly.
    inter = 2 * 3 * 57
    band = 60 * 60 - 54 * 54
    assert scores.boundary_iou[1] == pytest.approx(inter / (2 * band - inter))


def test_void_rim_does_not_count_as_a_boundary_error():
    truth = np.zeros((100, 100), np.uint8)
    truth[18:82, 18:82] = 255
    truth[22:78, 22:78] = 1
    pred = np.zeros((100, 100), np.uint8)
    pred[20:80, 20:80] = 1
    scorer = MaskScorer()
    scorer.update(pred, truth)
    assert scorer.scores(NAMES).boundary_iou[1] == 1


def test_size_mismatch_needs_resize():
    small, large = np.ones((2, 2), np.uint8), np.ones((4, 4), np.uint8)
    with pytest.raises(ImageError, match="2x2 pixels, ground truth of 4x4"):
        MaskScorer().update(small, large)
    scorer = MaskScorer(MaskEvaluationConfig(resize=True))
    scorer.update(small, large)
    assert scorer.scores(NAMES).iou[1] == 1


def test_read_mask_reads_ids_and_refuses_colours(tmp_path):
    ids = np.array([[0, 1], [20, 255]], np.uint8)
    image = Image.fromarray(ids).convert("P")
    image.putpalette(list(range(255, -1, -1)) * 3)
    for mode, file in (("P", "p.png"), ("L", "l.png"), ("I;16", "i.png")):
        (image if mode == "P" else Image.fromarray(ids.astype(np.uint16 if mode == "I;16" else np.uint8))).save(
            tmp_path / file
        )
    for file in ("l.png", "i.png"):
        np.testing.assert_array_equal(read_mask(tmp_path / file), ids)
    assert read_mask(tmp_path / "p.png").shape == (2, 2)
    Image.new("RGB", (2, 2)).save(tmp_path / "rgb.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    for file, message in (("rgb.png", "RGB image holds colours"), ("text.png", "not an image that can hold class ids"),
                          ("empty.png", "not an image that can hold class ids"), ("none.png", "no such mask")):
        with pytest.raises(ImageError, match=message):
            read_mask(tmp_path / file)


def test_score_pairs_streams_and_reports_failures(tmp_path):
    ids = np.array([[0, 1], [2, 2]], np.uint8)
    Image.fromarray(ids).save(tmp_path / "good.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "colour.png")
    read = []

    def pairs():
        for name in ("good", "colour", *["good"] * 40):
            read.append(name)
            yield MaskPair(name, tmp_path / f"{name}.png", tmp_path / "good.png")
            assert len(read) - scorer.images <= 6 + 1  # 2 x 2 in flight, one yielded, one failed

    scorer = MaskScorer()
    failures = score_pairs(pairs(), scorer, workers=2)
    assert [name for name, _ in failures] == ["colour"]
    assert scorer.images == 41
    assert scorer.scores(NAMES).miou == 1


@pytest.mark.parametrize("resize", [False, True])
def test_a_turned_mask_is_named_and_never_resized(resize):
    scorer = MaskScorer(MaskEvaluationConfig(resize=resize))
    with pytest.raises(ImageError, match="mask of 3x2 pixels, ground truth of 2x3: one is the other turned"):
        scorer.measure(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))


def test_the_ignored_value_of_16_bit_files_where_8_are_enough():
    scorer = MaskScorer(MaskEvaluationConfig(boundary_width=0))
    scorer.update(np.array([[1, 65535, 0]], np.uint16), np.array([[1, 1, 65535]], np.uint16))
    scores = scorer.scores(NAMES)
    assert scores.iou[1] == 0.5
    assert scores.ignored_share == 0.5
    assert scorer.ignored == 1


@pytest.mark.parametrize(
    ("truth", "problem"),
    [
        ([0, 255], "true masks hold nothing but 0 and 255"),
        ([255, 255], r"true masks hold nothing but 255 \(ignored\)"),
        ([0, 1, 255], None),
        ([0, 1], None),
        ([0, 0], None),
        ([1, 255], None),
    ],
)
def test_true_masks_that_mean_something_else(truth, problem):
    scorer = MaskScorer()
    scorer.check_truth()
    scorer.update(np.zeros((1, len(truth)), np.uint8), np.array([truth], np.uint8))
    if problem is None:
        scorer.check_truth()
        return
    with pytest.raises(UsageError, match=problem):
        scorer.check_truth()
