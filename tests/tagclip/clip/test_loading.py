"""Every layout of weights gives the same model, and every wrong file one clear error."""

import copy
import json
import logging

import open_clip
import pytest
import torch

from tagclip.clip import downloads, load_clip, loading, wrap_clip
from tagclip.clip.encoder import parameters_digest
from tagclip.errors import UsageError, WeightsError
from tests import clip_models
from tests.clip_models import B16, B32, L14, SHAPES

# fp32 of these models, ours and open_clip's alike, is up to 3e-6 off fp64; the wrong activation changes 2e-3.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def models():
    return {shape.name: clip_models.make_model(shape) for shape in SHAPES}


def images(shape, seed=1):
    return torch.randn(2, 3, shape.image_size, shape.image_size, generator=torch.Generator().manual_seed(seed))


def assert_same_model(clip, model, shape):
    picture = images(shape)
    prompts = ["a photo of a cat.", "sky"]
    tokens = open_clip.tokenize(prompts)
    torch.testing.assert_close(
        clip_models.class_feature(clip, picture), model.encode_image(picture, normalize=True), atol=TOLERANCE, rtol=0
    )
    torch.testing.assert_close(
        clip.encode_text(prompts), model.encode_text(tokens, normalize=True), atol=TOLERANCE, rtol=0
    )


LAYOUTS = {
    "archive": lambda model, folder, shape: clip_models.save_archive(model, folder / "model.pt"),
    "state dict, float16": lambda model, folder, shape: clip_models.save_state(model, folder / "model.pt"),
    "state dict, wrapped": lambda model, folder, shape: clip_models.save_state(
        model, folder / "epoch_3.pt", wrapper="state_dict", prefix="module."
    ),
    "safetensors": lambda model, folder, shape: clip_models.save_safetensors(model, folder / "model.safetensors"),
    "safetensors without suffix": lambda model, folder, shape: clip_models.save_safetensors(model, folder / "model"),
    "folder": lambda model, folder, shape: f"local-dir:{clip_models.save_folder(model, folder / 'clip', shape)}",
}


@pytest.mark.parametrize(
    ("layout", "shape"),
    [(layout, B32) for layout in LAYOUTS]
    + [(layout, shape) for layout in ("archive", "folder") for shape in (B16, L14)],
    ids=str,
)
def test_layouts_give_the_same_model(layout, shape, models, tmp_path):
    model = models[shape.name]
    clip = load_clip(LAYOUTS[layout](model, tmp_path, shape))
    assert (clip.patch_size, clip.depth, clip.width, clip.heads) == (
        shape.patch_size,
        shape.depth,
        shape.width,
        shape.width // 64,
    )
    assert (clip.native_grid.height, clip.native_grid.width, clip.embed_dim) == (
        shape.grid,
        shape.grid,
        shape.embed_dim,
    )
    assert clip.mean == open_clip.OPENAI_DATASET_MEAN
    assert clip.std == open_clip.OPENAI_DATASET_STD
    assert "QuickGELU" in clip.architecture
    assert clip.weights_digest == parameters_digest(model)
    assert_same_model(clip, model, shape)


def test_digest_is_of_the_values(models, tmp_path):
    path = clip_models.save_safetensors(models["B/32"], tmp_path / "model.safetensors")
    whole = load_clip(path)
    assert load_clip(path, dtype="bfloat16").weights_digest == whole.weights_digest
    whole.model.logit_scale.add_(1e-3)
    assert parameters_digest(whole.model) != whole.weights_digest


