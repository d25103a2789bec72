"""An encoder-decoder whose loss weights each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn


@MODELS.register_module()
class WeightedEncoderDecoder(EncoderDecoder):
    """mmseg's `EncoderDecoder`, with the loss of each image multiplied by its `image_weight`.

    The weight comes from the sample's meta information (`PseudoMaskDataset(image_weight=...)` puts it there and
    `PackSegInputs` must list it in `meta_keys`). A batch whose weights are all 1, or absent, takes the path of the
    parent class, so this type changes nothing for a data set without weights.
    """

    def loss(self, inputs: Tensor, data_samples: Sequence[SegDataSample]) -> dict[str, Tensor]:
        """Losses of a batch: the mean over images of weight times the image's own loss.

        Args:
            inputs: normalised images, (B, 3, H, W).
            data_samples: B samples with `gt_sem_seg`.
        """
        weights = [float(sample.metainfo.get("image_weight", 1.0)) for sample in data_samples]
        if all(weight == 1.0 for weight in weights):
            return super().loss(inputs, data_samples)
        features = self.extract_feat(inputs)
        losses: dict[str, Tensor] = {}
        for prefix, head in self._heads():
            logits = head(features)
            for name, value in _weighted_losses(head, logits, data_samples, weights).items():
                losses[f"{prefix}.{name}"] = value
        return losses

    def _heads(self) -> list[tuple[str, nn.Module]]:
        heads = [("decode", self.decode_head)]
        if self.with_auxiliary_head:
            auxiliary = self.auxiliary_head
            if isinstance(auxiliary, nn.ModuleList):
                heads += [(f"aux_{index}", head) for index, head in enumerate(auxiliary)]
            else:
                heads.append(("aux", auxiliary))
        return heads


def _weighted_losses(
    head: BaseDecodeHead, logits: Tensor, samples: Sequence[SegDataSample], weights: Sequence[float]
) -> dict[str, Tensor]:
    per_image = [head.loss_by_feat(logits[index : index + 1], [sample]) for index, sample in enumerate(samples)]
    result = {}
    for name in per_image[0]:
        values = torch.stack([losses[name].reshape(()) for losses in per_image])
        # Accuracies are reported, not minimised: they stay plain means.
        factors = values.new_tensor(weights) if "loss" in name else torch.ones_like(values)
        result[name] = (values * factors).mean()
    return result
