"""The text classifier that prompt templates make of class names, with its cache on disk."""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from tagclip.arguments import as_names
from tagclip.clip.encoder import FrozenCLIP
from tagclip.clip.templates import CAM_TEMPLATE, IMAGENET_TEMPLATES, SCENE_TEMPLATES, TAGGING_TEMPLATES
from tagclip.errors import UsageError, VocabularyError

__all__ = ["CAM_TEMPLATE", "IMAGENET_TEMPLATES", "SCENE_TEMPLATES", "TAGGING_TEMPLATES", "build_text_classifier"]

logger = logging.getLogger(__name__)

CACHE_VERSION = 1
PROMPTS_AT_ONCE = 20_000  # whose features are held together; a longer list goes through class by class, in such groups


def build_text_classifier(
    clip: FrozenCLIP,
    names: str | Sequence[str | Sequence[str]],
    templates: str | Sequence[str],
    *,
    cache_dir: Path | str | None = None,
) -> Tensor:
    """One unit-norm row per class: all prompts encoded, normalised, averaged, normalised.

    Args:
        names: for each class its prompt name, or several synonyms, whose prompts are averaged together; one string is
            one class.
        templates: with one "{}" each; one string is one template.
        cache_dir: where the matrix is kept as .npz between runs; None keeps nothing. The key holds the model's
            architecture, weights digest and dtype, the templates and the names. A damaged file is made anew.

    Returns:
        (C, embed_dim) fp32 on clip.device.

    Raises:
        UsageError: no template, or one without "{}".
        VocabularyError: a class without a name, or a prompt that does not fit into the text tower.
    """
    templates = list(as_names(templates, "prompt templates"))
    names = (names,) if isinstance(names, str) else names
    synonyms = [list(as_names(name, "class names")) for name in names]
    if not templates:
        raise UsageError("no prompt template given")
    for template in templates:
        if template.count("{}") != 1:
            raise UsageError(f"prompt template {template!r}: needs exactly one '{{}}' for the class name")
    for number, group in enumerate(synonyms):
        if not group or not all(name.strip() for name in group):
            raise VocabularyError(f"class {number} has an empty name")
    path = None
    if cache_dir is not None:
        path = Path(cache_dir) / f"text-{_cache_key(clip, synonyms, templates)}.npz"
        cached = _read(path, (len(synonyms), clip.embed_dim))
        if cached is not None:
            return torch.from_numpy(cached).to(clip.device)
    classifier = _encode(clip, synonyms, templates)
    if path is not None:
        _write(path, classifier.cpu().numpy())
    return classifier


def _encode(clip: FrozenCLIP, synonyms: list[list[str]], templates: list[str]) -> Tensor:
    """(C, embed_dim) fp32, with the features of no more than about `PROMPTS_AT_ONCE` prompts in memory."""
    groups: list[list[list[str]]] = [[]]
    held = 0
    for names in synonyms:
        held += len(names) * len(templates)
        if held > PROMPTS_AT_ONCE and groups[-1]:
            groups.append([])
            held = len(names) * len(templates)
        groups[-1].append(names)
    if len(groups) > 1:  # a name that is too long is told before the first group, not in the last
        clip.check_prompts([max(templates, key=len).replace("{}", name) for names in synonyms for name in names])
    quiet = len(groups) == 1  # the text encoder shows the progress of one long group
    rows = [_encode_group(clip, group, templates) for group in tqdm(groups, desc="classes, by group", disable=quiet)]
    return torch.cat(rows)


def _encode_group(clip: FrozenCLIP, synonyms: list[list[str]], templates: list[str]) -> Tensor:
    prompts = [template.replace("{}", name) for group in synonyms for name in group for template in templates]
    if not prompts:
        return torch.empty(0, clip.embed_dim, device=clip.device)
    unique = list(dict.fromkeys(prompts))
    rows = {prompt: row for row, prompt in enumerate(unique)}
    features = clip.encode_text(unique)[torch.tensor([rows[prompt] for prompt in prompts], device=clip.device)]
    sizes = [len(group) * len(templates) for group in synonyms]
    means = torch.stack([part.mean(dim=0) for part in features.split(sizes)])
    return F.normalize(means, dim=-1)


def _cache_key(clip: FrozenCLIP, synonyms: list[list[str]], templates: list[str]) -> str:
    parts = [CACHE_VERSION, clip.architecture, clip.weights_digest, str(clip.dtype), templates, synonyms]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            classifier = stored["classifier"]
    except FileNotFoundError:
        return None
    except Exception as error:  # numpy and zip raise all sorts on damaged bytes
        logger.warning("%s: damaged text cache (%s), made anew", path, error)
        return None
    if classifier.shape != shape or classifier.dtype != np.float32:
        logger.warning("%s: text cache of another shape, made anew", path)
        return None
    return classifier


def _write(path: Path, classifier: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                np.savez(stream, classifier=classifier)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        logger.warning("%s: text cache not written (%s)", path, error)
