"""The one table of options: each is defined once, and every subcommand picks the ones that it takes by name.

Nothing heavy is imported here: `tagclip SUBCOMMAND --help` and shell completion read this table only.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.cli.completers import COMPLETERS
from wsss.cli.key_values import key_value

PRESETS = ("reference", "default")
DTYPES = ("float32", "bfloat16", "float16", "int8")
TAG_RULES = ("relative", "absolute", "top_k", "zscore")
SCORERS = ("patches", "global", "cdul")
ID_KINDS = ("auto", "index", "raw")
REFINERS = ("crf", "pamr", "par", "sam", "none")
RESTRICTIONS = ("all", "tags", "labels")
MODES = ("model", "whole", "slide")
EXPORT_FORMATS = (
    "voc", "coco", "coco-panoptic", "yolo", "mmseg", "label-studio", "cvat", "datumaro", "fiftyone", "hf", "csv",
    "parquet",
)  # fmt: skip
PHOTO_MODES = ("copy", "symlink", "hardlink", "none")
INSTANCE_MODES = ("class", "component")
IGNORED_MODES = ("background", "label")
LAYOUTS = ("files", "tar")
ENGINES = ("local", "ray")
LAUNCHERS = ("none", "pytorch", "slurm", "mpi")
STYLES = ("noto", "twemoji", "fluent-flat", "fluent-3d")
SWITCH, CHOICE = "switch", "choice"  # kinds of options that take no value: --flag, and --flag / --no-flag


def positive(text: str) -> int:
    """argparse type of a whole number above zero."""
    value = int(text) if text.isascii() and text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value


def not_negative(text: str) -> int:
    """argparse type of a whole number, zero included."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def not_negative_number(text: str) -> float:
    """argparse type of a number, zero included."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return value


def size(text: str) -> tuple[int, int]:
    """argparse type of WIDTHxHEIGHT."""
    width, cross, height = text.partition("x")
    if not cross:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, like 500x375")
    return positive(width), positive(height)


def fraction(text: str) -> tuple[int, int]:
    """argparse type of K/N, two whole numbers."""
    number, slash, count = text.partition("/")
    if not slash:
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N, such as 3/16")
    return positive(number), positive(count)


def out_place(text: str) -> Path | str:
    """argparse type of a path, or of an address ("s3://bucket/run"), which stays text."""
    scheme, slashes, rest = text.partition("://")
    if slashes and scheme in ("file", "local"):
        return Path(rest)
    return text if slashes and len(scheme) > 1 and scheme.isalnum() else Path(text)


def share(text: str) -> float:
    """argparse type of a number between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value


@dataclass(frozen=True)
class Option:
    """One option of the command line.

    Attributes:
        name: its flag without the leading dashes.
        help: a sentence that stands by itself.
        metavar: what its value is called; None for options without a value or with choices.
        type: str, or a function from text to a value.
        choices: the values that it takes; a subcommand may take fewer.
        several: it takes one or more values, separated by blanks.
        kind: "" for an option with a value, SWITCH or CHOICE.
    """

    name: str
    help: str
    metavar: str | None = None
    type: Any = str
    choices: tuple[str, ...] | None = None
    several: bool = False
    kind: str = ""


