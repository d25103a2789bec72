"""Every way to a `FrozenCLIP`: open_clip name and tag, a weights file of any layout, an open_clip folder, the demo."""

import copy
import importlib.util
import logging
from pathlib import Path

import open_clip
import torch
from torch import Tensor, nn

from tagclip.clip import architecture as arch
from tagclip.clip.checkpoints import Checkpoint, read_checkpoint, read_folder_config
from tagclip.clip.encoder import FrozenCLIP
from tagclip.errors import UsageError, WeightsError

logger = logging.getLogger(__name__)

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
LOCAL_DIR = "local-dir:"
HUB = "hf-hub:"


def load_clip(
    path_or_name: str | Path = "ViT-B-16",
    pretrained: str | Path | None = "openai",
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    cache_dir: str | Path | None = None,
    quick_gelu: bool | None = None,
) -> FrozenCLIP:
    """Load a CLIP model with a plain vision transformer and freeze it.

    Args:
        path_or_name: one of
            an open_clip architecture ("ViT-B-16"), its weights then named by `pretrained`;
            a weights file: OpenAI TorchScript archive, torch state dict or safetensors, read by its shapes;
            "local-dir:FOLDER" or "hf-hub:ORG/REPOSITORY" with an open_clip_config.json;
            "demo" for the small model that is part of this package.
        pretrained: for an architecture name, open_clip's tag or a weights file. Ignored otherwise.
        device, dtype: where the model computes, and in float32, bfloat16 or float16.
        cache_dir: where downloads are kept.
        quick_gelu: the activation of the blocks, which no state dict tells: QuickGELU (True) or GELU (False). None
            decides: configuration of the named tag or folder; OpenAI archive: QuickGELU; safetensors field
            "quick_gelu"; bare OpenAI-layout state dict in float16, as OpenAI's are: QuickGELU; any other: GELU. The
            choice is logged.

    Raises:
        WeightsError: weights that cannot be found or read, of another architecture than the one named, or with a tower
            that is not supported (ResNet, timm, no class token); the message names the model.
        UsageError: an unknown device or dtype.
    """
    device, dtype = _device(device), _dtype(dtype)
    source = str(path_or_name)
    if source == "demo":
        model, name = _load_file(_demo_path(), "demo", quick_gelu), "demo"
        tokenizer = _clip_tokenizer(model)
    elif source.startswith((LOCAL_DIR, HUB)):
        model, name = _load_configured(source, cache_dir, quick_gelu), source.split(":", 1)[1].rstrip("/")
        tokenizer = _tokenizer(source, cache_dir)
    elif _is_file_name(source):
        name = Path(source).name
        model = _load_file(Path(source), name, quick_gelu)
        tokenizer = _clip_tokenizer(model)
    else:
        name = f"{source}/{pretrained}"
        model = _load_named(source, pretrained, cache_dir, quick_gelu)
        tokenizer = _tokenizer(source.replace("/", "-"), cache_dir)
    return _freeze(model, tokenizer, name, device, dtype)


def wrap_clip(
    model: nn.Module,
    tokenizer=None,
    *,
    name: str = "custom",
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
) -> FrozenCLIP:
    """Freeze a copy of an open_clip model that exists already; the model itself stays as it is.

    Args:
        tokenizer: open_clip's tokenizer for the model; CLIP's byte-pair encoding by default.

    Raises:
        WeightsError: the model is no plain vision transformer with a class token.
    """
    arch.refuse_model(model, name)
    return _freeze(copy.deepcopy(model), tokenizer or _clip_tokenizer(model), name, _device(device), _dtype(dtype))


def _freeze(model: nn.Module, tokenizer, name: str, device: torch.device, dtype: torch.dtype) -> FrozenCLIP:
    arch.refuse_model(model, name)
    settings = getattr(model.visual, "preprocess_cfg", {})
    clip = FrozenCLIP(
        model,
        tokenizer,
        name=name,
        mean=settings.get("mean") or open_clip.OPENAI_DATASET_MEAN,
        std=settings.get("std") or open_clip.OPENAI_DATASET_STD,
        device=device,
        dtype=dtype,
    )
    logger.info("%s: %s, %s on %s, weights %s", name, clip.architecture, dtype, device, clip.weights_digest[:12])
    return clip


def _load_file(path: Path, name: str, quick_gelu: bool | None) -> nn.Module:
    checkpoint = read_checkpoint(path)
    described = arch.describe_state(checkpoint.state, name)
    activation = _quick_gelu(checkpoint, name, quick_gelu)
    with torch.random.fork_rng(devices=[]):
        model = arch.build(described, quick_gelu=activation, name=name)
    return _fill(model, checkpoint.state, name)


def _load_named(name: str, pretrained, cache_dir, quick_gelu: bool | None) -> nn.Module:
    config = open_clip.get_model_config(name.replace("/", "-"))
    if config is None:
        raise WeightsError(
            f"model {name!r}: neither a weights file nor an architecture that open_clip knows (ViT-B-16, ViT-L-14, ...)"
        )
    arch.refuse_config(config, name)
    if not pretrained:
        raise WeightsError(f"{name}: name its weights, an open_clip tag or a file (pretrained=...)")
    tag = open_clip.get_pretrained_cfg(name, str(pretrained))
    if tag:
        gelu = quick_gelu if quick_gelu is not None else bool(config.get("quick_gelu") or tag.get("quick_gelu"))
        return _create(name, f"{name}/{pretrained}", pretrained=str(pretrained), cache_dir=cache_dir, quick_gelu=gelu)
    path = Path(pretrained)
    if not path.exists() and not _is_file_name(str(pretrained)):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise WeightsError(f"{name}: weights {str(pretrained)!r} are neither a file nor a tag of open_clip ({tags})")
    return _load_named_file(name, config, path, quick_gelu)


