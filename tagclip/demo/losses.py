"""The losses of the embedded demo model's training.

The losses know which objects and backgrounds a scene shows, never where. These are supervised:

- the [CLS] feature: softmax over all names, targets proportional to visible area^1.5, as captions name what is
  prominent;
- the local patch tokens: every patch must be something that the scene holds (`foreign`), and every name must own its
  share of the patches (`share`, learning from label proportions: without it the patches of an object that is not
  recognised yet call themselves background, which is always safe);
- the pooled patches of the ordinary last block, which is what Grad-CAM starts from;
- with `cam_objects`, Grad-CAM's maps, which must lie where the local patches say that the object is: in a model trained
  on captions whole images pass through attention, here the patches know their names without it, and gradients of the
  pooled feature at the attention's input then say little of who is where.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tagclip.demo.model import DemoCLIP


def losses(
    model: DemoCLIP,
    images: Tensor,
    areas: Tensor,
    background: Tensor,
    tokens: Tensor,
    offset: tuple | None,
    cam_objects: int = 0,
) -> dict[str, Tensor]:
    """The parts of the loss, each a scalar.

    Args:
        images: normalised, (B, 3, S, S). areas: visible pixels of each name, (B, K). background: (B, K) bool.
        tokens: prompts of all names, (K, 77). offset: window of the native positional grid; None
            for pictures larger than it, whose positions are interpolated.
        cam_objects: objects per image, the largest ones, whose Grad-CAM is part of the loss ("cam"); 0 for none.
    """
    read = model.visual(images, offset)
    text = model.encode_text(tokens)
    scale = model.logit_scale.exp().clamp(max=100)
    prominent = areas**1.5
    prominent = prominent / prominent.sum(1, keepdim=True)
    spread = areas.sqrt()
    spread = 0.75 * spread / spread.sum(1, keepdim=True) + 0.25 * background / background.sum(1, keepdim=True)
    log_p = (scale * read.patches @ text.T).log_softmax(-1)
    present = (areas > 0) | background
    held = log_p.masked_fill(~present[:, None], -1e4)
    covered = areas / images[0, 0].numel()
    left = (1 - covered.sum(1, keepdim=True)).clamp(min=0) * background / background.sum(1, keepdim=True)
    expected = 0.8 * (covered + left) + 0.2 * present / present.sum(1, keepdim=True)
    owned = log_p.exp().mean(1)
    pooled = scale * read.pooled @ text.T
    parts = {
        "cls": -((scale * read.cls @ text.T).log_softmax(-1) * prominent).sum(1).mean(),
        "foreign": -torch.logsumexp(held, -1).mean(),
        "share": (torch.xlogy(expected, expected) - expected * torch.log(owned + 1e-6)).sum(1).mean(),
        "pooled": -(pooled.log_softmax(-1) * spread).sum(1).mean(),
    }
    if cam_objects:
        rivals = (areas > 0) | background.any(0)  # an image's objects, and every background that the batch shows
        parts["cam"] = cam_loss(pooled.masked_fill(~rivals, -1e4), read.normed, areas, held.detach(), cam_objects)
    return parts


def cam_loss(logits: Tensor, normed: Tensor, areas: Tensor, held: Tensor, objects: int) -> Tensor:
    """How far Grad-CAM's maps are from where the local patches see the objects: 1 - cosine, mean over objects.

    The softmax's gradient of p_k is p_k (1 - p_k) times that of its log odds; the factor does not change a map's shape.

    Args:
        logits: of the pooled feature, (B, K); names that do not compete are far below. normed: where gradients are
            taken, (B, 1 + N, width); `logits` depend on it. areas: (B, K), 0 for what is no object of the image.
        held: what the patches say, log of probabilities but for a term a patch, (B, N, K), constant.
        objects: largest objects of each image.
    """
    size, names = areas.topk(objects)
    probabilities = held.softmax(-1)
    total, count = logits.new_zeros(()), (size > 0).sum().clamp(min=1)
    for slot in range(objects):
        chosen = names[:, slot : slot + 1]
        others = logits.scatter(1, chosen, -1e4).logsumexp(1)
        log_odds = logits.gather(1, chosen)[:, 0] - others
        (gradient,) = torch.autograd.grad(log_odds.sum(), normed, create_graph=True)
        weights = gradient[:, 1:].float().mean(1)
        maps = (normed[:, 1:].float() @ weights[:, :, None])[..., 0].relu()
        seen = probabilities.gather(2, chosen[:, None].expand(-1, held.shape[1], 1))[..., 0]
        apart = 1 - F.cosine_similarity(maps, seen, dim=1, eps=1e-6)
        total = total + (apart * (size[:, slot] > 0)).sum()
    return total / count
