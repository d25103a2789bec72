"""The recorded arrays of golden/more, method by method: how far the packages are from each of them.

Every function returns array name -> `Difference`. Tests hold each to its limit; `tests.golden_report` prints them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tagclip.boxes import box_masks
from tagclip.clip import AttentionRequest, FrozenCLIP, Trunk, attention
from tagclip.config import ImageConfig
from tagclip.vocabulary import Vocabulary
from tests.golden import golden_root, golden_text
from wsss.config import MaskConfig, PamrConfig
from wsss.dense.anomalies import find_outliers, outlier_scores, repair_outliers
from wsss.dense.calibration import average_alike, unit_rows
from wsss.dense.features import (
    blocks_to_keep,
    features_after_feedback,
    image_features,
    positions_of,
    strategy_features,
)
from wsss.dense.logits import PatchField, WindowField, WordMaps, argmax_labels, windows_of
from wsss.dense.procrustes import alignment, centred_by_queries
from wsss.dense.regions import cluster_patches, patch_correlations, region_maps, region_of_pixels
from wsss.dense.semantic_feedback import feedback_map, first_answer
from wsss.dense.strategies import cliptrase, pearl, resclip, scclip
from wsss.dense.strategy import Context, Strategy, get_strategy
from wsss.dense.text_propagation import (
    PropagationConfig,
    edge_weights,
    grey_cells,
    pooled,
    pooling_window,
    propagate,
    solve_propagation,
    word_relations,
)
from wsss.maps.affinity import sinkhorn
from wsss.maps.excel_source import ExcelSource
from wsss.maps.surgery import patch_text_maps, surgery_tokens
from wsss.masks.pamr import refine_with_pamr
from wsss.masks.par import refine_with_par

CHUNK = 2**26
REFINED_ERROR = 1e-7  # of refined maps with values up to 0.03
LARGE = 5e-5  # of arrays with large values


@dataclass(frozen=True)
class Difference:
    """The largest difference of an array, or the number of its unequal entries, and the limit for it."""

    value: float
    limit: float
    counted: bool = False

    def __str__(self) -> str:
        return f"{self.value:.0f} differ" if self.counted else f"{self.value:.1e}"

    @property
    def shown_limit(self) -> str:
        """The limit in the same way."""
        return f"{self.limit:.0f}" if self.counted else f"{self.limit:.0e}"


@dataclass(frozen=True)
class MoreCase:
    """A file of golden/more and the image that it was recorded on (synthetic arrays have none)."""

    name: str
    arrays_path: Path
    image_path: Path | None

    def __str__(self) -> str:
        return self.name

    def arrays(self) -> dict[str, np.ndarray]:
        """All recorded arrays by name."""
        with np.load(self.arrays_path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    def pixels(self) -> np.ndarray:
        """The image, (H, W, 3) uint8 RGB."""
        assert self.image_path is not None
        return np.array(Image.open(self.image_path).convert("RGB"))


def more_cases(prefix: str) -> list[MoreCase]:
    """Cases whose file and image can be read here, sorted by name; tests/data has some of each kind."""
    cases = []
    for path in sorted((golden_root() / "more").glob(f"{prefix}*.npz")):
        image = golden_root() / "images" / f"{'_'.join(path.stem.split('_')[-2:])}.png"
        if image.is_file() and path.stem.startswith(f"{prefix}scene"):
            cases.append(MoreCase(path.stem, path, image))
    return cases


def more_arrays(name: str) -> dict[str, np.ndarray]:
    """The arrays of one file of golden/more."""
    return MoreCase(name, golden_root() / "more" / f"{name}.npz", None).arrays()


def tensor(values: np.ndarray) -> Tensor:
    """An array as a float32 or int64 tensor."""
    kind = np.float32 if np.issubdtype(values.dtype, np.floating) else np.int64
    return torch.from_numpy(values.astype(kind))


def normalised(clip: FrozenCLIP, rgb: np.ndarray) -> Tensor:
    """An image as the model's input without resizing, (1, 3, H, W)."""
    pixels = torch.from_numpy(rgb.copy()).permute(2, 0, 1).float() / 255
    return ((pixels - torch.tensor(clip.mean).view(3, 1, 1)) / torch.tensor(clip.std).view(3, 1, 1))[None]


