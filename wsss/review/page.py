"""The review page of a run: `RUN/review/index.html`, a static page that works from disk without a server."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from tagclip.version import __version__
from wsss.files.atomic import atomic_file, disk_errors
from wsss.files.locks import folder_lock
from wsss.review.page_data import RunContent, data_files, page_images
from wsss.review.thumbnail_store import ThumbnailStore
from wsss.review.thumbnails import ThumbnailConfig, ThumbnailJob, ThumbnailStage

REVIEW_FOLDER = "review"
PAGE_FILE = "index.html"
TEMPLATE = "index.html.jinja"
STYLE = "review.css"
SCRIPTS = (
    "base.js", "png.js", "doubt.js", "model.js", "overlays.js", "rail.js", "grid.js", "detail.js", "charts.js",
    "app.js",
)  # fmt: skip
BYTES_PER_IMAGE = 16_000  # of thumbnail and overlays, for the estimate: measured on drawn scenes, rounded up


@dataclass
class ReviewPage:
    """A page that is about to be made; see `ReviewPage.plan`.

    Attributes:
        content: the run.
        store: its thumbnails.
        jobs: thumbnails that have to be made.
        folder: `RUN/review`.
    """

    content: RunContent
    store: ThumbnailStore
    jobs: list[ThumbnailJob]
    folder: Path

    @classmethod
    def plan(
        cls,
        run: Path,
        *,
        image_root: Path | str | None = None,
        overwrite: bool = False,
        config: ThumbnailConfig | None = None,
    ) -> ReviewPage:
        """Reads the run and finds out which thumbnails are there already. Writes nothing.

        Args:
            image_root: where the photos are now; None: where they were when the run was made.
            overwrite: make all thumbnails again.

        Raises:
            UsageError: no run folder.
            RunError: a run that is not complete, or damaged.
        """
        content, folder = RunContent.read(Path(run), image_root), Path(run) / REVIEW_FOLDER
        stage = ThumbnailStage(
            folder / "thumbs", folder / ".partial", content.reader.vocabulary.label_palette, content.has_background,
            content.ignored, content.apply_exif, config or ThumbnailConfig(),
        )  # fmt: skip
        store = ThumbnailStore(stage)
        return cls(content, store, store.plan(page_images(content), overwrite=overwrite), folder)

    @property
    def path(self) -> Path:
        """The page."""
        return self.folder / PAGE_FILE

    def figures(self) -> dict[str, Any]:
        """Counts, for reports: images, thumbnails to make, photos that are gone, failures."""
        return {
            "images": len(self.content.records),
            "thumbnails": len(self.jobs),
            "photos_gone": sum(photo is None for photo in self.content.photos.values()),
            "failures": len(self.content.failures),
            "page": str(self.path),
        }

    def make(self, workers: int, progress: Callable[[int], object] = lambda count: None) -> None:
        """Makes thumbnails, data and page; the page appears last.

        Args:
            workers: processes that make thumbnails. progress: called with 1 for each image.

        Raises:
            RunError: full disk, another process at work in the folder, or workers that were ended from outside.
        """
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(self.folder, f"{self.folder}"):
            self.store.make(self.jobs, workers, progress)
            scratch = self.folder / ".partial"
            with disk_errors(scratch):
                scratch.mkdir(exist_ok=True)
            try:
                self._write_page(scratch)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def _write_page(self, scratch: Path) -> None:
        written = set()
        for name, text in data_files(self.content, self.store.entries, self.folder):
            self._write(scratch, f"data/{name}", text)
            written.add(name)
        for path in (self.folder / "data").glob("images-*.js"):
            if path.name not in written:
                with contextlib.suppress(OSError):
                    path.unlink()
        assets = resources.files("wsss.review") / "assets"
        for name in (STYLE, *SCRIPTS):
            self._write(scratch, f"assets/{name}", (assets / name).read_text(encoding="utf-8"))
        self._write(scratch, PAGE_FILE, self.html(sorted(name for name in written if name != "run.js")))

    def html(self, chunks: list[str]) -> str:
        """The page itself; `chunks` are the names of its data files in `data/`."""
        from jinja2 import Environment, StrictUndefined

        assets = resources.files("wsss.review") / "assets"
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string((assets / TEMPLATE).read_text(encoding="utf-8"))
        return template.render(
            name=self.content.reader.root.resolve().name.encode("utf-8", "replace").decode(), version=__version__,
            style=STYLE, scripts=SCRIPTS, chunks=chunks, images=len(self.content.records),
            classes=len(self.content.reader.vocabulary),
        )  # fmt: skip

    def _write(self, scratch: Path, name: str, text: str) -> None:
        with atomic_file(self.folder / name, scratch) as file:
            file.write(text.encode())


