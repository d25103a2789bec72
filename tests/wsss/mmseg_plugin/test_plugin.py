"""Data set, head, weighted segmentor and loader, as mmseg's registries build them."""

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS, TRANSFORMS
from mmseg.structures import SegDataSample
from PIL import Image
from torch.nn import functional

import wsss.mmseg_plugin  # noqa: F401
from tagclip.errors import RunError, UsageError
from tests.wsss.segmentation import squares

PIPELINE = [
    {"type": "LoadUprightImage"},
    {"type": "LoadAnnotations"},
    {"type": "PackSegInputs", "meta_keys": ("sample_id", "image_weight", "ori_shape")},
]


@pytest.fixture(scope="module", autouse=True)
def scope():
    init_default_scope("mmseg")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return squares.run_folder(tmp_path_factory.mktemp("plugin") / "run", count=4)


def dataset(root, **options):
    return DATASETS.build({"type": "PseudoMaskDataset", "data_root": str(root), "pipeline": PIPELINE, **options})


def test_dataset_of_a_run_folder(run):
    data = dataset(run)
    assert data.metainfo["classes"] == ("background", *squares.CLASSES)
    assert data.metainfo["palette"][:2] == [[0, 0, 0], [128, 0, 0]]
    assert data.ignore_index == 255
    assert len(data) == 4
    item = data[1]
    rgb, mask, _ = squares.scene(1)
    np.testing.assert_array_equal(item["inputs"].numpy(), rgb[:, :, ::-1].transpose(2, 0, 1))
    np.testing.assert_array_equal(item["data_samples"].gt_sem_seg.data[0].numpy(), mask)
    assert item["data_samples"].sample_id == "b/s1"
    assert item["data_samples"].image_weight == 1.0


def test_dataset_without_background(run):
    data = dataset(squares.voc_folder(run.parent / "voc", 1), vocabulary="cocostuff")
    assert len(data.metainfo["classes"]) == 171
    assert data.metainfo["classes"][0] == "person"
    assert len(data.metainfo["palette"]) == 171


def test_dataset_weights_images_by_their_tag_scores(run):
    weights = [item["data_samples"].image_weight for item in dataset(run, image_weight={"rule": "mean"})]
    assert np.mean(weights) == pytest.approx(1)
    with pytest.raises(UsageError, match="is not one of none, mean, min, product"):
        dataset(run, image_weight={"rule": "most"})


def test_dataset_names_missing_masks_or_skips_them(tmp_path):
    root = squares.run_folder(tmp_path / "run", count=3)
    (root / "masks" / "b" / "s1.png").unlink()
    with pytest.raises(RunError, match="1 of 3 images have no mask: b/s1"):
        dataset(root)
    assert [item["data_samples"].sample_id for item in dataset(root, missing="skip")] == ["a/s0", "a/s2"]
    with pytest.raises(UsageError, match="not one of error, skip"):
        dataset(root, missing="ignore")


@pytest.mark.parametrize(("apply_exif", "shape"), [(True, (40, 20)), (False, (20, 40))])
def test_loader_turns_photos_upright(tmp_path, apply_exif, shape):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), (250, 0, 0)).save(tmp_path / "x.jpg", exif=exif)
    load = TRANSFORMS.build({"type": "LoadUprightImage", "apply_exif": apply_exif})
    result = load({"img_path": str(tmp_path / "x.jpg")})
    assert result["img"].shape == (*shape, 3)
    assert result["ori_shape"] == result["img_shape"] == shape
    assert result["img"][0, 0, 2] > 240
    assert result["img"][0, 0, 0] < 10


def head(**options):
    return MODELS.build({"type": "DeepLabV2Head", "in_channels": 5, "num_classes": 4, "in_index": 1, **options})


def test_deeplabv2_head_is_the_sum_of_its_dilated_branches():
    torch.manual_seed(0)
    module = head(dilations=(1, 3)).eval()
    feature = torch.randn(2, 5, 9, 11)
    expected = sum(
        functional.conv2d(feature, branch.weight, branch.bias, padding=rate, dilation=rate)
        for branch, rate in zip(module.branches, (1, 3), strict=True)
    )
    output = module([torch.zeros(2, 1, 3, 3), feature])
    assert output.shape == (2, 4, 9, 11)
    torch.testing.assert_close(output, expected)


