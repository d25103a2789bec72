"""Copies of stored files for libraries that open paths."""

import os
from pathlib import Path

from tests.wsss.files.shards import write_tar
from wsss.files.tar_shards import archive_members
from wsss.files.unpacked import local_file


def test_a_copy_is_made_once_and_again_when_the_file_has_changed(tmp_path):
    shard = write_tar(tmp_path / "a.tar", {"sub/a.jpg": b"first"})
    (member,) = archive_members(str(shard))
    copy = local_file(member, tmp_path / "copies", "sub/a")
    assert copy == tmp_path / "copies" / "sub" / "a.jpg"
    assert copy.read_bytes() == b"first"
    inode = copy.stat().st_ino
    assert local_file(member, tmp_path / "copies", "sub/a").stat().st_ino == inode
    write_tar(shard, {"sub/a.jpg": b"other"})
    os.utime(shard, ns=(1, 1))
    (member,) = archive_members(str(shard))
    assert local_file(member, tmp_path / "copies", "sub/a").read_bytes() == b"other"
    assert [path.name for path in (tmp_path / "copies").rglob("*") if path.is_file()] == ["a.jpg"]


def test_local_files_stay_where_they_are():
    assert local_file(Path("a.jpg"), Path("copies"), "a") == Path("a.jpg")
