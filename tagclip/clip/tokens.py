"""Counting CLIP tokens, before there is a model."""

from functools import cache

from open_clip import SimpleTokenizer


@cache
def _tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


def count_tokens(prompt: str) -> int:
    """Tokens of a prompt in CLIP's byte-pair vocabulary, start and end tokens included."""
    return len(_tokenizer().encode(prompt)) + 2