def test_deeplabv2_head_has_the_papers_rates_and_trains_every_parameter():
    module = head()
    module.init_weights()
    assert module.dilations == (6, 12, 18, 24)
    assert sum(p.numel() for p in module.parameters()) == 4 * (5 * 9 * 4 + 4)
    assert float(module.branches[0].weight.detach().std()) == pytest.approx(0.01, rel=0.2)
    assert float(module.branches[0].bias.detach().abs().max()) == 0
    samples = [labelled(torch.randint(0, 4, (1, 16, 16)))]
    losses = module.loss([torch.zeros(1, 1, 2, 2), torch.randn(1, 5, 4, 4)], samples, {})
    losses["loss_ce"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.branches[0].parameters())


def labelled(mask: torch.Tensor, **meta) -> SegDataSample:
    sample = SegDataSample(gt_sem_seg=PixelData(data=mask))
    sample.set_metainfo(meta)
    return sample


@pytest.fixture(scope="module")
def segmentor():
    torch.manual_seed(0)
    norm = {"type": "BN"}
    loss = {"type": "CrossEntropyLoss", "avg_non_ignore": True}
    common = {"num_classes": 3, "norm_cfg": norm, "dropout_ratio": 0.0, "loss_decode": loss}
    settings = ConfigDict(
        backbone={"type": "ResNet", "depth": 18, "stem_channels": 8, "base_channels": 4, "norm_cfg": norm},
        decode_head={"type": "FCNHead", "in_channels": 32, "channels": 8, "in_index": 3, **common},
        auxiliary_head={"type": "FCNHead", "in_channels": 16, "channels": 4, "in_index": 2, **common},
    )
    return {
        kind: MODELS.build(ConfigDict(type=kind, **settings)).eval()
        for kind in ("EncoderDecoder", "WeightedEncoderDecoder")
    }


def losses_of(segmentor, weights):
    ours, theirs = segmentor["WeightedEncoderDecoder"], segmentor["EncoderDecoder"]
    ours.load_state_dict(theirs.state_dict())
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(len(weights), 3, 32, 32, generator=generator)
    masks = torch.randint(0, 3, (len(weights), 1, 32, 32), generator=generator)
    masks[0, :, :7] = 255
    metas = [{} if weight is None else {"image_weight": weight} for weight in weights]
    samples = [labelled(mask, **meta) for mask, meta in zip(masks, metas, strict=True)]
    return ours.loss(images, samples), theirs, images, samples


@pytest.mark.parametrize("weights", [(1.0, 1.0), (None, None)])
def test_equal_weights_change_nothing(segmentor, weights):
    ours, theirs, images, samples = losses_of(segmentor, weights)
    expected = theirs.loss(images, samples)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name


def test_one_image_of_weight_one_does_not_switch_weighting_off(segmentor):
    ours, theirs, images, samples = losses_of(segmentor, (1.0, 0.25))
    alone = [theirs.loss(images[i : i + 1], samples[i : i + 1]) for i in range(2)]
    for name in ("decode.loss_ce", "aux.loss_ce"):
        torch.testing.assert_close(ours[name], (alone[0][name] + 0.25 * alone[1][name]) / 2)


def test_weights_multiply_each_images_own_loss(segmentor):
    ours, theirs, images, samples = losses_of(segmentor, (0.25, 1.75))
    alone = [theirs.loss(images[i : i + 1], samples[i : i + 1]) for i in range(2)]
    assert {"decode.loss_ce", "aux.loss_ce"} <= ours.keys()
    for name in ("decode.loss_ce", "aux.loss_ce"):
        torch.testing.assert_close(ours[name], (0.25 * alone[0][name] + 1.75 * alone[1][name]) / 2)
    torch.testing.assert_close(
        ours["decode.acc_seg"].reshape(()), (alone[0]["decode.acc_seg"] + alone[1]["decode.acc_seg"]).reshape(()) / 2
    )
