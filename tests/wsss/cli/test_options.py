"""The table of options, seen through every subcommand's parser."""

import argparse
import re
from pathlib import Path

import pytest

from tests.tools.commands import TOOLS
from tests.wsss.cli.parsers import leaves
from wsss.cli import options
from wsss.cli.main import build_parser, execute
from wsss.cli.options import CHOICE, OPTIONS, PAIRS, RENAMED, SWITCH
from wsss.cli.reproduce import EXPERIMENTS

ROOT = Path(__file__).parents[3]
TWO_SCREENS = 100  # lines of 100 columns
OWN = {"help", "handler", "local_rank", "shell", "version"}  # not in the table


LEAVES = leaves(build_parser())
ACTIONS = [
    (parser.prog, action) for parser in LEAVES for action in parser._actions if action.dest not in OWN
]


def test_every_subcommand_is_there():
    found = {parser.prog.removeprefix("tagclip ") for parser in LEAVES}
    assert found == {
        "run", "tag", "mask", "merge", "remask", "calibrate", "show", "review", "export", "train", "train-tagger",
        "segment",
        "export-model", "evaluate tags", "evaluate masks", "evaluate dense", "compare", "ablate", "benchmark",
        "diagnose", "demo scenes", "demo report", "demo train-clip", "demo train-backbone", "demo tag-rules",
        "demo sprites", "configs", "doctor", "completion", *(f"reproduce {name}" for name in EXPERIMENTS),
    }  # fmt: skip


@pytest.mark.parametrize(("command", "action"), ACTIONS, ids=[f"{name} {action.dest}" for name, action in ACTIONS])
def test_a_flag_means_the_same_everywhere(command, action):
    """One name, one type, one sentence; a subcommand may only take fewer choices, or several values."""
    option = OPTIONS[action.dest.replace("_", "-")]
    assert action.option_strings[0] == f"--{option.name}"
    assert action.help.startswith(option.help)
    assert re.fullmatch(r"( \([^()]+\))?", action.help.removeprefix(option.help))
    if option.kind == SWITCH:
        assert isinstance(action, argparse._StoreTrueAction)
    elif option.kind == CHOICE:
        assert isinstance(action, argparse.BooleanOptionalAction)
    else:
        assert action.type is option.type
        assert (action.choices is None) == (option.choices is None)
        assert set(action.choices or ()) <= set(option.choices or ())
        if option.name in PAIRS:
            assert action.nargs == 2
        else:
            assert action.metavar == option.metavar
            assert action.nargs in ({"+"} if option.several else {None, "+"})


@pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)
def test_sentences_stand_by_themselves(option):
    """A verb first, as an order, no full stop; and somebody takes the option."""
    assert re.match(r"[A-Z][a-z]+ ", option.help)
    assert not option.help.endswith(".")
    assert option.help.split()[0] in VERBS
    assert any(action.dest.replace("_", "-") == option.name for _, action in ACTIONS)


VERBS = {
    "Accept", "Average", "Change", "Check", "Choose", "Compute", "Count", "Draw", "End", "Find", "Give", "Keep",
    "Leave", "Let", "Make", "Measure", "Merge", "Move", "Multiply", "Put", "Read", "Resize", "Say", "Score", "See",
    "Set", "Sharpen", "Show", "Shrink", "Start", "Store", "Supervise", "Tag", "Take", "Time", "Train", "Use",
    "Validate", "Write",
}  # fmt: skip


def test_no_two_options_say_the_same():
    sentences = [option.help for option in OPTIONS.values()]
    assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("parser", LEAVES, ids=[parser.prog for parser in LEAVES])
def test_help_begins_with_an_example_that_parses_and_fits_two_screens(parser, monkeypatch):
    import shlex

    monkeypatch.setenv("COLUMNS", "100")
    text = parser.format_help()
    first = text.splitlines()[0]
    assert first.startswith(f"Example: {parser.prog}")
    assert len(text.splitlines()) <= TWO_SCREENS
    words = shlex.split(first.removeprefix("Example: tagclip "), comments=True)
    assert build_parser().parse_args(words).handler is parser.get_default("handler")


