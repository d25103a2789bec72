"""Emoji sprites: one image atlas a style, cut into RGBA sprites, and the names they stand for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
import yaml
from PIL import Image

from tagclip.errors import UsageError

ASSETS = Path(__file__).with_name("assets")
STYLES = {"noto": "Noto", "twemoji": "Twemoji", "fluent-flat": "Fluent flat", "fluent-3d": "Fluent 3D"}
TRAINING_STYLES = ("noto", "twemoji", "fluent-flat")
HELD_OUT_STYLE = "fluent-3d"
CELL = 160  # pixels, side of one atlas cell


@dataclass(frozen=True)
class ObjectName:
    """One object class of the demo: its name, the words captions use for it, its sprites' code points."""

    name: str
    text: tuple[str, ...]
    sprites: tuple[str, ...]
    voc: bool


@dataclass(frozen=True)
class DemoNames:
    """Everything the demo scenes can show: objects and backgrounds (name -> caption words)."""

    objects: tuple[ObjectName, ...]
    backgrounds: dict[str, tuple[str, ...]] = field(hash=False)

    def object(self, name: str) -> ObjectName:
        """The object of that name. Raises UsageError naming the known ones."""
        for item in self.objects:
            if item.name == name:
                return item
        known = ", ".join(o.name for o in self.objects)
        raise UsageError(f"the demo has no sprite for {name!r}; it knows: {known}")

    @property
    def codes(self) -> tuple[str, ...]:
        """All sprite code points in atlas order."""
        return tuple(code for item in self.objects for code in item.sprites)


@lru_cache(maxsize=1)
def demo_names() -> DemoNames:
    """Names of the demo scenes, from the packaged names.yaml."""
    data = yaml.safe_load((ASSETS / "names.yaml").read_text(encoding="utf-8"))
    objects = tuple(
        ObjectName(name, tuple(entry.get("text", [name])), tuple(map(str, entry["sprites"])), bool(entry.get("voc")))
        for name, entry in data["objects"].items()
    )
    return DemoNames(objects, {name: tuple(words) for name, words in data["backgrounds"].items()})


@cache
def sprite_set(style: str) -> SpriteSet:
    """The packaged sprites of a style, decoded once."""
    return SpriteSet(style)


class SpriteSet:
    """Sprites of one style.

    Args:
        style: one of ``STYLES``.
        assets: folder with ``<style>.webp`` (atlas of ``CELL`` px cells, row by row in the order of ``codes``)
            and ``<style>.txt`` (one code point a line; a style may lack some).
    """

    def __init__(self, style: str, assets: Path = ASSETS):
        if style not in STYLES:
            raise UsageError(f"unknown sprite style {style!r}; choose from {', '.join(STYLES)}")
        self.style = style
        codes = (assets / f"{style}.txt").read_text(encoding="utf-8").split()
        atlas = np.asarray(Image.open(assets / f"{style}.webp").convert("RGBA"))
        columns = atlas.shape[1] // CELL
        self._sprites = {}
        for index, code in enumerate(codes):
            y, x = index // columns * CELL, index % columns * CELL
            self._sprites[code] = crop_to_alpha(atlas[y : y + CELL, x : x + CELL])

    def __contains__(self, code: str) -> bool:
        return code in self._sprites

    def __getitem__(self, code: str) -> np.ndarray:
        """RGBA sprite, (h, w, 4) uint8, cut to its visible pixels; the longer side is at most ``CELL``."""
        return self._sprites[code]

    def codes_of(self, item: ObjectName) -> list[str]:
        """The code points of an object that this style has."""
        return [code for code in item.sprites if code in self._sprites]


def crop_to_alpha(rgba: np.ndarray, threshold: int = 16) -> np.ndarray:
    """Cuts an RGBA image, (H, W, 4) uint8, to the bounding rectangle of its pixels with alpha > threshold."""
    x, y, w, h = cv2.boundingRect((rgba[..., 3] > threshold).astype(np.uint8))
    return np.ascontiguousarray(rgba[y : y + h, x : x + w])


def pack_atlas(sprites: dict[str, Image.Image], columns: int = 16) -> Image.Image:
    """Packs sprites (any size) into one atlas of ``CELL`` px cells, row by row in dictionary order."""
    rows = -(-len(sprites) // columns)
    atlas = Image.new("RGBA", (columns * CELL, rows * CELL))
    for index, image in enumerate(sprites.values()):
        image = image.convert("RGBA")
        image.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
        if max(image.size) < CELL:
            scale = CELL / max(image.size)
            image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        atlas.paste(image, (index % columns * CELL, index // columns * CELL))
    return atlas
