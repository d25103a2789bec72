"""The list of published figures: complete, parsed by the command line, and with the figures of the papers."""

import pytest

from tagclip.errors import UsageError
from tagclip.vocabulary import Vocabulary
from wsss.cli.main import build_parser
from wsss.cli.reproduce import EXPERIMENTS
from wsss.reproduction.commands import choose_subset, fill
from wsss.reproduction.data_checks import list_digest, list_problems
from wsss.reproduction.experiments import ImageSet, experiment_names, find_experiment, tolerance
from wsss.reproduction.verdicts import Measured

PARTS = [(name, part) for name in EXPERIMENTS for part in find_experiment(name).parts]
SOMEWHERE = ("data", "out", "images", "absolute", "photos", "labels", "truth", "validation", "checkpoint")
VALUES = dict.fromkeys(SOMEWHERE, "somewhere") | {"model": ["--model", "demo"], "train": []}


def test_the_command_line_names_every_experiment():
    assert list(EXPERIMENTS) == experiment_names()
    assert all(find_experiment(name).vocabulary in ("voc", "coco", "cocostuff") for name in EXPERIMENTS)
    with pytest.raises(UsageError, match="imagenet: no such experiment; there are voc2007"):
        find_experiment("imagenet")


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_every_command_is_one_of_ours(name, part):
    found = find_experiment(name).parts[part]
    for words in fill(found, VALUES):
        args = build_parser().parse_args(words)
        assert callable(args.handler)
    written = [word for words in fill(found, VALUES) for word in words if word.endswith(".json")]
    assert {f"somewhere/{figure.file}" for figure in found.figures} == set(written)


def test_published_figures():
    figures = {
        (name, part, figure.name): figure.published
        for name, part in PARTS for figure in find_experiment(name).parts[part].figures
    }  # fmt: skip
    assert figures["voc2007", "tags", "mAP"] == 92.8
    assert figures["coco2014", "tags", "mAP"] == 68.8
    assert figures["voc2012", "masks", "mIoU with CRF"] == 68.7
    assert figures["voc2012", "true_tags", "mIoU without CRF"] == 70.8
    assert figures["coco2017", "masks", "mIoU with CRF"] == 35.3
    assert figures["cocostuff", "masks", "mIoU without CRF, 27 groups"] == 30.1
    assert figures["voc2012", "tags", "micro F1"] == 84.1
    assert all(value is None or 1 < value < 100 for value in figures.values())
    assert tolerance() == 0.2


def test_lists_are_told_from_others():
    wanted = ImageSet(2, path="val.txt", digest=list_digest(["b", "a"]))
    assert list_problems(wanted, ["a", "b"], "val") == []
    assert list_problems(wanted, ["a"], "val") == ["val.txt: 1 images, the published list has 2"]
    [problem] = list_problems(wanted, ["a", "c"], "val")
    assert "but others" in problem


def test_subsets_are_drawn_by_a_seed_and_keep_the_order():
    ids = [f"{number:03}" for number in range(100)]
    chosen = choose_subset(ids, 10)
    assert chosen == choose_subset(ids, 10) == sorted(chosen)
    assert len(set(chosen)) == 10
    assert chosen != choose_subset(ids, 10, seed=1)
    assert choose_subset(ids, 1000) == choose_subset(ids, None) == ids


@pytest.mark.parametrize(
    ("value", "interval", "comparable", "verdict"),
    [
        (68.5, None, True, "pass"),
        (68.9, None, True, "pass"),
        (68.49, None, True, "fail"),
        (68.91, None, True, "fail"),
        (60.0, (55.0, 69.0), True, "in the interval"),
        (60.0, (55.0, 61.0), True, "outside the interval"),
        (68.7, None, False, "other data"),
        (float("nan"), None, True, "not measured"),
    ],
)
def test_verdicts(value, interval, comparable, verdict):
    figure = find_experiment("voc2012").parts["masks"].figures[0]
    assert figure.published == 68.7
    assert Measured("masks", figure, value, 10, interval, comparable).verdict == verdict


def test_vocabularies_have_the_classes_of_the_conversions():
    assert len(Vocabulary.named("coco")) == 80
    raw = Vocabulary.named("cocostuff").raw_ids
    assert raw is not None
    assert (len(raw), max(raw)) == (171, 181)
