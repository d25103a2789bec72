"""A trained tagger: its file, and the model in it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tagclip.clip.loading import DTYPES
from tagclip.errors import UsageError, WeightsError, first_line
from tagclip.text_files import json_text, parse_json
from tagclip.vocabulary import Vocabulary
from wsss.distillation.image_classifiers import TaggerNetwork, activation_maps
from wsss.distillation.tagger_files import FORMAT
from wsss.files.atomic import atomic_file, disk_errors

VERSION = 1
Colours = tuple[float, float, float]


@dataclass(frozen=True)
class Teacher:
    """The CLIP whose scores a tagger was trained on, as its run's config names it.

    Attributes:
        name, pretrained, quick_gelu: see `tagclip.clip.load_clip`.
        weights: digest of its weights.
        patch_size: images have sides that it divides.
    """

    name: str
    pretrained: str | None
    quick_gelu: bool | None
    weights: str
    patch_size: int


@dataclass(frozen=True)
class TaggerCard:
    """What a tagger's file says beside its weights.

    Attributes:
        backbone: of torchvision by name, or "demo". side: of its square input, pixels.
        vocabulary: `Vocabulary.to_dict` of its classes.
        teacher: whose scores it has learned.
        training: settings and figures of the training, plain values.
    """

    backbone: str
    side: int
    vocabulary: dict[str, Any]
    teacher: Teacher
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> Vocabulary:
        """Its classes."""
        return Vocabulary.from_dict(self.vocabulary)


class Student(nn.Module):
    """A trained tagger in memory. Its attributes are those by which a run knows a model (see `ImageModel`).

    Args:
        network: (B, 3, side, side) normalised -> logits (B, C).
        card: what it is.

    Attributes:
        name, patch_size, mean, std, architecture, weights_digest: as of `tagclip.clip.FrozenCLIP`.
    """

    network_mean: Tensor
    network_std: Tensor

    def __init__(self, network: nn.Module, card: TaggerCard, name: str = "tagger"):
        super().__init__()
        self.network, self.card, self.name = network, card, name
        self.patch_size = card.teacher.patch_size
        self.mean: Colours = (0.0, 0.0, 0.0)  # it normalises by itself
        self.std: Colours = (1.0, 1.0, 1.0)
        self.architecture = f"patch{self.patch_size}-tagger-{card.backbone}-side{card.side}"
        own = TaggerNetwork(card.backbone, 1, card.side).normalisation
        for key, values in zip(("network_mean", "network_std"), own, strict=True):
            self.register_buffer(key, torch.tensor(values).view(3, 1, 1), persistent=False)
        self.weights_digest = ""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.network_mean.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of its weights."""
        return next(self.network.parameters()).dtype

    @property
    def number_format(self) -> str:
        """What it computes in, for provenance and messages."""
        return str(self.dtype).removeprefix("torch.")

    def freeze(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Student:
        """Ready for use: no gradients, no dropout; its digest is taken before the weights are cast."""
        self.weights_digest = state_digest(self.network.state_dict())
        self.network.to(dtype=dtype)
        return self.to(device).requires_grad_(False).eval()

    def forward(self, rgb: Tensor) -> Tensor:
        """Images (B, 3, H, W) float32 in [0, 1] of any one size -> logits (B, C) float32."""
        return self.network(self.squeezed(rgb).to(self.dtype)).float()

    def with_maps(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, and class activation maps (B, C, h, w) float32: see `activation_maps`."""
        logits, maps = activation_maps(self.network, self.squeezed(rgb).to(self.dtype))
        return logits.float(), maps

    def squeezed(self, rgb: Tensor) -> Tensor:
        """The network's input: resized to its square (bilinear, antialiased), normalised by its own constants."""
        side = (self.card.side, self.card.side)
        if rgb.shape[2:] != side:
            rgb = F.interpolate(rgb, side, mode="bilinear", antialias=True, align_corners=False)
        return (rgb - self.network_mean) / self.network_std


def state_digest(state: Mapping[str, Tensor]) -> str:
    """sha256 (hex) of a state dict, buffers included, as float32 by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().cpu()
        digest.update(f"{name}{tuple(values.shape)}".encode())
        digest.update((values.float() if values.is_floating_point() else values).contiguous().numpy().data)
    return digest.hexdigest()


def save_student(student: Student, path: Path) -> None:
    """Writes the file, whole or not at all; the same tagger gives the same bytes.

    Raises:
        RunError: full disk or unwritable folder.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in student.network.state_dict().items()}
    card = json_text(asdict(student.card))
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION, "card": card, "state": state}, buffer)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, path.parent, durable=True) as file:
        file.write(buffer.getvalue())


def read_card(path: Path | str) -> TaggerCard:
    """What a tagger's file says of itself.

    Raises:
        WeightsError: no such file, or no tagger's.
    """
    return _read(Path(path))[0]


def load_student(
    path: Path | str, device: torch.device | str = "cpu", dtype: str | torch.dtype = torch.float32
) -> Student:
    """A tagger from its file, frozen. Nothing pickled but tensors and plain values is read.

    Raises:
        WeightsError: no such file, no tagger's, or a damaged one. UsageError: an unknown dtype.
    """
    card, state = _read(Path(path))
    chosen = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or not chosen.is_floating_point:
        raise UsageError(f"dtype {dtype!r}: a trained tagger computes in float32, bfloat16 or float16")
    network = TaggerNetwork(card.backbone, len(card.classes), card.side).build()
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path}: its weights are not those of {card.backbone}: {first_line(error)}") from None
    return Student(network, card, Path(path).name).freeze(device, chosen)


def _read(path: Path) -> tuple[TaggerCard, dict[str, Tensor]]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(stored, dict) or stored.get("format") != FORMAT:
            raise ValueError("not written by `tagclip train-tagger`")
        if stored.get("version") != VERSION:
            raise ValueError(f"version {stored.get('version')}, this program reads {VERSION}")
        values = parse_json(stored["card"])
        card = TaggerCard(teacher=Teacher(**values.pop("teacher")), **values)
        state = {str(name): value for name, value in stored["state"].items() if isinstance(value, Tensor)}
        Vocabulary.from_dict(card.vocabulary)
    except Exception as error:  # on damaged bytes the readers raise whatever they run into
        raise WeightsError(f"{path}: not a tagger that can be read: {first_line(error)}") from None
    return card, state
