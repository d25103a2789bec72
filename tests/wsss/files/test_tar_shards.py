"""Tar archives are data of others: what is read of them, and what is refused."""

import gzip
import io
import pickle
import tarfile

import pytest

from tagclip.errors import ImageError, UsageError
from tests.wsss.files.shards import odd_tar, write_tar
from wsss.files import tar_shards
from wsss.files.tar_shards import ArchiveMember, archive_members


def test_members_are_read_where_they_lie(tmp_path):
    contents = {"a.jpg": b"first", "sub/b.json": b"{}", "./c.jpg": b"third" * 400, f"{'long' * 60}.jpg": b"x"}
    shard = write_tar(tmp_path / "one.tar", contents)
    found = list(archive_members(str(shard)))
    assert [member.relative for member in found] == ["a.jpg", "sub/b.json", "c.jpg", f"{'long' * 60}.jpg"]
    assert [member.read_bytes() for member in found] == list(contents.values())
    third = pickle.loads(pickle.dumps(found[2]))
    with third.open() as stream:
        assert stream.read(5) == b"third"
        stream.seek(-3, io.SEEK_END)
        assert stream.read() == b"ird"
    assert (third.name, third.suffix, third.stat().st_size) == ("c.jpg", ".jpg", 2000)
    assert str(third) == f"{shard}: c.jpg"


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, link, size
    return found


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (member("../b.jpg"), "no path inside it"),
        (member("sub/../../b.jpg"), "no path inside it"),
        (member("/etc/b.jpg"), r"no path inside it \(empty or absolute"),
        (member("..\\b.jpg"), "backslash"),
        (member("C:b.jpg"), "a drive"),
        (member("b.jpg", tarfile.SYMTYPE, "/etc/passwd"), "a link"),
        (member("b.jpg", tarfile.LNKTYPE, "a.jpg"), "a link"),
        (member("b.jpg", tarfile.CHRTYPE), "a device or a pipe"),
        (member("b.jpg", tarfile.BLKTYPE), "a device or a pipe"),
        (member("b.jpg", tarfile.FIFOTYPE), "a device or a pipe"),
        (member("../sub", tarfile.DIRTYPE), "no path inside it"),
        (member("a.jpg"), "holds 'a.jpg' twice"),
        (member("./a.jpg"), "holds 'a.jpg' twice"),
    ],
)
def test_hostile_members(tmp_path, odd, words):
    shard = odd_tar(tmp_path / "bad.tar", odd)
    with pytest.raises(UsageError, match=words) as error:
        list(archive_members(str(shard)))
    assert str(error.value).startswith(str(shard))
    assert "\n" not in str(error.value)


def test_members_that_are_too_large(tmp_path, monkeypatch):
    shard = write_tar(tmp_path / "large.tar", {"a.jpg": bytes(2000)})
    monkeypatch.setattr(tar_shards, "MOST_BYTES", 1999)
    with pytest.raises(UsageError, match="a member of 2000 bytes, more than 1999"):
        list(archive_members(str(shard)))


def test_a_sparse_member(tmp_path):
    shard = odd_tar(tmp_path / "bad.tar", member("b.jpg"))
    data = bytearray(shard.read_bytes())
    header = data[1024:1536]
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[148:156] = b"        "
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    data[1024:1536] = header
    shard.write_bytes(data)
    with pytest.raises(UsageError, match=r"a sparse file|no tar archive that can be read"):
        list(archive_members(str(shard)))


def with_size(shard, size: bytes) -> None:
    """Rewrites the size of the second member's header."""
    data = bytearray(shard.read_bytes())
    header = data[1024:1536]
    header[124:136] = size
    header[148:156] = b"        "
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    data[1024:1536] = header
    shard.write_bytes(data)


@pytest.mark.parametrize("size", [b"\xff" * 11 + b"\x80", b"77777777777\0", b"00000040000\0"])
def test_sizes_that_lead_astray(tmp_path, size):
    """A negative size makes some versions of tarfile read for ever; a huge one points beyond the file."""
    shard = odd_tar(tmp_path / "bad.tar", member("b.jpg"))
    with_size(shard, size)
    with pytest.raises(UsageError, match=r"no tar archive that can be read|more than"):
        list(archive_members(str(shard)))


def test_a_header_of_headers(tmp_path):
    """A long name that claims a gigabyte, and thousands of further headers in a row."""
    shard = odd_tar(tmp_path / "bad.tar", member("b.jpg", tarfile.GNUTYPE_LONGNAME, size=0))
    with_size(shard, b"10000000000\0")
    with pytest.raises(UsageError, match="no tar archive that can be read"):
        list(archive_members(str(shard)))
    with tarfile.open(tmp_path / "deep.tar", "w") as archive:
        for _ in range(5000):
            archive.addfile(member("x", tarfile.GNUTYPE_LONGNAME, size=512), io.BytesIO(b"n" * 512))
        archive.addfile(member("a.jpg"))
    with pytest.raises(UsageError, match="no tar archive that can be read"):
        list(archive_members(str(tmp_path / "deep.tar")))


def test_damaged_archives(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", {"a.jpg": bytes(1000), "b.jpg": bytes(1000), "c.jpg": b"c"}).read_bytes()
    cut = tmp_path / "cut.tar"
    for length in (100, 700, 1300, 1600, 2500):
        cut.write_bytes(whole[:length])
        with pytest.raises(UsageError, match="no tar archive that can be read"):
            list(archive_members(str(cut)))
    torn = bytearray(whole)
    torn[1536:1600] = b"?" * 64  # the second header: tarfile takes it for the end
    cut.write_bytes(torn)
    with pytest.raises(UsageError, match="no header at byte 1536"):
        list(archive_members(str(cut)))
    cut.write_bytes(b"no tar at all" * 100)
    with pytest.raises(UsageError, match="no tar archive"):
        list(archive_members(str(cut)))


def test_compressed_archives(tmp_path):
    shard = write_tar(tmp_path / "a.tar", {"a.jpg": b"x"})
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    with pytest.raises(UsageError, match=r"compressed with gzip.*decompress it first"):
        list(archive_members(str(shard)))


def test_archives_that_change_or_are_gone(tmp_path):
    shard = write_tar(tmp_path / "a.tar", {"a.jpg": bytes(3000)})
    (found,) = archive_members(str(shard))
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(ImageError, match="it was changed"):
        found.read_bytes()
    shard.unlink()
    with pytest.raises(ImageError, match="No such file"):
        found.read_bytes()
    with pytest.raises(UsageError, match="No such file"):
        list(archive_members(str(shard)))
    assert isinstance(found, ArchiveMember)
