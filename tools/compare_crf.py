"""The CRF on tensors (masks.crf.engine=torch) beside pydensecrf: agreement, speed and memory as Markdown tables.

Example: compare_crf.py --photos VOC2012/JPEGImages --masks VOC2012/SegmentationClass
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tagclip.errors import UsageError
from wsss.cli.console import not_negative, positive, run_main, setup_logging


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--photos", type=Path, required=True, metavar="DIR", help="folder of JPEG photos")
    add("--masks", type=Path, metavar="DIR",
        help="official masks of the photos (palette PNG); blurred, they are the label scores of one row")
    add("--golden", type=Path, metavar="DIR", help="folder of recorded cases (cam_voc_*.npz), one more row")
    add("--count", type=positive, default=60, metavar="N", help="compare on N photos spread over the folder (60)")
    add("--labels", type=positive, nargs="+", default=[2, 5, 21], metavar="K",
        help="numbers of labels with random scores (2 5 21), for all tables")
    add("--threads", type=positive, nargs="+", default=[1, 2], metavar="N",
        help="threads of the CRF on tensors in the speed table (1 2); pydensecrf always has one")
    add("--repeats", type=not_negative, default=7, metavar="N", help="timed pairs per case (7); 0 leaves speed out")
    add("--no-agreement", action="store_true", help="leave the agreement table out")
    add("--no-memory", action="store_true", help="leave the memory table out")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    args = build_parser().parse_args(argv)
    setup_logging()
    photos = sorted(args.photos.glob("*.jpg"))
    if not photos:
        raise UsageError(f"--photos {args.photos}: holds no .jpg files")
    if min(args.labels) < 2:
        raise UsageError("--labels 1: one label is certain without a CRF; use 2 or more")
    from wsss.benchmark import crf_engines as crf
    from wsss.benchmark.measure import machine

    print("; ".join(f"{name} {value}" for name, value in machine("cpu", max(args.threads)).items()))
    chosen = crf.spread_over(photos, args.count)
    if not args.no_agreement:
        rows = {}
        if args.golden is not None:
            rows["recorded class maps"] = crf.compare_engines(crf.recorded_cases(args.golden, args.photos))
        if args.masks is not None:
            rows["official masks, blurred"] = crf.compare_engines(crf.soft_mask_cases(chosen, args.masks))
        for labels in args.labels:
            rows[f"random, {labels} labels"] = crf.compare_engines(crf.random_cases(chosen, labels))
        print(f"\n{crf.agreement_table(rows)}", flush=True)
    if args.repeats:
        rgb = crf.decode_image(chosen[len(chosen) // 2])
        cases = [(labels, threads) for threads in args.threads for labels in args.labels]
        speeds = [crf.measure_speed(rgb, labels, threads, args.repeats) for labels, threads in cases]
        table = crf.speed_table(speeds, rgb.shape[0] * rgb.shape[1])
        print(f"\n{rgb.shape[1]} x {rgb.shape[0]} pixels\n\n{table}", flush=True)
    if not args.no_memory:
        large = crf.mosaic(chosen, min(3, len(chosen)), 2 if len(chosen) >= 6 else 1)
        memory = {
            labels: {engine: crf.measure_memory(large, labels, engine) for engine in crf.ENGINES}
            for labels in args.labels
        }
        print(f"\n{large.shape[1]} x {large.shape[0]} pixels\n\n{crf.memory_table(memory)}")
    return 0


if __name__ == "__main__":
    run_main(main)
