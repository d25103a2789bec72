"""Files that lie in something: an object store, an archive, a table; and the addresses (URLs) of such places.

Whatever opens an image takes such a file in the place of a path. One can be sent to another process.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, NamedTuple

from tagclip.errors import ImageError, RequirementError, TagclipError, UsageError, first_line
from tagclip.requirements import import_advice

# Where photos, lists and results may lie beside local folders. A run's records are data: no other address is opened.
PACKAGES = {
    "s3": "pip install 'tagclip-wsss[s3]'", "gs": "pip install gcsfs", "az": "pip install adlfs",
    "abfs": "pip install adlfs", "hf": "pip install huggingface_hub", "memory": "pip install fsspec",
}  # fmt: skip
LOCAL_SCHEMES = ("file", "local")
MOST_BYTES = 1 << 30  # of one picture, or of one mask: what claims to be larger is not read
BUFFER = 1 << 16  # bytes that reading a header fetches at once
HEADER_FETCHES = 3  # who reads more often reads all
_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")  # two letters at least: one is a drive of Windows


class StoredStatus(NamedTuple):
    """What is known of a stored file without reading it, named as `os.stat_result` names it."""

    st_size: int
    st_mtime_ns: int


class StoredFile(ABC):
    """A file that can only be read through what it lies in.

    Attributes:
        relative: its path below the place that was searched, "/" between folders, with suffix.
    """

    relative: str
    content: bytes | None

    @abstractmethod
    def fetch(self, start: int, end: int) -> bytes:
        """Bytes from `start` to `end`, fewer at the end of the file.

        Raises:
            ImageError: it cannot be read.
        """

    @abstractmethod
    def stat(self) -> StoredStatus:
        """Size in bytes and a time that changes with the file.

        Raises:
            ImageError: it cannot be read.
        """

    @property
    def is_of_this_process(self) -> bool:
        """Whether other processes cannot reach it: it then takes its content along."""
        return False

    @property
    def name(self) -> str:
        """Its last part."""
        return PurePosixPath(self.relative).name

    @property
    def suffix(self) -> str:
        """Of its name, with the dot."""
        return PurePosixPath(self.relative).suffix

    @property
    def stem(self) -> str:
        """Of its name, without the suffix."""
        return PurePosixPath(self.relative).stem

    def is_file(self) -> bool:
        """Whether there is such a file."""
        return True

    def is_dir(self) -> bool:
        """Never a folder."""
        return False

    def read_bytes(self) -> bytes:
        """All of it.

        Raises:
            ImageError: it cannot be read, is too large, or is shorter than it was.
        """
        size = self.stat().st_size
        if size > MOST_BYTES:
            raise ImageError(f"{self}: {size} bytes, more than {MOST_BYTES}; shrink it first")
        data = self.fetch(0, size)
        if len(data) != size:
            raise ImageError(f"{self}: {len(data)} bytes where {size} were; it was changed")
        return data

    def open(self, mode: Literal["rb"] = "rb") -> BinaryIO:
        """A stream that fetches what is read of it: a header costs no whole picture."""
        return io.BufferedReader(_RangeStream(self), BUFFER)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self.is_of_this_process and self.content is None:
            state["content"] = self.read_bytes()
        return state


FilePlace = Path | StoredFile


def image_stream(path: FilePlace, *, whole: bool = False) -> Path | BinaryIO:
    """What Pillow opens: the path, or a stream of a stored file.

    Args:
        whole: more than the header will be read, so that a stored file is fetched at once.

    Raises:
        ImageError: it cannot be read.
    """
    if isinstance(path, Path):
        return path
    return io.BytesIO(path.read_bytes()) if whole else path.open()


class _RangeStream(io.RawIOBase):
    """A stored file as a stream. What is read beyond a header is fetched at once, not block by block."""

    def __init__(self, file: StoredFile):
        self._file, self._size, self._at = file, file.stat().st_size, 0
        self._fetches, self._all = 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError("a place before the start")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        self._fetches += 1
        if self._fetches > HEADER_FETCHES and not self._all:
            self._all = self._file.read_bytes()
        data = self._all[self._at : end] if self._all else self._file.fetch(self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@dataclass(frozen=True)
class RemoteFile(StoredFile):
    """An object of a store.

    Attributes:
        url: its address. size: in bytes. stamp: changes with the object.
    """

    url: str
    relative: str
    size: int
    stamp: int = 0
    content: bytes | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return self.url

    @property
    def is_of_this_process(self) -> bool:
        return is_of_this_process(self.url)

    def stat(self) -> StoredStatus:
        return StoredStatus(self.size, self.stamp)

    def fetch(self, start: int, end: int) -> bytes:
        if self.content is not None:
            return self.content[start:end]
        return fetch_range(self.url, start, end, str(self))


@dataclass(frozen=True)
class AbsentFile(StoredFile):
    """What a list names and a store does not hold."""

    place: str
    relative: str
    content: bytes | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.relative}"

    def is_file(self) -> bool:
        return False

    def stat(self) -> StoredStatus:
        raise ImageError(f"{self}: no such image")

    def fetch(self, start: int, end: int) -> bytes:
        raise ImageError(f"{self}: no such image")


def is_url(text: object) -> bool:
    """Whether a value is the address of a place that is not local: "s3://bucket/photos", but not "file:///photos"."""
    scheme = _scheme(text)
    return scheme is not None and scheme not in LOCAL_SCHEMES


def _scheme(text: object) -> str | None:
    found = _URL.match(text) if isinstance(text, str) else None
    return found[1].lower() if found else None


def local_place(text: str | Path) -> str | Path:
    """A local address ("file:///photos") as a path; anything else as it is."""
    if _scheme(text) not in LOCAL_SCHEMES:
        return text
    from fsspec.implementations.local import LocalFileSystem

    return LocalFileSystem._strip_protocol(str(text))


def is_of_this_process(place: str) -> bool:
    """Whether a place is memory of this process."""
    return _scheme(place) == "memory"


def joined_url(top: str, relative: str) -> str:
    """The address of something below another address."""
    return f"{top.rstrip('/')}/{relative}"


@contextlib.contextmanager
def store_errors(place: str, error: type[TagclipError] = UsageError) -> Iterator[None]:
    """What goes wrong with a store as one line.

    Args:
        place: address, for the message. error: what is raised.

    Raises:
        RequirementError: the store's package is missing. `error`: anything else.
    """
    try:
        yield
    except TagclipError:
        raise
    except ImportError as problem:
        if advice := import_advice(problem):
            raise RequirementError(advice) from None
        remedy = PACKAGES.get(_scheme(place) or "", "pip install the package of this store")
        raise RequirementError(f"{place}: the package that reads this store is missing: {remedy}") from None
    except FileNotFoundError:
        raise error(f"{place}: no such object or folder in the store") from None
    except PermissionError as problem:
        raise error(
            f"{place}: no access ({first_line(problem)}); credentials are those of the store's own settings, such as "
            "AWS_PROFILE or AWS_ACCESS_KEY_ID"
        ) from None
    except Exception as problem:  # every store has errors of its own
        raise error(f"{place}: {first_line(problem)}") from None


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path in it.

    Raises:
        UsageError: an address of another kind. RequirementError: the store's package is missing.
    """
    scheme = _scheme(url)
    if scheme not in PACKAGES or "::" in url:
        raise UsageError(f"{url}: addresses of this kind are not read; use one of {', '.join(PACKAGES)}, or a path")
    with store_errors(url):
        from fsspec.core import url_to_fs

        return url_to_fs(url)


def fetch_range(url: str, start: int, end: int, place: str) -> bytes:
    """Bytes of an object.

    Args:
        place: what the message calls it.

    Raises:
        ImageError: it cannot be read.
    """
    if end <= start:
        return b""
    system, path = file_system(url)
    with store_errors(place, ImageError):
        return system.cat_file(path, start=start, end=end)


@contextlib.contextmanager
def as_local_file(source: str | Path, what: str = "") -> Iterator[Path]:
    """A small file (a list, a class file) as a local one; an object of a store is fetched for as long as this lasts.

    Args:
        what: of the file, for messages. Messages inside name the address, not where it was put.

    Raises:
        UsageError: it cannot be read.
    """
    source = local_place(source)
    if not is_url(source):
        yield Path(source)
        return
    url = str(source)
    system, path = file_system(url)
    with store_errors(f"{what} {url}".strip()):
        content = system.cat_file(path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, PurePosixPath(url).name)
        file.write_bytes(content)
        try:
            yield file
        except TagclipError as error:
            raise type(error)(str(error).replace(str(file), url)) from None
