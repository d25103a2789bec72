"""A run folder: what belongs to it, when it may be continued, and files that are either whole or absent."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from filelock import BaseFileLock

from tagclip.errors import RunError, UsageError
from tagclip.text_files import json_text
from wsss.files.atomic import atomic_file, disk_errors, is_whole
from wsss.files.corrections import CORRECTIONS_FILE
from wsss.files.digests import file_digest
from wsss.files.journal import Journal
from wsss.files.kept_plan import PLAN_FILE
from wsss.files.locks import take_lock
from wsss.files.provenance import config_text, differences, installed_versions, part_of, refuse_other
from wsss.files.result_shards import IMAGES_PER_SHARD, SHARDS, SUFFIXES, TAR, ResultShards
from wsss.files.run_files import ASIDE, FORMAT, LEFT_FILE, REJECTED_FILE, read_manifest, run_id
from wsss.files.run_reader import RunReader
from wsss.files.tag_tables import TAG_TABLE, write_tag_table

PARTS, DONE = "parts", "done"  # below PARTIAL: a folder per part, and the file that says that it is done
MANY = 10_000  # images of a run whose masks are not read again to see that they are whole, see `RunFolder.has_all`
TRIES = 20  # tenths of a second that a part waits for others to look, too
PARTIAL = ".partial"  # journals and temporary files of an unfinished run; gone when it is complete
OWN_FILES = (
    "manifest.json", "config.py", "tags.jsonl", "tags.txt", REJECTED_FILE, LEFT_FILE, CORRECTIONS_FILE,
    "failures.jsonl", "log.txt", "times.json", TAG_TABLE, PLAN_FILE,
)  # fmt: skip
LASTING = ("id", "photos", "corrections", "earlier_versions")  # notes that a run keeps
NEEDS_MODEL = (
    "scores or maps depend on that, so that every image needs the model again: choose another folder, or --overwrite"
)
NEEDS_MASKS = (
    "every mask depends on that: `tagclip remask` makes others from these maps; or choose another folder, or "
    "--overwrite"
)
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
        changed: what is wanted otherwise than the folder has it, one phrase each.
        is_adopted: `adopt` has made it the folder's own.
        counts: what the run holds, filled when it is complete; times: what it took, None if nothing was left to do.
    """

    def __init__(
        self,
        root: Path,
        identity: Mapping[str, Any],
        notes: Mapping[str, Any],
        manifest: Mapping[str, Any] | None,
        lock: BaseFileLock,
        part: int | None = None,
    ):
        super().__init__(root)
        self.part, self.only = part, None if part is None else frozenset[str]()
        self.shards = ResultShards(root, part)
        home = _home(root, part)
        self.identity, self.notes, self.manifest, self._lock = identity, dict(notes), manifest, lock
        self.changed: list[str] = []
        self.is_adopted = False
        self._config: Mapping[str, Any] = {}
        for key in LASTING:
            if manifest is not None and key in manifest:
                self.notes.setdefault(key, manifest[key])
        self.scratch = home / "files"
        with disk_errors(root):
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.scratch.mkdir(parents=True, exist_ok=True)
        self.was_finished = (root / "tags.jsonl").is_file() and not is_cut(root / "tags.jsonl")
        # What parts have recorded is the run's, and what the run has recorded by itself need not be done in a part.
        homes = [root / PARTIAL] if part is not None else sorted((root / PARTIAL / PARTS).glob("*/"))
        elsewhere = {name: [one / name for one in homes] for name in ("tags.jsonl", "failures.jsonl", "coverage.jsonl")}
        others = (root / REJECTED_FILE, root / LEFT_FILE, *elsewhere["tags.jsonl"])
        self.tags = Journal(root / "tags.jsonl", home / "tags.jsonl", self.scratch, others)
        self.failures = Journal(
            root / "failures.jsonl", home / "failures.jsonl", self.scratch, elsewhere["failures.jsonl"]
        )
        self.coverage = Journal(None, home / "coverage.jsonl", self.scratch, elsewhere["coverage.jsonl"])
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
        changeable: Sequence[str] = (),
        after_maps: Sequence[str] = (),
        part: int | None = None,
    ) -> RunFolder:
        """Starts or resumes a run.

        Args:
            identity: JSON-ready nested dict of everything that the results depend on (settings, weights, vocabulary,
                image list). A folder whose identity differs is refused.
            config: the full resolved configuration, written to config.py.
            notes: what else the manifest shall say; a difference in it is no obstacle.
            overwrite: empty the folder of a run's files first (exports, reports and trained models stay, and what a
                person has corrected, as corrections-<id of the run>.json).
            changeable: parts of the identity ("tagging.rule") that may differ: see `changed`.
            after_maps: parts of it that masks depend on and class maps do not, for the message of a refusal.
            part: number of the part that is worked on, beside other processes with other parts; None: all of the run.

        Raises:
            UsageError: `root` is a file, or holds files of ours without a manifest.
            RunError: the folder belongs to a run that differs, its tags.jsonl was edited, or another process works in
                it.
        """
        if root.exists() and not root.is_dir():
            raise UsageError(f"--out {root}: is a file, not a folder")
        identity = json.loads(json.dumps(identity))
        with disk_errors(root):
            _home(root, part).mkdir(parents=True, exist_ok=True)
        lock = take_lock(_home(root, part) / "lock", f"--out {root}")
        try:
            _refuse_company(root, part)
            if overwrite:
                _empty(root)
            manifest = read_manifest(root)
            changed: list[str] = []
            if manifest is not None:
                changed = check_identity(root, manifest, identity, changeable, after_maps)
                _tell_versions(root, manifest.get("versions"))
            elif strangers := [name for name in (*OWN_FILES, *SUFFIXES, SHARDS) if (root / name).exists()]:
                raise UsageError(
                    f"--out {root}: holds {strangers[0]}, but no manifest.json of a run; choose another folder, or "
                    "--overwrite"
                )
            if changed and part is not None:
                raise RunError(
                    f"--out {root}: {'; '.join(changed)}; the same command without --shard and --engine brings the run "
                    "up to date"
                )
            run = cls(root, identity, dict(notes or {}), manifest, lock, part)
            run._config = config
            run.changed = changed
            # The manifest first: a kill between the two must not leave a folder that belongs to nobody.
            if manifest is None:
                run.write_manifest("running")
            if not (root / "config.py").is_file():
                run.write_text("config.py", config_text(config))
            return run
        except BaseException:
            _leave(root, part)
            lock.release()
            raise

    def finish_part(self) -> None:
        """Packs what the part has made, where the run's layout is "tar", and notes that the part is done."""
        if self.layout == TAR:
            self.shards.pack(sorted(self.only or ()), self.scratch, self.part)
        with disk_errors(self.root), atomic_file(_home(self.root, self.part) / DONE, self.scratch, durable=True):
            pass

    def adopt(self) -> None:
        """Makes what is wanted otherwise the folder's own, before anything in it changes: a kill leaves no mixture."""
        now, then = installed_versions(), (self.manifest or {}).get("versions")
        if then is not None and then != now:
            earlier = self.notes.get("earlier_versions", [])
            self.notes["earlier_versions"] = [*earlier, *([then] if then not in earlier else [])]
        self.write_text("config.py", config_text(self._config))
        self.write_manifest("running")
        self.is_adopted = True

    def close(self) -> None:
        """Releases the folder for other processes."""
        untouched = self.was_complete and not self.is_adopted  # as it was, if it was refused after all
        shutil.rmtree(self.root / PARTIAL if self.is_complete or untouched else self.scratch, ignore_errors=True)
        self._lock.release()
        if self.is_complete or untouched:  # where a held lock file cannot be removed
            shutil.rmtree(self.root / PARTIAL, ignore_errors=True)

    @property
    def layout(self) -> str:
        """How masks and maps are kept: "files", or "tar" for shards, see `wsss.files.result_shards`."""
        return str(self._config.get("layout", "files"))

    @property
    def is_packed(self) -> bool:
        """Whether the folder is kept as its layout says."""
        return self.layout != TAR or (self.root / TAG_TABLE).is_file()

    @property
    def was_complete(self) -> bool:
        """Whether the folder held a finished run when it was opened."""
        return self.manifest is not None and self.manifest.get("state") == "complete"

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def existing(self, kind: str) -> set[str]:
        """Ids whose file of a kind ("cams", "masks", "confidence") is there; damaged PNGs are not.

        Class maps are only looked at when a mask is made from them. Of a part, only its own images (`only`).
        """
        if self.only is not None:
            packed = self.shards.ids(kind)
            return {
                name for name in self.only
                if name in packed or _exists(self.root / kind / f"{name}{SUFFIXES[kind]}", kind)
            }  # fmt: skip
        return self.shards.ids(kind) | existing_files(self.root, kind, packed=False)

    @property
    def is_unchanged(self) -> bool:
        """Whether this is a finished run of the settings, images and tags that are wanted, none of which failed.

        Its records then need not be read: their digest has been compared when the folder was opened.
        """
        return (
            self.manifest is not None and self.was_complete and self.was_finished and not self.changed
            and "tags.jsonl" in (self.manifest.get("files") or {}) and not len(self.failures)
        )  # fmt: skip

    def has_all(self, kind: str, ids: Iterable[str]) -> bool:
        """Whether a file of a kind is there of all ids, and PNGs are whole; of a finished run.

        PNGs of very many images that were last written before the run was finished are not read: they were on the disk
        by then.
        """
        images = ((self.manifest or {}).get("counts") or {}).get("images", 0)
        finished = (self.root / "manifest.json").stat().st_mtime_ns if images >= MANY else 0
        packed, top, suffix = self.shards.ids(kind), f"{self.root / kind}{os.sep}", SUFFIXES[kind]
        if packed:
            ids = (name for name in ids if name not in packed)
        return all(_exists(f"{top}{name}{suffix}", kind, finished) for name in ids)

    def drop(self, image_id: str) -> None:
        """Removes the mask, confidence and class maps of an image, wherever they are, the mask first."""
        self.shards.forget([(kind, image_id) for kind in SUFFIXES])
        with disk_errors(self.root):
            for kind in ("masks", "confidence", "cams"):
                for top in (self.root, self.root / ASIDE):
                    (top / kind / f"{image_id}{SUFFIXES[kind]}").unlink(missing_ok=True)

    def set_aside(self, ids: Collection[str]) -> None:
        """Moves the files of all tagged images but these out of the data set, and theirs back into it."""
        outside = self.tags.ids() - set(ids)
        if not outside and not (self.root / ASIDE).is_dir():
            return
        self._unpack(outside)
        with disk_errors(self.root):
            for kind, suffix in SUFFIXES.items():
                home, aside = self.root / kind, self.root / ASIDE / kind
                for source, target, moved in ((home, aside, outside), (aside, home, set(ids))):
                    for name in sorted(moved & existing_files(source.parent, kind, packed=False)):
                        path = target / f"{name}{suffix}"
                        path.parent.mkdir(parents=True, exist_ok=True)
                        (source / f"{name}{suffix}").replace(path)
            for folder, _, _ in os.walk(self.root / ASIDE, topdown=False):
                with contextlib.suppress(OSError):  # not empty
                    Path(folder).rmdir()

    def _unpack(self, ids: Collection[str]) -> None:
        """Takes the files of images out of their shards, into the run's folders."""
        packed = [(kind, name) for kind in SUFFIXES for name in sorted(self.shards.ids(kind) & set(ids))]
        for kind, name in packed:
            path, file = self.root / kind / f"{name}{SUFFIXES[kind]}", self.shards.find(kind, name)
            if file is not None and not path.is_file():  # one that is there is newer
                with self.file(path) as copy:
                    copy.write(file.read_bytes())
        self.shards.forget(packed)

    def _pack(self, ids: Iterable[str]) -> None:
        """Packs what the run's folders hold of these images, and takes empty folders away."""
        loose = {name for kind in SUFFIXES for name in existing_files(self.root, kind, packed=False)}
        left = [name for name in ids if name in loose]
        for start in range(0, len(left), IMAGES_PER_SHARD):
            self.shards.pack(left[start : start + IMAGES_PER_SHARD], self.scratch)
        for kind in SUFFIXES:
            for folder, _, _ in os.walk(self.root / kind, topdown=False):
                with contextlib.suppress(OSError):  # not empty
                    Path(folder).rmdir()

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
            **dict(sorted(self.notes.items())),
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

    def complete(
        self, order: Iterable[str], counts: Mapping[str, Any], *, without_photo: Collection[str] = ()
    ) -> None:
        """Puts the journals into order and writes the final manifest.

        Args:
            order: ids of the images that the run is about. Rejected ones are written to rejected.jsonl, and tagged
                images that are not named, whose photos have left, to left.jsonl.
            counts: for the manifest.
            without_photo: ids of images that the run is about and that are not there.
        """
        named = list(order)
        ids = [name for name in named if name not in without_photo]
        rejected = self.rejected_ids(ids)
        self.tags.distribute(
            {
                self.root / REJECTED_FILE: [name for name in ids if name in rejected],
                self.root / LEFT_FILE: sorted(self.tags.ids() - set(ids)),
                self.root / "tags.jsonl": [name for name in ids if name not in rejected],
            }
        )
        self.failures.finish(named)
        if self.layout == TAR:
            self._pack(name for name in ids if name not in rejected)
            write_tag_table(self.root / "tags.jsonl", self.root / TAG_TABLE, self.scratch)
        else:
            (self.root / TAG_TABLE).unlink(missing_ok=True)  # it would tell what was
        self.notes["files"] = {"tags.jsonl": file_digest(self.root / "tags.jsonl")}
        if len(ids) >= MANY and hasattr(os, "sync"):
            os.sync()  # masks first: a finished run is believed to have them, see `has_all`
        self.write_manifest("complete", counts)
        self.is_complete = True

    def rejected_ids(self, ids: Iterable[str]) -> set[str]:
        """Which of these images a person has taken out of the data set."""
        if not (self.root / CORRECTIONS_FILE).is_file():
            return set()
        return {
            name
            for name in ids
            if name in self.tags and (self.tags[name].get("correction") or {}).get("state") == "rejected"
        }


