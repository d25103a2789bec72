"""clip: the last block as it was trained."""

from torch import Tensor

from tagclip.clip.attention import attend
from wsss.dense.strategy import Context, NoOptions, Strategy


def mix(q: Tensor, k: Tensor, v: Tensor, context: Context, options: NoOptions) -> Tensor:
    """softmax(QK) V."""
    return attend(q, k, v)


STRATEGY = Strategy("clip", mix, residual=True, mlp=True, source="CLIP, arXiv 2103.00020")