def trunk_for(clip: FrozenCLIP, images: Tensor, strategy: Strategy) -> Trunk:
    """The trunk that a strategy reads."""
    request = AttentionRequest(keep=blocks_to_keep(clip, [strategy]))
    return clip.trunk(images, request, interpolation=positions_of(clip, strategy))


def near(got: Tensor, expected: np.ndarray, limit: float = 1e-5, *, relative: bool = False) -> Difference:
    """Largest absolute difference, or relative to the largest value."""
    difference = (got.double() - torch.from_numpy(expected).double()).abs()
    if relative:
        difference = difference / max(1.0, float(np.abs(expected).max()))
    return Difference(float(difference.max()), limit)


def unit(got: Tensor, raw: np.ndarray, limit: float = 1e-5) -> Difference:
    """`near` of unit-norm features, recorded before normalisation."""
    return near(got, F.normalize(tensor(raw), dim=-1).numpy(), limit)


def equal(got: Tensor | np.ndarray, expected: np.ndarray, limit: float = 0) -> Difference:
    """The number of unequal entries; a handful of pixels lie at near ties."""
    return Difference(float((np.asarray(got).astype(np.int64) != expected.astype(np.int64)).sum()), limit, counted=True)


def tagging_rows() -> tuple[Tensor, Tensor]:
    """Recorded text rows of VOC: 20 classes, 25 background words."""
    text = golden_text("tagging")["voc"]
    return tensor(text[:20]), tensor(text[20:])


def scclip_differences(clip: FrozenCLIP, case: MoreCase) -> dict[str, Difference]:
    """scclip_<case>, scclip_wide_<case> (the place of a patch by the grid's width) and scclip_asreleased_<case>."""
    recorded, images = case.arrays(), normalised(clip, case.pixels())
    strategy = get_strategy("scclip", {"rows_by_height": "asreleased" in case.name}, "reference")
    options = strategy.options
    trunk = trunk_for(clip, images, strategy)
    earlier = {number - 1: tokens[0] for number, tokens in trunk.kept.items()}
    grid = (trunk.grid.height, trunk.grid.width)

    def tokens(**changes: bool) -> Tensor:
        return scclip.one_image_tokens(clip, trunk, trunk.tokens[0], earlier, replace(options, **changes))

    last = trunk.tokens[0, 1:]
    scores = outlier_scores(last, options.neighbours, options.distance_floor)
    outliers = find_outliers(scores, options.contamination)
    mended = repair_outliers(last, outliers, *grid, rows_by_height=options.rows_by_height)
    middle = repair_outliers(earlier[9][1:], outliers, *grid, rows_by_height=options.rows_by_height)
    found = {
        "features": unit(image_features(clip, images, strategy)[0][0], recorded["features"]),
        "outliers": equal(outliers, recorded["outliers"]),
        "repaired_last": near(mended[outliers], recorded["repaired_last"]),
    }
    if "lof" in recorded:
        found["lof"] = near(scores, recorded["lof"], relative=True)
    if "repaired_block9" in recorded:
        found["repaired_block9"] = near(middle[outliers], recorded["repaired_block9"])
    if "feature_level" in recorded:
        level = average_alike(mended, unit_rows(middle), options.threshold)
        found["feature_level"] = near(level, recorded["feature_level"], LARGE)
        calibrated = tokens(multi_level=False)
        found["post_calibrated"] = near(calibrated, recorded["post_calibrated"], LARGE)
    if "multi_level" in recorded:
        level = tokens(multi_level=False, post_calibration=False)
        found["attention_level"] = near(level, recorded["attention_level"], LARGE)
        found["multi_level"] = near(tokens() - calibrated, recorded["multi_level"], relative=True)
    return found