@pytest.mark.parametrize(
    ("dtype", "metadata", "chosen", "expected"),
    [
        (torch.float16, None, None, "QuickGELU"),
        (None, None, None, "GELU"),
        (None, None, True, "QuickGELU"),
        (torch.float16, None, False, "GELU"),
        (None, {"quick_gelu": "true"}, None, "QuickGELU"),
        (torch.float16, {"quick_gelu": "false"}, None, "GELU"),
    ],
)
def test_activation_of_bare_weights(dtype, metadata, chosen, expected, tmp_path, caplog):
    model = clip_models.make_model(B32, quick_gelu=expected == "QuickGELU")
    path = clip_models.save_safetensors(model, tmp_path / "m.safetensors", dtype=dtype, metadata=metadata)
    with caplog.at_level(logging.INFO, logger="tagclip"):
        clip = load_clip(path, quick_gelu=chosen)
    assert clip.architecture.endswith(f"-{expected}")
    assert_same_model(clip, model, B32)
    assert ("weights do not tell their activation" in caplog.text) == (chosen is None and metadata is None)


@pytest.mark.parametrize(
    ("dtype", "half_values", "chosen", "warned"),
    [
        (torch.float32, True, None, True),  # OpenAI's float16 values, saved again
        (torch.float32, False, None, False),  # values that never were float16
        (torch.bfloat16, True, None, True),
        (torch.bfloat16, False, None, True),
        (torch.float16, True, None, False),
        (torch.float32, True, True, False),
        (torch.float32, True, False, False),
        (torch.bfloat16, True, False, False),
    ],
)
@pytest.mark.parametrize("named_file", [False, True])
def test_weights_that_may_be_openai_s_are_warned_of(
    dtype, half_values, chosen, warned, named_file, tmp_path, monkeypatch, caplog
):
    model = clip_models.make_model(B32, half_values=half_values)
    path = clip_models.save_state(model, tmp_path / "m.pt", dtype=dtype)
    with caplog.at_level(logging.WARNING, logger="tagclip"):
        clip = load_clip(*((named(monkeypatch, B32), path) if named_file else (path,)), quick_gelu=chosen)
    assert clip.architecture.endswith("-QuickGELU") == (dtype == torch.float16 if chosen is None else chosen)
    assert ("saved again give --quick-gelu, else --no-quick-gelu" in caplog.text) == warned


def test_full_precision_weights_are_not_rounded(tmp_path):
    model = clip_models.make_model(B32, half_values=False, quick_gelu=False)
    clip = load_clip(clip_models.save_state(model, tmp_path / "m.pt", dtype=None))
    assert torch.equal(clip.model.visual.proj, model.visual.proj)
    assert_same_model(clip, model, B32)


def test_compact_token_embedding_is_filled_with_zeros(models, tmp_path):
    model = models["B/32"]
    rows = sorted({0, *open_clip.tokenize(["a cat", "sky"]).flatten().tolist()})
    clip = load_clip(clip_models.save_compact(model, tmp_path / "m.safetensors", rows))
    embedding = clip.model.token_embedding.weight
    assert embedding.shape == (49408, 64)
    assert int((embedding != 0).any(dim=1).sum()) == len(rows)
    whole = wrap_clip(model)
    torch.testing.assert_close(
        clip.encode_text(["a cat", "sky"]), whole.encode_text(["a cat", "sky"]), atol=1e-6, rtol=0
    )


def test_folder_configuration_decides_mean_std_and_activation(tmp_path):
    model = clip_models.make_model(B32, quick_gelu=False)
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    folder = clip_models.save_folder(model, tmp_path / "own", B32, preprocess=preprocess, quick_gelu=False)
    clip = load_clip(f"local-dir:{folder}")
    assert clip.mean == (0.5, 0.4, 0.3)
    assert clip.std == (0.2, 0.3, 0.4)
    assert clip.architecture.endswith("-GELU")
    assert clip.name == "own"
    assert_same_model(clip, model, B32)


@pytest.mark.parametrize(
    "vision", [{"no_ln_pre": True}, {"ls_init_value": 0.5}, {"final_ln_after_pool": True}], ids=str
)
def test_variants_of_plain_transformers(vision, tmp_path):
    model = clip_models.make_model(B32, **vision)
    assert_same_model(wrap_clip(model), model, B32)
    if "final_ln_after_pool" not in vision:
        assert_same_model(load_clip(clip_models.save_safetensors(model, tmp_path / "m.safetensors")), model, B32)
    folder = clip_models.save_folder(model, tmp_path / "folder", B32, config=B32.config(**vision))
    assert_same_model(load_clip(f"local-dir:{folder}"), model, B32)


