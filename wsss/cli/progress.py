"""Progress of long work: a bar with rate and time left on a terminal, a line now and then in a log file."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from wsss.cli.console import terminal

SECONDS_BETWEEN_LINES = 30.0


class Bar(Protocol):
    """What the work sees of its progress bar."""

    done: int

    def update(self, count: int = 1) -> None:
        """Counts finished items."""

    def note(self, text: str) -> None:
        """Shows a text behind the bar."""


@contextlib.contextmanager
def progress_bar(
    total: int, description: str, *, done: int = 0, unit: str = "images", quiet: bool = False
) -> Iterator[Bar]:
    """A bar on stderr while the context lasts.

    Args:
        total: number of items.
        description: what is done to them.
        done: items that were there before; rates leave them out.
        unit: what an item is called.
        quiet: show nothing.
    """
    if quiet:
        yield _Silent(done)
    elif sys.stderr.isatty():
        with _drawn(total, description, done, unit) as bar:
            yield bar
    else:
        yield _Lines(total, description, done, unit)


def counted(bar: Bar) -> Callable[[int], None]:
    """A callback that takes the number of finished items, where `Bar.update` takes how many more there are."""
    return lambda done: bar.update(done - bar.done)


def watched(items: Iterable[Any], bar: Bar) -> Iterator[Any]:
    """The items, each counted when the next one is asked for."""
    for item in items:
        yield item
        bar.update()


class _Silent:
    def __init__(self, done: int):
        self.done = done

    def update(self, count: int = 1) -> None:
        self.done += count

    def note(self, text: str) -> None:
        pass


class _Lines(_Silent):
    """For log files: a line every half minute, and nothing for work that is shorter."""

    def __init__(self, total: int, description: str, done: int, unit: str, clock: Callable[[], float] = time.monotonic):
        super().__init__(done)
        self.total, self.description, self.unit, self.clock = total, description, unit, clock
        self.before, self.text = done, ""
        self.start = self.told = clock()

    def update(self, count: int = 1) -> None:
        super().update(count)
        now = self.clock()
        if now - self.told < SECONDS_BETWEEN_LINES:
            return
        from wsss.pipeline.summary import duration

        self.told = now
        rate = (self.done - self.before) / (now - self.start)
        left = f", {duration((self.total - self.done) / rate)} left" if rate else ""
        note = f"; {self.text}" if self.text else ""
        print(f"{self.description}: {self.done} of {self.total} {self.unit}, {rate:.2f}/s{left}{note}",
              file=sys.stderr, flush=True)  # fmt: skip

    def note(self, text: str) -> None:
        self.text = text


@contextlib.contextmanager
def _drawn(total: int, description: str, done: int, unit: str) -> Iterator[Bar]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn("[dim]{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=terminal(), transient=True) as progress:
        yield _Drawn(progress, progress.add_task(description, total=total, completed=done, rate="", note=""), done)


class _Drawn(_Silent):
    """A bar of rich."""

    def __init__(self, progress: Any, task: Any, done: int):
        super().__init__(done)
        self.progress, self.task = progress, task

    def update(self, count: int = 1) -> None:
        super().update(count)
        speed = self.progress.tasks[self.progress.task_ids.index(self.task)].speed
        self.progress.update(self.task, advance=count, rate=f"{speed:.2f}/s" if speed else "")

    def note(self, text: str) -> None:
        self.progress.update(self.task, note=text)
