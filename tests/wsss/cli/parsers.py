"""The parsers of all subcommands."""

import argparse


def leaves(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Parsers without subcommands of their own."""
    families = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not families:
        return [parser]
    return [leaf for family in families for child in family.choices.values() for leaf in leaves(child)]
