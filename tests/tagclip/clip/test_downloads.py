"""Weights by name: from the hub's cache without a network, and one line within seconds where they are not there."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from tagclip.clip import downloads, load_clip
from tagclip.errors import WeightsError
from tests import clip_models
from tests.clip_models import B32

ROOT = Path(__file__).parents[3]
NO_HUB = "http://127.0.0.1:9"  # the discard port, on which nothing listens
SAFETENSORS = "open_clip_model.safetensors"
REPOSITORIES = {
    ("ViT-B-16", "openai"): "timm/vit_base_patch16_clip_224.openai",
    ("ViT-B-16", "laion2b_s34b_b88k"): "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
    ("ViT-L-14", "openai"): "timm/vit_large_patch14_clip_224.openai",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Architecture -> a file with weights of a seed, in full size; all of them are gone after the module."""
    folder, made = tmp_path_factory.mktemp("weights"), {}

    def make(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = folder / f"{architecture}.safetensors"
            save_file(clip_models.full_size_state(architecture), made[architecture])
        return made[architecture]

    yield make
    for path in made.values():
        path.unlink()


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(downloads, "get_hf_file_metadata", refuse)
    monkeypatch.setattr(downloads, "download_pretrained", refuse)


def features(clip):
    side = 2 * clip.patch_size
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    return torch.cat([clip_models.class_feature(clip, images), clip.encode_text(["a cat"])])


@pytest.mark.parametrize(
    ("architecture", "tag", "activation"),
    [
        ("ViT-B-16", "openai", "QuickGELU"),
        ("ViT-B-16", "laion2b_s34b_b88k", "GELU"),
        ("ViT-L-14", "openai", "QuickGELU"),
    ],
)
def test_cached_weights_of_a_tag_load_offline(weights, no_network, tmp_path, architecture, tag, activation):
    file = weights(architecture)
    clip_models.save_hub_cache(tmp_path, REPOSITORIES[architecture, tag], SAFETENSORS, file)
    clip = load_clip(architecture, tag, download_dir=tmp_path)
    assert clip.name == f"{architecture}/{tag}"
    assert clip.architecture.endswith(f"-{activation}")
    digest, named = clip.weights_digest, features(clip)
    del clip  # two of ViT-L-14 at once would take 4 GB
    same = load_clip(file, quick_gelu=activation == "QuickGELU")
    assert same.weights_digest == digest
    assert torch.equal(features(same), named)


def test_the_activation_matters(weights):
    """Else equal features would not tell that the tag's activation was taken."""
    clip = load_clip(weights("ViT-B-16"), quick_gelu=True)
    quick = features(clip)
    for block in (*clip.blocks, *clip.model.transformer.resblocks):
        block.mlp.gelu = torch.nn.GELU()
    assert ((features(clip) - quick).abs().amax(dim=1) > 1e-4).all()


def test_the_tags_lie_where_open_clip_looks():
    for (architecture, tag), repository in REPOSITORIES.items():
        assert open_clip.get_pretrained_cfg(architecture, tag)["hf_hub"] == f"{repository}/"


@pytest.mark.parametrize("name", [SAFETENSORS, "open_clip_pytorch_model.bin"])
def test_repository_in_the_cache_loads_offline(no_network, tmp_path, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = clip_models.make_model(B32)
    folder = clip_models.save_folder(model, tmp_path / "own", B32)
    weights = folder / SAFETENSORS
    if name.endswith(".bin"):
        weights = clip_models.save_state(model, tmp_path / "weights.pt", dtype=None)
    clip_models.save_hub_cache(tmp_path / "hub", "me/small", "open_clip_config.json", folder / "open_clip_config.json")
    clip_models.save_hub_cache(tmp_path / "hub", "me/small", name, weights)
    clip = load_clip("hf-hub:me/small", download_dir=tmp_path / "hub")
    images = torch.randn(1, 3, B32.image_size, B32.image_size, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        clip_models.class_feature(clip, images), model.encode_image(images, normalize=True), atol=1e-5, rtol=0
    )


def test_file_of_another_name_is_found_as_safetensors_too(tmp_path):
    content = tmp_path / "content"
    content.write_bytes(b"x")
    clip_models.save_hub_cache(tmp_path / "hub", "me/named", "metaclip.safetensors", content)
    tag = {"hf_hub": "me/named/metaclip.bin"}
    assert downloads.fetch_weights(tag, "named", tmp_path / "hub").name == "metaclip.safetensors"


def test_without_network_and_cache_a_command_says_one_line(tmp_path):
    """As a user meets it: a process of its own, with the hub's real client, its address an unreachable one."""
    environment = {**os.environ, "HF_ENDPOINT": NO_HUB, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment.pop("HF_HUB_CACHE", None)
    command = "import time; from tagclip.clip import load_clip; from wsss.cli.console import run_main; "
    command += "start = time.perf_counter(); main = lambda argv: load_clip('ViT-B-16', 'openai')\n"
    command += "try: run_main(main)\nfinally: print(time.perf_counter() - start)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ViT-B-16/openai: not in the cache")
    assert "Connection refused" in line
    assert "--pretrained FILE" in line
    assert float(done.stdout) < 10


@pytest.fixture
def hub(monkeypatch):
    """Makes downloads ask a given address instead of the hub's."""

    def at(address: str) -> None:
        monkeypatch.setattr(downloads, "hf_hub_url", lambda repository, file: f"{address}/{repository}/{file}")

    return at


def refusal(tmp_path, name="ViT-B-16"):
    start = time.perf_counter()
    with pytest.raises(WeightsError) as caught:
        load_clip(name, "openai", download_dir=tmp_path)
    assert "\n" not in str(caught.value)
    return str(caught.value), time.perf_counter() - start


def test_a_hub_that_accepts_and_never_answers_is_given_up(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "PROBE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        hub(f"http://127.0.0.1:{server.getsockname()[1]}")
        message, seconds = refusal(tmp_path)
    assert "--pretrained FILE" in message
    assert seconds < 5


def test_a_name_that_is_looked_up_for_ever_is_given_up(tmp_path, monkeypatch):
    """Timeouts of requests do not hold for the resolver."""
    monkeypatch.setattr(downloads, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(downloads, "get_hf_file_metadata", lambda url, timeout: time.sleep(3))
    message, seconds = refusal(tmp_path)
    assert "no answer within 0.2 s" in message
    assert seconds < 2


def test_repositories_without_network_name_their_own_remedy(hub, tmp_path):
    hub(NO_HUB)
    message, _ = refusal(tmp_path, "hf-hub:me/small")
    assert message.startswith("hf-hub:me/small: not in the cache")
    assert "--model local-dir:FOLDER" in message


def test_half_a_repository_in_the_cache_is_not_enough(hub, tmp_path):
    hub(NO_HUB)
    config = tmp_path / "open_clip_config.json"
    config.write_text(json.dumps({"model_cfg": B32.config()}))
    clip_models.save_hub_cache(tmp_path / "hub", "me/small", config.name, config)
    assert "--model local-dir:FOLDER" in refusal(tmp_path / "hub", "hf-hub:me/small")[0]


class Answer(Exception):
    """An error of the hub's client with a status, as its own have one."""

    def __init__(self, status: int):
        super().__init__(f"status {status}")
        self.response = type("Response", (), {"status_code": status})()


@pytest.mark.parametrize(
    ("error", "asked"), [(None, True), (Answer(404), True), (Answer(401), True), (ValueError("bad name"), True),
                         (Answer(503), False), (ConnectionError("gone"), False)],
)  # fmt: skip
def test_only_a_hub_that_cannot_answer_ends_it(tmp_path, monkeypatch, error, asked):
    """Whether a repository lacks a file or wants an account is for the download to find out."""

    def answer(url, timeout):
        if error is not None:
            raise error

    def download(tag, cache_dir):
        raise OSError("the download itself\nsecond line")

    monkeypatch.setattr(downloads, "get_hf_file_metadata", answer)
    monkeypatch.setattr(downloads, "download_pretrained", download)
    message, _ = refusal(tmp_path)
    assert ("weights cannot be downloaded (the download itself)" in message) == asked
    assert ("the hub cannot be reached" in message) == (not asked)
    assert "--pretrained FILE" in message


def test_the_hub_s_log_is_silent_only_while_it_is_asked(tmp_path, monkeypatch, caplog):
    library = logging.getLogger("huggingface_hub.anything")

    def loud(url, timeout):
        library.warning("Retrying in 8s [Retry 4/5].")
        raise ConnectionError("no network")

    monkeypatch.setattr(downloads, "get_hf_file_metadata", loud)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    refusal(tmp_path)
    library.warning("afterwards")
    assert caplog.messages == ["afterwards"]