@pytest.mark.parametrize("name", ["--vocabulary", "--crf-workers", "--cfg-options", "--threshold"])
def test_an_old_spelling_is_answered_with_the_new_one(name, capsys):
    with pytest.raises(SystemExit) as ended:
        execute(["run", name, "x"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {name}: this option is now called {RENAMED[name]}")
    assert error.count("\n") == 1


def test_old_spellings_are_gone_and_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    taken = {name.removeprefix("--") for _, action in ACTIONS for name in action.option_strings}
    for old in RENAMED:
        assert re.search(rf"`{old}[` ]", changelog), old
        assert old.removeprefix("--") not in taken or old == "--crf"  # of the benchmark, where it times the CRF
        for new in re.findall(r"--([a-z-]+)", RENAMED[old]):
            assert new in taken


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "invalid choice: 'rum'"),
        (["run", "--imagse", "photos"], "--imagse: no such option; did you mean --images?"),
        (["run", "--limit", "0"], "argument --limit: '0' is not a whole number above 0"),
        (["run", "--set", "alpha"], "argument --set: 'alpha' is not KEY=VALUE"),
        (["run", "--refine", "sharp"], "argument --refine: invalid choice: 'sharp'"),
        (["remask", "--run", "r"], "the following arguments are required: --out"),
        (["mask", "--tags", "t", "--tag-threshold", "0.3"], "--tag-threshold: the tags come from --tags, so a rule"),
        (["mask", "--tags", "t", "--no-at-least-one"], "--no-at-least-one: the tags come from --tags, so a rule"),
        (["segment", "--refine", "pamr"], "argument --refine: invalid choice: 'pamr'"),
        (["run", "photos"], "photos: no option stands before it"),
        (["run", "--confidence", "95"], "argument --confidence: '95' is not a number between 0 and 1"),
    ],
)
def test_mistakes_are_one_line_with_the_remedy(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        execute(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_lists_that_the_table_repeats_are_those_of_the_modules():
    """The table imports nothing heavy, so it repeats what some modules know."""
    from typing import get_args, get_type_hints

    from tagclip import config
    from tagclip.demo.sprites import HELD_OUT_STYLE, STYLES
    from tagclip.vocabulary import Vocabulary
    from wsss.cli import demo, evaluate, export_model, segment
    from wsss.cli.completers import CLASS_LISTS
    from wsss.config import MaskConfig
    from wsss.dense.comparison import VOCABULARIES
    from wsss.dense.dense_config import DenseConfig
    from wsss.evaluation.scorer import MaskEvaluationConfig
    from wsss.export import FORMATS, export_options
    from wsss.segmentation.onnx_export import ExportConfig
    from wsss.segmentation.predictor import InferenceConfig
    from wsss.segmentation.train_settings import LAUNCHERS

    assert tuple(FORMATS) == options.EXPORT_FORMATS
    assert options.PHOTO_MODES == export_options.PHOTO_MODES
    assert options.INSTANCE_MODES == export_options.INSTANCE_MODES
    assert options.IGNORED_MODES == export_options.IGNORED_MODES
    assert options.PRESETS == config.PRESETS
    assert set(CLASS_LISTS) == set(Vocabulary.built_in())
    assert ", ".join(CLASS_LISTS) in OPTIONS["classes"].help
    assert set(options.TAG_RULES) == set(get_args(get_type_hints(config.TagRuleConfig)["rule"]))
    assert set(options.SCORERS) == set(get_args(get_type_hints(config.TagCLIPConfig)["scorer"]))
    assert set(options.REFINERS) == set(get_args(get_type_hints(MaskConfig)["refiner"]))
    assert options.RESTRICTIONS == VOCABULARIES
    assert set(options.MODES) == set(get_args(get_type_hints(InferenceConfig)["mode"]))
    assert set(get_args(get_type_hints(DenseConfig)["mode"])) < set(options.MODES)
    assert options.LAUNCHERS == LAUNCHERS
    assert set(options.STYLES) == set(STYLES)
    assert demo.HELD_OUT_STYLE == HELD_OUT_STYLE
    assert InferenceConfig().crop == segment.CROP
    assert MaskEvaluationConfig().boundary_width == evaluate.BOUNDARY_WIDTH
    assert (ExportConfig().opset, ExportConfig().tolerance) == (export_model.OPSET, export_model.TOLERANCE)
    assert (ExportConfig().width, ExportConfig().height) == export_model.SIZE


def test_scripts_are_their_subcommands():
    """Each of tools/*.py hands its arguments to the subcommand that its docstring names; all subcommands have one."""
    found = {}
    for path in TOOLS.glob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 12
        words = " ".join(re.findall(r'"([^"]+)"', re.search(r"main\(\[(.*), \*sys\.argv\[1:\]\]\)", text)[1]))
        assert f"The same as `tagclip {words}`" in text
        found[words] = path.name
    shown = {parser.prog.removeprefix("tagclip ") for parser in LEAVES}
    families = {"evaluate", "reproduce"}
    assert set(found) <= shown | families
    experiments = {f"reproduce {name}" for name in EXPERIMENTS}
    assert shown - set(found) == {"evaluate tags", "evaluate masks", "configs", "completion", *experiments}


@pytest.mark.parametrize("name", ["review", "calibrate", "export", "merge", "train-tagger"])
def test_a_run_needs_no_option_in_front_where_it_is_what_a_command_is_about(name):
    parse = build_parser().parse_args
    expected = parse([name, "--run", "runs/mine", "--quiet"])
    assert parse([name, "runs/mine", "--quiet"]) == expected
    assert expected.run == Path("runs/mine")
    with pytest.raises(SystemExit):
        parse([name, "runs/mine", "--run", "runs/other"])
