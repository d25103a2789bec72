"""What commands show on the screen: tables and text in colour on a terminal, plain in a file or a pipe; JSON."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCREEN = "-"


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column stands left, the others right unless `left`."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: bool = False

    def plain(self) -> str:
        """Aligned with blanks."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.columns))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if self.left or not place else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


class Output:
    """Where a command's results go.

    Args:
        json_target: file for the figures, "-" for the screen, None for nowhere. With "-", nothing else is shown on
            stdout, so that another program can read it.
    """

    def __init__(self, json_target: str | None = None):
        self.json_target = json_target

    @classmethod
    def of(cls, args: argparse.Namespace) -> Output:
        """As the command line asks for."""
        return cls(args.json)

    def show(self, item: str | Table) -> None:
        """A text or a table on stdout."""
        if self.json_target == SCREEN:
            return
        if not sys.stdout.isatty():
            print(item.plain() if isinstance(item, Table) else item)
            return
        from rich.console import Console

        if isinstance(item, Table):
            Console().print(_rich_table(item))
        else:
            Console().print(item, markup=False, soft_wrap=True)

    def markdown(self, text: str) -> None:
        """Markdown, drawn on a terminal and as it is elsewhere."""
        if self.json_target != SCREEN and sys.stdout.isatty():
            from rich.console import Console
            from rich.markdown import Markdown

            Console().print(Markdown(text))
        else:
            self.show(text)

    def figures(self, values: Any) -> None:
        """Writes the figures where `--json` says.

        Raises:
            RunError: the file cannot be written.
        """
        if self.json_target is None:
            return
        text = json.dumps(_finite(values), indent=1, ensure_ascii=False, allow_nan=False)
        if self.json_target == SCREEN:
            print(text)
            return
        from wsss.files.atomic import disk_errors

        path = Path(self.json_target)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n", encoding="utf-8")


def _finite(values: Any) -> Any:
    """JSON knows neither NaN nor infinity: they become null."""
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    return [_finite(value) for value in values] if isinstance(values, list | tuple) else values


def _rich_table(table: Table) -> Any:
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(header_style="bold")
    for place, column in enumerate(table.columns):
        drawn.add_column(column, justify="left" if table.left or not place else "right")
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))  # a class name may look like rich's markup
    return drawn
