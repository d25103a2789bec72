"""Photos, text rows and tags of a benchmark."""

import numpy as np
import pytest
import torch
from PIL import Image

from tagclip.errors import UsageError, WeightsError
from wsss.benchmark.settings import BenchmarkSettings
from wsss.benchmark.workload import (
    Photo,
    batches,
    choose_tags,
    image_like_rows,
    make_clip,
    open_photos,
    textured_noise,
)


def test_noise_has_texture_and_a_seed():
    first, again, other = (textured_noise(50, 36, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first.shape == (36, 50, 3)
    assert first.dtype == np.uint8
    assert first.std() > 15
    assert (first == again).all()
    assert (first != other).any()


def test_noise_photos_are_files_for_a_while():
    with open_photos(BenchmarkSettings(count=2, size=(40, 30))) as photos:
        assert [Image.open(photo.path).size for photo in photos] == [(40, 30)] * 2
        assert photos[0].size == (30, 40)
    assert not photos[0].path.exists()


def test_photos_of_one_size_are_taken_from_a_folder(tmp_path):
    for number, size in enumerate([(40, 30), (30, 40), (40, 30)]):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
    with open_photos(BenchmarkSettings(images=tmp_path, count=2, size=(40, 30))) as photos:
        assert [photo.path.name for photo in photos] == ["0.png", "2.png"]
    with (
        pytest.raises(UsageError, match="2 photos of 40x30 pixels, 3 asked for"),
        open_photos(BenchmarkSettings(images=tmp_path, count=3, size=(40, 30))),
    ):
        pass


def test_rows_point_to_clusters_and_spread_logits_as_a_trained_model_does():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(6, 32, generator=generator)
    noise = 0.1 * torch.randn(600, 32, generator=generator)
    features = torch.nn.functional.normalize(3 * torch.ones(32) + centres.repeat(100, 1) + noise, dim=-1)
    rows = image_like_rows(features, 6, logit_scale=100.0, seed=0)
    logits = 100 * features @ rows.T
    assert torch.allclose(rows.norm(dim=1), torch.ones(6), atol=1e-5)
    assert 1.5 < logits.std(dim=1).mean() < 2.5
    found = logits.argmax(1).reshape(100, 6)
    assert (found == found[0]).float().mean() > 0.8  # patches of one kind mostly get one class
    assert len(set(found[0].tolist())) > 3


def test_more_rows_than_patches():
    features = torch.nn.functional.normalize(torch.randn(5, 16), dim=-1)
    rows = image_like_rows(features, 9, logit_scale=100.0, seed=0)
    assert rows.shape == (9, 16)
    assert rows.isfinite().all()


def test_tags_are_the_best_classes_and_just_those_pass_the_threshold(tmp_path):
    local = np.array([0.1, 0.5, 0.3, 0.45], np.float32)
    photo = choose_tags(Photo(tmp_path, (1, 1)), local, 0.05, 0.6, 2)
    assert photo.labels == (1, 3)
    assert (local > 0.05 + photo.threshold * (0.6 - 0.05)).nonzero()[0].tolist() == [1, 3]
    with pytest.raises(UsageError, match="4 tags per image"):
        choose_tags(photo, local, 0.05, 0.6, 4)


def test_batches_keep_the_order(tmp_path):
    photos = [Photo(tmp_path / str(number), (1, 1)) for number in range(5)]
    assert [len(batch) for batch in batches(photos, 2)] == [2, 2, 1]
    assert [photo for batch in batches(photos, 2) for photo in batch] == photos


def test_unknown_architecture_is_an_error_of_one_line():
    with pytest.raises(WeightsError, match="no architecture 'ViT-Z'"):
        make_clip(BenchmarkSettings(model="random:ViT-Z"), "float32")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count 0"),
        ({"tags": ()}, "tags"),
        ({"preset": "best"}, "unknown preset"),
        ({"device": "cuda"}, "runs on the CPU"),
    ],
)
def test_settings_that_make_no_sense(values, message):
    with pytest.raises(UsageError, match=message):
        BenchmarkSettings(**values)


def test_settings_name_no_machine_path(tmp_path):
    settings = BenchmarkSettings(images=tmp_path, model=str(tmp_path)).to_dict()
    assert settings["images"] == settings["model"] == tmp_path.name
