"""Makes a run's masks again from the class maps that it keeps, with another refinement or confidence; no model needed.

Example: remask.py runs/photos --out runs/photos_sure --confidence 0.95
Then:    train_segmentor.py CONFIG --run runs/photos --masks runs/photos_sure
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tagclip.devices import resolve_device
from wsss.cli import console as cli


def build_parser() -> argparse.ArgumentParser:
    """The command line. Options not given keep the run's settings."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="finished run folder of stage two")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the masks")
    parser.add_argument("--refine", choices=("crf", "pamr", "none"), help="what sharpens the masks")
    parser.add_argument("--confidence", type=float, metavar="P",
                        help="pixels whose highest probability is lower become 255 (0: none)")
    parser.add_argument("--set", nargs="+", action=DictAction, default={}, metavar="masks.KEY=VALUE",
                        help="other settings, e.g. masks.crf.iterations=5 masks.alpha=2.0")
    parser.add_argument("--crf-workers", type=cli.positive, metavar="N", help="mask processes (default: one a core)")
    parser.add_argument("--device",
                        help="where PAMR and the CRF on tensors run: cpu, cuda, ... (default: cuda if there is one)")
    parser.add_argument("--overwrite", action="store_true", help="replace masks in --out that have other settings")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the masks; returns the exit code."""
    args = build_parser().parse_args(argv)
    cli.setup_logging()
    from wsss.pipeline.memory import cores
    from wsss.pipeline.remask import Remasking, mask_changes

    changes = mask_changes({**args.set, "masks.refiner": args.refine, "masks.confidence": args.confidence})
    device = str(resolve_device(args.device))
    work = Remasking.plan(args.run, args.out, changes, overwrite=args.overwrite, device=device)
    with cli.progress_bar(work.done + len(work.jobs), "masks", initial=work.done) as bar:
        work.execute(args.crf_workers or cores(), lambda done: bar.update(done - bar.n))
    print(f"{work.done + len(work.jobs)} masks in {args.out}")
    return 0


if __name__ == "__main__":
    cli.run_main(main)
