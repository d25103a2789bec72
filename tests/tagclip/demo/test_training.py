"""The demo model's training: its layout is OpenAI's, it learns, and it resumes to the same weights."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from tagclip.clip import load_clip
from tagclip.clip.attention import layer_norm
from tagclip.demo import training
from tagclip.demo.losses import losses
from tagclip.demo.model import DemoArchitecture, DemoCLIP
from tagclip.demo.scenes import SceneConfig
from tagclip.errors import UsageError
from tests.clip_models import class_feature
from wsss.config import CamConfig
from wsss.maps.gradcam import softmax_gradcam

SCENES = SceneConfig(side=(32, 32), square=True, objects=(1, 1), object_side=(16, 30), augment=True)
SMALL = DemoArchitecture(vision_width=32, vision_depth=2, vision_heads=2, text_width=16, text_depth=1, embedding=16)


@pytest.fixture
def small_run(monkeypatch, tmp_path):
    """Settings of a run of eight steps on 32 px scenes with a model of two narrow blocks."""
    phases = [training.Phase(0.5, 8, SCENES, 0.5), training.Phase(0.5, 4, SCENES, 1.0)]
    monkeypatch.setattr(training, "curriculum", lambda scale: phases)
    monkeypatch.setattr(training, "DemoArchitecture", lambda: SMALL)
    monkeypatch.setattr(training, "evaluate", lambda model, captions, scenes: {"scenes": float(len(scenes))})
    return training.TrainingConfig(
        out=tmp_path, steps=8, threads=1, workers=0, bf16=False, eval_every=2, eval_scenes=1, warmup=1
    )


def test_stored_weights_read_back_as_the_same_model(tmp_path):
    captions = training.Captions(0)
    torch.manual_seed(0)
    model = DemoCLIP(DemoArchitecture(vision_depth=3, text_depth=2), captions.all_rows())
    state = model.stored_state()
    model.load_stored(state)
    save_file(state, tmp_path / "demo.safetensors", metadata={"quick_gelu": "true"})
    clip = load_clip(str(tmp_path / "demo.safetensors"))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        cls, patches, _, normed = model.visual(images)
        torch.testing.assert_close(class_feature(clip, images), cls, atol=2e-5, rtol=0)
        tokens = clip.trunk(images).tokens
        local = torch.nn.functional.normalize(clip.project(clip.last_block(tokens, "local"))[:, 1:], dim=-1)
        torch.testing.assert_close(local, patches, atol=2e-5, rtol=0)
        torch.testing.assert_close(layer_norm(tokens, clip.blocks[-1].ln_1), normed, atol=2e-5, rtol=0)
        prompts = ["a photo of a cat.", "there is a tvmonitor screen in the scene."]
        expected = model.encode_text(captions.tokens(prompts))
    torch.testing.assert_close(clip.encode_text(prompts), expected, atol=2e-5, rtol=0)


def test_losses_fall_on_scenes_seen_again_and_again():
    captions = training.Captions(0)
    torch.manual_seed(0)
    model = DemoCLIP(SMALL, captions.all_rows())
    stream = training.SceneStream(training.Phase(1, 8, SCENES, 0.5), 0, 0, 8)
    images, areas, background = (torch.stack(parts) for parts in zip(*(stream[i] for i in range(8)), strict=True))
    tokens = captions.draw(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for _ in range(30):
        parts = losses(model, training.normalise(images), areas, background, tokens, (0, 0), cam_objects=1)
        optimiser.zero_grad()
        sum(parts.values()).backward()
        optimiser.step()
        history.append({name: value.item() for name, value in parts.items()})
    for name in ("cls", "foreign", "share", "pooled", "cam"):
        assert history[-1][name] < 0.8 * history[0][name], name


def test_the_maps_of_the_cam_loss_are_grad_cams(tmp_path):
    """Its loss is 1 - cosine between the patches' answers and the maps that stage two makes of the same weights."""
    captions = training.Captions(0)
    torch.manual_seed(0)
    model = DemoCLIP(DemoArchitecture(vision_depth=3, text_depth=2), captions.all_rows())
    model.load_stored(model.stored_state())  # float16 once, as the file will have them
    save_file(model.stored_state(), tmp_path / "demo.safetensors", metadata={"quick_gelu": "true"})
    clip = load_clip(str(tmp_path / "demo.safetensors"))
    images, prompts = torch.randn(1, 3, 224, 224), ["a photo of a cat.", "a photo of a dog.", "sky", "grass"]
    areas, background = torch.tensor([[40.0, 90.0, 0.0, 0.0]]), torch.tensor([[False, False, True, True]])
    found = losses(model, images, areas, background, captions.tokens(prompts), None, cam_objects=2)["cam"]

    rows = clip.encode_text(prompts)
    trunk = clip.trunk(images)
    config = CamConfig(normalisations=0)
    cams = softmax_gradcam(clip, trunk.tokens[0], trunk.grid, rows[:2], rows[2:], config).maps.flatten(1)
    patches = torch.nn.functional.normalize(clip.project(clip.last_block(trunk.tokens, "local"))[0, 1:], dim=-1)
    seen = (clip.logit_scale * patches @ rows.T).softmax(-1)[:, :2].T
    cosines = torch.nn.functional.cosine_similarity(cams / cams.amax(1, keepdim=True), seen)
    assert found.item() == pytest.approx(1 - cosines.mean().item(), abs=1e-4)


