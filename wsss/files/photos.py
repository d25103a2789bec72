"""Where the photos of a run are, also after the photos or the run folder have moved."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from tagclip.errors import ImageError, UsageError
from tagclip.stored_files import FilePlace, local_place
from wsss.files.photo_sources import PhotoIndex, find_photos, is_photo_store
from wsss.files.run_files import read_manifest


@dataclass(frozen=True)
class PhotoLocator:
    """Finds the photo of each record of a run.

    Attributes:
        run: the run folder, for messages.
        root: image root, which the paths of the records are relative to; None where they are absolute. Of photos in a
            store or in shards: their address, or the shards.
        moved: the root was given anew, so that absolute paths are not believed.
    """

    run: Path
    root: Path | str | tuple[str, ...] | None
    moved: bool = False

    @classmethod
    def of_run(cls, run: Path, image_root: str | Path | None = None) -> PhotoLocator:
        """The locator of a run folder.

        Args:
            image_root: where the photos are now; None: where they were when the run was made.

        Raises:
            UsageError: no such folder.
            RunError: a damaged manifest.
        """
        if image_root is not None:
            image_root = local_place(image_root)
            if is_photo_store(image_root):
                return cls(run, str(image_root), moved=True)
            if not Path(image_root).is_dir():
                raise UsageError(f"--image-root {image_root}: no such folder")
            return cls(run, Path(image_root), moved=True)
        recorded = ((read_manifest(run) or {}).get("photos") or {}).get("root")
        if isinstance(recorded, list):
            return cls(run, tuple(map(str, recorded)))
        return cls(run, None if recorded is None else Path(recorded))

    @cached_property
    def _index(self) -> PhotoIndex | str:
        """The photos of a store, or why there are none: asked for once, not for each photo again."""
        assert isinstance(self.root, str | tuple)
        try:
            return PhotoIndex(find_photos(self.root))
        except UsageError as error:
            return f"{self.run}: its photos are not there ({error}); if they were moved, say where: --image-root PLACE"

    def find(self, image_id: str, path: str | None) -> FilePlace:
        """The photo of a record.

        Args:
            image_id: id of the image, its path relative to the image root without suffix.
            path: as `tags.jsonl` has it; None: the id.

        Raises:
            UsageError: it is not there; the message says where it was looked for, and the remedy.
        """
        recorded = path or image_id
        if isinstance(self.root, str | tuple):
            index = self._index
            if isinstance(index, str):
                raise UsageError(index)
            file = index.find(recorded) or index.find(image_id)
            if file is not None:
                return file.path
            places = self.root if isinstance(self.root, str) else ", ".join(self.root)
            raise UsageError(
                f"{self.run}: its photo {recorded} is not in {places}; if the photos were moved, say where they are: "
                "--image-root PLACE"
            )
        if self.root is None:
            # A run without a recorded root has absolute paths, or, from version 0.1, those of its command line.
            candidates = [Path(recorded), self.run / recorded]
        elif self.moved and PurePosixPath(recorded).is_absolute():
            candidates = [self.root / image_id, self.root / f"{image_id}{PurePosixPath(recorded).suffix}"]
        else:
            candidates = [self.root / recorded]
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        raise UsageError(
            f"{self.run}: its photo {candidates[-1]} does not exist; if the photos were moved, say where they are: "
            "--image-root DIR"
        )


def require_same_file(path: FilePlace, file_size: int | None) -> None:
    """Makes sure that a photo is still the file that was planned or tagged, as far as its size in bytes tells.

    Args:
        file_size: of that file; None: not known.

    Raises:
        ImageError: it has another size, or is gone.
    """
    try:
        now = path.stat().st_size
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from None
    if file_size not in (None, now):
        raise ImageError(
            f"{path}: the file was changed after it had been looked at ({file_size} bytes then, {now} now)"
        )