# fmt: off
GROUPS: dict[str, tuple[Option, ...]] = {
    "data": (
        Option("images", "Read these images: a folder, a glob, a file, a list, tar shards, Parquet, or their address",
               "SOURCE"),
        Option("image-root", "Find the images of a list, or a run's photos that were moved, here (folder or shards)",
               "PLACE"),
        Option("image", "Use this photo", "FILE", Path),
        Option("classes", "Use these classes: voc, coco, cocostuff, context, a file, or names with commas", "CLASSES"),
        Option("run", "Read this run folder; a training takes a VOC-layout folder, too", "DIR", Path),
        Option("data", "Read the data set in this folder", "DIR", Path),
        Option("checkpoint", "Use this trained model: a checkpoint that `tagclip train` or mmseg wrote", "FILE", Path),
        Option("out", "Write the results here; run and tag take an address, too (s3://bucket/run)", "PATH", out_place),
        Option("staging", "Let a run whose --out is an address grow in this folder", "DIR", Path),
        Option("layout", "Keep masks and maps as files, or in tar shards with an index, and tags as Parquet, too",
               choices=LAYOUTS),
        Option("config", "Take the settings from this config: a name (see `tagclip configs`) or a file", "CONFIG"),
        Option("set", "Change settings of the config, such as masks.crf.iterations=5", "KEY=VALUE", key_value,
               several=True),
        Option("tags", "Take the tags from a run folder, tags.jsonl, a plain list, VOC XML or COCO JSON", "PATH", Path),
        Option("tag-ids", "Say whether numbers in a plain tag list are class indices or the data set's raw ids",
               choices=ID_KINDS),
        Option("labels", "Take the true tags from a plain list, a folder of VOC XML, or COCO JSON", "PATH", Path),
        Option("label-ids", "Say whether numbers in a plain label list are class indices or raw ids",
               choices=ID_KINDS),
        Option("corrections", "Take corrections of tags and images from this file of `tagclip review`", "FILE", Path),
        Option("masks", "Use the masks (PNG) in this folder instead of the run's", "DIR", Path),
        Option("maps", "Use the class maps (npz) in this folder instead of the run's", "DIR", Path),
        Option("ground-truth", "Use the true masks in this folder; a training fits a second model to them", "DIR",
               Path),
        Option("list", "Use only the ids in this file, the first word of each line", "FILE", Path),
        Option("val", "Validate on the true masks of this VOC-layout or run folder", "DIR", Path),
        Option("val-list", "Validate only on the ids in this file, the first word of each line", "FILE", Path),
        Option("limit", "Use only the first N images", "N", positive),
        Option("subset", "Use N images, drawn by the seed, and show confidence intervals", "N", positive),
        Option("parts", "Measure only these parts: tags, masks, true_tags, dense, deeplab", "PART", several=True),
        Option("any-data", "Accept data that are not the published ones; no figure is then comparable",
               kind=SWITCH),
        Option("ids", "Use only the images with these ids", "ID", several=True),
        Option("names", "Draw these classes instead of those that the tagger finds", "NAME", several=True),
    ),
    "method": (
        Option("preset", "Choose the settings: reference follows the published code in every detail",
               choices=PRESETS),
        Option("scorer", "Score classes patch by patch (TagCLIP), by CLIP's global answer, or as CDUL does",
               choices=SCORERS),
        Option("tag-rule", "Choose the rule that turns scores into tags", choices=TAG_RULES),
        Option("tag-threshold", "Tag a class above T: of the image's score range (relative) or of 1 (absolute)", "T",
               float),
        Option("class-thresholds", "Take thresholds by class name from this YAML or JSON file", "FILE", Path),
        Option("tags-per-image", "Give each image its K best classes (rule top_k)", "K", positive),
        Option("at-least-one", "Give an image that no class passes its best class, or leave it without tags",
               kind=CHOICE),
        Option("prevalence", "Take this share of images to show a class: one number, or CLASS=NUMBER of each", "SHARE",
               several=True),
        Option("z-threshold", "Tag a class this many standard deviations above its mean (zscore, class-zscore)", "Z",
               float),
        Option("keep-scores", "Store only the K best scores of each image", "K", positive),
        Option("score-floor", "Store only scores above P, and those of tags", "P", share),
        Option("method", "Make class maps by cam, excel, a strategy or its file; calibrate by one of its methods",
               "NAME"),
        Option("restrict", "Let an image have all classes, only its tags, or only its true labels",
               choices=RESTRICTIONS),
        Option("scales", "Average over the image at these scales; each one costs a pass of the model", "S", float,
               several=True),
        Option("flip", "Average over the mirrored image, too", kind=SWITCH),
        Option("tta", "Average over the scales and the mirrored image that the model's config asks for", kind=SWITCH),
        Option("refine", "Sharpen masks with a dense CRF, PAMR, PAR or SAM, or not at all", choices=REFINERS),
        Option("confidence", "Set pixels whose best class is less probable than P to 255 (ignored); 0: none", "P",
               share),
        Option("pixel-threshold", "Set pixels whose best class is less probable than P to background", "P", share),
        Option("mode", "See each image whole, in sliding windows, or as the model's config says", choices=MODES),
        Option("crop", "Make sliding windows this large", "PX", positive),
        Option("stride", "Move sliding windows by this much", "PX", positive),
        Option("native-size", "Keep photos at their own size instead of the config's test size", kind=SWITCH),
        Option("short-side", "Resize images to this shorter side first", "PX", positive),
        Option("max-long-side", "Shrink images whose longer side exceeds this", "PX", positive),
        Option("logit-scale", "Multiply cosines by this before the softmax", "F", float),
        Option("cam-precision", "Compute the last block of Grad-CAM in float32 or in the model's dtype",
               choices=("float32", "model")),
    ),
    "training": (
        Option("train", "Train this model on the masks afterwards: a config's name or file", "CONFIG"),
        Option("iterations", "Train for N steps; schedule and intervals of a config scale with it", "N", positive),
        Option("rounds", "Train N more times, each on masks that the model before has made", "N", not_negative),
        Option("backbone-weights", "Start the backbone from a file, a torchvision:// name, or none", "WEIGHTS"),
        Option("backbone", "Train this network: a ResNet, ConvNeXt or ViT of torchvision by its name, or demo", "NAME"),
        Option("epochs", "Train for N passes over the images", "N", positive),
        Option("align-labels", "Move soft labels along their gradient between epochs, as CDUL does", kind=CHOICE),
        Option("correct-bias", "Make labels of classes comparable by their mean best score, as CCD does", kind=CHOICE),
        Option("second-look", "Take new labels once from CLIP's answers for crops around activation maps, as CCD does",
               kind=CHOICE),
        Option("load-from", "Start from the weights of this checkpoint", "FILE", Path),
        Option("lr", "Set the peak learning rate", "F", float),
        Option("amp", "Train in mixed precision (needs an accelerator)", kind=SWITCH),
        Option("launcher", "Train in several processes, started by torchrun (pytorch), slurm or mpi",
               choices=LAUNCHERS),
        Option("headers-only", "Check only the headers of the masks before training, not their ids", kind=SWITCH),
        Option("batch-scale", "Multiply the batch size of every phase", "F", float),
        Option("bf16", "Train in bfloat16", kind=CHOICE),
        Option("cam-objects", "Supervise the class activation maps of K objects per scene", "K", not_negative),
        Option("eval-every", "Validate and save a checkpoint every N steps", "N", positive),
        Option("eval-scenes", "Validate on N scenes", "N", positive),
    ),
    "scoring": (
        Option("coarse", "Merge classes into their coarse groups first (cocostuff: 171 into 27)", kind=SWITCH),
        Option("thresholds", "Score class maps with each of these background scores", "T", share, several=True),
        Option("ignore-index", "Leave pixels with this id in the true masks out (default: 255, or 65535 of 16 bits)",
               "ID", not_negative),
        Option("binary", "Read true masks of 0 and 255 as background and the one class", kind=SWITCH),
        Option("boundary-width", "Score a band along outlines, as a share of the image diagonal; 0: none", "SHARE",
               share),
        Option("resize", "Resize predictions to the size of the true masks", kind=SWITCH),
        Option("confusion", "Draw the confusion matrix to this PNG", "FILE", Path),
        Option("skip-difficult", "Leave out VOC objects marked difficult", kind=SWITCH),
        Option("absent-classes", "Leave classes without positives out of means, or count them as 0 (published)",
               choices=("leave_out", "zero")),
        Option("per-class", "Show one row per class", kind=SWITCH),
        Option("curves", "Draw precision-recall curves to this PNG", "FILE", Path),
        Option("loop", "Count with this project's scorer or with mmseg's own test loop", choices=("ours", "mmseg")),
        Option("timed-images", "Time each combination on N images", "N", not_negative),
        Option("tolerance", "Accept logits that differ by at most this", "F", float),
        Option("repeats", "Time N rounds", "N", positive),
        Option("baseline", "Measure the baseline procedure, too", kind=CHOICE),
        Option("oracle", "Take the baseline from this folder: the plain transcription of a clone", "DIR", Path),
        Option("crf", "Time the CRF, too", kind=CHOICE),
        Option("memory", "Measure the peak memory, too", kind=CHOICE),
    ),
    "output": (
        Option("overlays", "Write coloured overlays beside the masks", kind=CHOICE),
        Option("save-confidence", "Write how sure each pixel of a mask is, too, as grey PNGs of 8 bits", kind=SWITCH),
        Option("panel-height", "Draw panels this high", "PX", positive),
        Option("columns", "Put N pictures into one row of the sheet", "N", positive),
        Option("size", "Use images of this size", "WIDTHxHEIGHT", size),
        Option("dynamic", "Leave batch size, height and width of the model free", kind=SWITCH),
        Option("opset", "Write this version of the ONNX operator set", "N", positive),
        Option("count", "Draw N scenes", "N", positive),
        Option("split", "Put the ids into lists of these names: NAME, or shares such as train=0.9,val=0.1", "NAMES"),
        Option("styles", "Draw objects in these styles", choices=STYLES, several=True),
        Option("objects", "Put between LOW and HIGH objects into one scene", "LOW HIGH", positive),
        Option("object-side", "Draw objects whose longer side is between LOW and HIGH pixels", "LOW HIGH", positive),
        Option("side", "Draw scenes whose sides are between LOW and HIGH pixels", "LOW HIGH", positive),
        Option("packages", "Read the unpacked sprite packages in this folder", "DIR", Path),
        Option("json", "Write all figures as JSON to this file, or to the screen with -", "FILE|-"),
        Option("quiet", "Show results, warnings and errors only", kind=SWITCH),
    ),
    "export": (
        Option("format", "Write these formats", choices=EXPORT_FORMATS, several=True),
        Option("list-formats", "Show the formats with what each one is for", kind=SWITCH),
        Option("photos", "Put the photos into the export as copies, as links of either kind, or not at all",
               choices=PHOTO_MODES),
        Option("min-confidence", "Leave out tags whose score, or whose pixels' mean confidence, is below P", "P",
               share),
        Option("only-checked", "Use only images that a person has checked", kind=SWITCH),
        Option("merge-into", "Put images that are new into this data set, and leave all that it has alone", "DIR",
               Path),
        Option("instances", "Write one annotation per class of an image, or one per connected component",
               choices=INSTANCE_MODES),
        Option("stuff", "Write these classes or super-classes, with commas between, as stuff instead of things",
               "NAMES"),
        Option("polygons", "Write polygons instead of run lengths (coco)", kind=SWITCH),
        Option("ignored", "Write ignored pixels of cvat's masks as background, or as a label of their own",
               choices=IGNORED_MODES),
        Option("bom", "Put a byte order mark before the CSV table, by which spreadsheets know UTF-8", kind=SWITCH),
    ),
    "work": (
        Option("batch-size", "Put at most N images into one forward pass", "N", positive),
        Option("workers", "Read or draw images with N workers", "N", positive),
        Option("mask-workers", "Make masks in N processes", "N", positive),
        Option("seed", "Set the seed of all random choices", "N", not_negative),
        Option("shard", "Take share K of N of the work, beside other machines with the other shares", "K/N", fraction),
        Option("engine", "Make everything in this process, or on a Ray cluster", choices=ENGINES),
        Option("address", "Use the Ray cluster at this address; auto: the one that this machine is part of",
               "HOST:PORT"),
        Option("actors", "Use N processes of the Ray cluster, each with a model", "N", positive),
        Option("gpus-per-actor", "Give each of these processes this many GPUs; 0.5: two processes share one", "G",
               not_negative_number),
        Option("overwrite", "Start anew, and replace what an earlier call has left in --out", kind=SWITCH),
        Option("strict", "End with an error if an image fails", kind=SWITCH),
        Option("dry-run", "Show the plan and what it would take, and write nothing", kind=SWITCH),
    ),
    "model": (
        Option("model", "Use this CLIP: an open_clip name, a weights file, local-dir:PATH, or demo", "MODEL"),
        Option("pretrained", "Use these weights for --model: an open_clip tag or a file", "WEIGHTS"),
        Option("weights", "Take the weights of the network from this file; nothing is downloaded", "FILE", Path),
        Option("quick-gelu", "Compute with QuickGELU or GELU where the weights do not say which", kind=CHOICE),
        Option("dtype", "Compute in this precision (int8: CPUs only)", choices=DTYPES),
        Option("device", "Compute on cpu, cuda or cuda:N instead of the GPU that there is, or else the CPU", "DEVICE"),
        Option("threads", "Compute with N CPU threads", "N", positive),
        Option("cache-dir", "Keep text classifiers here instead of in ~/.cache/tagclip/texts", "DIR", Path),
    ),
}
# fmt: on
OPTIONS = {option.name: option for group in GROUPS.values() for option in group}
TITLES = {option.name: title for title, group in GROUPS.items() for option in group}
PAIRS = ("objects", "object-side", "side")

