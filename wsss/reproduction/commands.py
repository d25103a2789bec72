"""The commands of a part with their placeholders filled in, and which of them an earlier call has done."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tagclip.image_ids import id_text
from tagclip.text_files import parse_json
from wsss.files.atomic import atomic_file, disk_errors
from wsss.files.provenance import write_record
from wsss.reproduction.experiments import Part

DONE = "steps.json"
RESUMES = {"tag", "run", "mask", "remask", "train", "segment"}  # these know by themselves what is done


def write_list(ids: Sequence[str], path: Path) -> Path:
    """Writes a list of ids, one per line."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, path.parent) as file:
            file.write("".join(f"{id_text(name)}\n" for name in ids).encode())
    return path


def choose_subset(ids: Sequence[str], count: int | None, seed: int = 0) -> list[str]:
    """`count` ids drawn without repeats, in the list's order; all of them if there are no more."""
    if count is None or count >= len(ids):
        return list(ids)
    import numpy as np

    chosen = np.random.default_rng(seed).choice(len(ids), count, replace=False)
    return [ids[index] for index in sorted(chosen.tolist())]


def fill(part: Part, values: Mapping[str, str | Sequence[str]]) -> list[list[str]]:
    """The part's commands as lists of words; a placeholder that stands alone may become several words."""
    commands = []
    for step in part.steps:
        words: list[str] = []
        for word in shlex.split(step):
            whole = values.get(word[1:-1]) if word.startswith("{") and word.endswith("}") else None
            if whole is not None and not isinstance(whole, str):
                words += whole
            else:
                words.append(word.format_map(values))
        commands.append(words)
    return commands


def as_typed(words: Sequence[str]) -> str:
    """A command as one types it."""
    return shlex.join(["tagclip", *words])


@dataclass
class StepLog:
    """Evaluations that are done, so that a second call does not repeat them; kept in the output folder."""

    folder: Path

    def is_done(self, words: Sequence[str]) -> bool:
        """Whether this very command has been done and its figures are there."""
        target = _figures(words)
        return words[0] not in RESUMES and target is not None and target.is_file() and as_typed(words) in self._read()

    def note(self, words: Sequence[str]) -> None:
        """Notes that a command is done."""
        if words[0] not in RESUMES:
            write_record(self.folder / DONE, {"done": [*dict.fromkeys([*self._read(), as_typed(words)])]})

    def _read(self) -> list[str]:
        try:
            done = parse_json((self.folder / DONE).read_text(encoding="utf-8"))["done"]
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return [line for line in done if isinstance(line, str)] if isinstance(done, list) else []


def _figures(words: Sequence[str]) -> Path | None:
    """The file that a command writes its figures to."""
    return Path(words[words.index("--json") + 1]) if "--json" in words else None
