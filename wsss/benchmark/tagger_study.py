"""How good and how fast a tagger is that was trained on TagCLIP's scores, on drawn scenes and the demo model.

    python -m wsss.benchmark.tagger_study --out runs/tagger --train 200 --test 100

Scenes in a style that the demo model has never seen. TagCLIP tags both sets; taggers are trained on its scores of the
first, with each of the label corrections, and measured on the second after every epoch. Training knows nothing of that:
its result is the last epoch, and the best one is shown beside it as what an oracle would have stopped at. Scores are
kept in the folder, so that a second call goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from tagclip.config import TagCLIPConfig, TagRuleConfig
from tagclip.demo.dataset import write_scenes
from tagclip.demo.scenes import SceneConfig
from tagclip.demo.sprites import HELD_OUT_STYLE
from tagclip.images import decode_image
from tagclip.labels import read_labels
from tagclip.metrics import measure_tags
from tagclip.stored_files import FilePlace
from tagclip.tagger import ImageTagger, TagCLIP
from tagclip.thresholds import select
from tagclip.vocabulary import Vocabulary
from wsss.distillation.distillation_config import DistillationConfig
from wsss.distillation.student import Student, load_student
from wsss.distillation.student_tagger import StudentTagger
from wsss.distillation.student_training import TaggerTraining
from wsss.files.run_reader import RunReader
from wsss.pipeline.label_folder import tag_folder

SCENES = SceneConfig(side=(128, 176), objects=(1, 3), object_side=(64, 104), styles=(HELD_OUT_STYLE,))
# The published offset is the same share of 640 pixels.
SMALL_LOOK = {"enabled": True, "side": 224, "offset": 28}
CROPS_ALONE = {**SMALL_LOOK, "with_label": False}
VARIANTS: dict[str, dict] = {
    "TagCLIP's scores": {},
    "+ gradient-aligned labels (CDUL)": {"align": {"enabled": True}},
    "+ bias correction (CCD)": {"bias": {"enabled": True}},
    "+ second look (CCD)": {"second_look": {"enabled": True}},
    "+ second look (CCD), 224 pixels": {"second_look": SMALL_LOOK},
    "+ second look, 224 pixels, crops alone": {"second_look": CROPS_ALONE},
    "+ bias correction and second look, 224 pixels, crops alone": {
        "bias": {"enabled": True}, "second_look": CROPS_ALONE
    },
    "+ second look, 224 pixels, crops alone, four fifths of the old label": {
        "second_look": {**CROPS_ALONE, "ratio": 0.8}
    },
}
RULE = TagRuleConfig(threshold=0.15)  # the demo's config
TIMED = 40  # images that speed is measured on


@dataclass(frozen=True)
class TaggerFigures:
    """Figures of one tagger on held-out scenes, in [0, 1].

    Attributes:
        mean_ap: mAP. f1: micro-F1 at the demo's rule.
    """

    mean_ap: float
    f1: float


@dataclass(frozen=True)
class TaggerRow:
    """A tagger after its last epoch, and the best of its epochs by mAP, which only an oracle can choose.

    Attributes:
        name: what it was trained on. epochs: figures after each epoch.
        agreement: mean over classes of the rank correlation with the teacher's scores, after the last epoch.
    """

    name: str
    epochs: list[TaggerFigures]
    agreement: float

    @property
    def last(self) -> TaggerFigures:
        """What training gives."""
        return self.epochs[-1]

    @property
    def oracle(self) -> tuple[int, TaggerFigures]:
        """The best epoch, from 1, and its figures."""
        best = max(range(len(self.epochs)), key=lambda place: self.epochs[place].mean_ap)
        return best + 1, self.epochs[best]


@dataclass(frozen=True)
class TaggerSpeed:
    """Images per second of one core, decoding included: by processor time and by the clock."""

    name: str
    processor: float
    clock: float


def tagger_figures(scores: np.ndarray, truth: np.ndarray, names: tuple[str, ...]) -> TaggerFigures:
    """mAP, and F1 at the demo's rule, of scores (n, C) against truth (n, C) bool."""
    found = measure_tags(truth, select(scores, RULE.for_classes(names)), scores, names)
    return TaggerFigures(float(found.mean_ap or 0), found.micro.f1)


def rank_agreement(scores: np.ndarray, teacher: np.ndarray) -> float:
    """Mean over classes of Spearman's rank correlation of two sets of scores (n, C)."""
    from scipy.stats import spearmanr

    return float(np.mean([spearmanr(one, other).statistic for one, other in zip(scores.T, teacher.T, strict=True)]))


@torch.no_grad()
def student_scores(student: Student, paths: Sequence[FilePlace]) -> np.ndarray:
    """Scores (n, C) of photos, one by one, seen as a run would."""
    rows = []
    for path in paths:
        rgb = torch.from_numpy(decode_image(path)).permute(2, 0, 1)[None].float() / 255
        rows.append(student(rgb.to(student.device)).sigmoid()[0].cpu().numpy())
    return np.stack(rows)


def train_variant(
    name: str, run: Path, out: Path, config: DistillationConfig, paths: Sequence[FilePlace], truth: np.ndarray,
    teacher: np.ndarray, names: tuple[str, ...], tell: Callable[[str], object] = print,
) -> TaggerRow:  # fmt: skip
    """Trains one tagger, looking on at each epoch; the figures are kept beside it.

    Args:
        run: TagCLIP's run of the training scenes. paths, truth, teacher: of the held-out scenes.
    """
    kept = out / "epochs.json"
    done = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else []
    epochs = [TaggerFigures(**row) for row in done]

    def look_on(epoch: int, student: Student) -> None:
        del epochs[epoch - 1 :]
        epochs.append(tagger_figures(student_scores(student, paths), truth, names))
        kept.write_text(json.dumps([asdict(row) for row in epochs]) + "\n", encoding="utf-8")
        tell(f"{name}: epoch {epoch} of {config.epochs}, mAP {100 * epochs[-1].mean_ap:.1f}")

    trained = TaggerTraining(run, out / "tagger", config, device="cpu").execute(after_epoch=look_on)
    return TaggerRow(name, epochs, rank_agreement(student_scores(load_student(trained.path), paths), teacher))


