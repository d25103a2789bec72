"""maskclip: only the value path of the last block."""

from torch import Tensor

from tagclip.clip.attention import merge_heads
from wsss.dense.strategy import Context, NoOptions, Strategy


def mix(q: Tensor, k: Tensor, v: Tensor, context: Context, options: NoOptions) -> Tensor:
    """V: every token attends to itself."""
    return merge_heads(v)


STRATEGY = Strategy("maskclip", mix, residual=False, mlp=False, source="MaskCLIP, arXiv 2112.01071, section 3.2")
