"""clearclip: query-query attention, no residual, no MLP."""

from torch import Tensor

from tagclip.clip.attention import attend
from wsss.dense.strategy import Context, NoOptions, Strategy


def mix(q: Tensor, k: Tensor, v: Tensor, context: Context, options: NoOptions) -> Tensor:
    """softmax(QQ) V."""
    return attend(q, q, v)


STRATEGY = Strategy("clearclip", mix, residual=False, mlp=False, source="ClearCLIP, arXiv 2407.12442, section 3")
