"""The CRF on tensors beside pydensecrf: how far their results differ, and what time and memory each takes.

    python -m wsss.benchmark.crf_engines --photos VOC2012/JPEGImages --masks VOC2012/SegmentationClass

Prints three Markdown tables: agreement, seconds and memory per megapixel. Needs pydensecrf.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch

from tagclip.images import decode_image
from wsss.benchmark.measure import machine
from wsss.benchmark.resident_memory import PeakMemory
from wsss.config import CrfConfig, MaskConfig
from wsss.files.mask_files import read_mask
from wsss.masks.crf import Engine, crf_probabilities
from wsss.masks.label_map import label_scores

ENGINES: tuple[Engine, Engine] = ("pydensecrf", "torch")
SOFTNESS = 12.0  # standard deviation in pixels that an official mask is blurred by to be a label score
DOUBT = 0.1  # what every label keeps of it everywhere
CLOSE = 1e-3  # probabilities that differ by less count as equal
TIE = 1e-5  # between the two most probable labels of pydensecrf
SEED = 0


@dataclass(frozen=True)
class CrfCase:
    """One image, (H, W, 3) uint8, with label scores, (K, H, W) float32; `labels` (H, W): what is recorded of it."""

    name: str
    rgb: np.ndarray
    scores: np.ndarray
    config: CrfConfig = field(default_factory=CrfConfig)
    labels: np.ndarray | None = None


@dataclass
class Agreement:
    """What is equal over a set of cases.

    Attributes:
        images, pixels: compared.
        other_labels: pixels with another most probable label. ties: those of them where pydensecrf itself is undecided.
        far: pixels of which a probability differs by more than CLOSE.
        largest: difference of a probability; worst: the image that has it.
        other_than_recorded: pixels whose label is not the recorded one, None if nothing is recorded.
    """

    images: int = 0
    pixels: int = 0
    other_labels: int = 0
    ties: int = 0
    far: int = 0
    largest: float = 0.0
    worst: str = "-"
    other_than_recorded: int | None = None

    def add(self, case: CrfCase, reference: np.ndarray, ours: np.ndarray) -> None:
        """Counts a case; (K, H, W) probabilities of pydensecrf and of the CRF on tensors."""
        apart = reference.argmax(axis=0) != ours.argmax(axis=0)
        second, first = np.partition(reference, -2, axis=0)[-2:]
        difference = np.abs(reference - ours).max(axis=0)
        self.images += 1
        self.pixels += apart.size
        self.other_labels += int(apart.sum())
        self.ties += int((apart & (first - second < TIE)).sum())
        self.far += int((difference > CLOSE).sum())
        if difference.max() > self.largest:
            self.largest, self.worst = float(difference.max()), case.name
        if case.labels is not None:
            other = int((ours.argmax(axis=0) != case.labels).sum())
            self.other_than_recorded = other + (self.other_than_recorded or 0)


def compare_engines(cases: Iterable[CrfCase]) -> Agreement:
    """Both engines on every case."""
    found = Agreement()
    for case in cases:
        reference, ours = (
            crf_probabilities(case.rgb, case.scores, replace(case.config, engine=engine)) for engine in ENGINES
        )
        found.add(case, reference, ours)
    return found


def spread_over(paths: Sequence[Path], count: int) -> list[Path]:
    """`count` of the paths at equal distances, or all."""
    return [paths[place] for place in sorted({round(step) for step in np.linspace(0, len(paths) - 1, count)})]


def soft_mask_cases(photos: Iterable[Path], masks: Path) -> Iterator[CrfCase]:
    """Photos with their official masks as label scores: background and classes, blurred, never quite certain."""
    for photo in photos:
        mask = read_mask(masks / f"{photo.stem}.png")
        present = np.union1d(mask[mask != 255], [0])
        sharp = [(mask == label).astype(np.float32) for label in present]
        scores = np.stack([cv2.GaussianBlur(one, (0, 0), SOFTNESS) for one in sharp]) * (1 - DOUBT) + DOUBT / 2
        yield CrfCase(photo.stem, decode_image(photo), scores)


def random_cases(photos: Iterable[Path], labels: int) -> Iterator[CrfCase]:
    """Photos with scores that mean nothing."""
    for number, photo in enumerate(photos):
        rgb = decode_image(photo)
        yield CrfCase(photo.stem, rgb, random_scores(labels, rgb.shape[:2], SEED + number))


def random_scores(labels: int, size: tuple[int, ...], seed: int = SEED) -> np.ndarray:
    """(K, H, W) float32 in [0, 1)."""
    return np.random.default_rng(seed).random((labels, *size), dtype=np.float32)


def recorded_cases(folder: Path, photos: Path) -> Iterator[CrfCase]:
    """Golden class maps (`cam_voc_*.npz`), preset reference, with the labels that the published code made of them."""
    config = MaskConfig.preset("reference")
    for path in sorted(folder.glob("cam_voc_*.npz")):
        name = path.stem.removeprefix("cam_voc_")
        image = folder / "images" / f"{name}.png"
        rgb = decode_image(image if image.is_file() else photos / f"{name}.jpg", apply_exif=False)
        with np.load(path, allow_pickle=False) as stored:
            refined, classes, label = stored["refined"], stored["ids"], stored["crf_label"]
        low, high = refined.min(axis=(1, 2), keepdims=True), refined.max(axis=(1, 2), keepdims=True)
        scores = label_scores((refined - low) / (high - low + config.cam.epsilon), label.shape, config)
        places = (np.array([0, *(classes + 1)])[:, None, None] == label).argmax(axis=0)
        yield CrfCase(name, rgb, scores, config.crf, places)


@dataclass(frozen=True)
class Speed:
    """Time of both engines on one picture.

    Attributes:
        labels, threads: of the case; pydensecrf has one thread in any case.
        seconds: of the wall clock, median by engine.
        ratio: tensors / pydensecrf, median over neighbouring pairs, by wall clock and by processor time.
        fastest: the same of the fastest run of each, by wall clock.
    """

    labels: int
    threads: int
    seconds: dict[str, float]
    ratio: dict[str, float]
    fastest: float


def measure_speed(rgb: np.ndarray, labels: int, threads: int, repeats: int) -> Speed:
    """Both engines in turn, in this process, after one run of each that does not count."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    scores = random_scores(labels, rgb.shape[:2])
    clocks: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}
    spent: dict[str, dict[str, list[float]]] = {clock: {engine: [] for engine in ENGINES} for clock in clocks}
    try:
        for number in range(repeats + 1):
            for engine in ENGINES:
                start = {name: clock() for name, clock in clocks.items()}
                crf_probabilities(rgb, scores, CrfConfig(engine=engine))
                if number:
                    for name, clock in clocks.items():
                        spent[name][engine].append(clock() - start[name])
    finally:
        torch.set_num_threads(before)
    pairs = {name: zip(*(found[engine] for engine in ENGINES), strict=True) for name, found in spent.items()}
    return Speed(
        labels,
        threads,
        {engine: median(times) for engine, times in spent["wall"].items()},
        {name: median(ours / theirs for theirs, ours in both) for name, both in pairs.items()},
        min(spent["wall"]["torch"]) / min(spent["wall"]["pydensecrf"]),
    )