MODEL = tuple(option.name for option in GROUPS["model"] if option.name != "weights")
TAG_RULE = ("scorer", "tag-rule", "tag-threshold", "class-thresholds", "tags-per-image", "at-least-one")

RENAMED = {
    "--vocabulary": "--classes (or --restrict, for what a training-free strategy may name)",
    "--vocabularies": "--restrict",
    "--strategy": "--method",
    "--strategies": "--method",
    "--threshold": "--tag-threshold (of tags) or --pixel-threshold (of pixels)",
    "--threshold-rule": "--tag-rule",
    "--top-k": "--keep-scores",
    "--crf-workers": "--mask-workers",
    "--cfg-options": "--set (train.KEY=VALUE for a training)",
    "--work-dir": "--out",
    "--train-list": "--list",
    "--no-resume": "--overwrite",
    "--resume": "nothing: runs always resume; --overwrite starts anew",
    "--pred": "--masks (or --maps, for class maps)",
    "--gt": "--ground-truth",
    "--root": "--image-root",
    "--data-root": "--data",
    "--pamr": "--refine pamr",
    "--crf": "--refine crf",
    "--boundary": "--boundary-width",
    "--batch": "--batch-size",
    "--dtypes": "--dtype",
    "--height": "--panel-height (of pictures) or --size (of an exported model)",
    "--width": "--size",
    "--steps": "--iterations",
    "--start": "--load-from",
}