def test_custom_text_model_from_a_folder(tmp_path):
    config = {**B32.config(), "custom_text": True}
    config["text_cfg"] = {**config["text_cfg"], "no_causal_mask": True, "pool_type": "last"}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = open_clip.CustomTextCLIP(
            config["embed_dim"], config["vision_cfg"], config["text_cfg"], quick_gelu=True
        ).eval()
    clip = load_clip(f"local-dir:{clip_models.save_folder(model, tmp_path / 'c', B32, config=config)}")
    with torch.no_grad():
        assert_same_model(clip, model, B32)


def named(monkeypatch, shape, name="ViT-Small-Test", **vision):
    config = shape.config(**vision)
    known = open_clip.get_model_config
    monkeypatch.setattr(open_clip, "get_model_config", lambda model: config if model == name else known(model))
    return name


def test_named_architecture_with_a_file(models, tmp_path, monkeypatch):
    name = named(monkeypatch, B32)
    path = clip_models.save_archive(models["B/32"], tmp_path / "w.pt")
    clip = load_clip(name, pretrained=path)
    assert clip.name == "ViT-Small-Test/w.pt"
    assert_same_model(clip, models["B/32"], B32)


def test_named_architecture_reads_head_width_from_its_configuration(tmp_path, monkeypatch):
    name = named(monkeypatch, B32, head_width=32)
    model = clip_models.make_model(B32, head_width=32)
    clip = load_clip(name, pretrained=clip_models.save_state(model, tmp_path / "w.pt"))
    assert clip.heads == 4
    assert_same_model(clip, model, B32)


def test_named_tag_takes_activation_and_mean_of_the_tag(models, tmp_path, monkeypatch):
    name = named(monkeypatch, B32)
    path = clip_models.save_state(models["B/32"], tmp_path / "w.pt", dtype=None)
    tag = {"quick_gelu": True, "mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0), "url": "nowhere"}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, given: tag if given == "best" else {})
    monkeypatch.setattr(downloads, "download_pretrained", lambda config, cache_dir: str(path))
    clip = load_clip(name, pretrained="best")
    assert clip.mean == (0.1, 0.2, 0.3)
    assert_same_model(clip, models["B/32"], B32)


def test_grid_of_the_weights_wins_over_the_name(models, tmp_path, monkeypatch):
    larger = clip_models.make_model(B32.__class__(**{**B32.__dict__, "grid": 9}))
    clip = load_clip(named(monkeypatch, B32), pretrained=clip_models.save_state(larger, tmp_path / "w.pt"))
    assert clip.native_grid.height == 9


def corrupt(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    return path


def without(model, path, *prefixes, **extra):
    state = {k: v for k, v in clip_models.state_dict(model).items() if not k.startswith(prefixes or ("\0",))}
    torch.save({**state, **{key.replace("__", "."): torch.zeros(2) for key in extra}}, path)
    return path


def text_file(path):
    path.write_text("these are no weights")
    return path


def pickled_object(path):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "evil": logging.getLogger}, path)
    return path


