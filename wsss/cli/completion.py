"""`tagclip completion`: what a shell needs to complete our commands."""

from __future__ import annotations

import argparse
from typing import Any

from wsss.cli.parser import add_command

SHELLS = ("bash", "zsh", "fish")


def register(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "completion", run=completion,
        help="Print the lines that make a shell complete subcommands, options, configs and class lists.",
        text="bash and zsh: put the example into ~/.bashrc or ~/.zshrc.\nfish: tagclip completion fish | source",
        example='completion bash    # eval "$(tagclip completion bash)"',
    )  # fmt: skip
    parser.add_argument("shell", choices=SHELLS, help="Name your shell")


def completion(args: argparse.Namespace) -> int:
    """Prints the shell's code."""
    import argcomplete

    print(argcomplete.shellcode(["tagclip"], shell=args.shell))
    return 0
