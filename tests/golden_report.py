"""How far the packages are from the recorded arrays, case by case: `python -m tests.golden_report`.

Prints Markdown tables of the largest absolute difference of every array, preset `reference`, fp32 on the CPU.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
import torch

from tagclip.clip import FrozenCLIP, load_clip
from tagclip.tagger import TagCLIP
from tests.golden import COPY, GoldenCase, golden_cases, golden_settings
from tests.golden_more import METHODS, more_methods
from tests.oracle.model import OracleCLIP
from wsss.dense import dense_features
from wsss.masks.generator import MaskGenerator

VOTE_MARGIN = 1e-6
TAG_COLUMNS = ("patch_features", "coarse", "affinity", "first", "refined", "local", "scores")
CAM_COLUMNS = ("cam", "refined", "probs")
STRATEGIES = ("clip", "maskclip", "sclip", "clearclip", "naclip")


@dataclass
class Models:
    """The golden model in both forms, and what is built on it, made on first use."""

    clip: FrozenCLIP
    oracle: OracleCLIP
    cache_dir: str
    taggers: dict[str, TagCLIP] = field(default_factory=dict)
    generators: dict[str, MaskGenerator] = field(default_factory=dict)

    def tagger(self, vocabulary: str) -> TagCLIP:
        if vocabulary not in self.taggers:
            self.taggers[vocabulary] = golden_settings(vocabulary).tagger(self.clip, self.cache_dir)
        return self.taggers[vocabulary]

    def generator(self, vocabulary: str) -> MaskGenerator:
        if vocabulary not in self.generators:
            recipe = golden_settings(vocabulary)
            self.generators[vocabulary] = MaskGenerator(recipe.maps(self.clip, self.cache_dir))
        return self.generators[vocabulary]


def difference(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference."""
    return float(np.abs(got.astype(np.float64) - expected).max())


def vote_flips(models: Models, case: GoldenCase, got: np.ndarray, expected: np.ndarray) -> str:
    """Differing votes, and how many of them lie farther than VOTE_MARGIN from their layer's mean in every layer."""
    flipped = got != expected
    if not flipped.any():
        return "0"
    maps = models.oracle.trunk(models.oracle.prepare(case.image()), "off_native")[1]
    margins = torch.stack([(layer - layer.mean()).abs() for layer in maps]).amin(dim=0).numpy()
    return f"{flipped.sum()} ({(margins[flipped] >= VOTE_MARGIN).sum()} unexplained)"


def tag_row(models: Models, case: GoldenCase) -> dict[str, str]:
    """One row of the tagging table."""
    recorded = case.arrays()
    (result,) = models.tagger(case.vocabulary)([case.image_path], details=True)
    if "patch_features" in recorded:
        recorded["patch_features"] = recorded["patch_features"][1:]
    row = {"case": str(case)}
    for name in TAG_COLUMNS:
        row[name] = f"{difference(result.details[name], recorded[name]):.1e}" if name in recorded else ""
    votes = "vote_mask" in recorded
    row["votes"] = vote_flips(models, case, result.details["vote_mask"], recorded["vote_mask"]) if votes else ""
    row["tags"] = "equal" if result.indices == recorded["tags"].tolist() else "DIFFER"
    return row


def cam_row(models: Models, case: GoldenCase) -> dict[str, str]:
    """One row of the CAM table."""
    recorded, generator = case.arrays(), models.generator(case.vocabulary)
    names = [generator.vocabulary.names[index] for index in recorded["ids"]]
    result = generator(case.image_path, names)
    arrays = {"cam": result.raw, "refined": result.refined, "probs": result.probabilities}
    row = {"case": str(case)}
    row |= {name: f"{difference(arrays[name], recorded[name]):.1e}" for name in CAM_COLUMNS}
    plain = replace(generator.config, refiner="none")
    without = MaskGenerator(models.clip, generator.vocabulary, config=plain, cache_dir=models.cache_dir)
    labels = without(case.image_path, names).labels
    row["labels"] = equal_share(labels, recorded["cam_label"])
    row["CRF labels"] = equal_share(result.labels, recorded["crf_label"])
    row["confident"] = equal_share(result.mask != generator.config.ignore_label, recorded["crf_confident"])
    return row


def equal_share(got: np.ndarray, expected: np.ndarray) -> str:
    """Share of equal pixels, and the number of others."""
    return f"{(got == expected).mean():.4%} ({(got != expected).sum()} differ)"


def dense_row(models: Models, case: GoldenCase) -> dict[str, str]:
    """One row of the table of training-free strategies."""
    recorded, row = case.arrays(), {"case": str(case)}
    for strategy in STRATEGIES:
        got = dense_features(models.clip, case.image_path, strategy)
        row[strategy] = f"{difference(got.cpu().numpy(), recorded[strategy]):.1e}"
    return row


def print_table(rows: Iterable[dict[str, str]]) -> None:
    """A Markdown table, row by row as they come."""
    for number, row in enumerate(rows):
        if number == 0:
            print("| " + " | ".join(row) + " |")
            print("|" + "---|" * len(row))
        print("| " + " | ".join(row.values()) + " |", flush=True)
    print()


def more_rows(models: Models) -> Iterator[list[dict[str, str]]]:
    """A table per kind of file of golden/more: one line per array and case, with its limit."""
    for _, group in groupby(more_methods(), key=lambda one: one[0]):
        yield [
            {"case": str(case), "array": name, "difference": str(one), "limit": one.shown_limit}
            for prefix, case in group
            for name, one in METHODS[prefix](models.clip, case).items()
        ]


def main() -> None:
    tables: dict[str, Callable] = {"tag": tag_row, "cam": cam_row, "dense": dense_row}
    path = COPY / "model.safetensors"
    with tempfile.TemporaryDirectory() as cache_dir:
        models = Models(load_clip(str(path)), OracleCLIP.from_file(path), cache_dir)
        for kind, make_row in tables.items():
            print_table(make_row(models, case) for case in golden_cases(kind))
        for rows in more_rows(models):
            print_table(rows)


if __name__ == "__main__":
    main()
