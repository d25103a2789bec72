"""One name for one thing: no module, class or function of the packages shares its name with another."""

import ast
from collections import defaultdict
from pathlib import Path

import tagclip
import wsss

PACKAGES = [Path(package.__file__).parent for package in (tagclip, wsss)]
PLUGINS = ("dense", "strategies")  # strategies define the same names by contract


def modules():
    for root in PACKAGES:
        for path in sorted(root.rglob("*.py")):
            place = path.relative_to(root.parent)
            if place.parts[1:3] != PLUGINS:
                yield path, place.as_posix()


def repeated(places):
    return {name: found for name, found in places.items() if len(found) > 1}


def test_no_module_name_occurs_twice_in_wsss():
    places = defaultdict(list)
    for path, place in modules():
        # A subcommand's module is called what it does, and so is the module that does it.
        if place.startswith("wsss/") and path.stem != "__init__" and not place.startswith("wsss/cli/"):
            places[path.stem].append(place)
    assert len(places) > 50
    assert not repeated(places)


def test_no_public_class_or_function_name_occurs_twice():
    places = defaultdict(list)
    for path, place in modules():
        if place.startswith("wsss/cli/"):  # every subcommand has its add_arguments and run
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            public = isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith(("_", "main"))
            if public and place not in places[node.name]:  # overloads are one function
                places[node.name].append(place)
    assert len(places) > 200
    assert not repeated(places)