def scclip_slide_differences(clip: FrozenCLIP, case: MoreCase) -> dict[str, Difference]:
    """scclip_slide_<case>: windows of 224 every 112 pixels."""
    recorded, rgb = case.arrays(), case.pixels()
    strategy = get_strategy("scclip", preset="reference")
    windows = windows_of(*rgb.shape[:2], 224, 112)
    crops = [normalised(clip, rgb[one.top : one.bottom, one.left : one.right]) for one in windows]
    features, trunk = image_features(clip, torch.cat(crops), strategy)
    outliers = [find_outliers(outlier_scores(tokens[1:], floor=0), 0.05) for tokens in trunk.tokens]
    maps = (features @ tagging_rows()[0].T).transpose(1, 2).unflatten(2, (14, 14))
    field = WindowField(windows, [PatchField(one, 224, 224) for one in maps], *rgb.shape[:2])
    result = argmax_labels(field, torch.arange(20), logit_scale=1.0, chunk_bytes=CHUNK)
    top = field.rows(0, rgb.shape[0]).amax(dim=0)[::2, ::2]
    return {
        "boxes": equal(np.array([[one.top, one.left] for one in windows]), recorded["boxes"]),
        "features": unit(features[:6], recorded["features"]),
        "outliers": equal(torch.stack(outliers), recorded["outliers"]),
        "label": equal(result.labels, recorded["label"], 2),
        "top": near(top, recorded["top"]),
    }


RESCLIP = {  # prompts, then threshold and both parts' constants of the two data sets that were recorded
    "voc20": (0.10, (2.0, 0.6), (2.1, 0.6)),
    "voc21": (0.50, (2.0, 0.3), (2.2, 0.7)),
}


def resclip_for(name: str) -> tuple[Strategy, Tensor]:
    """ResCLIP as published for a data set, and its words: VOC21's background words come first."""
    threshold, rcs, sfr = RESCLIP[name]
    options = {
        "rcs_scale": rcs[0], "rcs_weight": rcs[1],
        "feedback": {"threshold": threshold, "scale": sfr[0], "weight": sfr[1]},
    }  # fmt: skip
    classes, background = tagging_rows()
    rows = classes if name == "voc20" else torch.cat([background, classes])
    return get_strategy("resclip", options, "reference"), rows


def resclip_differences(clip: FrozenCLIP, case: MoreCase) -> dict[str, Difference]:
    """resclip_<case>: both passes."""
    recorded, images = case.arrays(), normalised(clip, case.pixels())
    found = {}
    for name in RESCLIP:
        strategy, rows = resclip_for(name)
        options = strategy.options
        trunk = trunk_for(clip, images, strategy)
        first = strategy_features(clip, trunk, strategy)[0]
        labels = resclip.first_labels(clip, trunk, images[0], first @ rows.T, options.feedback)
        told = features_after_feedback(clip, trunk, images, rows, strategy)
        found[f"first_{name}"] = unit(first, recorded[f"first_{name}"])
        found[f"labels_{name}"] = equal(labels, recorded[f"labels_{name}"])
        found[f"final_{name}"] = unit(told[0], recorded[f"final_{name}"])
    if "rcs_mean" in recorded:
        maps = []
        for number in range(6, 10):
            q, k, _ = attention.qkv(trunk.kept[number], clip.blocks[number - 1])
            maps.append((q[0] @ k[0].transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1))
        mean = torch.stack(maps).mean(dim=0)
        found["rcs_mean"] = near(mean.mean(dim=0), recorded["rcs_mean"])
        found["rcs_head1"] = near(mean[0], recorded["rcs_head1"])
    return found


def resclip_sfr_differences(clip: FrozenCLIP, case: MoreCase) -> dict[str, Difference]:
    """resclip_sfr_<case>: what lies between the passes, and the second pass for given labels."""
    recorded, images = case.arrays(), normalised(clip, case.pixels())
    given = tensor(recorded["labels_given"])
    found = {}
    for name in RESCLIP:
        strategy, rows = resclip_for(name)
        options = strategy.options
        trunk = trunk_for(clip, images, strategy)
        first = strategy_features(clip, trunk, strategy)[0]
        maps = (first @ rows.T).T.unflatten(1, (trunk.grid.height, trunk.grid.width))
        answer = first_answer(maps, images[0], images.shape[2:], options.feedback)
        found[f"top_query_{name}"] = equal(answer.words, recorded[f"top_query_{name}"], 2)
        top = answer.probabilities[8::16, 8::16]
        found[f"top_probability_{name}"] = near(top, recorded[f"top_probability_{name}"])
        told = resclip.features_of_labels(clip, trunk, given, options)
        found[f"final_given_{name}"] = unit(F.normalize(told, dim=-1), recorded[f"final_given_{name}"])
        if f"sfr_{name}" in recorded:
            labels = resclip.first_labels(clip, trunk, images[0], first @ rows.T, options.feedback)
            found[f"sfr_{name}"] = near(feedback_map(labels, options.feedback), recorded[f"sfr_{name}"])
    found["sfr_given"] = near(feedback_map(given, options.feedback), recorded["sfr_given"])
    found["labels_given"] = equal(given, recorded["labels_given"])
    return found


