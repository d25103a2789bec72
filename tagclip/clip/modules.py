"""What open_clip hands us, by type. It has no annotations of its own, so type checkers do not look into its modules."""

from __future__ import annotations

from collections.abc import Callable

from open_clip import CLIP, CustomTextCLIP
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

OpenClipModel = CLIP | CustomTextCLIP
Block = ResidualAttentionBlock  # one entry of `FrozenCLIP.blocks`
Tokenizer = Callable[..., Tensor]  # (prompts, context_length=...) -> token ids, (P, context_length)