BAD_FILES = {
    "missing": (lambda m, p: p, "no such weights file"),
    "empty": (lambda m, p: (p.touch(), p)[1], "is empty"),
    "folder": (lambda m, p: (p.mkdir(), p)[1], "local-dir:"),
    "text": (lambda m, p: text_file(p), "not a weights file"),
    "truncated state dict": (lambda m, p: corrupt(clip_models.save_state(m, p), 100_000), "not a weights file"),
    "truncated safetensors": (lambda m, p: corrupt(clip_models.save_safetensors(m, p), 100_000), "not a weights file"),
    "pickled code": (lambda m, p: pickled_object(p), "not a weights file"),
    "not a dict": (lambda m, p: (torch.save([1, 2], p), p)[1], "not a state dict"),
    "no tensors": (lambda m, p: (torch.save({"epoch": 1}, p), p)[1], "holds no tensors"),
    "another model": (lambda m, p: (torch.save({"fc.weight": torch.zeros(1)}, p), p)[1], "is no CLIP model"),
    "resnet": (lambda m, p: without(m, p, visual__layer1__0__conv1__weight=1), "ResNet"),
    "timm": (lambda m, p: without(m, p, visual__trunk__cls_token=1), "timm"),
    "coca": (lambda m, p: without(m, p, visual__attn_pool__query=1), "CoCa"),
    "transformers": (lambda m, p: without(m, p, vision_model__x=1), "transformers library"),
    "no class token": (lambda m, p: without(m, p, "visual.class_embedding"), "no class token"),
    "custom blocks": (
        lambda m, p: without(m, p, visual__transformer__resblocks__0__attn__ln_q__weight=1),
        "custom attention blocks",
    ),
    "no text tower": (lambda m, p: without(m, p, "transformer.", "text_projection", "ln_final"), "is missing"),
    "missing tensor": (lambda m, p: without(m, p, "visual.transformer.resblocks.1.ln_2"), "lacks visual.transformer"),
    "extra tensor": (lambda m, p: without(m, p, strange__thing=1), "strange.thing"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_named_in_one_line(kind, models, tmp_path):
    make, message = BAD_FILES[kind]
    path = make(models["B/32"], tmp_path / "bad.pt")
    with pytest.raises(WeightsError) as caught:
        load_clip(path)
    assert message in str(caught.value)
    assert "bad.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("visual.conv1.weight", (B32.width, 3, 32, 16)),  # patches that are not square
        ("visual.conv1.weight", (B32.width, 3, 16, 32)),
        ("visual.positional_embedding", (1 + 7 * 5, B32.width)),  # a grid that is not
    ],
)
def test_shapes_that_do_not_tell_the_architecture_are_refused(name, shape, models, tmp_path):
    state = {**clip_models.state_dict(models["B/32"]), name: torch.zeros(shape)}
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match=r"odd\.pt: patches or grid are not square; name the architecture"):
        load_clip(tmp_path / "odd.pt")


def test_models_with_patches_that_are_not_square_are_refused(models):
    model = copy.deepcopy(models["B/32"])
    model.visual.conv1 = torch.nn.Conv2d(3, B32.width, (32, 16), stride=(32, 16), bias=False)
    with pytest.raises(WeightsError, match="custom: has patches that are not square"):
        wrap_clip(model)


def test_a_logit_scale_of_one_number_fits_whatever_its_shape(models, tmp_path):
    state = clip_models.state_dict(models["B/32"], None)
    state["logit_scale"] = state["logit_scale"].reshape(1)
    torch.save(state, tmp_path / "one.pt")
    clip = load_clip(tmp_path / "one.pt", quick_gelu=True)
    assert clip.logit_scale == pytest.approx(float(models["B/32"].logit_scale.exp()))
    assert_same_model(clip, models["B/32"], B32)


@pytest.mark.parametrize(
    ("name", "shape", "own"),
    [("logit_scale", (2,), "()"), ("ln_final.bias", (1,), "(64,)"), ("visual.ln_post.weight", (64,), "(128,)")],
)
def test_other_shapes_are_refused_by_name(name, shape, own, models, tmp_path):
    torch.save({**clip_models.state_dict(models["B/32"]), name: torch.zeros(shape)}, tmp_path / "odd.pt")
    with pytest.raises(WeightsError) as caught:
        load_clip(tmp_path / "odd.pt")
    message = f"odd.pt: weights of another architecture: has {name} {shape}, not {own}"
    assert str(caught.value) == message


