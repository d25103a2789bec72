"""Looks at every image and mask before training, so that a bad file is found now and not after hours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wsss.evaluation.mask_checks import PreflightConfig, PreflightReport, check_pairs
from wsss.files.sources import MaskSource

__all__ = ["PreflightConfig", "PreflightReport", "check_masks"]


def check_masks(
    source: MaskSource,
    class_names: Sequence[str],
    config: PreflightConfig | None = None,
    progress: Callable[[int], object] = lambda done: None,
) -> PreflightReport:
    """Reads every pair of a source, as `wsss.evaluation.mask_checks.check_pairs` does.

    Args:
        source: images and masks.
        class_names: names by label.
        config: what to look at.
        progress: called with the number of pairs done.

    Raises:
        RunError: naming the first bad mask, what is wrong with it, how many others are bad, and the remedy.
    """
    source.require_complete()
    pairs = [(sample.image, sample.mask) for sample in source.samples]
    return check_pairs(pairs, class_names, config, progress, place=str(source.root))