def mosaic(photos: Sequence[Path], columns: int, rows: int) -> np.ndarray:
    """Photos side by side at their own size, cropped to the smallest: a larger picture as detailed as they are."""
    pictures = [decode_image(photo) for photo in photos[: columns * rows]]
    height, width = (min(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    cropped = [picture[:height, :width] for picture in pictures]
    lines = [np.concatenate(cropped[row * columns : (row + 1) * columns], axis=1) for row in range(rows)]
    return np.concatenate(lines, axis=0)


def measure_engine_memory(rgb: np.ndarray, labels: int, engine: Engine) -> float:
    """Peak memory of one CRF in a process of its own, MiB per megapixel, above what the process had before."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_memory_of, rgb, labels, engine).result()


def _memory_of(rgb: np.ndarray, labels: int, engine: Engine) -> float:
    torch.set_num_threads(1)
    config = CrfConfig(engine=engine)
    scores = random_scores(labels, rgb.shape[:2])
    crf_probabilities(rgb[:32, :32], scores[:, :32, :32], config)  # imports and compiled kernels do not count
    memory = PeakMemory()
    crf_probabilities(rgb, scores, config)
    return (memory.peak - memory.start) * 1e6 / (rgb.shape[0] * rgb.shape[1])


def agreement_table(rows: dict[str, Agreement]) -> str:
    """Markdown."""
    lines = [
        "| label scores | images | pixels | labels equal | other label (of these pydensecrf undecided) | "
        "largest difference of a probability | pixels beyond 1e-3 | not the recorded label |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        recorded = "" if row.other_than_recorded is None else str(row.other_than_recorded)
        lines.append(
            f"| {name} | {row.images} | {row.pixels:,} | {1 - row.other_labels / row.pixels:.5%} | "
            f"{row.other_labels} ({row.ties}) | {row.largest:.1e} ({row.worst}) | {row.far} | {recorded} |"
        )
    return "\n".join(lines)


def speed_table(rows: Sequence[Speed], pixels: int) -> str:
    """Markdown; seconds per megapixel."""
    lines = [
        "| threads | labels | pydensecrf, s/MP | tensors, s/MP | tensors / pydensecrf: wall | processor time | "
        "fastest runs |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        theirs, ours = (row.seconds[engine] * 1e6 / pixels for engine in ENGINES)
        lines.append(
            f"| {row.threads} | {row.labels} | {theirs:.2f} | {ours:.2f} | {row.ratio['wall']:.2f} | "
            f"{row.ratio['processor']:.2f} | {row.fastest:.2f} |"
        )
    return "\n".join(lines)


def memory_table(rows: Mapping[int, Mapping[Engine, float]]) -> str:
    """Markdown, of MiB per megapixel by labels and engine."""
    lines = ["| labels | pydensecrf, MiB/MP | tensors, MiB/MP |", "|---|---|---|"]
    lines += [f"| {labels} | {row['pydensecrf']:.0f} | {row['torch']:.0f} |" for labels, row in rows.items()]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = result.add_argument
    add("--photos", type=Path, required=True, metavar="DIR", help="folder of JPEG photos")
    add("--masks", type=Path, metavar="DIR",
        help="official masks of the photos (palette PNG); blurred, they are the label scores of one row")
    add("--golden", type=Path, metavar="DIR", help="folder of recorded cases (cam_voc_*.npz): one more row")
    add("--count", type=int, default=60, metavar="N", help="compare on N photos spread over the folder (60)")
    add("--labels", type=int, nargs="+", default=[2, 5, 21], metavar="K",
        help="numbers of labels with random scores, in all tables (2 5 21)")
    add("--threads", type=int, nargs="+", default=[1, 2], metavar="N",
        help="threads of the CRF on tensors in the speed table (1 2); pydensecrf always has one")
    add("--repeats", type=int, default=7, metavar="N", help="timed pairs per case (7); 0 leaves the speed table out")
    add("--no-agreement", action="store_true", help="leave the agreement table out")
    add("--no-memory", action="store_true", help="leave the memory table out")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit code."""
    options = parser()
    args = options.parse_args(argv)
    photos = sorted(args.photos.glob("*.jpg"))
    if not photos:
        options.error(f"--photos {args.photos}: holds no .jpg files")
    if min(args.labels) < 2:
        options.error(f"--labels {min(args.labels)}: one label is certain without a CRF; use 2 or more")
    print("; ".join(f"{name} {value}" for name, value in machine("cpu", max(args.threads)).items()))
    chosen = spread_over(photos, args.count)
    if not args.no_agreement:
        print(f"\n{agreement_table(_agreements(args, chosen))}", flush=True)
    if args.repeats:
        rgb = decode_image(chosen[len(chosen) // 2])
        cases = [(labels, threads) for threads in args.threads for labels in args.labels]
        speeds = [measure_speed(rgb, labels, threads, args.repeats) for labels, threads in cases]
        table = speed_table(speeds, rgb.shape[0] * rgb.shape[1])
        print(f"\n{rgb.shape[1]} x {rgb.shape[0]} pixels\n\n{table}", flush=True)
    if not args.no_memory:
        large = mosaic(chosen, min(3, len(chosen)), 2 if len(chosen) >= 6 else 1)
        memory = {
            count: {engine: measure_engine_memory(large, count, engine) for engine in ENGINES} for count in args.labels
        }
        print(f"\n{large.shape[1]} x {large.shape[0]} pixels\n\n{memory_table(memory)}")
    return 0


def _agreements(args: argparse.Namespace, photos: Sequence[Path]) -> dict[str, Agreement]:
    rows = {}
    if args.golden is not None:
        rows["recorded class maps"] = compare_engines(recorded_cases(args.golden, args.photos))
    if args.masks is not None:
        rows["official masks, blurred"] = compare_engines(soft_mask_cases(photos, args.masks))
    for labels in args.labels:
        rows[f"random, {labels} labels"] = compare_engines(random_cases(photos, labels))
    return rows


if __name__ == "__main__":
    raise SystemExit(main())
