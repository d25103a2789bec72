"""Ground-truth image labels: a plain list, a folder of VOC XML files, or a COCO annotation file."""

import codecs
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from xml.etree import ElementTree

from tagclip.errors import UsageError
from tagclip.folders import nothing_found, walk_files
from tagclip.image_ids import check_id, distinct_ids
from tagclip.tag_files import IdKind, map_ids, read_plain
from tagclip.text_files import read_text
from tagclip.vocabulary import Vocabulary
from tagclip.vocabulary_files import class_key

Labels = dict[str, tuple[int, ...]]
Label = TypeVar("Label")

DECLARATION = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["'][^>]*?\?>""")
WIDE = re.compile(r"(utf|ucs|iso-10646-ucs)[-_]?(16|32|2|4)", re.IGNORECASE)


def read_labels(path: Path | str, vocabulary: Vocabulary, *, ids: IdKind = "auto", difficult: bool = True) -> Labels:
    """Image id -> sorted class indices.

    Classes are found by their names as `tagclip.vocabulary_files.class_key` compares them: case, composed or
    decomposed accents, and `_` instead of blanks make no difference.

    Args:
        path: plain list (`id class class` per line), folder of VOC XML files (in any encoding that they declare), or
            COCO JSON.
        ids: what the numbers of a plain list are, see `tagclip.tag_files.map_ids`.
        difficult: count VOC objects that are marked difficult.

    Raises:
        UsageError: nothing there, a bad line or file, or a class that the vocabulary does not have.
    """
    path = Path(path)
    if path.is_dir():
        return _read_voc(path, vocabulary, difficult)
    if path.suffix.lower() == ".json":
        return _read_coco(path, vocabulary)
    rows = read_plain(path)
    if not rows:
        raise UsageError(f"{path}: no label in it")
    mapped = map_ids([numbers for _, numbers in rows], vocabulary, ids, str(path))
    return {name: numbers for (name, _), numbers in zip(rows, mapped, strict=True)}


def find_labels(labels: Mapping[str, Label], image_id: str, path: str | None = None) -> Label | None:
    """Labels of an image: under its id, or, where two labelled images differ only in suffix, under id and suffix.

    Args:
        labels: by image id.
        path: of the image file, which tells its suffix.
    """
    suffix = "" if path is None else PurePosixPath(path).suffix
    return labels.get(image_id, labels.get(f"{image_id}{suffix}"))


def _read_voc(folder: Path, vocabulary: Vocabulary, difficult: bool) -> Labels:
    known = _indices(vocabulary)
    labels = {}
    for image, file in walk_files(folder, ".xml"):
        classes = set()
        for thing in _parse_xml(file).iter("object"):
            name = (thing.findtext("name") or "").strip()
            if class_key(name) not in known:
                raise UsageError(f"{file}: object {name!r} is not a class of vocabulary {vocabulary.name!r}")
            if difficult or (thing.findtext("difficult") or "0").strip() != "1":
                classes.add(known[class_key(name)])
        labels[image] = tuple(sorted(classes))
    if not labels:
        raise UsageError(f"label folder {folder}: {nothing_found(folder, '.xml')}")
    return labels


def _parse_xml(file: Path) -> ElementTree.Element:
    try:
        content = file.read_bytes().removeprefix(codecs.BOM_UTF8)
        declared = DECLARATION.match(content)
        if declared is None:
            return ElementTree.fromstring(content)
        # Expat knows few encodings and none of East Asia. A declaration that can be read is in no 16-bit encoding,
        # whatever it says (programs that write a string as UTF-8 leave "utf-16" in it).
        encoding = declared[1].decode()
        text = content.decode("utf-8" if WIDE.match(encoding) else encoding)
        return ElementTree.fromstring(text[text.index("?>") + 2 :])
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise UsageError(f"{file}: not a readable XML file ({error})") from None


def _read_coco(path: Path, vocabulary: Vocabulary) -> Labels:
    known, text = _indices(vocabulary), read_text(path, "COCO file")
    try:
        content = json.loads(text)
        names = _coco_ids({image["id"]: _relative(image["file_name"]) for image in content["images"]}, path)
        categories = {category["id"]: category["name"] for category in content["categories"]}
        found: dict[str, set[int]] = {name: set() for name in names.values()}
        for annotation in content["annotations"]:
            image, category = annotation["image_id"], annotation["category_id"]
            if image not in names or category not in categories:
                raise UsageError(
                    f"{path}: an annotation names image {image!r}, category {category!r}, which is not there"
                )
            key = class_key(categories[category])
            if key not in known:
                raise UsageError(
                    f"{path}: category {categories[category]!r} is not a class of vocabulary {vocabulary.name!r}"
                )
            found[names[image]].add(known[key])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(f"{path}: not a COCO annotation file (problem: {error})") from None
    return {name: tuple(sorted(classes)) for name, classes in found.items()}


def _coco_ids(files: Mapping[Any, str], path: Path) -> dict[Any, str]:
    """Image number -> id. Images that differ only in suffix keep it, as those of a folder do."""
    seen: dict[str, Any] = {}
    for number, name in files.items():
        check_id(name, str(path))
        if seen.setdefault(name, number) != number:
            raise UsageError(f"{path}: images {seen[name]!r} and {number!r} both have the file {name!r}; remove one")
    ids = distinct_ids(seen)
    return {number: ids[name] for number, name in files.items()}


def _relative(file_name: str) -> str:
    r"""`.\a\b.jpg` as `a/b.jpg`: tools on Windows write its slashes."""
    return PurePosixPath(file_name.replace("\\", "/")).as_posix()


def _indices(vocabulary: Vocabulary) -> dict[str, int]:
    return {class_key(name): index for index, name in enumerate(vocabulary.names)}