def time_taggers(taggers: dict[str, ImageTagger], paths: Sequence[FilePlace], rounds: int = 2) -> list[TaggerSpeed]:
    """Each tagger on the same photos in turn, decoding and preparation included, one image at a time.

    Args:
        rounds: the fastest of so many counts; the first call of each is not counted.
    """
    from tagclip.images import prepare_image

    def work(tagger: ImageTagger, chosen: Iterable[FilePlace]) -> None:
        model, image = tagger.model, tagger.config.image
        for path in chosen:
            rgb = decode_image(path)
            values = prepare_image(rgb, model.patch_size, model.mean, model.std, max_long_side=image.max_long_side)
            tagger.score(values[None])

    best = {name: (float("inf"), float("inf")) for name in taggers}
    for tagger in taggers.values():
        work(tagger, paths[:2])
    for _ in range(rounds):
        for name, tagger in taggers.items():
            start = (time.process_time(), time.perf_counter())
            work(tagger, paths)
            spent = (time.process_time() - start[0], time.perf_counter() - start[1])
            best[name] = (min(best[name][0], spent[0]), min(best[name][1], spent[1]))
    return [TaggerSpeed(name, len(paths) / cpu, len(paths) / wall) for name, (cpu, wall) in best.items()]


def tagger_text(teacher: TaggerFigures, rows: Sequence[TaggerRow], speeds: Sequence[TaggerSpeed]) -> str:
    """As Markdown, figures in per cent."""
    lines = ["| tagger | mAP | F1 | best epoch's mAP, F1 (oracle) | rank correlation with TagCLIP |",
             "|---|---:|---:|---:|---:|",
             f"| TagCLIP, the teacher | {100 * teacher.mean_ap:.1f} | {100 * teacher.f1:.1f} | | |"]  # fmt: skip
    for row in rows:
        epoch, best = row.oracle
        lines.append(
            f"| trained on {row.name} | {100 * row.last.mean_ap:.1f} | {100 * row.last.f1:.1f} | "
            f"{100 * best.mean_ap:.1f}, {100 * best.f1:.1f} (epoch {epoch} of {len(row.epochs)}) | "
            f"{row.agreement:.2f} |"
        )
    lines += ["", "| one core, one image at a time | images/s, processor time | images/s, clock |", "|---|---:|---:|"]
    lines += [f"| {speed.name} | {speed.processor:.1f} | {speed.clock:.1f} |" for speed in speeds]
    if len(speeds) == 2:
        ratio = (speeds[1].processor / speeds[0].processor, speeds[1].clock / speeds[0].clock)
        lines.append(f"| ratio | {ratio[0]:.1f} | {ratio[1]:.1f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Draws, tags, trains and measures; prints the tables and writes the figures as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/tagger"), help="folder for scenes, runs and figures")
    parser.add_argument("--train", type=int, default=200, help="scenes that taggers are trained on")
    parser.add_argument("--test", type=int, default=100, help="scenes that they are measured on")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--side", type=int, default=128, help="input of the taggers, pixels")
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    vocabulary = Vocabulary.named("voc")
    runs = {}
    for place, (split, count) in enumerate({"train": args.train, "test": args.test}.items()):
        scenes = args.out / f"scenes-{split}-{count}"
        if not (scenes / f"{split}_scenes.json").is_file():
            write_scenes(scenes, count, SCENES, seed=args.seed + place, split=split)
        runs[split] = tag_folder(
            scenes / "JPEGImages", "voc", args.out / f"run-{split}-{count}", model="demo", device="cpu"
        ).root
        print(f"TagCLIP has tagged {count} scenes of {split}", flush=True)
    reader = RunReader(runs["test"])
    records = list(reader.records())
    paths = [reader.photo(record) for record in records]
    labels = read_labels(args.out / f"scenes-test-{args.test}" / "test_labels.txt", vocabulary)
    truth = np.stack([np.isin(np.arange(len(vocabulary)), labels[record.id]) for record in records])
    teacher = np.stack([record.scores for record in records if record.scores is not None])
    rows = []
    for place, (name, changes) in enumerate(VARIANTS.items()):
        config = DistillationConfig.from_dict(
            {"epochs": args.epochs, "batch_size": args.batch_size, "side": args.side, "seed": args.seed, **changes}
        )
        out = args.out / f"variant-{place}"
        rows.append(train_variant(name, runs["train"], out, config, paths, truth, teacher, vocabulary.names,
                                  lambda text: print(text, flush=True)))  # fmt: skip
    from tagclip.clip import load_clip

    student = load_student(args.out / "variant-0" / "tagger" / "tagger.pt")
    taggers: dict[str, ImageTagger] = {
        "TagCLIP": TagCLIP(load_clip("demo", device="cpu"), vocabulary, config=TagCLIPConfig()),
        "the tagger": StudentTagger(student, student.card.classes),
    }
    speeds = time_taggers(taggers, paths[:TIMED])
    figures = tagger_figures(teacher, truth, vocabulary.names)
    print(tagger_text(figures, rows, speeds))
    found = {"teacher": asdict(figures), "taggers": [asdict(row) for row in rows],
             "speed": [asdict(speed) for speed in speeds]}  # fmt: skip
    (args.out / "figures.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
