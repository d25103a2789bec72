"""`tagclip reproduce`: a published experiment from checked data to a report, by the documented commands."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagclip.errors import RunError, UsageError
from wsss.cli.console import passive_threads, setup_logging
from wsss.cli.options import MODEL, pick
from wsss.cli.parser import add_command, add_family
from wsss.cli.progress import counted, progress_bar
from wsss.cli.screen import Output, Table

if TYPE_CHECKING:
    from wsss.reproduction.experiments import Experiment, Part
    from wsss.reproduction.verdicts import Measured

# name -> what it measures; the details are in wsss/reproduction/published.yaml.
EXPERIMENTS = {
    "voc2007": "tags of PASCAL VOC 2007 test (mAP)",
    "voc2012": "tags, masks, training-free methods and DeepLab on PASCAL VOC 2012",
    "coco2014": "tags of COCO 2014 val (mAP)",
    "coco2017": "tags and masks of COCO 2017 val",
    "cocostuff": "tags and masks of COCO-Stuff val",
}
REPORT = "report.md"
MASKING = ("run", "mask", "remask")  # commands that may need the CRF
logger = logging.getLogger(__name__)


def register(commands: Any) -> None:
    """Adds the subcommand and one of its own per data set."""
    family = add_family(
        commands, "reproduce", help="Rerun a published experiment and compare its figures with the published ones."
    )
    for name, what in EXPERIMENTS.items():
        parser = add_command(
            family, name, run=reproduce,
            help=f"Reproduce {what}.",
            text="The data are checked first, then the documented commands run; the same call resumes them.",
            example=f"reproduce {name} --data DIR --subset 200",
        )  # fmt: skip
        pick(
            parser, "data", "out", "parts", "subset", "any-data", "weights", "backbone-weights", "seed", "overwrite",
            "dry-run", "json", "quiet", *MODEL,
            required=("data",), defaults={"seed": 0},
            notes={"out": f"default: runs/reproduce/{name}", "parts": "default: all but DeepLab",
                   "weights": "of the published architecture", "model": "default: the config's, ViT-B-16 of OpenAI"},
        )  # fmt: skip
        parser.set_defaults(experiment=name)


def reproduce(args: argparse.Namespace) -> int:
    """Checks, runs, compares and writes the report."""
    passive_threads()
    setup_logging(args.quiet)
    from wsss.reproduction.experiments import find_experiment

    work, output = Reproduction.of(args, find_experiment(args.experiment)), Output.of(args)
    sizes = (f"{part.name} ({len(work.ids[part.list])} images)" for part in work.parts)
    output.show(f"{work.experiment.title}: {', '.join(sizes)}")
    for problem in work.problems:
        logger.warning(problem)
    if args.dry_run:
        for words in work.all_commands():
            output.show(work.line(words))
        output.figures({"problems": work.problems, "commands": [work.line(words) for words in work.all_commands()]})
        return 0
    rows = work.execute(overwrite=args.overwrite, quiet=args.quiet)
    from wsss.reproduction.verdicts import COLUMNS

    output.show(Table(COLUMNS, [row.row() for row in rows]))
    output.show(f"report: {work.write_report(rows)}")
    output.figures({"problems": work.problems, "figures": [row.to_dict() for row in rows]})
    return 1 if any(row.verdict in ("fail", "not measured") for row in rows) else 0


@dataclass
class Reproduction:
    """An experiment on its way.

    Attributes:
        experiment, parts: what is done. data, out: folders. ids: images of each list that is used.
        problems: how the data differ from the published ones. subset: images per list, None for all.
        model: the options that name the model, as words. backbone: those of a training.
    """

    experiment: Experiment
    parts: list[Part]
    data: Path
    out: Path
    ids: dict[str, list[str]]
    problems: list[str]
    subset: int | None
    model: list[str]
    backbone: list[str]

    @classmethod
    def of(cls, args: argparse.Namespace, experiment: Experiment) -> Reproduction:
        """As the command line asks for.

        Raises:
            UsageError: an unknown part, no data, or other data than the published ones without --any-data.
        """
        from wsss.reproduction.commands import choose_subset
        from wsss.reproduction.data_checks import expected, list_problems, missing_files, read_list

        if not args.data.is_dir():
            raise UsageError(f"--data {args.data}: no such folder; {expected(experiment)}")
        parts = experiment.chosen(None if args.parts is None else tuple(args.parts))
        ids, problems = {}, []
        for name in dict.fromkeys(name for part in parts for name in (part.list, part.validation) if name):
            whole = read_list(experiment, name, args.data)
            problems += list_problems(experiment.lists[name], whole, name)
            ids[name] = choose_subset(whole, args.subset, args.seed)
            masks = any(figure.masks for part in parts for figure in part.figures)
            problems += missing_files(experiment, ids[name], args.data, masks=masks)
        if problems and not args.any_data:
            raise UsageError(f"{'; '.join(problems)}; --any-data runs all the same, and no figure is then comparable")
        out = args.out or Path("runs/reproduce", experiment.name)
        backbone = [] if args.backbone_weights is None else ["--backbone-weights", args.backbone_weights]
        return cls(experiment, parts, args.data, out, ids, problems, args.subset, _model_words(args), backbone)

    def all_commands(self) -> list[list[str]]:
        """Every command, in order."""
        return [words for part in self.parts for words in self._commands(part)]

    def line(self, words: Sequence[str]) -> str:
        """A command as one types it."""
        from wsss.reproduction.commands import as_typed

        return as_typed(words)

    def _commands(self, part: Part) -> list[list[str]]:
        from wsss.reproduction.commands import fill
        from wsss.reproduction.truth import labels_file

        images = self.out / "lists" / f"{part.list}.txt"
        own = self.experiment.labels.get("voc") or self.experiment.labels.get("coco")
        tags = labels_file(self.out, part.validation or part.list)
        has_own = own is not None and (self.data / own).exists()
        truth = (self.experiment.masks or {}).get("folder")
        return fill(part, {
            "data": str(self.data), "out": str(self.out), "images": str(images), "absolute": str(images.resolve()),
            "photos": str(self.data / self.experiment.photos["folder"]),
            "labels": str(self.data / own if own is not None and has_own else tags),
            "truth": str(self.out / "truth") if truth is None else str(self.data / truth),
            "validation": str(self.out / "lists" / f"{part.validation}.txt"),
            "checkpoint": self._checkpoint(), "model": self.model, "train": self.backbone,
        })  # fmt: skip

    def _checkpoint(self) -> str:
        folder = self.out / "deeplab" / "segmentation"
        found = sorted(folder.glob("best_mIoU_iter_*.pth"))
        return str(found[-1] if found else folder / "best_mIoU_iter_20000.pth")

    def execute(self, *, overwrite: bool, quiet: bool) -> list[Measured]:
        """Prepares truth and lists, and does what is left of the commands.

        Raises:
            RequirementError: masks by the reference preset, without the package that it insists on.
            RunError: a command ended with an error; the same call resumes there.
        """
        from wsss.cli.main import execute
        from wsss.config import CrfConfig, MaskConfig
        from wsss.masks.crf import settle_engine
        from wsss.reproduction.commands import RESUMES, StepLog, write_list

        if any(words[0] in MASKING and "reference" in words for words in self.all_commands()):
            settle_engine(MaskConfig(crf=CrfConfig(engine="pydensecrf")))  # before hours of tagging

        for name, ids in self.ids.items():
            write_list(ids, self.out / "lists" / f"{name}.txt")
        self._prepare(quiet)
        log = StepLog(self.out)
        for part in self.parts:
            for number in range(len(part.steps)):
                words = self._commands(part)[number]  # anew each time: a checkpoint's name is known after training
                if log.is_done(words) and not overwrite:
                    continue
                logger.info(self.line(words))
                extra = ["--overwrite"] if overwrite and words[0] in RESUMES else []
                if code := execute([*words, *extra, *(["--quiet"] if quiet else [])]):
                    raise RunError(f"{self.line(words)}: ended with exit code {code}; the same call resumes there")
                log.note(words)
        return self.measured()

    def _prepare(self, quiet: bool) -> None:
        from wsss.reproduction.truth import labels_file, true_labels, true_masks

        for part in self.parts:
            name = part.validation or part.list
            ids, masks = self.ids[name], None
            needs_masks = any(figure.masks for figure in part.figures) or "{truth}" in " ".join(part.steps)
            derived = self.experiment.labels.get("or") == "masks" and self.experiment.masks is not None
            if needs_masks or derived:
                with progress_bar(len(ids), "true masks", quiet=quiet) as bar:
                    masks = true_masks(self.experiment, ids, self.data, self.out, counted(bar))
            if "{labels}" in " ".join(part.steps):
                path = true_labels(self.experiment, name, ids, self.data, self.out, masks)
                own = self.experiment.labels.get("voc")
                note = f"true tags are the classes of the true masks, {own} not being there"
                if own is not None and path == labels_file(self.out, name) and note not in self.problems:
                    self.problems.append(note)

    def measured(self) -> list[Measured]:
        """Every figure of the parts, from the files that the commands wrote."""
        from wsss.reproduction.verdicts import Measured, read_figure

        rows = []
        for part in self.parts:
            ids = self.ids[part.validation or part.list]
            for figure in part.figures:
                value = read_figure(self.out / figure.file, figure.key)
                interval = None if self.subset is None else self._interval(part, figure, ids)
                rows.append(Measured(part.name, figure, value, len(ids), interval, not self.problems))
        return rows

    def _interval(self, part: Part, figure: Any, ids: list[str]) -> tuple[float, float] | None:
        """95 % interval in points; None for figures without results by image (training-free methods)."""
        from tagclip.labels import read_labels
        from tagclip.tag_files import read_tags, to_arrays
        from tagclip.vocabulary import Vocabulary
        from wsss.evaluation.tag_scores import match, score_tags
        from wsss.files.mask_files import ignore_label
        from wsss.reproduction.intervals import mask_interval, tag_interval

        vocabulary = Vocabulary.named(self.experiment.vocabulary)
        if figure.masks is not None:
            truth = Path(self._word(part, "--ground-truth"))
            low, high = mask_interval(
                ids, self.out / figure.masks, truth, vocabulary, ignore_label(vocabulary.label_count),
                coarse=figure.coarse,
            )  # fmt: skip
        elif figure.file == "tags.json":
            records = read_tags(self.out / "tags", vocabulary)
            labels = read_labels(Path(self._word(part, "--labels")), vocabulary, ids="index")
            found = score_tags(records, labels, vocabulary)
            tags, _ = to_arrays([record for record, _ in match(records, labels)[0]], len(vocabulary))
            low, high = tag_interval(found, tags, vocabulary.names, figure.key)
        else:
            return None
        return 100 * low, 100 * high

    def _word(self, part: Part, option: str) -> str:
        """The value of an option in the part's commands."""
        words = next(words for words in self._commands(part) if option in words)
        return words[words.index(option) + 1]

    def write_report(self, rows: list[Measured]) -> Path:
        """Writes the report, and says where."""
        from wsss.files.atomic import atomic_file, disk_errors
        from wsss.files.provenance import installed_versions
        from wsss.reproduction.verdicts import markdown

        text = markdown(
            self.experiment.title, rows, problems=self.problems, subset=self.subset, versions=installed_versions(),
            commands=[self.line(words) for words in self.all_commands()],
            model=" ".join(self.model) or "the config's, ViT-B-16 with OpenAI's weights",
        )  # fmt: skip
        path = self.out / REPORT
        with disk_errors(path), atomic_file(path, path.parent) as file:
            file.write(text.encode())
        return path


def _model_words(args: argparse.Namespace) -> list[str]:
    """The options that name the model and where it runs."""
    words: list[str] = []
    names: tuple[str, ...] = ("dtype", "device", "threads", "cache_dir")
    if args.weights is not None:
        if args.pretrained is not None:
            raise UsageError(f"--weights {args.weights}: the same as --pretrained {args.pretrained}; give one of them")
        words += ["--model", args.model or "ViT-B-16", "--pretrained", str(args.weights)]
    else:
        names = ("model", "pretrained", *names)
    for name in names:
        if (value := getattr(args, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    if args.quick_gelu is not None:
        words.append("--quick-gelu" if args.quick_gelu else "--no-quick-gelu")
    return words