@pytest.mark.parametrize("shape", [B16, L14], ids=lambda shape: shape.name)
def test_weights_of_another_architecture_are_refused(shape, models, tmp_path, monkeypatch):
    path = clip_models.save_state(models[shape.name], tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"ViT-Small-Test/w\.pt: weights of another architecture: has "):
        load_clip(named(monkeypatch, B32), pretrained=path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RN50", "RN50: has a ResNet image tower"),
        ("ViT-B-16-SigLIP", "ViT-B-16-SigLIP: has a timm image tower"),
        ("coca_ViT-B-32", "coca_ViT-B-32: pools its patches by attention"),
        ("ViT-H-14-CLIPA", "ViT-H-14-CLIPA: has no class token feature"),
        ("ViT-B-61", "model 'ViT-B-61': neither a weights file"),
    ],
)
def test_unsupported_names(name, message):
    config = open_clip.get_model_config(name)
    if name == "ViT-H-14-CLIPA" and config["vision_cfg"].get("pool_type", "tok") == "tok":
        pytest.fail("open_clip changed this configuration; take another pooled model")
    with pytest.raises(WeightsError, match=message):
        load_clip(name, pretrained="anything")


def test_unknown_tag_lists_the_known_ones():
    with pytest.raises(WeightsError, match=r"ViT-B-16: weights 'opanai' are neither .*openai"):
        load_clip("ViT-B-16", pretrained="opanai")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no open_clip_config.json"), ("{", "cannot be read"), ("{}", "has no 'model_cfg'")],
)
def test_bad_folders(content, message, tmp_path):
    if content is not None:
        (tmp_path / "open_clip_config.json").write_text(content)
    with pytest.raises(WeightsError, match=message):
        load_clip(f"local-dir:{tmp_path}")


def test_folder_without_weights_is_never_random(tmp_path):
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": B32.config()}))
    with pytest.raises(WeightsError, match="weights cannot be loaded"):
        load_clip(f"local-dir:{tmp_path}")


def test_folder_of_unsupported_tower(tmp_path):
    config = B32.config(pool_type="avg")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(WeightsError, match="no class token feature"):
        load_clip(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(("option", "message"), [({"device": "warp"}, "warp"), ({"dtype": "int4"}, "int4")])
def test_bad_device_and_dtype(option, message, models, tmp_path):
    with pytest.raises(UsageError, match=message):
        load_clip(clip_models.save_state(models["B/32"], tmp_path / "w.pt"), **option)


@pytest.mark.parametrize(
    ("dtype", "half", "warned"), [("bfloat16", 3.0, True), ("bfloat16", 0.5, False), ("float32", 3.0, False)]
)
def test_a_processor_that_emulates_half_precision_is_told_of(models, monkeypatch, caplog, dtype, half, warned):
    monkeypatch.setattr(loading, "_product_seconds", lambda kind: 1.0 if kind == torch.float32 else half)
    with caplog.at_level("WARNING"):
        wrap_clip(models["B/32"], dtype=dtype)
    assert ("bfloat16 products take 3 times as long" in caplog.text) == warned


def test_product_seconds_are_measured():
    assert 0 < loading._product_seconds(torch.float32) < 1


def test_wrapping_leaves_the_model_alone(models):
    model = clip_models.make_model(B32).requires_grad_(True).train()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    clip = wrap_clip(model, dtype="bfloat16")
    clip.trunk(images(B32))
    assert model.training
    assert all(values.requires_grad and values.dtype == torch.float32 for values in model.parameters())
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert not any(values.requires_grad for values in clip.parameters())
    assert not clip.train().training


def test_loading_leaves_the_random_state_alone(models, tmp_path):
    path = clip_models.save_state(models["B/32"], tmp_path / "w.pt")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_clip(path)
    assert torch.equal(torch.rand(3), expected)


def test_missing_demo_weights_say_so(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "DEMO_WEIGHTS", tmp_path / "gone.safetensors")
    with pytest.raises(WeightsError, match="demo weights are missing"):
        load_clip("demo")
