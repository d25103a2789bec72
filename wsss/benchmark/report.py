"""A benchmark's result as tables for the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wsss.benchmark.settings import BASELINE


def tables(result: dict[str, Any]) -> str:
    """Everything of the JSON that one looks at first."""
    settings, machine = result["settings"], result["machine"]
    width, height = settings["size"]
    lines = [
        f"{settings['model']}, {settings['vocabulary'] or settings['config']}, "
        f"{width}x{height} ({result['tokens']} tokens), "
        f"{settings['count']} photos x {settings['repeats']} rounds, batch {settings['batch']}, "
        f"preset {settings['preset']}",
        f"{machine.get('accelerator', machine['processor'])}, {machine['threads']} threads, torch {machine['torch']}; "
        + "matrix-multiply peak "
        + ", ".join(f"{dtype} {rate:.0f} GFLOP/s" for dtype, rate in result["peak_gflop_per_s"].items()),
    ]
    for case in result["cases"]:
        lines += ["", *_case(case)]
    if "memory" in result:
        lines += ["", *_memory(result["memory"])]
    return "\n".join(lines)


def _case(case: dict[str, Any]) -> list[str]:
    crops = " / ".join(f"{value:g}" for value in case["crops"].values())
    head = ["", "img/s", "s/img", "stage one", "GFLOP", "GFLOP/s", "of peak", "trunk of peak", "x", "stage one x"]
    rows = []
    for side, values in case["sides"].items():
        seconds, share = values["seconds"], values.get("share_of_peak", {})
        ratios = (value for name, value in case["ratios"].items() if name.startswith(f"{side} / "))
        ratio: dict[str, float] = next(ratios, {})
        rows.append(
            [
                _side(side),
                f"{values['images_per_s']['both stages']:.3f}",
                f"{seconds['both stages']:.3f}",
                f"{seconds['stage one']:.3f}",
                f"{values['gflop']['both stages']:.0f}",
                f"{values['gflop_per_s']['both stages']:.0f}",
                _percent(share.get("both stages")),
                _percent(share.get("trunk")),
                _times(ratio.get("both stages")),
                _times(ratio.get("stage one")),
            ]
        )
    lines = [f"{case['tags']} tags, {crops} crops", *_aligned([head, *rows])]
    for side, values in case["sides"].items():
        stages = (
            f"{stage} {seconds * 1000:.0f} ms/{values['stage_gflop'][stage]:.0f}"
            for stage, seconds in values["stage_seconds"].items()
        )
        lines.append(f"  {_side(side)}: {', '.join(stages)} GFLOP")
    for pair, found in case["agreement"].items():
        differences = ", ".join(
            f"{name.removeprefix('max_difference_')} {value:.1e}"
            for name, value in found.items()
            if name.startswith("max_difference_")
        )
        lines.append(
            f"  {_side(pair)}: largest difference {differences}; photos with other tags "
            f"{found['photos_with_other_tags']:.1%}; masks mIoU {found['mask_miou']:.4f}, "
            f"equal pixels {found['mask_pixels_equal']:.2%}"
        )
    if "crf_core_seconds" in case:
        lines.append(f"  CRF, apart: {case['crf_core_seconds']:.2f} s per photo on one core, {case['crf_engine']}")
    return lines


def _memory(memory: dict[str, dict[str, float]]) -> list[str]:
    rows = [
        [
            _side(side),
            f"{found['loaded']:.0f}",
            f"{found['peak']:.0f}",
            f"{found['device']:.0f}" if "device" in found else "-",
        ]
        for side, found in memory.items()
    ]
    return _aligned([["memory, MiB", "model loaded", "peak", "device peak"], *rows])


def _side(name: str) -> str:
    """A side, or a pair of sides, as tables show it; files keep the older name of the baseline."""
    return name.replace(BASELINE, "baseline")


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  " + "  ".join(f"{cell:{'>' if column else '<'}{widths[column]}}" for column, cell in enumerate(row))
        for row in rows
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
