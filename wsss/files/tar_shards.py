"""Tar archives, read member by member and never unpacked: WebDataset's shards of photos, and our own of results."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tagclip.errors import ImageError, UsageError
from tagclip.image_ids import member_problem
from tagclip.stored_files import (
    MOST_BYTES,
    StoredFile,
    StoredStatus,
    fetch_range,
    file_system,
    is_of_this_process,
    is_url,
    store_errors,
)

BLOCK = 512
MOST_HEADER = 1 << 20  # bytes that a member's header may take, long names and further fields included
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class ArchiveMember(StoredFile):
    """A file in a tar archive.

    Attributes:
        archive: path or address of the archive. offset, size: of the file's bytes in it. stamp: changes with it.
    """

    archive: str
    relative: str
    offset: int
    size: int
    stamp: int = 0
    content: bytes | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.archive}: {self.relative}"

    @property
    def is_of_this_process(self) -> bool:
        return is_of_this_process(self.archive)

    def stat(self) -> StoredStatus:
        return StoredStatus(self.size, self.stamp)

    def fetch(self, start: int, end: int) -> bytes:
        if self.content is not None:
            return self.content[start:end]
        if is_url(self.archive):
            return fetch_range(self.archive, self.offset + start, self.offset + end, str(self))
        try:
            with Path(self.archive).open("rb") as file:
                file.seek(self.offset + start)
                return file.read(end - start)
        except OSError as error:
            raise ImageError(f"{self}: {error.strerror or error}") from None


def archive_members(archive: str) -> Iterator[ArchiveMember]:
    """The files of a tar archive, in its order, from their headers alone.

    An archive is data of others: nothing is unpacked, and one that holds anything else than files and folders, or names
    that lead out of it, is refused as a whole.

    Args:
        archive: path or address.

    Raises:
        UsageError: no such archive, compressed or damaged; a link, a device, a sparse file, a name that is no relative
            path, a name twice, or a member larger than `MOST_BYTES`.
    """
    with store_errors(archive):
        stream, size, stamp = _opened(archive)
    with stream:
        _refuse_compressed(archive, stream)
        seen: set[str] = set()
        for member in _headers(archive, stream, size):
            name = _checked(archive, member, size)
            if name is None:
                continue
            if name in seen:
                raise UsageError(f"{archive}: holds {name!r} twice; write it again with each name once")
            seen.add(name)
            yield ArchiveMember(archive, name, member.offset_data, member.size, stamp)


def _opened(archive: str) -> tuple[BinaryIO, int, int]:
    if is_url(archive):
        system, path = file_system(archive)
        return system.open(path, "rb", block_size=1 << 20), int(system.info(path)["size"]), 0
    try:
        status = os.stat(archive)  # noqa: PTH116
        return Path(archive).open("rb"), status.st_size, status.st_mtime_ns
    except OSError as error:
        raise UsageError(f"{archive}: {error.strerror or error}") from None


def _refuse_compressed(archive: str, stream: BinaryIO) -> None:
    head = stream.read(6)
    stream.seek(0)
    for magic, kind in MAGIC.items():
        if head.startswith(magic):
            raise UsageError(
                f"{archive}: compressed with {kind}, so that no member can be read by itself; decompress it first "
                "(photos are compressed already)"
            )


class _Headers(io.RawIOBase):
    """What tarfile may read of an archive: headers of a bounded size."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _headers(archive: str, stream: BinaryIO, size: int) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(fileobj=_Headers(stream), mode="r:") as opened:
            last = -1
            while (member := opened.next()) is not None:
                opened.members.clear()  # type: ignore[attr-defined]  # it would keep the headers of all
                if member.size < 0 or member.offset_data <= last or member.offset_data + member.size > size:
                    raise tarfile.ReadError(f"cut short or damaged at {member.name!r}")
                last = member.offset_data
                yield member
            end = opened.offset
            stream.seek(end)
            if any(stream.read(BLOCK)):  # where a header is damaged, tarfile takes it for the end
                raise tarfile.ReadError(f"no header at byte {end}")
    except UsageError:
        raise
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, RecursionError) as error:
        reason = "too many headers in a row" if isinstance(error, RecursionError) else str(error) or "cut short"
        raise UsageError(f"{archive}: no tar archive that can be read ({reason}); write or copy it again") from None


def _checked(archive: str, member: tarfile.TarInfo, size: int) -> str | None:
    """The name of a file, None of a folder."""
    what = next(
        (kind for kind, found in (
            ("a link", member.issym() or member.islnk()), ("a device or a pipe", member.isdev()),
            ("a sparse file", member.issparse() or member.type == tarfile.GNUTYPE_SPARSE),
        ) if found), None,
    )  # fmt: skip
    if what is None and not member.isfile() and not member.isdir():
        what = f"a member of type {member.type!r}"
    name = member.name.removeprefix("./") if member.name != "." else "."
    if what is None and not (member.isdir() and name == ".") and (problem := member_problem(name)):
        what = f"a name that is no path inside it ({problem})"
    if what is None and member.size > MOST_BYTES:
        what = f"a member of {member.size} bytes, more than {MOST_BYTES}"
    if what is not None:
        raise UsageError(f"{archive}: holds {what}: {member.name!r}; only plain files are taken from archives")
    return name if member.isfile() else None