def existing_files(root: Path, kind: str, *, packed: bool = True) -> set[str]:
    """See `RunFolder.existing`; without what is in shards if not `packed`."""
    top, suffix = root / kind, SUFFIXES[kind]
    found = ResultShards(root).ids(kind) if packed else set()
    for folder, _, names in os.walk(top):
        inside = Path(folder).relative_to(top).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        found |= {
            f"{prefix}{name[: -len(suffix)]}" for name in names
            if name.endswith(suffix) and _exists(os.path.join(folder, name), kind)  # noqa: PTH118  # a million files
        }  # fmt: skip
    return found


def _exists(path: Path | str, kind: str, whole_before: int = 0) -> bool:
    """Whether a file is there, and a PNG whole; one that was last written before that time (ns) is taken for whole."""
    try:
        status = os.stat(path)  # noqa: PTH116  # a million files
        return status.st_size > 0 and (kind == "cams" or status.st_mtime_ns < whole_before or is_whole(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def part_is_done(root: Path, part: int) -> bool:
    """Whether a part of a run is done."""
    return (_home(root, part) / DONE).is_file()


def _home(root: Path, part: int | None) -> Path:
    """Where the records of a run, or of a part of it, grow."""
    return root / PARTIAL if part is None else root / PARTIAL / PARTS / f"{part:06}"


def _refuse_company(root: Path, part: int | None) -> None:
    """One process does all of a run, or several do parts of it; not both at the same time.

    Raises:
        RunError: there is such company.
    """
    if part is None:
        for path in sorted((root / PARTIAL / PARTS).glob("*/lock")):
            take_lock(path, f"--out {root}, part {path.parent.name}").release()
        return
    for left in reversed(range(TRIES)):  # another part may be looking at this very moment
        try:
            take_lock(root / PARTIAL / "lock", f"--out {root}").release()
        except RunError:
            if not left:
                raise
            time.sleep(0.1)
        else:
            return


def check_identity(
    root: Path,
    manifest: Mapping[str, Any],
    identity: Mapping[str, Any],
    changeable: Sequence[str] = (),
    after_maps: Sequence[str] = (),
) -> list[str]:
    """Whether a run folder can take up a run; see `RunFolder.open` for the arguments.

    Returns:
        What is wanted otherwise, one phrase each.

    Raises:
        RunError: another run, or one whose tags.jsonl was edited.
    """
    there = {key: value for key, value in manifest.items() if key in identity}
    old, new = (part_of(values, changeable, inside=False) for values in (there, identity))
    masks_only = part_of(old, after_maps, inside=False) == part_of(new, after_maps, inside=False)
    refuse_other(f"--out {root}", "belongs to a run", old, new, NEEDS_MASKS if masks_only else NEEDS_MODEL)
    _refuse_edited(root, manifest)
    return differences(part_of(there, changeable, inside=True), part_of(identity, changeable, inside=True))


def _refuse_edited(root: Path, manifest: Mapping[str, Any]) -> None:
    """A finished run whose tags somebody has edited: what they say is not what its masks were made of."""
    written = (manifest.get("files") or {}).get("tags.jsonl")
    path = root / "tags.jsonl"
    if manifest.get("state") != "complete" or written is None or is_cut(path):
        return  # what a cut file has lost is made again
    if not path.is_file() or file_digest(path) != written:
        raise RunError(
            f"--out {root}: its tags.jsonl was edited or removed since the run wrote it; bring it back and give "
            f"changes as --corrections, or make masks of the edited tags in another folder: tagclip mask --tags {path}"
        )


def is_cut(path: Path) -> bool:
    """Whether a file of records is there and was cut short, by a power cut, say: empty, or with half a last line."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _tell_versions(root: Path, there: Any) -> None:
    """Says which packages are others than when a run began: last digits may then differ within one run."""
    if not isinstance(there, Mapping):
        return
    changed = [f"{name} {there.get(name)} then, {version} now" for name, version in installed_versions().items()
               if there.get(name) != version]  # fmt: skip
    if changed:
        logger.warning("%s: began with other versions (%s); results may differ in the last digits", root,
                       "; ".join(changed))  # fmt: skip


def _leave(root: Path, part: int | None) -> None:
    """Takes back what opening added to a folder that was then refused."""
    with contextlib.suppress(OSError):
        if part is not None and [path.name for path in _home(root, part).iterdir()] == ["lock"]:
            shutil.rmtree(_home(root, part))
            (root / PARTIAL / PARTS).rmdir()
        if [path.name for path in (root / PARTIAL).iterdir()] == ["lock"]:
            shutil.rmtree(root / PARTIAL)


def _empty(root: Path) -> None:
    with disk_errors(root):
        said = root / CORRECTIONS_FILE
        if said.is_file():
            with contextlib.suppress(RunError):  # a damaged manifest
                said.replace(root / f"corrections-{run_id(read_manifest(root) or {})}.json")
        for name in OWN_FILES:
            (root / name).unlink(missing_ok=True)
        for name in (*SUFFIXES, ASIDE, SHARDS):
            shutil.rmtree(root / name, ignore_errors=True)
        for path in (root / PARTIAL).iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
