"""What a state dict or an open_clip configuration says about a model, and which models are refused."""

from collections.abc import Mapping
from dataclasses import dataclass

import open_clip
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor

from tagclip.clip.modules import OpenClipModel
from tagclip.errors import WeightsError

OPENAI_HEAD_WIDTH = 64  # channels of one head in every model that OpenAI published; weights do not tell
SUPPORTED = "only plain vision transformers with a class token are supported, for example ViT-B-16"


@dataclass(frozen=True)
class Architecture:
    """The numbers that the shapes in a state dict tell."""

    patch_size: int
    width: int
    depth: int
    grid: int
    embed_dim: int
    mlp_width: int
    text_width: int
    text_depth: int
    text_mlp_width: int
    context_length: int
    vocabulary_size: int
    pre_norm: bool
    layer_scale: bool

    @property
    def image_size(self) -> int:
        return self.patch_size * self.grid


def refuse_state(state: Mapping[str, Tensor], name: str) -> None:
    """Refuse, naming the model, state dicts of towers that have no blocks and class token to walk.

    Raises:
        WeightsError: ResNet, timm and pooled towers, missing class token, foreign or incomplete layouts.
    """
    reason = None
    if any(key.startswith(("visual.layer1.", "visual.attnpool.")) for key in state):
        reason = "has a ResNet image tower"
    elif any(key.startswith("visual.trunk.") for key in state):
        reason = "has a timm image tower"
    elif any(key.startswith(("vision_model.", "text_model.")) for key in state):
        reason = "is in the layout of the transformers library, not of OpenAI or open_clip; convert it first"
    elif any(key.startswith("visual.attn_pool") for key in state):
        reason = "pools its patches by attention (CoCa)"
    elif "visual.conv1.weight" not in state:
        reason = "is no CLIP model: there is no visual.conv1.weight"
    elif "visual.class_embedding" not in state:
        reason = "has no class token"
    elif any(
        ".attn.ln_" in key or ".ln_attn." in key or key.endswith(("head_scale", ".mlp.ln.weight")) for key in state
    ):
        reason = "has custom attention blocks"
    if reason:
        raise WeightsError(f"{name}: {reason}; {SUPPORTED}")


