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
PHOTO_GREY = 100  # stands for the photo under the hatching in legends; no colour of a palette
NARROWEST, WIDEST = 0.5, 4.0  # widths of panels as a share of their height; other images get white borders


@dataclass(frozen=True)
class PictureConfig:
    """How pictures look.

    Attributes:
        height: of a panel, in pixels; widths follow the image, between half of the height and four times the height.
        max_tags: tags shown per image, strongest area first.
        heat: weight of a heat map over the image.
        fill: weight of the class colours over the image.
        columns: strips side by side on a contact sheet.
        font_size: of titles and legends.
    """

    height: int = 180
    max_tags: int = 4
    heat: float = 0.55
    fill: float = 0.6
    columns: int = 1
    font_size: int = 14


@dataclass(frozen=True)
class TagMaps:
    """One tag of an image.

    Attributes:
        name: of the class.
        raw: its class map before the affinity, (h, w) in [0, 1], or None.
        refined: its class map after the affinity, (h, w) in [0, 1].
        score: of the tag, or None where the tags have none.
        colour: RGB of the class in masks, or None to leave it out of the legend.
    """

    name: str
    raw: np.ndarray | None
    refined: np.ndarray
    score: float | None = None
    colour: tuple[int, int, int] | None = None


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
    return np.rint(rgb * (1 - weight) + heat_colours(full) * weight).astype(np.uint8)


def heat_colours(values: np.ndarray) -> np.ndarray:
    """Colours of map values: (H, W) in [0, 1] -> (H, W, 3) uint8 RGB."""
    return cv2.applyColorMap(np.rint(255 * values.clip(0, 1)).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]


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
    unknown = mask == ignored
    coloured[unknown] = rgb[unknown]
    coloured[unknown & hatching(mask.shape)] = WHITE
    outline = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    coloured[outline] = WHITE
    return coloured


def hatching(shape: tuple[int, ...]) -> np.ndarray:
    """Diagonal stripes: (H, W) bool."""
    rows, columns = np.indices(shape, sparse=True)
    return (rows + columns) % 8 < 3


def mask_panel(
    rgb: np.ndarray, mask: np.ndarray, palette: np.ndarray, config: PictureConfig, *, background: bool = True,
    ignored: int | None = None,
) -> np.ndarray:
    """A mask over its image at the size of a panel, so that outlines and hatching are as wide on every sheet.

    Args:
        rgb: (H, W, 3) uint8.
        mask: (H, W) uint8 or uint16 labels.
        palette: colours by label, (labels, 3) uint8.
        background: whether label 0 is the background.
        ignored: the ignore label; None: the highest value that the mask can hold.

    Returns:
        (H', W', 3) uint8.
    """  # fmt: skip
    size = panel_size(rgb.shape, config)
    small = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))
    labels = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return mask_overlay(small, labels, palette, background=background, ignored=ignored, weight=config.fill)


def strip(
    rgb: np.ndarray,
    tags: Sequence[TagMaps],
    overlay: np.ndarray | None,
    title: str,
    config: PictureConfig | None = None,
) -> np.ndarray:
    """Image, heat maps of each tag (before and after the affinity) and mask side by side, with a legend below.

    Returns:
        (H', W', 3) uint8.
    """
    config = config or PictureConfig()
    panels = [(title, rgb)]
    for tag in tags[: config.max_tags]:
        if tag.raw is not None:
            panels.append((f"{tag.name}: map before affinity", heat_map(rgb, tag.raw, config.heat)))
        panels.append((f"{tag.name}: class map", heat_map(rgb, tag.refined, config.heat)))
    if overlay is not None:
        more = f" (+{len(tags) - config.max_tags} tags)" if len(tags) > config.max_tags else ""
        panels.append((f"mask{more}", overlay))
    row = panel_row(panels, config)
    entries = [(_named(tag), tag.colour) for tag in tags if tag.colour is not None]
    if not entries:
        return row
    return below([row, legend(entries, max(row.shape[1], 2 * config.height), config, heat=True)])


def _named(tag: TagMaps) -> str:
    return tag.name if tag.score is None else f"{tag.name} {tag.score:.2f}"


