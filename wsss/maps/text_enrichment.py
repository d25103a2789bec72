"""Text semantic enrichment (ExCEL, arXiv 2503.20826): class texts drawn to attributes that classes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from tagclip.clip import FrozenCLIP
from tagclip.errors import UsageError
from wsss.config import ExcelConfig

LONGEST = 1000  # characters of a sentence
MOST = 1000  # sentences of a class


def read_attributes(path: Path | str) -> dict[str, list[str]]:
    """Sentences about classes, from YAML: {cat: [it has whiskers, ...], ...}.

    Raises:
        UsageError: no such file, no YAML, or anything else than lists of sentences under class names.
    """
    path = Path(path)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"attributes {path}: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"attributes {path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict) or not found:
        raise UsageError(f"attributes {path}: give a list of sentences under the name of each class")
    for name, sentences in found.items():
        fits = isinstance(name, str) and isinstance(sentences, list) and 0 < len(sentences) <= MOST
        if not fits or not all(isinstance(one, str) and 0 < len(one.strip()) <= LONGEST for one in sentences):
            raise UsageError(f"attributes {path}: {name!r} needs a list of up to {MOST} sentences, each a text")
    return found


def attribute_bank(
    clip: FrozenCLIP, sentences: Mapping[str, Sequence[str]], names: Mapping[str, str], config: ExcelConfig
) -> Tensor:
    """Centres of the sentences' features: what classes have in common and what sets them apart.

    Args:
        sentences: of each class.
        names: how a class is called in its prompts.
        config: template, number of centres and seed.

    Returns:
        (D, B), not of unit norm; B is at most the number of different sentences.
    """
    from sklearn.cluster import KMeans

    prompts = [
        f"{config.template.format(names[name])} {sentence.strip()}".lower()
        for name, texts in sentences.items()
        for sentence in texts
    ]
    prompts = list(dict.fromkeys(prompts))
    features = clip.encode_text(prompts).cpu().numpy()
    count = min(config.attribute_count, len(prompts))
    centres = KMeans(count, random_state=config.seed, n_init=10).fit(features).cluster_centers_
    return torch.from_numpy(centres).float().T.to(clip.device)


def enrich_rows(rows: Tensor, background: Tensor, bank: Tensor, config: ExcelConfig) -> Tensor:
    """Class rows plus the attributes that are near them, then the background's, all of unit norm.

    Args:
        rows, background: unit-norm text rows, (C, D) and (B, D).
        bank: attributes, (D, A).

    Returns:
        (C + B, D).
    """
    logits = rows @ bank / config.temperature
    count = bank.shape[1]
    # As published 1 - 0.9 is a little less than 0.1, which drops one attribute fewer where the product is whole.
    share = 1 - (1 - config.dropped_share) if config.drop_rounds_down else config.dropped_share
    dropped = int(share * count) if config.drop_rounds_down else round(share * count)
    if dropped:
        lowest = logits.topk(dropped, dim=1, largest=False).indices
        logits = logits.scatter(1, lowest, -torch.inf)
    enriched = rows + logits.softmax(dim=1) @ bank.T
    return F.normalize(torch.cat([enriched, background]), dim=-1)
