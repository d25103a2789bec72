"""The review page in a real browser. `bash tools/test_browser.sh` runs these tests; a plain pytest leaves them out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tagclip.demo.dataset import write_scenes
from tagclip.demo.scenes import SceneConfig
from tagclip.vocabulary import Vocabulary
from tests.tools.commands import command

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSER = os.environ.get("TAGCLIP_BROWSER", "")  # the binary; tools/test_browser.sh finds it
AXE = os.environ.get("TAGCLIP_AXE", "")  # axe.min.js of axe-core
SHOTS = os.environ.get("TAGCLIP_SHOTS", "")  # folder for screenshots; none are kept without it
FLAGS = (
    "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
)  # fmt: skip
SCENES = 6
WIDE, PHONE = (1440, 900), (380, 780)

if not BROWSER:
    collect_ignore_glob = ["test_*.py"]


def as_root() -> bool:
    """Whether the browser's sandbox has to be left out: it refuses to start for root otherwise."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    flags = [*FLAGS, *(["--no-sandbox"] if as_root() else [])]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=flags)
        yield opened
        opened.close()


@dataclass
class Visit:
    """A page that is open, and what went on in it."""

    page: Page
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def all_is_well(self) -> None:
        """Every request was for a file (or for data in the page itself), and nothing was logged as a problem."""
        assert self.requests
        strange = [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]
        assert strange == []
        assert self.problems == []


@pytest.fixture
def visit(browser) -> Iterator[Callable[..., Visit]]:
    """Opens the page of a run: visit(run, size, scheme). Every visit has a browser profile of its own."""
    contexts = []
    visits = []

    def go(run: Path, size: tuple[int, int] = WIDE, scheme: str = "light", **settings: Any) -> Visit:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, accept_downloads=True, **settings
        )
        contexts.append(context)
        context.set_default_timeout(120_000)  # of a machine that other work shares
        visited = Visit(context.new_page())
        visits.append(visited)
        context.on("request", lambda request: visited.requests.append(request.url))
        visited.page.on("pageerror", lambda error: visited.problems.append(str(error)))
        visited.page.on(
            "console", lambda message: visited.problems.append(message.text) if message.type == "error" else None
        )
        visited.page.goto((run / "review" / "index.html").resolve().as_uri())
        until(visited.page, "Review.app || document.querySelector('main .notice')")
        return visited

    yield go
    for visited in visits:
        visited.all_is_well()
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def made_run(tmp_path_factory) -> Path:
    """A run of the demo model over a few drawn scenes, with its page."""
    base = tmp_path_factory.mktemp("browser")
    look = SceneConfig(side=(300, 420), object_side=(90, 200))
    write_scenes(base / "scenes", SCENES, look, seed=5, vocabulary=Vocabulary.named("voc"))
    options = ["--images", str(base / "scenes" / "JPEGImages"), "--classes", "voc", "--model", "demo", "--quiet"]
    assert command("run")([*options, "--out", str(base / "run"), "--mask-workers", "1"]) == 0
    assert command("review")(["--run", str(base / "run"), "--workers", "1", "--quiet"]) == 0
    return base / "run"


def until(page: Page, expression: str, seconds: float = 20) -> None:
    """Waits for a JavaScript expression to be true; Playwright's own way needs `eval`, which the page forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(f"Boolean({expression})"):
        assert time.monotonic() < end, f"still not true after {seconds:g} s: {expression}"
        page.wait_for_timeout(30)


def shot(visited: Visit, name: str) -> None:
    """A screenshot, where they are wanted."""
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        visited.page.screenshot(path=Path(SHOTS) / f"{name}.png")
