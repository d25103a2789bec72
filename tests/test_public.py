"""The public names: each resolves, editors see the same, and both packages say that they are typed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tagclip
import wsss


@pytest.mark.parametrize("package", [tagclip, wsss], ids=lambda package: package.__name__)
def test_names_that_editors_see_are_those_that_resolve(package):
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == package._PUBLIC
    assert sorted(seen) == sorted(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018
    assert (Path(package.__file__).parent / "py.typed").is_file()


def test_the_packages_import_nothing_heavy():
    code = "import sys, tagclip, wsss; dir(wsss); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