def pick(
    parser: argparse.ArgumentParser,
    *names: str,
    required: Collection[str] = (),
    several: Collection[str] = (),
    choices: Mapping[str, tuple[str, ...]] | None = None,
    defaults: Mapping[str, Any] | None = None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Adds options of the table to a subcommand, in groups as the table has them.

    Args:
        names: of the options.
        required: which of them must be given.
        several: which of them take one or more values here.
        choices: fewer choices than the table's.
        defaults: values of options that are not given; None for the others (False for switches without one).
        notes: what an option that is not given means, for the help, where there is no default to show.
    """
    choices, defaults, notes = choices or {}, defaults or {}, notes or {}
    groups = {group.title: group for group in parser._action_groups}
    for title in GROUPS:
        chosen = [name for name in names if TITLES[name] == title]
        if chosen and title not in groups:
            groups[title] = parser.add_argument_group(title)
        for name in chosen:
            option, default = OPTIONS[name], defaults.get(name)
            settings: dict[str, Any] = {"help": _sentence(option, default, notes.get(name)), "default": default}
            if option.kind == SWITCH:
                settings |= {"action": "store_true", "default": False}
            elif option.kind == CHOICE:
                settings["action"] = argparse.BooleanOptionalAction
            else:
                settings["type"] = option.type
                settings["choices"] = choices.get(name, option.choices)
                settings["required"] = name in required
                settings["metavar"] = tuple((option.metavar or "").split()) if name in PAIRS else option.metavar
                if name in PAIRS:
                    settings["nargs"] = 2
                elif option.several or name in several:
                    settings["nargs"] = "+"
                if name == "set":
                    settings["action"] = "extend"
            action = groups[title].add_argument(f"--{name}", **settings)
            action.help = settings["help"]  # Python 3.10's BooleanOptionalAction says its default once more
            if name in COMPLETERS:
                action.completer = COMPLETERS[name]  # type: ignore[attr-defined]  # read by argcomplete


def alias(parser: argparse.ArgumentParser, name: str, other: str) -> None:
    """Accepts another flag for an option of a subcommand, which its help does not show."""
    parser._option_string_actions[f"--{other}"] = parser._option_string_actions[f"--{name}"]


def _sentence(option: Option, default: Any, note: str | None) -> str:
    if note is None and default is not None and option.kind != SWITCH:
        shown = default if not isinstance(default, list | tuple) else " ".join(map(str, default))
        if option.kind == CHOICE:
            shown = f"--{'' if default else 'no-'}{option.name}"
        note = f"default: {shown}"
    text = option.help if note is None else f"{option.help} ({note})"
    return text.replace("%", "%%")


def settings_of(pairs: list[tuple[str, Any]] | None) -> dict[str, Any]:
    """What `--set` was given, by dotted key; the last one counts."""
    return dict(pairs or ())
