"""A run that lives in an object store: it grows in a folder of this machine, and each finished part is uploaded.

Locks, journals and renames need a file system; a store has none. What the store holds is a run folder at any time: with
what is uploaded, another machine resumes the run, and when it is complete it holds every file of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tagclip.errors import RunError, TagclipError, UsageError
from tagclip.folders import user_cache
from tagclip.image_ids import member_problem
from tagclip.stored_files import file_system, joined_url, store_errors
from tagclip.text_files import parse_json
from wsss.files.atomic import atomic_file, disk_errors
from wsss.files.locks import folder_lock
from wsss.files.provenance import write_record
from wsss.files.result_shards import SHARDS, SUFFIXES
from wsss.files.run_files import ASIDE, read_manifest
from wsss.files.unpacked import UNPACKED

RECORD = ".uploaded.json"  # what the store has: size and time of each file here when it was uploaded
MANIFEST = "manifest.json"
PARTIAL = ".partial"
FETCHED = ".fetched"  # folder for temporary files
NEVER = (RECORD, f"{FETCHED}/", f"{UNPACKED}/", *(f"{kind}/" for kind in SUFFIXES))  # of this machine alone


class RunMirror:
    """The folder of this machine and the address of one run.

    Args:
        url: of the run in the store.
        folder: in which it grows; None: one of the user's cache, named after the address.

    Raises:
        UsageError: an address of another kind. RequirementError: the store's package is missing.
    """

    def __init__(self, url: str, folder: Path | None = None):
        self.url = url.rstrip("/")
        self.folder = folder or default_folder(self.url)
        self._system, self._path = file_system(self.url)

    def fetch(self) -> None:
        """Brings what the store has and this folder has not: another machine may have done a part, or all of it.

        Shards are fetched of a complete run only: nothing reads them before.

        Raises:
            UsageError: the store holds something else there. RunError: it cannot be read, a full disk.
        """
        there = self._listing()
        if there and MANIFEST not in there:
            raise UsageError(
                f"--out {self.url}: holds {len(there)} objects (first {next(iter(there))!r}), but no manifest.json of "
                "a run; choose another address"
            )
        if not there:
            return
        ours = read_manifest(self.folder)
        with folder_lock(self.folder / FETCHED, f"--out {self.url}"):
            scratch = self.folder / FETCHED
            theirs = parse_json(self._read(MANIFEST))
            is_complete = isinstance(theirs, dict) and theirs.get("state") == "complete"
            is_behind = ours is None or self._known().get(MANIFEST) == self._stamp(MANIFEST)
            if is_complete and is_behind and ours != theirs:  # another machine has gone on
                self._clear()
                wanted = set(there)
            else:
                wanted = {name for name in there if not name.endswith(".tar") and self._is_news(name, there)}
            for name in sorted(wanted, key=_rank):
                with atomic_file(self.folder / name, scratch, durable=True) as file:
                    file.write(self._read(name))
            self._note({name: self._stamp(name) for name in wanted})

    def _is_news(self, name: str, there: Collection[str]) -> bool:
        """Whether a file of the store tells of work that this folder does not know: of a part, all of it or nothing."""
        if not name.startswith(f"{PARTIAL}/"):
            return not (self.folder / name).exists()
        done = (PurePosixPath(name).parent / "done").as_posix()
        return done in there and not (self.folder / done).exists()

    def push(self) -> None:
        """Uploads what is new or has changed since the last time, and removes what is gone from the parts and shards.

        Raises:
            RunError: the store does not take it; the same command uploads it once more.
        """
        known, done = self._known(), {}
        here = sorted(self._files(), key=_rank)
        try:
            for name in here:
                try:
                    stamp = self._stamp(name)
                except FileNotFoundError:  # a worker of the run has just finished with it
                    continue
                if known.get(name) == stamp:
                    continue
                with store_errors(joined_url(self.url, name), RunError):
                    self._system.put_file(str(self.folder / name), f"{self._path}/{name}")
                done[name] = stamp
        finally:
            self._note(done)
        manifest = read_manifest(self.folder)
        if manifest is not None and manifest.get("state") == "complete":
            gone = [
                name for name in self._listing()
                if name not in here and name.startswith((f"{PARTIAL}/", f"{SHARDS}/", f"{ASIDE}/"))
                and _index_of(name) not in here  # an archive that another machine has uploaded
            ]  # fmt: skip
            with store_errors(self.url, RunError):
                for name in gone:
                    self._system.rm_file(f"{self._path}/{name}")

    @contextlib.contextmanager
    def messages(self) -> Iterator[None]:
        """Errors inside name the address where they would name the folder."""
        try:
            yield
        except TagclipError as error:
            text = str(error)
            raise type(error)(text.replace(f"--out {self.folder}", f"--out {self.url}")) from None

    def _listing(self) -> dict[str, Any]:
        self._system.invalidate_cache()
        with store_errors(f"--out {self.url}"):
            try:
                found = self._system.find(self._path, detail=True)
            except FileNotFoundError:
                return {}
        names = {name.removeprefix(self._path).lstrip("/"): info for name, info in found.items()}
        for name in names:
            if problem := member_problem(name):
                raise UsageError(f"--out {self.url}: holds {name!r}, which is no path ({problem})")
        return names

    def _read(self, name: str) -> bytes:
        with store_errors(joined_url(self.url, name), RunError):
            return self._system.cat_file(f"{self._path}/{name}")

    def _files(self) -> Iterator[str]:
        for folder, _, names in os.walk(self.folder):
            for one in names:
                name = Path(folder, one).relative_to(self.folder).as_posix()
                if name.startswith(NEVER) or one in ("lock", ".lock"):
                    continue
                in_part = name.startswith(f"{PARTIAL}/")
                if not in_part or ("done" in names and "/parts/" in name):  # of parts, those that are done
                    yield name

    def _stamp(self, name: str) -> list[int]:
        status = (self.folder / name).stat()
        return [status.st_size, status.st_mtime_ns]

    def _known(self) -> dict[str, Any]:
        try:
            found = parse_json((self.folder / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # everything is uploaded once more
            return {}
        return found if isinstance(found, dict) else {}

    def _note(self, stamps: dict[str, list[int]]) -> None:
        write_record(self.folder / RECORD, {**self._known(), **stamps})

    def _clear(self) -> None:
        """Removes the records of an unfinished run that another machine has finished."""
        with disk_errors(self.folder):
            shutil.rmtree(self.folder / PARTIAL, ignore_errors=True)
            shutil.rmtree(self.folder / SHARDS, ignore_errors=True)


def _rank(name: str) -> tuple[int, str]:
    """Order of uploads: results, then records, then what says that they are done."""
    is_done = name.endswith("/done") or name == MANIFEST
    return (2 if is_done else 1 if name.startswith(f"{PARTIAL}/") or "index-" in name else 0), name


def _index_of(name: str) -> str | None:
    """The index of an archive of results; None of any other file."""
    is_archive = name.startswith(f"{SHARDS}/") and name.endswith(".tar")
    return f"{SHARDS}/index-{name.removesuffix('.tar').rpartition('-')[2]}.jsonl" if is_archive else None


def default_folder(url: str) -> Path:
    """Where a run of an address grows: in the user's cache."""
    name = PurePosixPath(url).name or "run"
    return user_cache("staging") / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"
