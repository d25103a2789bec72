"""The DeepLab-v2 head, which mmseg 1.x does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class DeepLabV2Head(BaseDecodeHead):
    """Atrous spatial pyramid of DeepLab-v2 (arXiv 1606.00915, section 3.2, "DeepLab-LargeFOV / ASPP-L").

    Every branch is one dilated 3x3 convolution that classifies directly; the logits are the branches' sum.

    Args:
        dilations: rate of each branch; 6, 12, 18, 24 in the paper.
        dropout_ratio: channel dropout on the features before the branches; the paper's ResNet has none.
        init_cfg: mmengine initialisation of the branches, normal with std 0.01 as in the paper.
        kwargs: the other arguments of mmseg's `BaseDecodeHead` (`in_channels`, `num_classes`, `loss_decode`, ...).
    """

    def __init__(
        self,
        dilations: Sequence[int] = (6, 12, 18, 24),
        dropout_ratio: float = 0.0,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("channels", 1)
        init_cfg = init_cfg or {"type": "Normal", "std": 0.01, "bias": 0.0, "layer": "Conv2d"}
        super().__init__(dropout_ratio=dropout_ratio, init_cfg=init_cfg, **kwargs)
        # The base class's 1x1 classifier would be a parameter without gradient, which distributed training refuses.
        self.conv_seg = None
        self.dilations = tuple(dilations)
        self.branches = nn.ModuleList(
            nn.Conv2d(self.in_channels, self.out_channels, 3, padding=rate, dilation=rate) for rate in self.dilations
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Logits (B, classes, h, w) at the resolution of the chosen feature map.

        Args:
            inputs: feature maps of the backbone, each (B, channels, h, w).
        """
        features = self._transform_inputs(inputs)
        if self.dropout is not None:
            features = self.dropout(features)
        return torch.stack([branch(features) for branch in self.branches]).sum(dim=0)
