"""Small random CLIP models in the shapes of B/32, B/16 and L/14, and the file layouts that real ones come in."""

import copy
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file
from torch import Tensor, nn

from tagclip.clip import FrozenCLIP

OPENAI_ONLY = ("input_resolution", "context_length", "vocab_size")


@dataclass(frozen=True)
class Shape:
    """Patch size and grid are the real model's; width and depth are cut down. Heads have 64 channels."""

    name: str
    patch_size: int
    grid: int
    width: int
    depth: int
    embed_dim: int = 48
    text_width: int = 64
    text_depth: int = 2
    context_length: int = 77

    def __str__(self) -> str:
        return self.name

    @property
    def image_size(self) -> int:
        return self.patch_size * self.grid

    def config(self, **vision) -> dict:
        """open_clip's model_cfg; keyword arguments go into vision_cfg."""
        return {
            "embed_dim": self.embed_dim,
            "vision_cfg": {
                "image_size": self.image_size,
                "layers": self.depth,
                "width": self.width,
                "patch_size": self.patch_size,
                **vision,
            },
            "text_cfg": {
                "context_length": self.context_length,
                "vocab_size": 49408,
                "width": self.text_width,
                "heads": self.text_width // 64,
                "layers": self.text_depth,
            },
        }


B32 = Shape("B/32", patch_size=32, grid=7, width=128, depth=4)
B16 = Shape("B/16", patch_size=16, grid=14, width=128, depth=4)
L14 = Shape("L/14", patch_size=14, grid=16, width=192, depth=5, embed_dim=96)
SHAPES = (B32, B16, L14)


def make_model(
    shape: Shape, *, seed: int = 0, quick_gelu: bool = True, half_values: bool = True, **vision
) -> nn.Module:
    """A random open_clip.CLIP in fp32 whose attention is not flat.

    Args:
        half_values: round parameters to float16 values, so that half-precision files hold them exactly.
        vision: further fields of CLIPVisionCfg.
    """
    config = shape.config(**vision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(
            config["embed_dim"], CLIPVisionCfg(**config["vision_cfg"]), CLIPTextCfg(**config["text_cfg"]), quick_gelu
        )
        for name, values in model.named_parameters():
            if name.endswith("in_proj_weight"):
                values.data.mul_(2.5)
            elif name.endswith(".bias") or ".ln_" in name:
                values.data.add_(torch.randn_like(values), alpha=0.1)
            if half_values:
                values.data = values.data.half().float()
    return model.eval().requires_grad_(False)


def class_feature(clip: FrozenCLIP, images: Tensor) -> Tensor:
    """CLIP's ordinary [CLS] feature at any grid, (B, embed_dim) fp32 unit norm, by trunk, last block and projection."""
    tokens = clip.last_block(clip.trunk(images).tokens)
    return F.normalize(clip.project(tokens[:, 0]).float(), dim=-1)


def state_dict(model: nn.Module, dtype: torch.dtype | None = torch.float16) -> dict[str, Tensor]:
    """The model's weights in OpenAI's layout; dtype None keeps fp32."""
    return {name: values.detach().clone().to(dtype or values.dtype) for name, values in model.state_dict().items()}


def save_archive(model: nn.Module, path: Path) -> Path:
    """An OpenAI TorchScript archive: traced, with the three integers that theirs carry."""
    model = copy.deepcopy(model)
    size = model.visual.image_size[0]
    integers = (size, model.context_length, model.vocab_size)
    for name in OPENAI_ONLY:
        if hasattr(model, name):
            delattr(model, name)
    for name, value in zip(OPENAI_ONLY, integers, strict=True):
        model.register_buffer(name, torch.tensor(value))
    images, tokens = torch.zeros(1, 3, size, size), torch.zeros(1, integers[1], dtype=torch.long)
    inputs = {"forward": (images, tokens), "encode_image": images, "encode_text": tokens}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        torch.jit.trace_module(model, inputs, check_trace=False).save(str(path))
    return path


def save_state(
    model: nn.Module, path: Path, *, dtype: torch.dtype | None = torch.float16, wrapper=None, prefix=""
) -> Path:
    """A torch state dict, bare or under `wrapper`, names prefixed as DataParallel does."""
    state = {prefix + name: values for name, values in state_dict(model, dtype).items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)
    return path


def save_safetensors(model: nn.Module, path: Path, *, dtype: torch.dtype | None = torch.float16, metadata=None) -> Path:
    """A safetensors file in OpenAI's layout."""
    save_file(state_dict(model, dtype), path, metadata=metadata)
    return path


def save_compact(model: nn.Module, path: Path, rows: list[int]) -> Path:
    """A safetensors file that keeps only some token embeddings."""
    state = state_dict(model)
    state["token_embedding.rows"] = torch.tensor(rows, dtype=torch.int32)
    state["token_embedding.weight"] = state["token_embedding.weight"][rows].contiguous()
    save_file(state, path)
    return path


def save_folder(model: nn.Module, folder: Path, shape: Shape, *, config=None, preprocess=None, quick_gelu=True) -> Path:
    """An open_clip folder: open_clip_config.json and open_clip_model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    model_cfg = {**(config or shape.config()), "quick_gelu": quick_gelu}
    text = json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess or {}})
    (folder / "open_clip_config.json").write_text(text, encoding="utf-8")
    save_file(state_dict(model, None), folder / "open_clip_model.safetensors")
    return folder


def full_size_state(architecture: str, seed: int = 0) -> dict[str, Tensor]:
    """Float16 weights in the shapes of an open_clip architecture, cheap: one random block, again and again."""
    config = open_clip.get_model_config(architecture)
    with torch.device("meta"):
        shapes = {name: values.shape for name, values in open_clip.CLIP(**config).state_dict().items()}
    block = torch.randn(1_000_003, generator=torch.Generator().manual_seed(seed)).half()  # a prime: rows differ
    state = {}
    for name, shape in shapes.items():
        values = block.repeat(-(-shape.numel() // len(block)))[: shape.numel()].reshape(shape)
        scale = 0.02 if values.ndim < 2 else 1.5 * shape[-1] ** -0.5
        state[name] = values * scale + (1 if "ln_" in name and name.endswith("weight") else 0)
    state["logit_scale"] = torch.tensor(4.6052).half()
    return state


def save_hub_cache(cache: Path, repository: str, name: str, content: Path) -> Path:
    """`content` as the file `name` of a repository in a cache of the hub's layout; returns its path in the snapshot."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    blob, snapshot = folder / "blobs" / content.stem, folder / "snapshots" / commit
    for path in (blob.parent, snapshot, folder / "refs"):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit, encoding="utf-8")
    blob.hardlink_to(content)
    (snapshot / name).symlink_to(blob)
    return snapshot / name


def assert_close(actual: Tensor, expected: Tensor, **tolerances: float) -> None:
    """`torch.testing.assert_close` for tensors of any devices."""
    torch.testing.assert_close(actual.cpu(), expected.cpu(), **tolerances)
