"""Measures the review page of many images: python -m tests.browser.measure_review --demo-run RUN --out DIR.

The images are drawn scenes, repeated under other names; their scores are drawn anew, so that orders and histograms are
those of a collection. Times are taken in the page, from the call to the end of the frame that shows its effect, and as
processor time of the page's main thread, which holds on a machine that is busy with other things.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tagclip.config import TagCLIPConfig
from tagclip.tag_files import TagRecord, tag_line
from tagclip.thresholds import select
from tagclip.vocabulary import Vocabulary
from tests.browser.conftest import FLAGS, as_root
from tests.wsss.review.synthetic_runs import drawn_scores
from wsss.files.run_reader import RunReader
from wsss.review.page import ReviewPage
from wsss.review.thumbnails import thumbnail_path

LOADS, REPEATS, STEPS, SCREENS = 5, 40, 100, 60
CLASSES = {20: "voc", 80: "coco", 171: "cocostuff"}

# Calls a function and waits until its effect has been drawn: the script, style, layout and paint of one frame.
TIMER = """void (window.timed = (work) => new Promise((done) => {
  const start = performance.now();
  work();
  const script = performance.now() - start;
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => done([script, performance.now() - start]);
    channel.port2.postMessage(0);
  });
}))"""
WORK = {
    "filter": "() => Review.app.rail.choose({k} % Review.app.model.classes)",
    "sort": "() => {{ const s = document.getElementById('sort'); s.value = ['name', 'score', 'doubt', 'coverage', "
    "'ignored', 'random'][{k} % 6]; s.dispatchEvent(new Event('change')); }}",
    "slider step": "() => {{ const r = Review.app.rail.rows[3].range; r.value = Math.round(Review.app.model.highest * "
    "(0.1 + 0.8 * Math.abs(Math.sin({k} / 9)))); r.dispatchEvent(new Event('input')); }}",
    "tag toggle": "() => Review.app.toggleTag({k} % Review.app.model.classes, Review.app.view.places[3])",
    "screen of scrolling": "() => {{ Review.app.grid.scroller.scrollTop += 800; }}",
}


def main() -> None:
    """Builds the run, opens it, prints a table and writes measured.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--browser", default=os.environ.get("TAGCLIP_BROWSER", "chromium"), help="the browser's binary")
    parser.add_argument("--demo-run", type=Path, required=True, help="a finished run of drawn scenes")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run and for measured.json")
    parser.add_argument("--images", type=int, default=10_000, help="how many images")
    parser.add_argument("--classes", type=int, default=20, choices=CLASSES, help="how many classes")
    args = parser.parse_args()
    run = args.out / f"run_{args.images}_{args.classes}"
    if not (run / "review" / "index.html").is_file():
        build(args.demo_run, run, args.images, args.classes)
    found = measure(args.browser, run)
    (args.out / f"measured_{args.images}_{args.classes}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def build(demo: Path, root: Path, count: int, classes: int) -> None:
    """A run of `count` images whose photos, masks and maps are those of the demo run, over and over, and its page."""
    source, vocabulary = RunReader(demo), Vocabulary.named(CLASSES[classes])
    originals = list(source.records())
    scores = drawn_scores(count, classes, seed=1)
    rule = TagCLIPConfig().rule
    tags = select(scores, rule)
    root.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((demo / "manifest.json").read_text())
    manifest["vocabulary"] = vocabulary.to_dict()
    (root / "manifest.json").write_text(json.dumps(manifest))
    with (root / "tags.jsonl").open("w") as file:
        for place in range(count):
            original = originals[place % len(originals)]
            record = TagRecord(
                f"folder {place // 1000:02d}/photo_{place:05d}", tuple(np.flatnonzero(tags[place]).tolist()),
                original.path, original.size, scores[place], original.file_size,
            )  # fmt: skip
            file.write(json.dumps(tag_line(record, vocabulary)) + "\n")
            if place < len(originals):
                for kind, suffix in (("masks", ".png"), ("cams", ".npz")):
                    there = root / kind / f"{record.id}{suffix}"
                    there.parent.mkdir(parents=True, exist_ok=True)
                    there.write_bytes((demo / kind / f"{original.id}{suffix}").read_bytes())
    page = ReviewPage.plan(root)
    page.store.make(page.jobs[: len(originals)], 1, lambda done: None)
    repeat_thumbnails(page, [job.id for job in page.jobs[: len(originals)]])
    page.jobs = []
    page.make(1)


def repeat_thumbnails(page: ReviewPage, first: list[str]) -> None:
    """Gives all other images the thumbnails of the first ones."""
    store = page.store
    for place, (name, entry) in enumerate(list(store.entries.items())):
        original = store.entries[first[place % len(first)]]
        if entry.number == original.number:
            continue
        for suffix in (".webp", ".js", ".full.js"):
            source = thumbnail_path(store.stage.folder, original.number, suffix)
            if source.is_file():
                data = source.read_bytes()
                for target in (b"REVIEW.overlays[%d]", b"REVIEW.masks[%d]"):
                    data = data.replace(target % original.number, target % entry.number, 1)
                there = thumbnail_path(store.stage.folder, entry.number, suffix)
                there.parent.mkdir(parents=True, exist_ok=True)
                there.write_bytes(data)
        store.entries[name] = replace(original, number=entry.number)


def measure(binary: str, run: Path) -> dict[str, Any]:
    """Opens the page several times, and does each thing many times."""
    from playwright.sync_api import sync_playwright

    review = run / "review"
    address = (review / "index.html").resolve().as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=binary,
            args=[*FLAGS, "--enable-precise-memory-info", *(["--no-sandbox"] if as_root() else [])],
        )
        loads = []
        for _ in range(LOADS):
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            page.goto(address, wait_until="commit", timeout=120_000)
            wait_for_app(page)
            page.wait_for_timeout(300)
            loads.append(page.evaluate(
                "[performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null, "
                "performance.getEntriesByName('review-ready')[0].startTime]"
            ))  # fmt: skip
            if len(loads) < LOADS:
                page.context.close()
        page.evaluate(TIMER)
        memory = {"loaded": max(renderer_memory(), default=0)}
        page.wait_for_timeout(2000)  # the order by name is made when the browser has nothing to do
        client = page.context.new_cdp_session(page)
        client.send("Performance.enable", {"timeDomain": "threadTicks"})
        times = {}
        for name, code in WORK.items():
            repeats = STEPS if name == "slider step" else SCREENS if "scrolling" in name else REPEATS
            taken = []
            for k in range(repeats):
                before = busy_ms(client)
                times_taken = page.evaluate(f"timed({code.format(k=k)})")
                taken.append([*times_taken, busy_ms(client) - before])
            times[name] = {
                "repeats": repeats, **{
                    f"{what}_p{share}": round(float(np.percentile([one[place] for one in taken], share)), 1)
                    for place, what in enumerate(("script", "to_frame", "main_thread")) for share in (50, 95)
                },
            }  # fmt: skip
            memory[f"after {name}"] = max(renderer_memory(), default=0)
        client.send("HeapProfiler.collectGarbage")
        heap = page.evaluate("performance.memory.usedJSHeapSize")
        page.wait_for_timeout(3000)
        memory["at rest"] = max(renderer_memory(), default=0)
        browser.close()
    size = {path.relative_to(review).as_posix(): path.stat().st_size for path in review.rglob("*") if path.is_file()}
    return {
        "images": json_count(review), "load_1_5": [round(value) for value in os.getloadavg()[:2]],
        "first_paint_ms": sorted(round(load[0] or 0) for load in loads),
        "interactive_ms": sorted(round(load[1]) for load in loads),
        "times_ms": times,
        "js_heap_mb": round(heap / 1e6, 1),
        "renderer_private_mb": {when: round(size / 1e6) for when, size in memory.items()},
        "page_data_mb": round(sum(v for k, v in size.items() if not k.startswith("thumbs/")) / 1e6, 2),
        "thumbs_mb": round(sum(v for k, v in size.items() if k.startswith("thumbs/")) / 1e6, 1),
    }  # fmt: skip


def busy_ms(client: Any) -> float:
    """Processor time that the page's main thread has used: unlike the clock, it does not count other programs."""
    metrics = client.send("Performance.getMetrics")["metrics"]
    return 1e3 * next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")


def json_count(review: Path) -> int:
    """Images of a page."""
    text = (review / "data" / "run.js").read_text()
    return int(text.split('"images":', 1)[1].split(",", 1)[0])


def wait_for_app(page: Any) -> None:
    """Until the page can be used."""
    end = time.monotonic() + 120
    while not page.evaluate("Boolean(globalThis.Review && Review.app)"):
        assert time.monotonic() < end
        page.wait_for_timeout(20)


def renderer_memory() -> list[int]:
    """Private bytes of each of the browser's renderer processes that this one has started (Linux)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()  # of a forked renderer, one text with blanks
            if b"--type=renderer" not in command or not is_ours(int(folder.name)):
                continue
            lines = (folder / "smaps_rollup").read_text().splitlines()
            found.append(sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_")))
        except (OSError, ValueError, IndexError):
            continue
    return found


def is_ours(process: int) -> bool:
    """Whether this process is among another one's ancestors."""
    while process > 1:
        if process == os.getpid():
            return True
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return False


if __name__ == "__main__":
    main()
