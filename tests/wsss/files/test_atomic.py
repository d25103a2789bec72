"""Journals and atomic files, and what a run folder remembers."""

import json
import os
import re

import pytest

from tagclip.errors import RunError
from tagclip.vocabulary import Vocabulary
from wsss.files.atomic import atomic_file
from wsss.files.journal import Journal
from wsss.files.provenance import config_text
from wsss.files.run_files import read_manifest, run_vocabulary
from wsss.files.run_folder import RunFolder


@pytest.fixture
def journal(tmp_path):
    return lambda: Journal(tmp_path / "final.jsonl", tmp_path / "partial.jsonl", tmp_path)


def test_records_are_found_where_the_ordered_file_has_them(journal):
    first = journal()
    first.append([{"id": name, "n": number} for number, name in enumerate(["a", "b", "c"])])
    first.finish(["a", "b", "c"])
    again = journal()
    again.append([{"id": "b", "n": "a longer record than before"}])
    again.finish(["c", "b", "a"])
    assert [again[name]["n"] for name in ("a", "b", "c")] == [0, "a longer record than before", 2]
    again.finish(["b", "a"])
    assert [journal()[name]["n"] for name in ("a", "b")] == [0, "a longer record than before"]


def test_a_line_cut_by_a_kill_is_dropped_and_the_rest_kept(journal, tmp_path):
    journal().append([{"id": "a", "n": 1}, {"id": "ü b", "n": 2}, {"id": "c", "n": 3}])
    whole = (tmp_path / "partial.jsonl").read_bytes()
    for cut in range(1, len(whole)):
        (tmp_path / "partial.jsonl").write_bytes(whole[:-cut])
        again = journal()
        lines = whole[:-cut].count(b"\n")
        assert len(again) == lines
        again.append([{"id": "d", "n": 4}])
        kept = [json.loads(line)["id"] for line in (tmp_path / "partial.jsonl").read_text().splitlines()]
        assert kept == [*["a", "ü b", "c"][:lines], "d"]


def test_finish_puts_records_into_order_and_drops_discarded_ones(journal, tmp_path):
    records = journal()
    records.append([{"id": name, "n": number} for number, name in enumerate("cab")])
    records.append([{"id": "a", "n": 9}])
    records.discard("b")
    records.finish(["a", "b", "c", "never"])
    assert (tmp_path / "final.jsonl").read_text() == '{"id": "a", "n": 9}\n{"id": "c", "n": 0}\n'
    (tmp_path / "partial.jsonl").unlink()
    again = journal()
    assert again.ids() == {"a", "c"}
    assert again["a"] == {"id": "a", "n": 9}
    again.append([{"id": "b", "n": 7}])
    again.finish("abc")
    assert [json.loads(line)["n"] for line in (tmp_path / "final.jsonl").read_text().splitlines()] == [9, 7, 0]


def test_records_and_manifest_are_on_the_disk_before_work_goes_on(journal, tmp_path, monkeypatch):
    """A power cut loses what the system has not written yet, a kill does not: only these are asked for at once."""
    synced = []
    original = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_size) or original(number))
    records = journal()
    records.append([{"id": "a"}, {"id": "b"}])
    assert synced == [(tmp_path / "partial.jsonl").stat().st_size]
    records.finish("ab")
    assert synced[1:] == [(tmp_path / "final.jsonl").stat().st_size]
    Journal(None, tmp_path / "other.jsonl", tmp_path).append([{"id": "a"}])  # can be counted again
    assert len(synced) == 2
    with RunFolder.open(tmp_path / "run", {"a": 1}, {}) as run:
        assert len(synced) == 4  # manifest.json, config.py
        run.complete([], {})
        assert len(synced) == 7  # both journals and the manifest


def test_other_versions_than_a_run_began_with_are_told(tmp_path, caplog):
    RunFolder.open(tmp_path / "run", {"a": 1}, {}).close()
    RunFolder.open(tmp_path / "run", {"a": 1}, {}).close()
    assert not caplog.text
    path = tmp_path / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(manifest))
    RunFolder.open(tmp_path / "run", {"a": 1}, {}).close()
    (line,) = caplog.messages
    assert re.search(r"run: began with other versions \(torch 1\.0 then, \d\S* now\); results may differ", line)


def test_a_file_is_whole_or_absent(tmp_path):
    (tmp_path / "scratch").mkdir()
    path = tmp_path / "deep" / "file"

    def write(text, fail):
        with atomic_file(path, tmp_path / "scratch") as file:
            file.write(text)
            if fail:
                raise KeyError(fail)

    with pytest.raises(KeyError):
        write(b"new", fail=True)
    assert not path.exists()
    write(b"old", fail=False)
    with pytest.raises(KeyError):
        write(b"new", fail=True)
    assert path.read_bytes() == b"old"
    assert not list((tmp_path / "scratch").iterdir())


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file/x: cannot be written"), atomic_file(tmp_path / "file" / "x", tmp_path):
        pass


def test_a_run_folder_tells_its_vocabulary(tmp_path):
    vocabulary = Vocabulary(["cat", "dog"], prompts={"dog": ["dog", "puppy"]}, background=("sky",))
    with RunFolder.open(tmp_path / "run", {"vocabulary": vocabulary.to_dict()}, {"masks": {"alpha": 1.0}}):
        pass
    assert run_vocabulary(tmp_path / "run") == vocabulary
    assert read_manifest(tmp_path / "run")["state"] == "running"
    assert run_vocabulary(tmp_path) is None
    (tmp_path / "run" / "manifest.json").write_text("{")
    with pytest.raises(RunError, match=r"manifest\.json: damaged"):
        read_manifest(tmp_path / "run")


def test_config_text_is_read_back_by_mmengine(tmp_path):
    from mmengine.config import Config

    config = {"masks": {"crf": {"iterations": 10}, "mean": (1.0, 2.5)}, "out": "runs/x", "tags": None}
    (tmp_path / "config.py").write_text(config_text(config))
    assert Config.fromfile(str(tmp_path / "config.py")).to_dict() == config
