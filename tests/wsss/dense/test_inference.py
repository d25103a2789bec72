import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tagclip.clip.prompts import build_text_classifier
from tagclip.errors import UsageError
from tagclip.images import prepare_image
from tagclip.tagger import TagCLIP
from tagclip.vocabulary import Vocabulary
from wsss.dense import dense_features, strategy_names
from wsss.dense.dense_config import DenseConfig
from wsss.dense.features import merge_requests
from wsss.dense.inference import DenseSegmenter
from wsss.dense.strategy_source import StrategySource
from wsss.masks.generator import MaskGenerator

CLASSES = Vocabulary(
    ["cat", "dog", "car"], prompts={"dog": ["dog", "puppy"]}, background=["grass", "sky"], name="three"
)
ONE = ("a photo of a {}.",)


@pytest.fixture(scope="module")
def rgb(golden_dir):
    path = sorted((golden_dir / "images").glob("scene*.png"))[0]
    return np.array(Image.open(path).convert("RGB").resize((150, 110)))


def segmenter(clip, classes=CLASSES, /, **settings):
    return DenseSegmenter(clip, classes, DenseConfig.from_dict({"templates": ONE, **settings}))


def rows(clip, names):
    return build_text_classifier(clip, names, ONE)


def test_whole_image_by_hand(golden_clip, rgb):
    result = segmenter(golden_clip, strategy="naclip")(rgb)
    features = dense_features(golden_clip, rgb, "naclip")
    text = rows(golden_clip, ["cat", "dog", "puppy", "car", "grass", "sky"])
    maps = (40.0 * features @ text.T).T.reshape(1, 6, 7, 10)
    full = F.interpolate(maps, size=rgb.shape[:2], mode="bilinear", align_corners=False)[0]
    probabilities = full.softmax(0)
    merged = torch.stack(
        [probabilities[4:].amax(0), probabilities[0], probabilities[1:3].amax(0), probabilities[3]]
    )
    confidence, labels = merged.max(0)
    assert result.labels.dtype == np.uint8
    assert (result.labels == labels.numpy()).mean() > 0.999  # equal up to ties within float error
    assert np.abs(result.confidence - confidence.numpy()).max() <= 1e-5


def test_features_of_a_tensor_equal_those_of_the_image(golden_clip, rgb):
    image = prepare_image(rgb, golden_clip.patch_size, golden_clip.mean, golden_clip.std)
    assert torch.equal(dense_features(golden_clip, image, "sclip"), dense_features(golden_clip, rgb, "sclip"))


def test_one_window_over_everything_is_the_whole_image(golden_clip, rgb):
    square = np.ascontiguousarray(rgb[:96, :96])
    whole = segmenter(golden_clip, strategy="sclip")(square)
    window = segmenter(golden_clip, strategy="sclip", mode="slide", crop=224)(square)
    assert np.abs(whole.confidence - window.confidence).max() <= 1e-5


def test_windows_by_hand(golden_clip, rgb):
    result = segmenter(golden_clip, strategy="clearclip", mode="slide", crop=64, stride=32, window_batch=4)(rgb)
    text = rows(golden_clip, ["cat", "dog", "puppy", "car", "grass", "sky"])
    total, seen = torch.zeros(6, 110, 150), torch.zeros(110, 150)
    for top in (0, 32, 46):
        for left in (0, 32, 64, 86):
            features = dense_features(golden_clip, rgb[top : top + 64, left : left + 64], "clearclip")
            maps = (40.0 * features @ text.T).T.reshape(1, 6, 4, 4)
            total[:, top : top + 64, left : left + 64] += F.interpolate(maps, size=(64, 64), mode="bilinear")[0]
            seen[top : top + 64, left : left + 64] += 1
    probabilities = (total / seen).softmax(0)
    assert np.abs(result.confidence - probabilities.amax(0).numpy()).max() <= 1e-5


def test_short_side_gives_the_images_own_size(golden_clip, rgb):
    for mode in ("whole", "slide"):
        result = segmenter(golden_clip, strategy="maskclip", mode=mode, short_side=64, crop=48, stride=16)(rgb)
        assert result.labels.shape == rgb.shape[:2]


@pytest.mark.parametrize("mode", ["whole", "slide"])
@pytest.mark.parametrize("strategy", strategy_names())
def test_tags_come_from_the_same_trunk(golden_clip, rgb, strategy, mode):
    made = segmenter(
        golden_clip, strategy=strategy, vocabulary="tags", mode=mode, crop=64, stride=64, tagging={"templates": ONE}
    )
    result = made(rgb)
    tagged = TagCLIP(golden_clip, CLASSES, config=made.tagger.config)([rgb])[0]
    assert np.abs(result.tags.scores - tagged.scores).max() <= 1e-6
    assert result.classes == tagged.indices
    assert set(np.unique(result.labels)) <= {0} | {index + 1 for index in tagged.indices}


def test_labels_restrict_the_answer(golden_clip, rgb):
    made = segmenter(golden_clip, strategy="clip", vocabulary="labels")
    result = made(rgb, classes=["dog"])
    assert set(np.unique(result.labels)) <= {0, 2}
    text = rows(golden_clip, ["dog", "puppy", "grass", "sky"])
    features = dense_features(golden_clip, rgb, "clip")
    full = F.interpolate((40.0 * features @ text.T).T.reshape(1, 4, 7, 10), size=rgb.shape[:2], mode="bilinear")[0]
    assert ((full.argmax(0) < 2) == torch.from_numpy(result.labels == 2)).float().mean() > 0.999
    assert set(np.unique(made(rgb, classes=[]).labels)) == {0}
    with pytest.raises(UsageError, match="needs the classes"):
        made(rgb)