def _load_named_file(name: str, config: dict, path: Path, quick_gelu: bool | None) -> nn.Module:
    checkpoint = read_checkpoint(path)
    label = f"{path.name} as {name}"
    arch.refuse_state(checkpoint.state, label)
    if quick_gelu is None and config.get("quick_gelu"):
        quick_gelu = True
    config = copy.deepcopy(config)
    config["quick_gelu"] = _quick_gelu(checkpoint, label, quick_gelu)
    _take_sizes(config, checkpoint.state)
    custom_text = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    with torch.random.fork_rng(devices=[]):
        model = kind(**config)
    state = checkpoint.state
    if custom_text:
        state = open_clip.model.convert_to_custom_text_state_dict(dict(state))
    return _fill(model, state, label)


def _take_sizes(config: dict, state: dict[str, Tensor]) -> None:
    """Grid and context length are the weights' own: a ViT-L-14 file of 336 px is a ViT-L-14."""
    vision = config["vision_cfg"]
    patches = state["visual.positional_embedding"].shape[0] - 1
    grid = round(patches**0.5)
    if grid * grid == patches and isinstance(vision.get("patch_size"), int):
        vision["image_size"] = grid * vision["patch_size"]
    if "positional_embedding" in state:
        config["text_cfg"]["context_length"] = state["positional_embedding"].shape[0]


def _load_configured(source: str, cache_dir, quick_gelu: bool | None) -> nn.Module:
    """A model with its own open_clip_config.json, in a folder or on the hub."""
    if source.startswith(LOCAL_DIR):
        config = read_folder_config(Path(source.removeprefix(LOCAL_DIR)))["model_cfg"]
    else:
        try:
            config = open_clip.get_model_config(source)
        except Exception as error:  # the hub client raises a dozen unrelated types, all meaning "not there"
            raise WeightsError(f"{source}: configuration cannot be fetched: {_first_line(error)}") from error
    arch.refuse_config(config, source)
    gelu = quick_gelu if quick_gelu is not None else bool(config.get("quick_gelu"))
    return _create(source, source, pretrained=None, cache_dir=cache_dir, quick_gelu=gelu)


def _create(source: str, name: str, *, pretrained: str | None, cache_dir, quick_gelu: bool) -> nn.Module:
    try:
        with torch.random.fork_rng(devices=[]):
            return open_clip.create_model(
                source,
                pretrained=pretrained,
                cache_dir=None if cache_dir is None else str(cache_dir),
                require_pretrained=True,
                weights_only=True,
                quick_gelu=quick_gelu,
            )
    except Exception as error:  # download, file and shape errors come as a dozen unrelated types
        raise WeightsError(
            f"{name}: weights cannot be loaded: {_first_line(error)} "
            "(offline: pass a weights file as pretrained=..., or local-dir:FOLDER)"
        ) from error


def _fill(model: nn.Module, state: dict[str, Tensor], name: str) -> nn.Module:
    """Load a state dict into a model of its shapes.

    Raises:
        WeightsError: the shapes or names are another architecture's.
    """
    own = model.state_dict()
    wrong = [
        f"{key} {tuple(state[key].shape)}, not {tuple(values.shape)}"
        for key, values in own.items()
        if key in state and state[key].shape != values.shape and state[key].numel() != values.numel()
    ]
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    problem = (
        (f"has {wrong[0]}" if wrong else None)
        or (f"lacks {missing[0]}" if missing else None)
        or (f"has {extra[0]}, which the model lacks" if extra else None)
    )
    if problem:
        raise WeightsError(f"{name}: weights of another architecture: {problem}")
    model.load_state_dict({key: values.reshape(own[key].shape) for key, values in state.items()})
    return model


def _quick_gelu(checkpoint: Checkpoint, name: str, chosen: bool | None) -> bool:
    if chosen is not None:
        return chosen
    if checkpoint.archive:
        return True
    stated = checkpoint.metadata.get("quick_gelu")
    if stated is not None:
        return stated.lower() in ("1", "true", "yes")
    # OpenAI published float16 weights trained with QuickGELU; open_clip's own trainings are float32, with GELU.
    half = checkpoint.state["visual.conv1.weight"].dtype == torch.float16
    logger.info(
        "%s: weights do not tell their activation; %s is taken as they are stored as %s (quick_gelu=... decides)",
        name,
        "QuickGELU" if half else "GELU",
        str(checkpoint.state["visual.conv1.weight"].dtype).removeprefix("torch."),
    )
    return half


def _clip_tokenizer(model: nn.Module):
    return open_clip.SimpleTokenizer(context_length=int(model.context_length))


def _tokenizer(source: str, cache_dir):
    try:
        return open_clip.get_tokenizer(source, cache_dir=None if cache_dir is None else str(cache_dir))
    except Exception as error:  # tokenizers of the hub fail with any of its client's types
        raise WeightsError(f"{source}: its tokenizer cannot be loaded: {_first_line(error)}") from error


def _demo_path() -> Path:
    spec = importlib.util.find_spec("tagclip")
    return Path(spec.submodule_search_locations[0]) / "demo" / "assets" / "demo_clip.safetensors"


def _is_file_name(source: str) -> bool:
    return source.endswith(WEIGHT_SUFFIXES) or Path(source).is_file()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _device(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device {device!r}: not a device that PyTorch knows, use cpu or cuda") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {str(device)!r}: PyTorch sees no CUDA device here, use cpu")
    return chosen


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    chosen = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen not in DTYPES.values():
        raise UsageError(f"dtype {dtype!r}: use float32, bfloat16 or float16")
    return chosen