def legend(
    entries: Sequence[tuple[str, Sequence[int]]], width: int, config: PictureConfig, *, heat: bool = False
) -> np.ndarray:
    """What colours mean: a swatch per class, hatching for ignored pixels, and the scale of heat maps on request.

    Args:
        entries: names (with scores, if there are any) and RGB colours of classes.
        width: of the legend, in pixels; entries that do not fit stand in the next line.
        heat: show the colours of map values from 0 to 1, too.

    Returns:
        (H, width, 3) uint8.
    """
    side, font = config.font_size, ImageFont.load_default(size=config.font_size)
    swatches = [(name, np.full((side, side, 3), colour, np.uint8)) for name, colour in entries]
    hatched = np.full((side, 2 * side, 3), PHOTO_GREY, np.uint8)
    hatched[hatching(hatched.shape[:2])] = WHITE
    swatches.append(("ignored", hatched))
    if heat:
        swatches.append(("class map from 0 to 1", heat_colours(np.tile(np.linspace(0, 1, 6 * side), (side, 1)))))
    places, left, line = [], 0, 0
    for name, swatch in swatches:
        needed = swatch.shape[1] + GAP + int(font.getlength(name)) + 1
        if left and left + needed > width:
            left, line = 0, line + 1
        places.append((left, line * (side + 2 * GAP)))
        left += needed + 2 * GAP
    image = Image.new("RGB", (width, (line + 1) * (side + 2 * GAP)), (WHITE,) * 3)
    draw = ImageDraw.Draw(image)
    for (name, swatch), (left, top) in zip(swatches, places, strict=True):
        image.paste(Image.fromarray(swatch), (left, top + GAP))
        draw.text((left + swatch.shape[1] + GAP, top + GAP - 1), name, fill=INK, font=font)
    return np.asarray(image)


def contact_sheet(strips: Sequence[np.ndarray], config: PictureConfig | None = None) -> np.ndarray:
    """Strips below each other, in `config.columns` columns: (H, W, 3) uint8."""
    columns = (config or PictureConfig()).columns
    return below([beside(list(strips[first : first + columns])) for first in range(0, len(strips), columns)])


def below(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures below each other with a gap, white beside the narrower ones: (H, W, 3) uint8."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [
        np.pad(picture, ((0, GAP), (0, width - picture.shape[1]), (0, 0)), constant_values=WHITE)
        for picture in pictures
    ]
    return np.concatenate(padded)


def beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures next to each other with a gap, white below the lower ones: (H, W, 3) uint8."""
    height = max(picture.shape[0] for picture in pictures)
    padded = [
        np.pad(picture, ((0, height - picture.shape[0]), (0, GAP), (0, 0)), constant_values=WHITE)
        for picture in pictures
    ]
    return np.concatenate(padded, axis=1)[:, :-GAP]


def panel_row(panels: Sequence[tuple[str, np.ndarray]], config: PictureConfig) -> np.ndarray:
    """Titled panels side by side, images at the same height.

    Args:
        panels: (title, (H, W, 3) uint8).

    Returns:
        (H', W', 3) uint8.
    """
    font = ImageFont.load_default(size=config.font_size)
    titles = [wrapped(title, panel_width(panel.shape, config), font) for title, panel in panels]
    lines = max(len(title) for title in titles)
    return beside([_titled(title, panel, config, lines) for title, (_, panel) in zip(titles, panels, strict=True)])


def panel_size(shape: tuple[int, ...], config: PictureConfig) -> tuple[int, int]:
    """(width, height) of an image (H, W, ...) inside its panel."""
    height, width = shape[:2]
    factor = min(config.height / height, WIDEST * config.height / width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def panel_width(shape: tuple[int, ...], config: PictureConfig) -> int:
    """Width of the panel of an image (H, W, ...)."""
    return max(round(NARROWEST * config.height), panel_size(shape, config)[0])


def wrapped(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    """Text in lines of at most `width` pixels, broken at blanks, and inside words that are wider than a line."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _titled(title: Sequence[str], panel: np.ndarray, config: PictureConfig, lines: int) -> np.ndarray:
    """A panel, (H, W, 3) uint8, below a bar of `lines` lines for its title: (H', W', 3) uint8."""
    line = config.font_size + GAP // 2
    bar, width, size = lines * line + GAP // 2, panel_width(panel.shape, config), panel_size(panel.shape, config)
    image = Image.new("RGB", (width, config.height + bar), (WHITE,) * 3)
    shown = Image.fromarray(panel)
    if shown.size != size:
        shown = shown.resize(size, Image.Resampling.BILINEAR)
    image.paste(shown, (0, bar))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=config.font_size)
    for index, text in enumerate(title):
        draw.text((0, index * line), text, fill=INK, font=font)
    return np.asarray(image)
