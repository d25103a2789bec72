"""The networks that a tagger can be: torchvision's by name, imported when one is built, and the demo's image tower."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tagclip.clip.checkpoints import read_checkpoint
from tagclip.demo.model import DemoArchitecture, VisionTower
from tagclip.errors import RequirementError, UsageError, WeightsError, first_line
from wsss.distillation.distillation_config import DEMO

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FAMILIES = re.compile(r"(resnet|resnext|wide_resnet|convnext|vit)[_\d]")
HEADS = ("fc.", "classifier.", "heads.", "patch_head.", "head.")  # beginnings of the last layers' parameter names


@dataclass(frozen=True)
class TaggerNetwork:
    """A network by name.

    Attributes:
        backbone: torchvision's name, or "demo".
        classes: number of outputs.
        side: of its square input, pixels.
    """

    backbone: str
    classes: int
    side: int

    @property
    def normalisation(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation that its input in [0, 1] is normalised by."""
        return (OPENAI_MEAN, OPENAI_STD) if self.backbone == DEMO else (IMAGENET_MEAN, IMAGENET_STD)

    def build(self) -> nn.Module:
        """The network with weights at random: (B, 3, side, side) normalised -> logits (B, classes).

        Raises:
            UsageError: no such network, or a side that it does not take. RequirementError: torchvision is missing.
        """
        if self.backbone == DEMO:
            return DemoClassifier(self.classes)
        models = _torchvision_models()
        known = [name for name in models.list_models(module=models) if FAMILIES.match(name)]
        if self.backbone not in known:
            raise UsageError(f"--backbone {self.backbone}: not one of {', '.join(known)}, demo")
        sized: dict[str, Any] = {"image_size": self.side} if self.backbone.startswith("vit") else {}
        try:
            return models.get_model(self.backbone, weights=None, num_classes=self.classes, **sized)
        except (ValueError, RuntimeError, AssertionError) as error:  # a ViT wants a side that its patches divide
            reason = first_line(error)
            raise UsageError(f"tagger.side {self.side}: {self.backbone} does not take it: {reason}") from None


class DemoClassifier(nn.Module):
    """The demo model's image tower, read by linear layers: its whole-image features, and its most telling patches.

    Args:
        classes: number of outputs.
    """

    def __init__(self, classes: int):
        super().__init__()
        arch = DemoArchitecture()
        self.tower = VisionTower(arch)
        self.head = nn.Linear(2 * arch.embedding, classes)
        self.patch_head = nn.Linear(arch.embedding, classes)
        self.scale = arch.embedding**0.5  # features have unit norm
        for layer in (self.head, self.patch_head):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalised -> (B, classes) logits."""
        return self.with_patches(images)[0]

    def with_patches(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and those of each patch, (B, patches, classes), which they contain the log of the mean odds of."""
        read = self.tower(images)
        whole = self.head(torch.cat([read.cls, read.pooled], dim=1) * self.scale)
        patches = self.patch_head(read.patches * self.scale)
        return whole + torch.logsumexp(patches, dim=1) - math.log(patches.shape[1]), patches


def require_activation_maps(network: nn.Module, backbone: str) -> None:
    """Makes sure that a network has class activation maps.

    Raises:
        UsageError: its head reads no feature map, as a ViT's, which reads one token.
    """
    if not isinstance(network, DemoClassifier) and _map_reader(network) is None:
        raise UsageError(
            f"--second-look: {backbone} has no class activation maps, as its last layer reads no feature map; take a "
            "ResNet, a ConvNeXt or demo"
        )


def activation_maps(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Class activation maps, and the logits of the same pass.

    A map is the last layer over each place of the last feature map: of a ResNet, what the places add to the logit; of a
    ConvNeXt, whose head normalises the mean of all places first, the same up to a factor and a constant per image; of
    the demo's tower, the logits of its patches.

    Args:
        network: one that `require_activation_maps` lets pass. images: its input, (B, 3, side, side).

    Returns:
        Logits, (B, C), and maps, (B, C, h, w) float32.
    """
    if isinstance(network, DemoClassifier):
        logits, patches = network.with_patches(images)
        rows = images.shape[2] // network.tower.arch.patch
        return logits, patches.float().transpose(1, 2).unflatten(2, (rows, -1))
    reader = _map_reader(network)
    assert reader is not None  # `require_activation_maps` has looked
    layer, weights = reader
    kept: list[Tensor] = []
    hook = layer.register_forward_hook(lambda module, given, made: kept.append(made))
    try:
        logits = network(images)
    finally:
        hook.remove()
    return logits, torch.einsum("bdhw,cd->bchw", kept[0].float(), weights.float())


def _map_reader(network: nn.Module) -> tuple[nn.Module, Tensor] | None:
    """The layer that makes the last feature map, and the weights of its channels, (C, D)."""
    parts: dict[str, Any] = dict(network.named_children())
    if isinstance(parts.get("fc"), nn.Linear) and "layer4" in parts:  # torchvision's names of a ResNet's parts
        return parts["layer4"], parts["fc"].weight
    head = list(parts["classifier"].children()) if "classifier" in parts else []
    if "features" in parts and len(head) == 3 and isinstance(head[0], nn.LayerNorm) and isinstance(head[2], nn.Linear):
        return parts["features"], head[2].weight * head[0].weight  # a ConvNeXt's
    return None


def set_prior(network: nn.Module, logits: Tensor) -> None:
    """Lets a new last layer begin with these log odds of its classes, (C,), whatever the image shows."""
    named = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}
    last = [layer for name, layer in named.items() if f"{name}.".startswith(HEADS) and name != "patch_head"]
    with torch.no_grad():
        last[-1].bias.copy_(logits)


def load_backbone(network: nn.Module, architecture: TaggerNetwork, weights: Path | None) -> bool:
    """Fills all but the last layer of a network; nothing is ever downloaded.

    Args:
        weights: state dict or safetensors of torchvision's layout, with whatever last layer; None: the demo's own
            weights for "demo", and none for the others.

    Returns:
        Whether there were weights.

    Raises:
        WeightsError: a file that cannot be read, or is another network's.
    """
    if architecture.backbone == DEMO and weights is None:
        path = Path(__file__).parents[2] / "tagclip" / "demo" / "assets" / "demo_clip.safetensors"
        stored = {name: value.float() for name, value in load_file(path).items() if name.startswith("visual.")}
        state = {f"tower.{name.removeprefix('visual.')}": value for name, value in stored.items()}
        where = "demo"
    elif weights is None:
        return False
    else:
        path, where = weights, f"--weights {weights}"
        state = {name: value.float() if value.is_floating_point() else value
                 for name, value in read_checkpoint(weights).state.items()}  # fmt: skip
    own = network.state_dict()
    body = {name for name in own if not name.startswith(HEADS)}
    for name in sorted(body):
        if name not in state and not name.endswith("num_batches_tracked"):
            raise WeightsError(f"{where}: no weights of {architecture.backbone}: {name} is missing")
        if name in state and state[name].shape != own[name].shape:
            there, here = tuple(state[name].shape), tuple(own[name].shape)
            raise WeightsError(
                f"{where}: no weights of {architecture.backbone} at {architecture.side} pixels: {name} is {there}, not "
                f"{here}"
            )
    network.load_state_dict({name: state[name] for name in body if name in state}, strict=False)
    return True


def _torchvision_models() -> Any:
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # one of another torch raises RuntimeError
        raise RequirementError(
            f"--backbone: torchvision cannot be imported ({first_line(error)}); install the one of your torch, or take "
            "the backbone demo"
        ) from None
    return models
