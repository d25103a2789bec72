"""Pictures of what the stages did: heat maps, mask overlays, strips and contact sheets, as RGB arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wsss.files.mask_files import colour_table

GAP = 6
WHITE = 255
INK = (20, 20, 20)


@dataclass(frozen=True)
class PictureConfig:
    """How pictures look.

    Attributes:
        height: of a panel, in pixels; widths follow the image.
        max_tags: tags shown of an image, strongest area first.
        heat: weight of a heat map over the image.
        fill: weight of the class colours over the image.
        columns: strips side by side on a contact sheet.
        font_size: of the titles.
    """

    height: int = 180
    max_tags: int = 4
    heat: float = 0.55
    fill: float = 0.6
    columns: int = 1
    font_size: int = 14


@dataclass(frozen=True)
class TagMaps:
    """One tag of an image: its name, its CAM before the affinity (h, w) or None, and the refined one (h, w)."""

    name: str
    raw: np.ndarray | None
    refined: np.ndarray


def heat_map(rgb: np.ndarray, cam: np.ndarray, weight: float = 0.55) -> np.ndarray:
    """A map over its image, blue (0) to red (1).

    Args:
        rgb: (H, W, 3) uint8.
        cam: (h, w) in [0, 1], on any grid.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = rgb.shape[:2]
    full = cv2.resize(cam.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap(np.rint(255 * full.clip(0, 1)).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return np.rint(rgb * (1 - weight) + colours * weight).astype(np.uint8)


def mask_overlay(
    rgb: np.ndarray, mask: np.ndarray, palette: np.ndarray, *, background: bool = True,
    ignored: int | None = None, weight: float = 0.6,
) -> np.ndarray:
    """A mask over its image: class colours, outlines, background left as it is, ignored pixels hatched in white.

    Args:
        rgb: (H, W, 3) uint8.
        mask: (H, W) labels, uint8 or uint16.
        palette: colours by label, (labels, 3) uint8.
        background: whether label 0 is the background.
        ignored: the ignore label; None: the highest value that the mask can hold.
        weight: of the colours.

    Returns:
        (H, W, 3) uint8.
    """  # fmt: skip
    ignored = np.iinfo(mask.dtype).max if ignored is None else ignored
    table = colour_table(mask.dtype, palette, ignored)
    coloured = np.rint(rgb * (1 - weight) + table[mask] * weight).astype(np.uint8)
    if background:
        coloured[mask == 0] = rgb[mask == 0]
    rows, columns = np.indices(mask.shape, sparse=True)
    unknown = mask == ignored
    coloured[unknown] = rgb[unknown]
    coloured[unknown & ((rows + columns) % 8 < 3)] = WHITE
    outline = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    coloured[outline] = WHITE
    return coloured


def strip(
    rgb: np.ndarray,
    tags: Sequence[TagMaps],
    overlay: np.ndarray | None,
    title: str,
    config: PictureConfig | None = None,
) -> np.ndarray:
    """Image, heat maps of each tag (before and after the affinity) and mask overlay, side by side.

    Returns:
        (H', W', 3) uint8.
    """
    config = config or PictureConfig()
    panels = [(title, rgb)]
    for tag in tags[: config.max_tags]:
        if tag.raw is not None:
            panels.append((f"{tag.name}: CAM", heat_map(rgb, tag.raw, config.heat)))
        panels.append((f"{tag.name}: refined", heat_map(rgb, tag.refined, config.heat)))
    if overlay is not None:
        more = f" (+{len(tags) - config.max_tags} tags)" if len(tags) > config.max_tags else ""
        panels.append((f"mask{more}", overlay))
    return beside([titled(name, panel, config) for name, panel in panels])


def contact_sheet(strips: Sequence[np.ndarray], config: PictureConfig | None = None) -> np.ndarray:
    """Strips below each other, in `config.columns` columns: (H, W, 3) uint8."""
    columns = (config or PictureConfig()).columns
    rows = [beside(list(strips[first : first + columns])) for first in range(0, len(strips), columns)]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, GAP), (0, width - row.shape[1]), (0, 0)), constant_values=WHITE) for row in rows]
    return np.concatenate(padded)


def beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures next to each other with a gap, white below the lower ones: (H, W, 3) uint8."""
    height = max(picture.shape[0] for picture in pictures)
    padded = [
        np.pad(picture, ((0, height - picture.shape[0]), (0, GAP), (0, 0)), constant_values=WHITE)
        for picture in pictures
    ]
    return np.concatenate(padded, axis=1)[:, :-GAP]


def titled(title: str, panel: np.ndarray, config: PictureConfig) -> np.ndarray:
    """A panel (H, W, 3) uint8 brought to `config.height`, its title (cut to fit) in a bar above: (H', W', 3) uint8."""
    width = max(1, round(panel.shape[1] * config.height / panel.shape[0]))
    bar = config.font_size + GAP
    image = Image.new("RGB", (width, config.height + bar), (WHITE,) * 3)
    image.paste(Image.fromarray(panel).resize((width, config.height), Image.Resampling.BILINEAR), (0, bar))
    font = ImageFont.load_default(size=config.font_size)
    draw = ImageDraw.Draw(image)
    while len(title) > 1 and draw.textlength(title, font=font) > width:
        title = title[:-1]
    draw.text((0, 0), title, fill=INK, font=font)
    return np.asarray(image)
