"""JSON files whose lists are longer than memory: written item by item, joined at the end."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from tagclip.text_files import json_text
from wsss.files.atomic import disk_errors


class JsonLists:
    """An object with some small values and some long lists, or one long list.

    Args:
        parts: existing folder for the growing lists.
        name: unique among the objects that use the folder.
        keys: of the lists; ("",) for a file that is one list.
    """

    def __init__(self, parts: Path, name: str, keys: tuple[str, ...]):
        self._files: dict[str, tuple[Path, BinaryIO]] = {}
        for number, key in enumerate(keys):
            path = parts / f"{name}-{number}.json"
            with disk_errors(path):
                self._files[key] = (path, path.open("w+b"))

    def add(self, key: str, item: Any) -> None:
        """Appends to a list.

        Raises:
            RunError: full disk.
        """
        path, file = self._files[key]
        with disk_errors(path):
            file.write(b",\n" if file.tell() else b"\n")
            file.write(json_text(item).encode())

    def finish(self, target: Path, head: Mapping[str, Any]) -> None:
        """Writes the whole file: the values of `head`, then the lists.

        Raises:
            RunError: full disk.
        """
        with disk_errors(target), target.open("wb") as out:
            is_list = list(self._files) == [""]
            if not is_list:
                out.write(b"{")
                for key, value in head.items():
                    out.write(f"{json_text(key)}: {json_text(value)},\n".encode())
            for number, (key, (path, file)) in enumerate(self._files.items()):
                if not is_list:
                    out.write(f"{',' if number else ''}{json_text(key)}: ".encode())
                out.write(b"[")
                file.seek(0)
                shutil.copyfileobj(file, out)
                file.close()
                path.unlink()
                out.write(b"\n]")
            out.write(b"\n" if is_list else b"}\n")