def naclip_pamr_differences(clip: FrozenCLIP, case: MoreCase) -> dict[str, Difference]:
    """naclip_pamr_<case>: cosines before and after ten steps of PAMR."""
    recorded, images = case.arrays(), normalised(clip, case.pixels())
    features = image_features(clip, images, get_strategy("naclip", preset="reference"))[0][0]
    rows, size = tagging_rows()[0], tuple(images.shape[2:])
    maps = PatchField((features @ rows.T).T.unflatten(1, (14, 14)), *size).rows(0, size[0])
    after = refine_with_pamr(images[0], maps, PamrConfig(dilations=(8, 16), centre_per_dilation=True))
    tags = recorded["tags"][:2]
    return {
        "features": unit(features, recorded["features"]),
        "before": near(maps[tags], recorded["before"]),
        "after": near(after[tags], recorded["after"]),
        "label_before": equal(maps.argmax(dim=0), recorded["label_before"], 2),
        "label": equal(after.argmax(dim=0), recorded["label"], 2),
    }


def pearl_differences(clip: FrozenCLIP, case: MoreCase) -> dict[str, Difference]:
    """pearl_<case>: the alignment."""
    recorded, images = case.arrays(), normalised(clip, case.pixels())
    strategy = get_strategy("pearl", preset="reference")
    trunk = trunk_for(clip, images, strategy)
    q, k, _ = attention.qkv(trunk.tokens, clip.blocks[-1])
    centred_q, centred_k = centred_by_queries(q, k)
    correlation = centred_k.transpose(-2, -1) @ centred_q
    found = {
        "features": unit(strategy_features(clip, trunk, strategy)[0], recorded["features"]),
        "procrustes_m": near(correlation[0], recorded["procrustes_m"], relative=True),
        "polar_r": near(alignment(correlation)[0], recorded["polar_r"]),
    }
    if "features_svd" in recorded:
        exact = image_features(clip, images, get_strategy("pearl", {"solver": "svd"}, "reference"))[0][0]
        found["features_svd"] = unit(exact, recorded["features_svd"])
        left, right = pearl.logit_factors(q, k, strategy.options)
        maps = (left @ right.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
        found["attention_mean"] = near(maps[0].mean(dim=0), recorded["attention_mean"])
    return found


def pearl_tlp_differences(clip: FrozenCLIP, case: MoreCase) -> dict[str, Difference]:
    """pearl_tlp_<case>: the propagation of the 20 classes' cosines."""
    recorded, rgb, rows = case.arrays(), case.pixels(), tagging_rows()[0]
    features, trunk = image_features(clip, normalised(clip, rgb), get_strategy("pearl", preset="reference"))
    maps = (features[0] @ rows.T).T.unflatten(1, (trunk.grid.height, trunk.grid.width))
    size = (rgb.shape[0], rgb.shape[1])
    field = PatchField(maps, *size)
    config = PropagationConfig(agreement="diagonal")
    window = pooling_window(size, config.grid)
    cosines = pooled(field, window, CHUNK)
    grey = grey_cells(rgb, window, clip.mean, clip.std)
    probabilities = cosines.softmax(dim=0)
    related = torch.einsum("qr,rhw->qhw", word_relations(rows, config), probabilities)
    left, up = edge_weights(grey, probabilities, related, config)
    smooth = propagate(field, rows, rgb, config, mean=clip.mean, std=clip.std, chunk_bytes=CHUNK).rows(0, size[0])
    before = field.rows(0, size[0])
    return {
        "solution": near(solve_propagation(cosines, grey, rows, config), recorded["solution"], 1e-4),
        "edge_right": near(left, recorded["edge_right"]),
        "edge_down": near(up, recorded["edge_down"]),
        "label": equal(smooth.argmax(dim=0), recorded["label"], 2),
        "label_before": equal(before.argmax(dim=0), recorded["label_before"], 2),
        "top": near(smooth.amax(dim=0)[::3, ::3], recorded["top"], 1e-4),
    }


def cliptrase_differences(clip: FrozenCLIP, case: MoreCase) -> dict[str, Difference]:
    """cliptrase_<case> at 224 pixels, and cliptrase336_<case> on its recorded centre crop."""
    recorded, rgb = case.arrays(), case.pixels()
    options = {}
    if case.name.startswith("cliptrase336"):
        name = case.name.replace("336_", "336_image_")
        rgb, options = more_arrays(name)["crop"], {"eps": 1.1, "min_samples": 7}
    images = normalised(clip, rgb)
    strategy = get_strategy("cliptrase", options, "reference")
    trunk = trunk_for(clip, images, strategy)
    features = strategy_features(clip, trunk, strategy)[0]
    factors = cliptrase.input_factors(clip, trunk, strategy.options)
    correlations = patch_correlations(factors)
    clusters = cluster_patches(correlations, *cliptrase.density(strategy.options, trunk.grid.count))
    smooth = region_maps(correlations, clusters, (trunk.grid.height, trunk.grid.width))
    w = factors @ factors.T
    block = clip.blocks[-1]
    tokens = trunk.tokens + attention.out_project(
        cliptrase.mix(*attention.qkv(trunk.tokens, block), Context(trunk.grid), strategy.options), block
    )
    tokens = F.normalize(clip.project(tokens + attention.mlp(tokens, block))[0], dim=-1)
    found = {
        "tokens": near(tokens, recorded["tokens"]),
        "cluster": equal(clusters, recorded["cluster"]),
        "region": equal(region_of_pixels(smooth, *rgb.shape[:2]), recorded["region"], 2),
    }
    found["w" if "w" in recorded else "w_rows"] = near(w[:60], recorded.get("w", recorded.get("w_rows"))[:60])
    if "w" in recorded:
        found["w"] = near(w, recorded["w"])
    if "median" in recorded:
        found["median"] = near(smooth[: len(recorded["median"])], recorded["median"])
    classes, background = tagging_rows()
    for name, rows, prior in (
        ("voc21", torch.cat([classes, background]), False), ("voc20", classes, True), ("plain", classes, False)
    ):  # fmt: skip
        if f"label_{name}" not in recorded:
            continue
        labels = torch.arange(len(rows)).clamp(max=20)
        cosines = (features @ rows.T).T.unflatten(1, (trunk.grid.height, trunk.grid.width))
        maps = WordMaps(cosines, rows, labels, *rgb.shape[:2])
        chosen = replace(strategy.options, class_prior=prior)
        for kind, used in (("before", replace(chosen, regions=False)), ("label", chosen)):
            field = cliptrase.decide(clip, trunk, maps, used) or PatchField(cosines, *rgb.shape[:2])
            got = argmax_labels(field, labels, logit_scale=1.0, chunk_bytes=CHUNK).labels
            found[f"{kind}_{name}"] = equal(got, recorded[f"{kind}_{name}"], 2)
    return found


def excel_source(clip: FrozenCLIP, square: int | None) -> ExcelSource:
    """ExCEL as published on VOC, with the recorded text rows in the place of its own."""
    config = MaskConfig.preset("reference")
    config = replace(config, excel=replace(config.excel, published_input=square), image=ImageConfig())
    source = ExcelSource(clip, Vocabulary.named("voc"), config=config)
    text = golden_text("cam")
    source.rows = torch.cat([tensor(text["voc"]), tensor(text["voc_background"])])
    return source


def excel_differences(clip: FrozenCLIP, case: MoreCase) -> dict[str, Difference]:
    """excel_<case> on CLIP's own input, and excel320_<case> on the published square."""
    recorded, rgb = case.arrays(), case.pixels()
    square = 320 if case.name.startswith("excel320") else None
    source = excel_source(clip, square)
    config = source.config.excel
    images = source.prepare(rgb)[None] if square else normalised(clip, rgb)
    trunk = clip.trunk(images, source.request)
    shape = (trunk.grid.height, trunk.grid.width)
    tags, size = recorded["tags"].tolist(), rgb.shape[:2]
    mean = source.mean_attention(trunk, 0)
    found = {
        "features": near(source.features(trunk, 0), recorded["features"]),
        "attention_mean": near(mean[: len(recorded["attention_mean"])], recorded["attention_mean"]),
    }
    if "tokens" in recorded:
        inputs = {number: tokens[0] for number, tokens in trunk.kept.items()}
        tokens = surgery_tokens(clip, inputs, trunk.tokens[0], config)
        found["tokens"] = near(tokens, recorded["tokens"], LARGE)
    if "affinity" in recorded:
        spread = sinkhorn(mean, config.affinity.sinkhorn_rounds)
        found["affinity"] = near(spread(spread(torch.eye(len(mean)))), recorded["affinity"])
    plain, text = source.rows, more_arrays("excel_text")
    rows = {"plain": plain, "bank": tensor(text["rows_bank"]), "near": tensor(text["rows_near"])}
    guide = F.interpolate(images, size, mode="bilinear", align_corners=True)[0]
    for name, used in rows.items():
        if f"maps_{name}" not in recorded:
            continue
        source.rows = used
        maps = patch_text_maps(source.features(trunk, 0), used)
        found[f"maps_{name}"] = near(maps[:20].T, recorded[f"maps_{name}"])
        result = source.maps_from_trunk(trunk, [tags])[0]
        found[f"refined_{name}"] = near(torch.from_numpy(result.refined), recorded[f"refined_{name}"])
        boxes = box_masks(torch.from_numpy(result.raw), config.affinity.box_threshold, clip_last=True)
        found[f"boxes_{name}"] = equal(boxes, boxes_to_masks(recorded[f"boxes_{name}"], shape))
        if f"label_{name}" not in recorded:
            continue
        large = F.interpolate(torch.from_numpy(result.maps)[None], size, mode="bilinear", align_corners=False)[0]
        stack = torch.cat([1 - large.amax(dim=0, keepdim=True), large])
        after = refine_with_par(guide, stack, source.config.par)
        found[f"before_par_{name}"] = equal(stack.argmax(dim=0), recorded[f"before_par_{name}"], 2)
        labels = torch.tensor([0, *(tag + 1 for tag in tags)])[after.argmax(dim=0)]
        found[f"label_{name}"] = equal(labels, recorded[f"label_{name}"], 2)
        if f"par_in_{name}" in recorded:
            # Scaling to [0, 1] divides by the span of the refined maps, here 0.001 to 0.003: their float error, which
            # the processor decides on, grows by as much.
            low, high = (getattr(recorded[f"refined_{name}"], bound)(axis=(1, 2)) for bound in ("min", "max"))
            limit = max(1e-5, REFINED_ERROR / float((high - low).min()))
            found[f"par_in_{name}"] = near(stack[:, ::4, ::4], recorded[f"par_in_{name}"], limit)
            found[f"par_out_{name}"] = near(after[:, ::4, ::4], recorded[f"par_out_{name}"], limit)
    return found


def boxes_to_masks(boxes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(K, n, 4) x0, y0, x1, y1, ends exclusive, padded with -1 -> (K, h, w) bool."""
    masks = np.zeros((len(boxes), *shape), bool)
    for mask, own in zip(masks, boxes, strict=True):
        for x0, y0, x1, y1 in own[own[:, 0] >= 0]:
            mask[y0:y1, x0:x1] = True
    return masks


METHODS: dict[str, Callable[[FrozenCLIP, MoreCase], dict[str, Difference]]] = {
    "scclip_": scclip_differences,
    "scclip_wide_": scclip_differences,
    "scclip_asreleased_": scclip_differences,
    "scclip_slide_": scclip_slide_differences,
    "resclip_": resclip_differences,
    "resclip_sfr_": resclip_sfr_differences,
    "naclip_pamr_": naclip_pamr_differences,
    "cliptrase_": cliptrase_differences,
    "cliptrase336_": cliptrase_differences,
    "excel_": excel_differences,
    "excel320_": excel_differences,
    "pearl_": pearl_differences,
    "pearl_tlp_": pearl_tlp_differences,
}


def more_methods() -> list[tuple[str, MoreCase]]:
    """Every method of golden/more with each of its cases that can be run here."""
    return [(prefix, case) for prefix in METHODS for case in more_cases(prefix)]
