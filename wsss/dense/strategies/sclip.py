"""sclip: correlative self-attention."""

from torch import Tensor

from tagclip.clip.attention import attend
from wsss.dense.strategy import Context, NoOptions, Strategy


def mix(q: Tensor, k: Tensor, v: Tensor, context: Context, options: NoOptions) -> Tensor:
    """(softmax(QQ) + softmax(KK)) V. The sum is not halved: rows of the map sum to 2."""
    return attend(q, q, v) + attend(k, k, v)


STRATEGY = Strategy("sclip", mix, residual=True, mlp=True, source="SCLIP, arXiv 2312.01597, section 3.2")
