"""Packs the sprite packages of the npm registry into the atlases that the demo ships.

Packages (unpack each with `npm pack NAME && tar xzf`): emoji-datasource-google and @svgmoji/noto (Noto),
@twemoji/svg (Twemoji), @lobehub/fluent-emoji-flat, @lobehub/fluent-emoji-3d. Needs `pip install resvg-py`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from tagclip.demo.sprites import ASSETS, CELL, STYLES, demo_names, pack_atlas


def render_svg(text: str) -> Image.Image:
    """Renders SVG text to a CELL x CELL RGBA image."""
    import resvg_py

    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=text, width=CELL, height=CELL))))


def noto_symbols(sheet: Path) -> dict[str, str]:
    """Nested <svg> elements of the Noto sheet by lower-case code point."""
    parts = re.split(r'<svg viewBox="0 0 128 128" id="', sheet.read_text(encoding="utf-8"))[1:]
    symbols = {}
    for part in parts:
        code = part[: part.index('"')].lower()
        part = f'<svg viewBox="0 0 128 128" id="{part}'
        # The sheet's root declares the xlink prefix; a part that is to stand alone must do so itself.
        part = part.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1)
        symbols[code] = part[: part.index("</svg>") + len("</svg>")]
    return symbols


def spellings(code: str) -> list[str]:
    """A code point with and without its variation selector: packages differ."""
    bare = code.replace("-fe0f", "")
    return [code, bare, f"{bare}-fe0f"]


def find_sprite(style: str, code: str, root: Path, noto: dict[str, str]) -> Image.Image | None:
    """The sprite of a code point in a style, or None where the package lacks it."""
    for name in spellings(code):
        if style == "noto":
            if name in noto:
                return render_svg(noto[name])
            path = root / "emoji-datasource-google/img/google/64" / f"{name}.png"
        else:
            folder = {"twemoji": "twemoji-svg", "fluent-flat": "fluent-emoji-flat/assets"}
            suffix = "webp" if style == "fluent-3d" else "svg"
            path = root / folder.get(style, "fluent-emoji-3d/assets") / f"{name}.{suffix}"
        if path.exists():
            return render_svg(path.read_text(encoding="utf-8")) if path.suffix == ".svg" else Image.open(path)
    return None


def pack_packages(packages: Path, out: Path = ASSETS) -> Iterator[tuple[str, int, list[str]]]:
    """Writes an atlas and its list of code points for each style.

    Args:
        packages: folder with emoji-datasource-google, svgmoji-noto, twemoji-svg, fluent-emoji-flat and
            fluent-emoji-3d, each the unpacked package.
        out: folder for the atlases.

    Yields:
        Style, number of sprites, and the code points that the package lacks.
    """
    noto = noto_symbols(packages / "svgmoji-noto/sprites/all.svg")
    out.mkdir(parents=True, exist_ok=True)
    for style in STYLES:
        sprites = {code: find_sprite(style, code, packages, noto) for code in demo_names().codes}
        missing = [code for code, image in sprites.items() if image is None]
        found = {code: image for code, image in sprites.items() if image is not None}
        pack_atlas(found).save(out / f"{style}.webp", quality=88, method=6)
        (out / f"{style}.txt").write_text("\n".join(found) + "\n", encoding="utf-8")
        yield style, len(found), missing
