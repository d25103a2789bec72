"""Ground-truth image labels: a plain list, a folder of VOC XML files, or a COCO annotation file."""

import json
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from tagclip.errors import UsageError
from tagclip.tag_files import IdKind, map_ids, read_plain
from tagclip.vocabulary import Vocabulary

Labels = dict[str, tuple[int, ...]]


def read_labels(path: Path | str, vocabulary: Vocabulary, *, ids: IdKind = "auto", difficult: bool = True) -> Labels:
    """Image id -> sorted class indices.

    Args:
        path: plain list (`id class class` a line), folder of VOC XML files, or COCO JSON.
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


def _read_voc(folder: Path, vocabulary: Vocabulary, difficult: bool) -> Labels:
    known = {name: index for index, name in enumerate(vocabulary.names)}
    labels = {}
    for file in sorted(folder.glob("*.xml")):
        try:
            root = ElementTree.parse(file).getroot()
        except (ElementTree.ParseError, OSError) as error:
            raise UsageError(f"{file}: not a readable XML file ({error})") from None
        classes = set()
        for thing in root.iter("object"):
            name = (thing.findtext("name") or "").strip()
            if name not in known:
                raise UsageError(f"{file}: object {name!r} is not a class of vocabulary {vocabulary.name!r}")
            if difficult or (thing.findtext("difficult") or "0").strip() != "1":
                classes.add(known[name])
        labels[file.stem] = tuple(sorted(classes))
    if not labels:
        raise UsageError(f"label folder {folder}: no .xml file in it")
    return labels


def _read_coco(path: Path, vocabulary: Vocabulary) -> Labels:
    known = {name: index for index, name in enumerate(vocabulary.names)}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {image["id"]: _without_suffix(image["file_name"]) for image in content["images"]}
        categories = {category["id"]: category["name"] for category in content["categories"]}
        pairs = [(annotation["image_id"], annotation["category_id"]) for annotation in content["annotations"]]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{path}: not a COCO annotation file (problem: {error})") from None
    found: dict[str, set[int]] = {name: set() for name in names.values()}
    for image, category in pairs:
        if image not in names or category not in categories:
            raise UsageError(f"{path}: an annotation names image {image!r}, category {category!r}, which is not there")
        name = categories[category]
        if name not in known:
            raise UsageError(f"{path}: category {name!r} is not a class of vocabulary {vocabulary.name!r}")
        found[names[image]].add(known[name])
    return {name: tuple(sorted(classes)) for name, classes in found.items()}


def _without_suffix(file_name: str) -> str:
    return PurePosixPath(file_name).with_suffix("").as_posix()
