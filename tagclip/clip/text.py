"""The text tower: prompts -> features, with no more token positions than a batch of prompts needs."""

from collections.abc import Sequence
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from tqdm import tqdm

from tagclip.clip import attention
from tagclip.clip.modules import OpenClipModel, Tokenizer
from tagclip.errors import VocabularyError

CHUNK_PROMPTS = 256  # prompts encoded at once
PROGRESS_PROMPTS = 20_000  # a list longer than this shows a progress bar


class TextEncoder:
    """Encode prompts with the text tower of an open_clip model.

    A causal tower's answer at the end-of-text token does not depend on later positions, so prompts are sorted by length
    and every chunk is cut to its longest prompt: exact, and several times cheaper than the full context.
    """

    def __init__(self, model: OpenClipModel, tokenizer: Tokenizer):
        self.model = model
        self.tokenizer = tokenizer
        self.tower = getattr(model, "text", model)
        self.context_length = int(model.context_length)
        self.pool = getattr(self.tower, "pool_type", None) or getattr(model, "text_pool_type", None)
        self.eos_id: Any = getattr(self.tower, "eos_id", None) if self.tower is not model else model.text_eos_id
        self.causal = self._is_plain_causal()

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """(P, D) fp32 unit norm features in the order given; at least one prompt."""
        tokens = self.tokenize(prompts)
        ends = self._ends(tokens)
        order = torch.argsort(ends, stable=True)
        features: Tensor | None = None
        starts = range(0, len(prompts), CHUNK_PROMPTS)
        for start in tqdm(starts, desc="text prompts", disable=len(prompts) <= PROGRESS_PROMPTS):
            chosen = order[start : start + CHUNK_PROMPTS]
            if self.causal:
                length = int(ends[chosen].max()) + 1
                encoded = self._encode_causal(tokens[chosen, :length].to(device), ends[chosen].to(device))
            else:
                encoded = self.model.encode_text(tokens[chosen].to(device))
            encoded = F.normalize(encoded.float(), dim=-1)
            if features is None:
                features = encoded.new_empty(len(prompts), encoded.shape[-1])
            features[chosen.to(device)] = encoded
        assert features is not None  # there is a prompt
        return features

    def _is_plain_causal(self) -> bool:
        blocks = getattr(getattr(self.tower, "transformer", None), "resblocks", None)
        return (
            blocks is not None
            and all(type(block) is ResidualAttentionBlock for block in blocks)
            and getattr(self.tower, "attn_mask", None) is not None
            and getattr(self.tower, "cls_emb", None) is None
            and self.pool in ("argmax", "eos")
        )

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """(P, context length) token ids.

        Raises:
            VocabularyError: a prompt that a byte-pair tokenizer does not fit into the context.
        """
        if self.tokenizer is not open_clip.tokenize and not isinstance(self.tokenizer, open_clip.SimpleTokenizer):
            return self.tokenizer(list(prompts), context_length=self.context_length)
        # Tokenizers cut what is too long without a word; one position more than the model has shows it.
        tokens = self.tokenizer(list(prompts), context_length=self.context_length + 1)
        for row in torch.nonzero(tokens[:, -1]).flatten().tolist():
            raise VocabularyError(
                f"prompt {prompts[row]!r} has more than the {self.context_length} tokens the model takes: shorten it"
            )
        return tokens[:, : self.context_length]

    def _ends(self, tokens: Tensor) -> Tensor:
        if self.pool == "eos":
            return torch.eq(tokens, self.eos_id).int().argmax(dim=-1)
        return tokens.argmax(dim=-1)

    def _encode_causal(self, tokens: Tensor, ends: Tensor) -> Tensor:
        tower = self.tower
        hidden = tower.token_embedding(tokens) + tower.positional_embedding[: tokens.shape[1]]
        for block in tower.transformer.resblocks:
            attended = attention.attend(*attention.qkv(hidden, block), causal=True)
            hidden = attention.finish_block(hidden, attended, block)
        rows = torch.arange(len(tokens), device=tokens.device)
        pooled = attention.layer_norm(hidden[rows, ends], tower.ln_final)
        projection = tower.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
