"""What made a folder stands in it; another maker is refused with what differs; files that a power cut left are seen."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tagclip.errors import RunError, UsageError
from wsss.files.atomic import is_whole
from wsss.files.digests import file_digest, files_digest
from wsss.files.locks import folder_lock
from wsss.files.provenance import claim_folder, claim_masks, differences, refuse_other

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("there", "wanted", "expected"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}}, ["a.b 1 there, 3 here"]),
        ({"gone": 1}, {"new": 2}, ["new None there, 2 here", "gone 1 there, None here"]),
        ({"text": "x" * 60}, {"text": "y"}, ["text '" + "x" * 36 + "... there, 'y' here"]),
    ],
)
def test_differences(there, wanted, expected):
    assert differences(there, wanted) == expected


def test_the_message_names_five_differences_and_counts_the_others():
    with pytest.raises(RunError, match=r"--out x: belongs to a run with other settings: k0 0 .* k4 4 .* 3 more; go"):
        refuse_other("--out x", "belongs to a run", {f"k{n}": n for n in range(8)}, {}, "go away")


def test_a_folder_is_claimed_once(tmp_path):
    out = tmp_path / "masks"
    claim_masks(out, {"masks": {"alpha": 1.0}}, overwrite=False, name="--out masks")
    Image.new("L", (2, 2)).save(out / "a.png")
    claim_masks(out, {"masks": {"alpha": 1.0}}, overwrite=False, name="--out masks")
    with pytest.raises(RunError, match=r"holds masks with other settings: masks\.alpha 1\.0 there, 2\.0 here"):
        claim_masks(out, {"masks": {"alpha": 2.0}}, overwrite=False, name="--out masks")
    assert (out / "a.png").is_file()
    claim_masks(out, {"masks": {"alpha": 2.0}}, overwrite=True, name="--out masks")
    assert not (out / "a.png").exists()
    (out / "masks.json").write_text("{")
    with pytest.raises(RunError, match=r"masks\.json: damaged"):
        claim_masks(out, {}, overwrite=False, name="--out masks")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.png").write_bytes(b"")
    with pytest.raises(UsageError, match="holds other files"):
        claim_folder(tmp_path / "mine", "x.json", {}, overwrite=True, name="--out mine")
    assert (tmp_path / "mine" / "thesis.png").exists()


def test_digests_read_only_what_changed(tmp_path, monkeypatch):
    files = [(name, tmp_path / name) for name in ("b", "a")]
    for name, path in files:
        path.write_text(name)
    cache = tmp_path / "seen.json"
    first = files_digest(files, cache)
    assert first == files_digest(reversed(files)) == files_digest(files, cache)
    with monkeypatch.context() as patch:
        patch.setattr("wsss.files.digests.file_digest", pytest.fail)
        assert files_digest(files, cache) == first
    (tmp_path / "a").write_text("a changed")
    assert files_digest(files, cache) != first
    (tmp_path / "a").write_text("a")  # the same content at another time
    assert files_digest(files, cache) == first
    cache.write_text("[1, 2")
    assert files_digest(files, cache) == first
    assert json.loads(cache.read_text())["b"][2] == file_digest(tmp_path / "b")


def test_two_processes_do_not_share_a_folder(tmp_path):
    code = (
        "import sys; from pathlib import Path; from wsss.files.locks import folder_lock\n"
        "with folder_lock(Path(sys.argv[1]), '--out it'): pass"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "it")]
    with folder_lock(tmp_path / "it", "--out it"):
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert "--out it: another process is working in this folder" in found.stderr
    assert subprocess.run(command, cwd=ROOT).returncode == 0
    assert not list((tmp_path / "it").iterdir())


def test_a_file_system_without_locks_is_worked_on_all_the_same(tmp_path, monkeypatch, caplog):
    def unknown(*args, **kwargs):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("wsss.files.locks.FileLock", unknown)
    with caplog.at_level("WARNING"), folder_lock(tmp_path, "--out it"):
        assert "knows no locks" in caplog.text
        with pytest.raises(RunError, match=r"if none is, one was killed there: delete .*\.lock"), folder_lock(
            tmp_path, "--out it"
        ):
            pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0, 1, -1, -12, -30])
def test_files_that_a_power_cut_left(tmp_path, keep):
    Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10)).save(tmp_path / "mask.png")
    np.savez_compressed(tmp_path / "maps.npz", cams=np.ones((2, 3, 3)))
    for path in (tmp_path / "mask.png", tmp_path / "maps.npz"):
        assert is_whole(path)
        data = path.read_bytes()
        path.write_bytes(data[:keep])
        assert not is_whole(path)
        path.write_bytes(data[:keep] + bytes(len(data) - len(data[:keep])))  # the size is there, the content is not
        assert is_whole(path) == (path.read_bytes() == data)
