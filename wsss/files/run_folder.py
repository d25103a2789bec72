"""A run folder: what belongs to it, when it may be continued, and files that are either whole or absent."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from filelock import BaseFileLock

from tagclip.errors import UsageError
from tagclip.text_files import json_text
from wsss.files.atomic import atomic_file, disk_errors, is_whole
from wsss.files.journal import Journal
from wsss.files.locks import take_lock
from wsss.files.provenance import config_text, installed_versions, refuse_other
from wsss.files.run_files import FORMAT, read_manifest
from wsss.files.run_reader import RunReader

PARTIAL = ".partial"  # journals and temporary files of an unfinished run; gone when it is complete
OWN_FILES = ("manifest.json", "config.py", "tags.jsonl", "tags.txt", "failures.jsonl", "log.txt", "times.json")
OWN_FOLDERS = ("cams", "masks", PARTIAL)
SUFFIXES = {"cams": ".npz", "masks": ".png"}
logger = logging.getLogger(__name__)


class RunFolder(RunReader):
    """A run folder that is being written; closed, it can still be read (see `RunReader`). Use `RunFolder.open`.

    Attributes:
        root: the folder.
        scratch: folder for temporary files inside it.
        tags: journal of tags.jsonl.
        failures: journal of failures.jsonl.
        coverage: journal of the pixels by label of each mask, for the summary of a run that was cut.
        is_complete: everything is written; what only an unfinished run needs goes when the folder is closed.
        manifest: what the folder held when it was opened, None if it is new.
        counts: what the run holds, filled when it is complete; times: what it took, None if nothing was left to do.
    """

    def __init__(
        self,
        root: Path,
        identity: Mapping[str, Any],
        notes: Mapping[str, Any],
        manifest: Mapping[str, Any] | None,
        lock: BaseFileLock,
    ):
        super().__init__(root)
        self.identity, self.notes, self.manifest, self._lock = identity, dict(notes), manifest, lock
        self.scratch = root / PARTIAL / "files"
        with disk_errors(root):
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.scratch.mkdir(parents=True, exist_ok=True)
        self.tags = Journal(root / "tags.jsonl", root / PARTIAL / "tags.jsonl", self.scratch)
        self.failures = Journal(root / "failures.jsonl", root / PARTIAL / "failures.jsonl", self.scratch)
        self.coverage = Journal(None, root / PARTIAL / "coverage.jsonl", self.scratch)
        self.is_complete = False
        self.counts: dict[str, Any] = {}
        self.times: dict[str, Any] | None = None

    @classmethod
    def open(
        cls,
        root: Path,
        identity: Mapping[str, Any],
        config: Mapping[str, Any],
        *,
        notes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> RunFolder:
        """Starts or resumes a run.

        Args:
            identity: JSON-ready nested dict of everything that the results depend on (settings, weights, vocabulary,
                image list). A folder whose identity differs is refused.
            config: the full resolved configuration, written to config.py.
            notes: what else the manifest shall say; a difference in it is no obstacle.
            overwrite: empty the folder of a run's files first (exports, reports and trained models stay).

        Raises:
            UsageError: `root` is a file, or holds files of ours without a manifest.
            RunError: the folder belongs to a run that differs, or another process works in it.
        """
        if root.exists() and not root.is_dir():
            raise UsageError(f"--out {root}: is a file, not a folder")
        identity = json.loads(json.dumps(identity))
        with disk_errors(root):
            (root / PARTIAL).mkdir(parents=True, exist_ok=True)
        lock = take_lock(root / PARTIAL / "lock", f"--out {root}")
        try:
            if overwrite:
                _empty(root)
            manifest = read_manifest(root)
            if manifest is not None:
                there = {key: value for key, value in manifest.items() if key in identity}
                refuse_other(f"--out {root}", "belongs to a run", there, identity)
                _tell_versions(root, manifest.get("versions"))
            elif strangers := [name for name in (*OWN_FILES, "cams", "masks") if (root / name).exists()]:
                raise UsageError(
                    f"--out {root}: holds {strangers[0]}, but no manifest.json of a run; choose another folder, or "
                    "--overwrite"
                )
            run = cls(root, identity, dict(notes or {}), manifest, lock)
            # The manifest first: a kill between the two must not leave a folder that belongs to nobody.
            if manifest is None:
                run.write_manifest("running")
            if not (root / "config.py").is_file():
                run.write_text("config.py", config_text(config))
            return run
        except BaseException:
            _leave(root)
            lock.release()
            raise

    def close(self) -> None:
        """Releases the folder for other processes."""
        shutil.rmtree(self.root / PARTIAL if self.is_complete else self.scratch, ignore_errors=True)
        self._lock.release()
        if self.is_complete:  # where a held lock file cannot be removed
            shutil.rmtree(self.root / PARTIAL, ignore_errors=True)

    @property
    def was_complete(self) -> bool:
        """Whether the folder held a finished run when it was opened."""
        return self.manifest is not None and self.manifest.get("state") == "complete"

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def existing(self, kind: str) -> set[str]:
        """Ids whose file of a kind ("cams" or "masks") is there; masks that a power cut has damaged are not.

        Class maps are only looked at when a mask is made from them.
        """
        top = self.root / kind
        return {
            path.relative_to(top).as_posix()[:-4]  # both suffixes have four characters
            for folder, _, names in os.walk(top)
            for path in (Path(folder) / name for name in names)
            if path.suffix == SUFFIXES[kind] and (path.stat().st_size if kind == "cams" else is_whole(path))
        }

    def file(self, path: Path, *, durable: bool = False) -> contextlib.AbstractContextManager[BinaryIO]:
        """`atomic_file` with this run's scratch folder."""
        return atomic_file(path, self.scratch, durable=durable)

    def write_text(self, name: str, text: str) -> None:
        """Writes a small file of the folder."""
        with self.file(self.root / name, durable=True) as file:
            file.write(text.encode())

    def write_json(self, name: str, value: Any) -> None:
        """Writes a small file of the folder as JSON."""
        self.write_text(name, json_text(value, indent=1) + "\n")

    def write_manifest(self, state: str, counts: Mapping[str, Any] | None = None) -> None:
        """Writes manifest.json. No times in it: two runs that did the same have the same bytes."""
        manifest = {
            "format": FORMAT,
            "state": state,
            **self.identity,
            **self.notes,
            "versions": installed_versions(),
            "counts": dict(counts or {}),
        }
        self.write_json("manifest.json", manifest)

    def note(self, notes: Mapping[str, Any]) -> None:
        """Writes more notes into manifest.json, or other ones; all else in it stays."""
        self.notes.update(notes)
        there = read_manifest(self.root) or {}
        if any(there.get(key) != value for key, value in notes.items()):
            self.write_json("manifest.json", {**there, **notes})

    def log(self, message: str) -> None:
        """Appends a line with the time to log.txt. A log that cannot be written is no reason to stop."""
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n".encode(errors="surrogateescape")
        with contextlib.suppress(OSError), (self.root / "log.txt").open("ab") as file:
            file.write(line)

    def fail(self, image_id: str, path: str, stage: str, error: BaseException | str, kind: str = "ImageError") -> None:
        """Records that an image could not be done.

        Args:
            stage: "decode", "tags", "cams" or "masks".
        """
        kind = type(error).__name__ if isinstance(error, BaseException) else kind
        message = " ".join(str(error).split())
        self.failures.append([{"id": image_id, "path": path, "stage": stage, "error": kind, "message": message}])
        self.log(f"failed {image_id} ({stage}): {message}")

    def complete(self, order: Iterable[str], counts: Mapping[str, Any]) -> None:
        """Puts the journals into order and writes the final manifest."""
        ids = list(order)
        self.tags.finish(ids)
        self.failures.finish(ids)
        self.write_manifest("complete", counts)
        self.is_complete = True


def _tell_versions(root: Path, there: Any) -> None:
    """Says which packages are others than when a run began: last digits may then differ within one run."""
    if not isinstance(there, Mapping):
        return
    changed = [f"{name} {there.get(name)} then, {version} now" for name, version in installed_versions().items()
               if there.get(name) != version]  # fmt: skip
    if changed:
        logger.warning("%s: began with other versions (%s); results may differ in the last digits", root,
                       "; ".join(changed))  # fmt: skip


def _leave(root: Path) -> None:
    """Takes back what opening added to a folder that was then refused."""
    with contextlib.suppress(OSError):
        if [path.name for path in (root / PARTIAL).iterdir()] == ["lock"]:
            shutil.rmtree(root / PARTIAL)


def _empty(root: Path) -> None:
    with disk_errors(root):
        for name in OWN_FILES:
            (root / name).unlink(missing_ok=True)
        for name in ("cams", "masks"):
            shutil.rmtree(root / name, ignore_errors=True)
        for path in (root / PARTIAL).iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
