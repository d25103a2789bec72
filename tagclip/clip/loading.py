"""Every way to a `FrozenCLIP`: open_clip name and tag, a weights file of any layout, an open_clip folder, the demo."""

import copy
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.constants import HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from tagclip.clip import architecture as arch
from tagclip.clip.checkpoints import Checkpoint, read_checkpoint, read_folder_config
from tagclip.clip.downloads import FOLDER_REMEDY, fetch_weights, find_cached, require_hub
from tagclip.clip.encoder import FrozenCLIP
from tagclip.clip.int8 import pack_blocks
from tagclip.clip.modules import OpenClipModel, Tokenizer
from tagclip.devices import resolve_device
from tagclip.errors import UsageError, WeightsError, first_line

logger = logging.getLogger(__name__)

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
    "int8": torch.int8,
}
DTYPE_NAMES = "float32, bfloat16, float16 or int8"
WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
RANDOM_FILLS = (Tensor.normal_, Tensor.uniform_, init.normal_, init.uniform_, init.kaiming_uniform_)
LOCAL_DIR = "local-dir:"
HUB = "hf-hub:"
DEMO_WEIGHTS = Path("demo", "assets", "demo_clip.safetensors")  # inside the package


def load_clip(
    path_or_name: str | Path = "ViT-B-16",
    pretrained: str | Path | None = "openai",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
    download_dir: str | Path | None = None,
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
        device: where the model computes; None takes cuda if there is one, else cpu.
        dtype: float32, bfloat16 or float16; int8, on a CPU, is float32 with the linear layers of the vision tower's
            blocks in int8, see `tagclip.clip.int8`.
        download_dir: where downloads are kept; None: the hub's cache. What is there is taken without asking the hub.
        quick_gelu: the activation of the blocks, which no state dict tells: QuickGELU (True) or GELU (False). None
            decides: configuration of the named tag or folder; OpenAI archive: QuickGELU; safetensors field
            "quick_gelu"; bare OpenAI-layout state dict in float16, as OpenAI's are: QuickGELU; any other: GELU. The
            choice is logged, as a warning where the weights may be OpenAI's, saved again in another dtype.

    Raises:
        WeightsError: weights that cannot be found or read, of another architecture than the one named, or with a tower
            that is not supported (ResNet, timm, no class token); the message names the model.
        UsageError: an unknown dtype, a device that is not there, or one without int8 products.
    """
    device, dtype = resolve_device(device), _dtype(dtype)
    source = str(path_or_name)
    if source == "demo":
        loaded = _load_demo(quick_gelu)
    elif source.startswith((LOCAL_DIR, HUB)):
        loaded = _load_configured(source, download_dir, quick_gelu)
    elif _is_file_name(source) or (Path(source).is_dir() and open_clip.get_model_config(source) is None):
        loaded = _load_file(Path(source), Path(source).name, quick_gelu)
    else:
        loaded = _load_named(source, pretrained, download_dir, quick_gelu)
    return _freeze(loaded, device, dtype)


def wrap_clip(
    model: OpenClipModel,
    tokenizer: Tokenizer | None = None,
    *,
    name: str = "custom",
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
) -> FrozenCLIP:
    """Freeze a copy of an open_clip model that exists already; the model itself stays as it is.

    Args:
        tokenizer: open_clip's tokenizer for the model; CLIP's byte-pair encoding by default.
        device, dtype: see `load_clip`.

    Raises:
        WeightsError: the model is no plain vision transformer with a class token.
    """
    device, dtype = resolve_device(device), _dtype(dtype)
    arch.refuse_model(model, name)
    settings = getattr(model.visual, "preprocess_cfg", {})
    return _freeze(_Loaded(copy.deepcopy(model), tokenizer, name, settings), device, dtype)


@dataclass
class _Loaded:
    """An open_clip model on the CPU in fp32; tokenizer None stands for CLIP's byte-pair encoding."""

    model: OpenClipModel
    tokenizer: Tokenizer | None
    name: str
    preprocessing: Mapping = field(default_factory=dict)


def _freeze(loaded: _Loaded, device: torch.device, dtype: torch.dtype) -> FrozenCLIP:
    model, settings = loaded.model, loaded.preprocessing
    arch.refuse_model(model, loaded.name)
    clip = FrozenCLIP(
        model,
        loaded.tokenizer or open_clip.tokenize,
        name=loaded.name,
        mean=settings.get("mean") or open_clip.OPENAI_DATASET_MEAN,
        std=settings.get("std") or open_clip.OPENAI_DATASET_STD,
        device=device,
        dtype=torch.float32 if dtype == torch.int8 else dtype,
    )
    if dtype == torch.int8:
        pack_blocks(clip.blocks, device)
    logger.info("%s: %s, %s on %s, weights %s", clip.name, clip.architecture, dtype, device, clip.weights_digest[:12])
    if device.type == "cpu" and dtype in (torch.bfloat16, torch.float16):
        _warn_if_slower_than_float32(dtype)
    return clip


def _warn_if_slower_than_float32(dtype: torch.dtype) -> None:
    """Processors without instructions for a half-precision type emulate it, up to hundreds of times slower."""
    factor = _product_seconds(dtype) / _product_seconds(torch.float32)
    if factor > 1.5:
        logger.warning(
            "%s products take %.0f times as long as float32 ones on this processor; use --dtype float32",
            str(dtype).removeprefix("torch."), factor,
        )  # fmt: skip


def _product_seconds(dtype: torch.dtype) -> float:
    """Best of three, after one to warm up."""
    left, right = torch.ones(128, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        torch.mm(left, right)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _load_demo(quick_gelu: bool | None) -> _Loaded:
    path = Path(__file__).parents[1] / DEMO_WEIGHTS
    if not path.is_file():
        raise WeightsError(f"demo: the demo weights are missing from this installation ({DEMO_WEIGHTS})")
    return _load_file(path, "demo", quick_gelu)


def _load_file(path: Path, name: str, quick_gelu: bool | None) -> _Loaded:
    checkpoint = read_checkpoint(path)
    described = arch.describe_state(checkpoint.state, name)
    activation = _quick_gelu(checkpoint, name, quick_gelu)
    with torch.random.fork_rng(devices=[]), NoInitialisation():
        model = arch.build(described, quick_gelu=activation, name=name)
    return _Loaded(_fill(model, checkpoint.state, name), None, name)


def _load_named(
    source: str, pretrained: str | Path | None, download_dir: str | Path | None, quick_gelu: bool | None
) -> _Loaded:
    architecture = source.replace("/", "-")
    config = open_clip.get_model_config(architecture)
    if config is None:
        raise WeightsError(
            f"model {source!r}: neither a weights file nor an architecture of open_clip (ViT-B-16, ViT-L-14, ...)"
        )
    arch.refuse_config(config, source)
    if not pretrained:
        raise WeightsError(f"{source}: name its weights, an open_clip tag or a file (pretrained=...)")
    tag = open_clip.get_pretrained_cfg(architecture, str(pretrained)) or {}
    if tag:
        name = f"{architecture}/{pretrained}"
        path = fetch_weights(tag, name, download_dir)
        if quick_gelu is None:
            quick_gelu = bool(config.get("quick_gelu") or tag.get("quick_gelu"))
    else:
        path, name = Path(pretrained), f"{architecture}/{Path(pretrained).name}"
        if not path.exists() and not _is_file_name(str(pretrained)):
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
            raise WeightsError(
                f"{architecture}: weights {str(pretrained)!r} are neither a file nor a tag of open_clip ({tags})"
            )
    model = _load_configured_file(path, config, name, quick_gelu)
    return _Loaded(model, _tokenizer(architecture, download_dir), name, tag)


def _load_configured_file(path: Path, config: dict, name: str, quick_gelu: bool | None) -> OpenClipModel:
    checkpoint = read_checkpoint(path)
    arch.refuse_state(checkpoint.state, name)
    if quick_gelu is None and config.get("quick_gelu"):
        quick_gelu = True
    config = copy.deepcopy(config)
    config["quick_gelu"] = _quick_gelu(checkpoint, name, quick_gelu)
    _take_sizes(config, checkpoint.state)
    custom_text = config.pop("custom_text", False) or "hf_model_name" in config["text_cfg"]
    if "hf_model_name" in config["text_cfg"]:
        config["text_cfg"]["hf_model_pretrained"] = False
    state = checkpoint.state
    if custom_text:
        state = convert_to_custom_text_state_dict(dict(state))
    with torch.random.fork_rng(devices=[]), NoInitialisation():
        model = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**config)
    return _fill(model, state, name)


def _take_sizes(config: dict, state: Mapping[str, Tensor]) -> None:
    """Grid and context length are the weights' own: a ViT-L-14 file of 336 px is a ViT-L-14."""
    vision, positions = config["vision_cfg"], state.get("visual.positional_embedding")
    if positions is not None:
        grid = round((positions.shape[0] - 1) ** 0.5)
        if grid * grid == positions.shape[0] - 1:
            vision["image_size"] = grid * vision["patch_size"]
    if "positional_embedding" in state:
        config["text_cfg"]["context_length"] = state["positional_embedding"].shape[0]


def _load_configured(source: str, download_dir: str | Path | None, quick_gelu: bool | None) -> _Loaded:
    """A model with its own open_clip_config.json, in a folder or on the hub."""
    if source.startswith(LOCAL_DIR):
        folder = Path(source.removeprefix(LOCAL_DIR))
        name, config = folder.name, read_folder_config(folder)["model_cfg"]
    else:
        name = source.removeprefix(HUB)
        config = _hub_config(name, download_dir)
    arch.refuse_config(config, name)
    gelu = bool(config.get("quick_gelu")) if quick_gelu is None else quick_gelu
    try:
        with torch.random.fork_rng(devices=[]):
            model = open_clip.create_model(
                source,
                cache_dir=None if download_dir is None else str(download_dir),
                require_pretrained=True,
                force_quick_gelu=gelu,
                quick_gelu=gelu,
            )
    except Exception as error:  # file, shape and download errors come as a dozen unrelated types
        raise WeightsError(f"{source}: weights cannot be loaded: {first_line(error)}") from error
    return _Loaded(model, _tokenizer(source, download_dir), name, model.visual.preprocess_cfg)


def _hub_config(repository: str, download_dir: str | Path | None) -> dict[str, Any]:
    """The model's configuration; once this returns, its weights are in the cache or the hub answers."""
    cached = find_cached(repository, (HF_CONFIG_NAME,), download_dir)
    weights = find_cached(repository, (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME), download_dir)
    if cached is None or weights is None:
        require_hub(repository, HF_CONFIG_NAME, HUB + repository, FOLDER_REMEDY)
    if cached is not None:
        return read_folder_config(cached.parent)["model_cfg"]
    try:
        return open_clip.get_model_config(HUB + repository)
    except Exception as error:  # the download clients raise a dozen unrelated types
        raise WeightsError(f"{HUB}{repository}: configuration cannot be fetched: {first_line(error)}") from error


class NoInitialisation(TorchFunctionMode):
    """Modules made inside keep their parameters as the memory came: `_fill` writes every one of them.

    Random values for ViT-L-14 take 14 s of one core.
    """

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in RANDOM_FILLS:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def _fill(model: OpenClipModel, state: dict[str, Tensor], name: str) -> OpenClipModel:
    """Load a state dict into a model of its shapes.

    Raises:
        WeightsError: the shapes or names are another architecture's.
    """
    own = model.state_dict()
    wrong = [
        f"{key} {tuple(state[key].shape)}, not {tuple(values.shape)}"
        for key, values in own.items()
        if key in state and state[key].shape != values.shape and not state[key].numel() == values.numel() == 1
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
    weight = checkpoint.state["visual.conv1.weight"]
    stored = str(weight.dtype).removeprefix("torch.")
    if weight.dtype != torch.float16 and _may_be_openai(weight):
        logger.warning(
            "%s: %s weights do not tell their activation, GELU is taken; for OpenAI weights that were saved again give "
            "--quick-gelu, else --no-quick-gelu (in Python quick_gelu=True or False)", name, stored,
        )  # fmt: skip
        return False
    half = weight.dtype == torch.float16
    logger.info(
        "%s: weights do not tell their activation; %s is taken as they are stored as %s (--quick-gelu or "
        "--no-quick-gelu decides)", name, "QuickGELU" if half else "GELU", stored,
    )  # fmt: skip
    return half


def _may_be_openai(weight: Tensor) -> bool:
    """Whether values may have come from float16: of bfloat16 nobody can tell, of float32 it shows."""
    return weight.dtype == torch.bfloat16 or torch.equal(weight.half().float(), weight.float())


def _tokenizer(source: str, download_dir: str | Path | None) -> Tokenizer:
    try:
        return open_clip.get_tokenizer(source, cache_dir=None if download_dir is None else str(download_dir))
    except Exception as error:  # tokenizers of the hub fail with any of its client's types
        raise WeightsError(f"{source}: its tokenizer cannot be loaded: {first_line(error)}") from error


def _is_file_name(source: str) -> bool:
    return source.endswith(WEIGHT_SUFFIXES) or Path(source).is_file()


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    chosen = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in DTYPES.values():
        raise UsageError(f"dtype {dtype!r}: use {DTYPE_NAMES}")
    return chosen