def test_a_stopped_run_ends_with_the_same_weights(small_run, monkeypatch, tmp_path):
    whole = training.Training(replace(small_run, out=tmp_path / "whole"))
    whole.run()
    cut = replace(small_run, out=tmp_path / "cut")
    update = training.Training._update

    def failing(self, *batch):
        if self.step == 6:
            raise KeyboardInterrupt
        return update(self, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(training.Training, "_update", failing)
        stopped = training.Training(cut)
        with pytest.raises(KeyboardInterrupt):
            stopped.run()
    resumed = training.Training(cut)
    assert resumed.step == 6
    resumed.run()
    for name, value in whole.average.state_dict().items():
        torch.testing.assert_close(resumed.average.state_dict()[name], value, atol=1e-6, rtol=0, msg=name)
    assert (tmp_path / "cut/demo_clip.safetensors").exists()
    assert "scenes" in (tmp_path / "cut/train_log.jsonl").read_text()


def test_a_run_goes_on_from_stored_weights_with_other_scenes(small_run, monkeypatch, tmp_path):
    first = replace(small_run, out=tmp_path / "first")
    training.Training(first).run()
    weights = tmp_path / "first/demo_clip.safetensors"
    assert training.SceneStream(training.scene_curriculum(1.0)[0], 0, 0, 2)[1][0].shape == (3, 272, 272)

    seeds = []
    stream = training.SceneStream
    monkeypatch.setattr(training, "scene_curriculum", lambda scale: [training.Phase(1.0, 4, SCENES, 1.0)])
    monkeypatch.setattr(
        training, "SceneStream", lambda phase, seed, *rest: seeds.append(seed) or stream(phase, seed, *rest)
    )
    second = training.Training(replace(small_run, out=tmp_path / "second", start=weights, steps=2, lr=0.0))
    begun = {name: value.clone() for name, value in second.model.state_dict().items()}
    stored = load_file(weights)
    for name, value in begun.items():
        torch.testing.assert_close(value, stored[name].float(), atol=0, rtol=0, msg=name)
    second.run()
    assert second.step == 2
    assert seeds == [2]  # `curriculum` had numbers 0 and 1
    for name, value in second.average.state_dict().items():  # the learning rate was 0
        torch.testing.assert_close(value, begun[name], atol=1e-6, rtol=0, msg=name)


def test_weights_of_other_names_are_refused():
    rows = training.Captions(0).all_rows()
    stored = DemoCLIP(SMALL, rows[1:]).stored_state()
    with pytest.raises(UsageError, match="token rows"):
        DemoCLIP(SMALL, rows).load_stored(stored)


def test_evaluation_counts_what_is_there():
    captions = training.Captions(0)
    torch.manual_seed(0)
    model = DemoCLIP(DemoArchitecture(vision_depth=1, text_depth=1), captions.all_rows())
    renderer = training.SceneRenderer(SceneConfig(side=(96, 96), square=True, objects=(1, 1), object_side=(60, 80)))
    figures = training.evaluate(model, captions, [renderer(i) for i in range(3)])
    assert set(figures) == {"mAP cls", "mAP patch", "patch acc"}
    assert all(0 <= value <= 100 for value in figures.values())
