"""The vision transformer and the text tower of CLIP, operation by operation."""

import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def minmax(values: Tensor) -> Tensor:
    """(v - min) / (max - min), any shape."""
    return (values - values.min()) / (values.max() - values.min())


@cache
def tokenizer():
    """CLIP's byte-pair encoder; building it takes a moment."""
    import open_clip

    return open_clip.get_tokenizer("ViT-B-16")


def expand_token_rows(state: dict[str, Tensor], vocabulary_size: int = 49408) -> dict[str, Tensor]:
    """Undo the compact token embedding (only the rows in use are stored, the others are zero)."""
    if "token_embedding.rows" in state:
        rows = state.pop("token_embedding.rows").long()
        kept = state["token_embedding.weight"]
        full = torch.zeros(vocabulary_size, kept.shape[1], dtype=kept.dtype)
        full[rows] = kept
        state["token_embedding.weight"] = full
    return state


class OracleCLIP:
    """CLIP from a state dict in OpenAI's layout. Blocks are numbered 1..L; nothing is cached, nothing is shared."""

    def __init__(self, state: dict[str, Tensor], quick_gelu: bool = True):
        self.quick_gelu = quick_gelu
        self.p = {name: value.float() for name, value in expand_token_rows(dict(state)).items()}
        self.patch = self.p["visual.conv1.weight"].shape[-1]
        self.width = self.p["visual.conv1.weight"].shape[0]
        self.heads = self.width // 64
        self.text_width = self.p["token_embedding.weight"].shape[1]
        self.text_heads = self.text_width // 64
        self.depth = self._count("visual.transformer.resblocks.")
        self.text_depth = self._count("transformer.resblocks.")
        self.native = math.isqrt(self.p["visual.positional_embedding"].shape[0] - 1)
        self.logit_scale = float(self.p["logit_scale"].exp())

    @classmethod
    def from_file(cls, path: Path | str) -> "OracleCLIP":
        from safetensors.torch import load_file

        return cls(load_file(str(path)))

    def _count(self, prefix: str) -> int:
        return len({name[len(prefix) :].split(".")[0] for name in self.p if name.startswith(prefix)})

    # ---------------------------------------------------------------- one transformer block

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), self.p[name + ".weight"], self.p[name + ".bias"], 1e-5)

    def qkv(self, normed: Tensor, prefix: str, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values of one image: (T, W) -> three of (heads, T, W/heads)."""
        tokens, width = normed.shape
        joint = normed @ self.p[prefix + ".attn.in_proj_weight"].T + self.p[prefix + ".attn.in_proj_bias"]
        return tuple(part.reshape(tokens, heads, width // heads).permute(1, 0, 2) for part in joint.chunk(3, dim=-1))

    def out_proj(self, mixed: Tensor, prefix: str) -> Tensor:
        """(heads, T, d) -> (T, W)."""
        flat = mixed.permute(1, 0, 2).reshape(mixed.shape[1], -1)
        return flat @ self.p[prefix + ".attn.out_proj.weight"].T + self.p[prefix + ".attn.out_proj.bias"]

    def mlp(self, x: Tensor, prefix: str) -> Tensor:
        hidden = self._norm(x, prefix + ".ln_2") @ self.p[prefix + ".mlp.c_fc.weight"].T
        hidden = hidden + self.p[prefix + ".mlp.c_fc.bias"]
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.quick_gelu else F.gelu(hidden)
        return hidden @ self.p[prefix + ".mlp.c_proj.weight"].T + self.p[prefix + ".mlp.c_proj.bias"]

    def block_from_norm(
        self, x: Tensor, normed: Tensor, prefix: str, heads: int, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The block with ln_1's output given. Returns the tokens and the attention (heads, T, T)."""
        q, k, v = self.qkv(normed, prefix, heads)
        logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if bias is not None:
            logits = logits + bias
        attention = logits.softmax(dim=-1)
        x = x + self.out_proj(attention @ v, prefix)
        return x + self.mlp(x, prefix), attention

    def block(self, x: Tensor, prefix: str, heads: int, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.block_from_norm(x, self._norm(x, prefix + ".ln_1"), prefix, heads, bias)

    def visual_prefix(self, number: int) -> str:
        return f"visual.transformer.resblocks.{number - 1}"

    def visual_block(self, x: Tensor, number: int, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Block `number` (1..L) of the vision tower: (1+N, W) -> tokens, attention (heads, 1+N, 1+N)."""
        return self.block(x, self.visual_prefix(number), self.heads, bias)

    # ---------------------------------------------------------------- image side

    def prepare(self, image: Image.Image | np.ndarray) -> Tensor:
        """(3, H, W) normalised, sides rounded up to multiples of the patch; EXIF ignored, no cap on the size."""
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        image = image.convert("RGB")
        size = (math.ceil(image.width / self.patch) * self.patch, math.ceil(image.height / self.patch) * self.patch)
        pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC), dtype=np.float32) / 255.0
        tensor = torch.from_numpy(pixels).permute(2, 0, 1)
        return (tensor - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)

    def positions(self, height: int, width: int, rounding: str) -> Tensor:
        """Positional embedding at an (height, width) grid, (1+N, W). rounding: "none", "off_native" or "always"."""
        embedding = self.p["visual.positional_embedding"]
        native = (height, width) == (self.native, self.native)
        if not native:
            grid = embedding[1:].reshape(1, self.native, self.native, -1).permute(0, 3, 1, 2)
            grid = F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)
            embedding = torch.cat([embedding[:1], grid.permute(0, 2, 3, 1).reshape(height * width, -1)])
        if rounding == "always" or (rounding == "off_native" and not native):
            embedding = embedding.half().float()
        return embedding

    def embed(self, image: Tensor, rounding: str) -> tuple[Tensor, tuple[int, int]]:
        """(3, H, W) -> tokens before block 1, (1+N, W), and the grid (h, w)."""
        patches = F.conv2d(image[None], self.p["visual.conv1.weight"], stride=self.patch)[0]
        grid = (patches.shape[1], patches.shape[2])
        tokens = patches.flatten(1).T
        tokens = torch.cat([self.p["visual.class_embedding"][None], tokens]) + self.positions(*grid, rounding)
        return self._norm(tokens, "visual.ln_pre"), grid

    def trunk(self, image: Tensor, rounding: str) -> tuple[Tensor, list[Tensor], tuple[int, int]]:
        """Blocks 1..L-1. Returns the input of block L, the L head-averaged patch maps (N, N), and the grid."""
        x, grid = self.embed(image, rounding)
        maps = []
        for number in range(1, self.depth):
            x, attention = self.visual_block(x, number)
            maps.append(attention.mean(dim=0)[1:, 1:])
        maps.append(self.visual_block(x, self.depth)[1].mean(dim=0)[1:, 1:])
        return x, maps, grid

    def project(self, tokens: Tensor) -> Tensor:
        """ln_post and the projection, (T, W) -> (T, D)."""
        return self._norm(tokens, "visual.ln_post") @ self.p["visual.proj"]

    def encode_image(self, image: Tensor, rounding: str = "none", bias: Tensor | None = None) -> Tensor:
        """[CLS] feature, unit norm, (D,), with an additive attention bias in all blocks if given."""
        x, _ = self.embed(image, rounding)
        for number in range(1, self.depth + 1):
            x, _ = self.visual_block(x, number, bias)
        return F.normalize(self.project(x)[0], dim=-1)

    # ---------------------------------------------------------------- text side

    def encode_prompt(self, prompt: str) -> Tensor:
        """One prompt, full context, unit norm (D,)."""
        ids = tokenizer()([prompt])[0]
        length = len(self.p["positional_embedding"])
        x = self.p["token_embedding.weight"][ids] + self.p["positional_embedding"]
        causal = torch.full((length, length), float("-inf")).triu(1)
        for number in range(self.text_depth):
            x, _ = self.block(x, f"transformer.resblocks.{number}", self.text_heads, causal)
        x = self._norm(x, "ln_final")[ids.argmax()]
        return F.normalize(x @ self.p["text_projection"], dim=-1)

    def text_row(self, name: str, templates: list[str]) -> Tensor:
        """Prompt ensemble of one class name, unit norm (D,)."""
        rows = torch.stack([self.encode_prompt(template.format(name)) for template in templates])
        return F.normalize(rows.mean(dim=0), dim=-1)


def tagging_templates() -> list[str]:
    """The 80 ImageNet templates of CLIP and five more."""
    import open_clip

    extra = ["there is a {} in the scene.", "there is the {} in the scene.", "this is a {} in the scene."]
    extra += ["this is the {} in the scene.", "this is one {} in the scene."]
    eighty = [t if isinstance(t, str) else t("{}") for t in open_clip.OPENAI_IMAGENET_TEMPLATES]
    return eighty + extra
