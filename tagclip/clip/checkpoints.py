"""Reading weight files of every layout that CLIP models come in, into one flat state dict."""

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from tagclip.errors import WeightsError
from tagclip.text_files import parse_json

TOKEN_ROWS = "token_embedding.rows"
TOKEN_WEIGHT = "token_embedding.weight"
CLIP_VOCABULARY = 49408  # tokens of CLIP's byte-pair encoding
# What is no weight: the integers of OpenAI archives, masks that TorchScript stores, ids of old text towers.
NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "position_ids")
WRAPPERS = ("state_dict", "model", "model_state_dict")  # where training scripts put the weights in a checkpoint


@dataclass
class Checkpoint:
    """Weights as they are in a file.

    Attributes:
        state: name -> tensor, on the CPU, in the dtype of the file.
        archive: whether the file is an OpenAI TorchScript archive.
        metadata: text fields of a safetensors file.
    """

    state: dict[str, Tensor]
    archive: bool = False
    metadata: dict[str, str] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read an OpenAI TorchScript archive, a torch state dict (bare or wrapped) or a safetensors file.

    The layout is found from the content, not from the suffix. Nothing pickled but tensors is executed.

    Raises:
        WeightsError: no such file, an unknown or damaged file, or a file without tensors.
    """
    if path.is_dir():
        raise WeightsError(f"{path}: is a folder; for an open_clip folder write local-dir:{path}")
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        checkpoint = _read(path)
    except WeightsError:
        raise
    except PermissionError as error:
        raise WeightsError(f"{path}: may not be read") from error
    except Exception as error:  # on damaged bytes the readers raise whatever their parsers run into
        reason = str(error).strip().splitlines()
        raise WeightsError(
            f"{path}: not a weights file that can be read (TorchScript archive, torch state dict or safetensors): "
            f"{reason[0][:160] if reason else type(error).__name__}"
        ) from error
    if not checkpoint.state:
        raise WeightsError(f"{path}: holds no tensors")
    return checkpoint


def _read(path: Path) -> Checkpoint:
    with path.open("rb") as stream:
        head = stream.read(9)
    if not head:
        raise WeightsError(f"{path}: is empty")
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if zipfile.is_zipfile(path) and _is_archive(path):
        return Checkpoint(
            _flatten(dict(torch.jit.load(str(path), map_location="cpu").state_dict()), path), archive=True
        )
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    return Checkpoint(_flatten(loaded, path))


def _is_archive(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _read_safetensors(path: Path) -> Checkpoint:
    with safe_open(path, framework="pt") as stream:
        state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a mapping)
        metadata = dict(stream.metadata() or {})
    return Checkpoint(_flatten(state, path), metadata=metadata)


def _flatten(loaded: object, path: Path) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
            break
    if isinstance(loaded, dict) and loaded.get("format") == "tagclip-tagger":
        raise WeightsError(
            f"{path}: is a tagger of `tagclip train-tagger` and no CLIP; give it to `tagclip tag` or `run`"
        )
    if not isinstance(loaded, dict):
        raise WeightsError(f"{path}: holds a {type(loaded).__name__}, not a state dict")
    state = {str(name): values for name, values in loaded.items() if isinstance(values, Tensor)}
    for prefix in ("module.", "_orig_mod."):
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): values for name, values in state.items()}
    state = {name: values for name, values in state.items() if name.rsplit(".", 1)[-1] not in NO_WEIGHTS}
    return _expand_token_rows(state, path)


def _expand_token_rows(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Fill up a token embedding of which only some rows are stored; the others are zero."""
    if TOKEN_ROWS not in state:
        return state
    state = dict(state)
    rows, weight = state.pop(TOKEN_ROWS).long(), state[TOKEN_WEIGHT]
    if rows.ndim != 1 or len(rows) != len(weight) or int(rows.max()) >= CLIP_VOCABULARY or int(rows.min()) < 0:
        raise WeightsError(f"{path}: {TOKEN_ROWS} does not fit {TOKEN_WEIGHT}")
    full = weight.new_zeros(CLIP_VOCABULARY, weight.shape[1])
    full[rows] = weight
    state[TOKEN_WEIGHT] = full
    return state


def read_folder_config(folder: Path) -> dict:
    """The parsed open_clip_config.json of an open_clip folder.

    Raises:
        WeightsError: no folder, no such file, or no "model_cfg" in it.
    """
    path = folder / "open_clip_config.json"
    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder")
    try:
        config = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(f"{folder}: no open_clip_config.json in this folder") from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg"), dict):
        raise WeightsError(f"{path}: has no 'model_cfg'")
    return config
