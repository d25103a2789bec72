"""Every command of README and docs: the command line accepts it, and its files, options and links exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, REASONS, ROOT, all_commands, tagclip_words
from tests.wsss.cli.parsers import leaves
from wsss.cli.main import build_parser
from wsss.configs import find_config

COMMANDS = all_commands()
OURS = [command for command in COMMANDS if tagclip_words(command.words) is not None]
OTHERS = [command for command in COMMANDS if tagclip_words(command.words) is None]
# Commands of the system and of tools; the files of ours that they name must exist.
SYSTEM = {"bash", ".", "pip", "pytest", "printf", "cp", "git", "apt-get", "torchrun", "python", "sbatch"}
FOREIGN = {
    "--no-deps", "--no-build-isolation", "--nproc-per-node", "--target", "--kills", "--work", "--scenes", "--sides",
    "--help", "--version", "--logdir", "--minutes", "--voc", "--head",
}  # fmt: skip


def test_pages_have_commands():
    assert len(OURS) > 40
    assert {command.needs for command in COMMANDS} - {""} <= REASONS


@pytest.mark.parametrize("command", OURS, ids=str)
def test_the_command_line_accepts(command):
    args = build_parser().parse_args(tagclip_words(command.words))
    assert callable(args.handler)
    for name in (getattr(args, "config", None), getattr(args, "train", None)):
        if isinstance(name, str):
            assert find_config(name).is_file()


@pytest.mark.parametrize("command", OTHERS, ids=str)
def test_files_of_other_commands_exist(command):
    words = command.words
    assert words[0] in SYSTEM, f"unknown program {words[0]}; name it in SYSTEM if it is right"
    for word in words:
        if re.fullmatch(r"(tools|tests|docs|configs)/[\w./-]+", word):
            assert (ROOT / word).exists(), word
    if words[:2] == ("python", "-m"):
        assert (ROOT / (words[2].replace(".", "/") + ".py")).is_file()


OLD_SPELLINGS = {"interface.md"}  # pages that set old options beside new ones


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in OLD_SPELLINGS], ids=lambda page: page.name)
def test_options_in_the_text_exist(page):
    known = {flag for parser in leaves(build_parser()) for flag in parser._option_string_actions} | FOREIGN
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for code in re.findall(r"`([^`\n]+)`", text):
        assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", code)) <= known, code


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, place = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if place:
            assert place in anchors(file), target


def anchors(page: Path) -> set[str]:
    """Places of a page that links can name, as GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