def describe_state(state: Mapping[str, Tensor], name: str) -> Architecture:
    """Read the architecture from the shapes of an OpenAI-layout state dict.

    Raises:
        WeightsError: a tower that is not supported, or missing tensors.
    """
    refuse_state(state, name)
    if "text_projection" not in state and any(key.startswith("text.") for key in state):
        raise WeightsError(
            f"{name}: keeps its text tower under 'text.', whose settings the weights do not tell; "
            "name the architecture, or load the folder with its open_clip_config.json by local-dir:"
        )
    try:
        conv = state["visual.conv1.weight"]
        patches = state["visual.positional_embedding"].shape[0] - 1
        grid = round(patches**0.5)
        if grid * grid != patches or conv.shape[2] != conv.shape[3]:
            raise WeightsError(f"{name}: patches or grid are not square; name the architecture")
        return Architecture(
            patch_size=conv.shape[-1],
            width=conv.shape[0],
            depth=_count(state, "visual.transformer.resblocks."),
            grid=grid,
            embed_dim=state["visual.proj"].shape[1],
            mlp_width=state["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            text_width=state["ln_final.weight"].shape[0],
            text_depth=_count(state, "transformer.resblocks."),
            text_mlp_width=state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
            context_length=state["positional_embedding"].shape[0],
            vocabulary_size=state["token_embedding.weight"].shape[0],
            pre_norm="visual.ln_pre.weight" in state,
            layer_scale="visual.transformer.resblocks.0.ls_1.gamma" in state,
        )
    except KeyError as error:
        raise WeightsError(f"{name}: is no complete CLIP model, {error.args[0]} is missing") from error


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def refuse_config(config: Mapping, name: str) -> None:
    """Refuse, naming the model, open_clip configurations of towers that cannot be walked, before anything is loaded.

    Raises:
        WeightsError: see `refuse_state`; and towers whose image feature is not the class token.
    """
    vision = config.get("vision_cfg", {})
    reason = None
    if vision.get("timm_model_name"):
        reason = f"has a timm image tower ({vision['timm_model_name']})"
    elif isinstance(vision.get("layers"), (list, tuple)):
        reason = "has a ResNet image tower"
    elif "multimodal_cfg" in config or vision.get("attentional_pool"):
        reason = "pools its patches by attention (CoCa)"
    elif vision.get("pool_type", "tok") != "tok":
        reason = f"has no class token feature: it pools its patches by {vision['pool_type']!r}"
    elif vision.get("block_type") == "custom" or any(
        vision.get(key) for key in ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn")
    ):
        reason = "has custom attention blocks"
    if reason:
        raise WeightsError(f"{name}: {reason}; {SUPPORTED}")


def refuse_model(model: OpenClipModel, name: str) -> None:
    """The same for a model that was built already.

    Raises:
        WeightsError: see `refuse_state`.
    """
    visual = getattr(model, "visual", None)
    reason = None
    if not isinstance(visual, VisionTransformer):
        reason = f"has an image tower of type {type(visual).__name__}"
    elif visual.attn_pool is not None:
        reason = "pools its patches by attention (CoCa)"
    elif visual.pool_type != "tok":
        reason = f"has no class token feature: it pools its patches by {visual.pool_type!r}"
    elif not all(
        type(block) is ResidualAttentionBlock and block.attn.in_proj_weight is not None
        for block in visual.transformer.resblocks
    ):
        reason = "has custom attention blocks"
    elif len(set(visual.conv1.kernel_size)) != 1:
        reason = "has patches that are not square"
    elif not hasattr(model, "logit_scale"):
        reason = "has no logit scale"
    if reason:
        raise WeightsError(f"{name}: {reason}; {SUPPORTED}")


def head_width(architecture: Architecture, name: str) -> int:
    """Channels of one attention head of the image tower: of open_clip's configurations with these shapes, else 64.

    Raises:
        WeightsError: the width is no multiple of it.
    """
    width = OPENAI_HEAD_WIDTH
    for known in open_clip.list_models():
        vision = open_clip.get_model_config(known)["vision_cfg"]
        if (vision.get("layers"), vision.get("width"), vision.get("patch_size")) == (
            architecture.depth,
            architecture.width,
            architecture.patch_size,
        ):
            width = vision.get("head_width", OPENAI_HEAD_WIDTH)
            break
    if architecture.width % width or architecture.text_width % OPENAI_HEAD_WIDTH:
        raise WeightsError(
            f"{name}: widths {architecture.width} and {architecture.text_width} are no multiples of the usual "
            f"{width} channels a head, and weights do not tell the number of heads; name the architecture"
        )
    return width


def build(architecture: Architecture, *, quick_gelu: bool, name: str) -> OpenClipModel:
    """An open_clip model of this architecture, its weights still random."""
    vision = CLIPVisionCfg(
        layers=architecture.depth,
        width=architecture.width,
        head_width=head_width(architecture, name),
        mlp_ratio=architecture.mlp_width / architecture.width,
        patch_size=architecture.patch_size,
        image_size=architecture.image_size,
        no_ln_pre=not architecture.pre_norm,
        ls_init_value=1.0 if architecture.layer_scale else None,
    )
    text = CLIPTextCfg(
        context_length=architecture.context_length,
        vocab_size=architecture.vocabulary_size,
        width=architecture.text_width,
        heads=architecture.text_width // OPENAI_HEAD_WIDTH,
        layers=architecture.text_depth,
        mlp_ratio=architecture.text_mlp_width / architecture.text_width,
    )
    return open_clip.CLIP(architecture.embed_dim, vision, text, quick_gelu=quick_gelu)
