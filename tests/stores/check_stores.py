"""Photos in and results to an object store that speaks S3, moto's server on this machine; tools/test_stores.sh runs it.

Not a test of pytest's: it needs packages of its own. Every check compares bytes with those of a folder.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from tagclip.errors import TagclipError
from tests.wsss.files.shards import files_of, split_in_two, upload, write_parquet
from tests.wsss.runs import contents, draw_images
from wsss.cli.main import execute
from wsss.export import export_run
from wsss.files.photo_sources import find_photos
from wsss.files.result_shards import SUFFIXES, results_by_id
from wsss.pipeline import work_parts

BUCKET = "s3://tagclip-test"
PLACES = ("config.py", "manifest.json", "log.txt", "times.json")  # they say where the photos are, or how long it took


def call(images: str, out: str, top: Path, *more: str) -> None:
    words = [
        "run", "--images", images, "--classes", f"{BUCKET}/classes.txt", "--model", "demo", "--config", "demo/masks",
        "--out", out, "--threads", "1", "--refine", "pamr", "--batch-size", "2", "--cache-dir", str(top / "texts"),
        "--quiet", "--at-least-one", *more,
    ]  # fmt: skip
    assert execute(words) == 0


def results(out: Path) -> dict[tuple[str, str], bytes]:
    return {
        (kind, name): place.read_bytes()
        for kind, suffix in SUFFIXES.items()
        for name, place in results_by_id(out / kind, suffix).items()
    }


def same(one: Path, other: Path) -> None:
    assert results(one) == results(other)
    assert results(one)
    assert (one / "tags.jsonl").read_bytes() == (other / "tags.jsonl").read_bytes()


def check_inputs(top: Path) -> None:
    """A folder, shards and Parquet in the store: the files of a run over the folder."""
    photos, plain = top / "photos", top / "plain"
    split_in_two(photos, top / "shards")
    (top / "tables").mkdir()
    write_parquet(top / "tables" / "photos.parquet", photos)
    sources = {
        "objects": upload(photos, f"{BUCKET}/photos"),
        "shards": upload(top / "shards", f"{BUCKET}/shards") + "/{000..001}.tar",
        "tables": upload(top / "tables", f"{BUCKET}/tables"),
    }
    expected = {name: digest for name, digest in contents(plain).items() if name not in PLACES}
    for name, source in sources.items():
        call(source, str(top / f"run-{name}"), top)
        found = {file: digest for file, digest in contents(top / f"run-{name}").items() if file not in PLACES}
        assert found == expected, (name, set(found.items()) ^ set(expected.items()))
        assert export_run(top / f"run-{name}", "voc", out=top / f"{name}-voc").images == 6
    copies = contents(top / "objects-voc" / "JPEGImages")
    assert len(copies) == 6
    assert copies == contents(top / "shards-voc" / "JPEGImages") == contents(top / "tables-voc" / "JPEGImages")


def check_worker_processes(top: Path) -> None:
    """Mask workers are other processes: they open photos of the store by themselves."""
    call(str(top / "photos"), str(top / "crf-files"), top, "--refine", "crf", "--mask-workers", "1")
    call(f"{BUCKET}/photos", str(top / "crf-store"), top, "--refine", "crf", "--mask-workers", "1")
    same(top / "crf-files", top / "crf-store")


def check_output(top: Path) -> None:
    """Two machines (folders) with a shard each; a third fetches the run, which is that of a folder."""
    out = f"{BUCKET}/runs/mine"
    for number in (1, 2):
        call(str(top / "photos"), out, top, "--staging", str(top / f"machine{number}"), "--shard", f"{number}/2")
    system = fsspec.filesystem("s3")
    system.invalidate_cache()
    system.get("tagclip-test/runs/mine", str(top / "fetched"), recursive=True)
    same(top / "plain", top / "fetched")
    manifests = [json.loads((top / name / "manifest.json").read_text()) for name in ("plain", "fetched")]
    assert manifests[0] == manifests[1]
    assert manifests[0]["state"] == "complete"
    assert not (top / "fetched" / ".partial").exists()
    call(str(top / "photos"), out, top, "--staging", str(top / "machine3"))  # a new machine: nothing is left to do
    same(top / "plain", top / "machine3")


def check_errors(top: Path) -> None:
    """One line each."""
    for source, words in (
        (f"{BUCKET}/gone", "no such object or folder in the store"),
        ("s3://no-such-bucket-at-all/photos", "no-such-bucket-at-all"),
    ):
        with pytest.raises(TagclipError) as error:
            find_photos(source)
        assert words in str(error.value)
        assert "\n" not in str(error.value)


CHECKS: tuple[Callable[[Path], None], ...] = (check_inputs, check_worker_processes, check_output, check_errors)


def main() -> int:
    from moto.server import ThreadedMotoServer

    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ["AWS_ENDPOINT_URL"] = f"http://{host}:{port}"
    top = Path(tempfile.mkdtemp())
    try:
        fsspec.filesystem("s3").mkdir("tagclip-test")
        fsspec.filesystem("s3").pipe_file("tagclip-test/classes.txt", b"cat\ndog\nbird\n")
        draw_images(top / "photos")
        assert len(files_of(top / "photos")) == 6
        work_parts.IMAGES_PER_PART = 2
        call(str(top / "photos"), str(top / "plain"), top)
        for check in CHECKS:
            check(top)
            print(f"ok: {check.__name__}: {(check.__doc__ or '').splitlines()[0]}", flush=True)
    finally:
        server.stop()
        shutil.rmtree(top, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
