"""tagclip-local: the local last block of TagCLIP, residual and MLP kept."""

from torch import Tensor

from tagclip.clip.attention import merge_heads
from wsss.dense.strategy import Context, NoOptions, Strategy


def mix(q: Tensor, k: Tensor, v: Tensor, context: Context, options: NoOptions) -> Tensor:
    """V: every token attends to itself."""
    return merge_heads(v)


STRATEGY = Strategy("tagclip-local", mix, residual=True, mlp=True, source="TagCLIP, arXiv 2312.12828, section 3.2")