def test_no_background_vocabulary(golden_clip, rgb):
    plain = Vocabulary(["cat", "dog", "car"], background=[], has_background=False)
    made = segmenter(golden_clip, plain, strategy="clip")
    assert set(np.unique(made(rgb, classes=["car"]).labels)) == {2}
    assert made.allowed("car") == made.allowed(["car"]) == made.allowed(2) == [2]
    # Nothing allowed and no background to fall back to: everything is.
    assert np.array_equal(made(rgb, classes=[]).labels, made(rgb).labels)
    with pytest.raises(UsageError, match="no background label"):
        segmenter(golden_clip, plain, background_threshold=0.5)


def test_threshold_leads_to_background(golden_clip, rgb):
    free = segmenter(golden_clip, strategy="clip")(rgb)
    threshold = float(np.median(free.confidence[free.labels > 0]))
    strict = segmenter(golden_clip, strategy="clip", background_threshold=threshold)(rgb)
    assert (free.labels > 0).sum() > (strict.labels > 0).sum() > 0
    assert np.array_equal(strict.labels, np.where(free.confidence < threshold, 0, free.labels))


@pytest.mark.parametrize("pamr", [None, {"iterations": 2}])
def test_small_classes_lose_their_pixels(golden_clip, rgb, pamr):
    free = segmenter(golden_clip, strategy="clip", pamr=pamr)(rgb)
    areas = {label: int((free.labels == label).sum()) for label in np.unique(free.labels) if label}
    smallest = min(areas, key=areas.get)
    share = areas[smallest] / sum(areas.values())
    strict = segmenter(golden_clip, strategy="clip", pamr=pamr, area_threshold=share + 1e-6)(rgb)
    gone = {label for label, area in areas.items() if area <= (share + 1e-6) * sum(areas.values())}
    assert smallest in gone
    assert not gone & set(np.unique(strict.labels))
    kept = ~np.isin(free.labels, list(gone))
    assert np.array_equal(strict.labels[kept], free.labels[kept])
    assert np.abs(strict.confidence[kept] - free.confidence[kept]).max() <= 1e-6


def test_pamr_in_chunks_equals_pamr_at_once(golden_clip, rgb):
    once = segmenter(golden_clip, strategy="clip", pamr={"iterations": 3})
    result = once(rgb)
    view = once.view(rgb)
    names = once.names(range(3))
    (features,), _ = once.features(view, [once.strategy])
    field = once.field(view, features, names)
    chunked = once._refined(field, names, rgb, 1, once.config.pamr)
    assert np.array_equal(result.labels, chunked.labels.numpy())
    plain = segmenter(golden_clip, strategy="clip")(rgb)
    assert (plain.labels != result.labels).any()
    assert DenseConfig.from_dict({"pamr": True}).pamr is not None
    assert DenseConfig.from_dict({"pamr": None}).pamr is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "slide", "crop": 100, "stride": 50}, "no multiple"),
        ({"stride": 0}, "stride 0"),
        ({"background_threshold": 1.5}, "background_threshold"),
        ({"area_threshold": 1.0}, r"area_threshold 1\.0"),
        ({"preset": "published"}, "unknown preset 'published'"),
        ({"propagation": {"step": 3}}, r"unknown setting dense\.propagation\.step"),
        ({"vocabulary": "some"}, "vocabulary"),
        ({"strateg": "clip"}, "unknown setting dense.strateg"),
        ({"strategy": "clipp"}, "unknown strategy"),
        ({"strategy": "gclip", "options": {"block": 3}}, "no option 'block'"),
    ],
)
def test_bad_settings(golden_clip, settings, message):
    with pytest.raises(UsageError, match=message):
        segmenter(golden_clip, **settings)


def test_strategy_feeds_stage_two(golden_clip, rgb):
    dense = DenseConfig(strategy="gclip", templates=ONE)
    generator = MaskGenerator(StrategySource(golden_clip, CLASSES, dense=dense))
    result = generator(rgb, tags=["dog", "car"])
    features = dense_features(golden_clip, rgb, "gclip")
    text = rows(golden_clip, ["dog", "puppy", "car", "grass", "sky"])
    probabilities = (40.0 * features @ text.T).softmax(-1)
    assert np.abs(result.maps[0].ravel() - probabilities[:, :2].amax(1).numpy()).max() <= 1e-5
    assert np.abs(result.maps[1].ravel() - probabilities[:, 2].numpy()).max() <= 1e-5
    assert result.mask.shape == rgb.shape[:2]
    assert set(np.unique(result.mask)) <= {0, 2, 3, 255}
    assert generator(rgb, tags=[]).maps.shape == (0, 7, 10)


def test_stage_two_shares_the_trunk(golden_clip, rgb):
    generator = StrategySource(golden_clip, CLASSES, dense=DenseConfig(strategy="gclip", templates=ONE))
    cam = MaskGenerator(golden_clip, CLASSES).source
    images = generator.prepare(rgb)[None]
    trunk = golden_clip.trunk(images, merge_requests(generator.request, cam.request))
    shared = generator.maps_from_trunk(trunk, [[1]])[0]
    assert np.abs(shared.maps - MaskGenerator(generator)(rgb, tags=["dog"]).maps).max() <= 1e-5
    with pytest.raises(UsageError, match="without the input of block"):
        generator.maps_from_trunk(golden_clip.trunk(images, cam.request), [[1]])
    with pytest.raises(UsageError, match="auto"):
        StrategySource(golden_clip, CLASSES, dense=DenseConfig(options={"blocks": "auto"}, templates=ONE))
