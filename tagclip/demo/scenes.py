"""Scenes of emoji sprites on procedural backgrounds, with their masks: the demo's pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from tagclip.demo.backgrounds import KINDS, background_bank
from tagclip.demo.sprites import TRAINING_STYLES, DemoNames, ObjectName, demo_names, sprite_set
from tagclip.errors import UsageError


@dataclass(frozen=True)
class SceneConfig:
    """What a scene looks like.

    Attributes:
        side: smallest and largest side of the picture, pixels.
        square: height equals width.
        objects: smallest and largest number of objects; their classes differ within a scene.
        object_side: smallest and largest longer side of an object, pixels.
        styles: sprite styles to draw from.
        voc_share: share of objects drawn from the VOC classes; 1.0 draws no others.
        max_hidden: an object may hide at most this share of another one.
        rotation: largest rotation either way, degrees.
        horizon_share: share of scenes with sky above another background.
        augment: photometric variety for training: colour jitter, relief shading, blur, noise.
        bleed: objects may run out of the picture, by up to two fifths; without it they are made to fit.
    """

    side: tuple[int, int] = (320, 448)
    square: bool = False
    objects: tuple[int, int] = (2, 4)
    object_side: tuple[int, int] = (96, 190)
    styles: tuple[str, ...] = TRAINING_STYLES
    voc_share: float = 1.0
    max_hidden: float = 0.25
    rotation: float = 15.0
    horizon_share: float = 0.2
    augment: bool = False
    bleed: bool = False


@dataclass
class Scene:
    """A rendered scene.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8, 0 background, k + 1 where object k of `objects` is visible.
        objects: class names in drawing order.
        areas: visible pixels of each object.
        backgrounds: background kinds, one or two.
    """

    image: np.ndarray
    mask: np.ndarray
    objects: list[str]
    areas: list[int]
    backgrounds: list[str]


class SceneRenderer:
    """Draws scenes. The same seed and index give the same scene, whatever was drawn before.

    Args:
        config: the look. seed: of textures and scenes. names: what can be drawn.
    """

    def __init__(self, config: SceneConfig, seed: int = 0, names: DemoNames | None = None):
        low, high = config.objects
        if not 1 <= low <= high:
            raise UsageError(f"objects per scene must be 1 <= low <= high, got {config.objects}")
        self.config, self.seed = config, seed
        self.names = names or demo_names()
        self._sets = [sprite_set(style) for style in config.styles]
        self._bank = background_bank(seed)
        self._voc = [item for item in self.names.objects if item.voc]
        self._other = [item for item in self.names.objects if not item.voc]

    def __call__(self, index: int) -> Scene:
        """Renders scene number `index`."""
        return self.render(np.random.default_rng([self.seed, index]))

    def render(self, rng: np.random.Generator, config: SceneConfig | None = None) -> Scene:
        """Renders a scene with the given random generator; `config` overrides the renderer's (styles apart)."""
        config = config or self.config
        height = int(rng.integers(config.side[0], config.side[1] + 1))
        width = height if config.square else int(rng.integers(config.side[0], config.side[1] + 1))
        image, kinds = self._background(rng, config, height, width)
        mask = np.zeros((height, width), np.uint8)
        names: list[str] = []
        areas: list[int] = []
        for item in self._pick(rng, config, int(rng.integers(config.objects[0], config.objects[1] + 1))):
            if self._place(rng, config, item, image, mask, areas, len(names) + 1):
                names.append(item.name)
        if config.augment:
            image = _photographic(rng, image)
        return Scene(image, mask, names, [int((mask == k + 1).sum()) for k in range(len(names))], kinds)

    def _background(
        self, rng: np.random.Generator, config: SceneConfig, height: int, width: int
    ) -> tuple[np.ndarray, list[str]]:
        if rng.random() >= config.horizon_share:
            kind = KINDS[int(rng.integers(len(KINDS)))]
            return self._bank.cut(kind, height, width, rng), [kind]
        lower = [kind for kind in KINDS if kind not in ("sky", "wall")]
        kind = lower[int(rng.integers(len(lower)))]
        horizon = round(height * rng.uniform(0.25, 0.6))
        image = self._bank.cut(kind, height, width, rng)
        image[:horizon] = self._bank.cut("sky", height, width, rng)[:horizon]
        return image, ["sky", kind]

    def _pick(self, rng: np.random.Generator, config: SceneConfig, count: int) -> list[ObjectName]:
        """Different classes for the objects of a scene, as many as there are at most."""
        available = len(self._voc) * (config.voc_share > 0) + len(self._other) * (config.voc_share < 1)
        chosen: list[ObjectName] = []
        count = min(count, available)
        while len(chosen) < count:
            pool = self._voc if rng.random() < config.voc_share else self._other
            item = pool[int(rng.integers(len(pool)))]
            if item not in chosen:
                chosen.append(item)
        return chosen

    def _place(
        self,
        rng: np.random.Generator,
        config: SceneConfig,
        item: ObjectName,
        image: np.ndarray,
        mask: np.ndarray,
        areas: list[int],
        label: int,
    ) -> bool:
        """Draws one object where it hides little of the others; gives up (False) when there is no room."""
        sprites = self._sets[int(rng.integers(len(self._sets)))]
        codes = sprites.codes_of(item)
        rgba = _transform(rng, config, sprites[codes[int(rng.integers(len(codes)))]])
        h, w = rgba.shape[:2]
        if not config.bleed and (h > mask.shape[0] or w > mask.shape[1]):
            scale = min(mask.shape[0] / h, mask.shape[1] / w)
            rgba = cv2.resize(rgba, (max(1, int(w * scale)), max(1, int(h * scale))), interpolation=cv2.INTER_AREA)
            h, w = rgba.shape[:2]
        for _ in range(12):
            out_y, out_x = (2 * h // 5, 2 * w // 5) if config.bleed else (0, 0)
            y = int(rng.integers(-out_y, mask.shape[0] - h + out_y + 1))
            x = int(rng.integers(-out_x, mask.shape[1] - w + out_x + 1))
            part = rgba[max(0, -y) : mask.shape[0] - y, max(0, -x) : mask.shape[1] - x]
            place = np.s_[max(0, y) : max(0, y) + part.shape[0], max(0, x) : max(0, x) + part.shape[1]]
            visible = part[..., 3] >= 128
            hidden = np.bincount(mask[place][visible], minlength=label)[1:label]
            if visible.any() and all(n <= config.max_hidden * area for n, area in zip(hidden, areas, strict=True)):
                break
        else:
            return False
        alpha = part[..., 3:].astype(np.float32) / 255
        image[place] = (image[place] * (1 - alpha) + part[..., :3] * alpha + 0.5).astype(np.uint8)
        mask[place][visible] = label
        areas.append(int(visible.sum()))
        return True


def _transform(rng: np.random.Generator, config: SceneConfig, sprite: np.ndarray) -> np.ndarray:
    """Mirrors, rotates, scales and (for training) recolours one sprite; returns RGBA cut to its bounds."""
    side = rng.uniform(*config.object_side)
    if rng.random() < 0.5:
        sprite = sprite[:, ::-1]
    h, w = sprite.shape[:2]
    aspect = np.exp(rng.uniform(-0.12, 0.12)) if config.augment else 1.0
    sx, sy = side / max(h, w) * aspect**0.5, side / max(h, w) / aspect**0.5
    angle = np.deg2rad(rng.uniform(-config.rotation, config.rotation))
    cos, sin = np.cos(angle), np.sin(angle)
    out_w = int(np.ceil(abs(w * sx * cos) + abs(h * sy * sin))) or 1
    out_h = int(np.ceil(abs(w * sx * sin) + abs(h * sy * cos))) or 1
    matrix = np.asarray([[sx * cos, -sy * sin, 0], [sx * sin, sy * cos, 0]], np.float64)
    matrix[:, 2] = np.asarray([out_w, out_h]) / 2 - matrix[:, :2] @ (np.asarray([w, h]) / 2)
    # Premultiplied, so that invisible pixels do not bleed into the edges.
    source: Any = sprite.astype(np.float32)
    source[..., :3] *= source[..., 3:] / 255
    shrink = max(h, w) / side
    if shrink > 1.6:
        source = cv2.GaussianBlur(source, (0, 0), 0.4 * shrink)
    rgba: Any = cv2.warpAffine(source, matrix, (out_w, out_h), flags=cv2.INTER_LINEAR)
    alpha: np.ndarray = np.maximum(rgba[..., 3:], 1e-3)
    rgba[..., :3] *= 255 / alpha
    if config.augment:
        rgba[..., :3] = _restyle(rng, rgba)
    return np.clip(rgba, 0, 255).astype(np.uint8)


def _restyle(rng: np.random.Generator, rgba: np.ndarray) -> np.ndarray:
    """Colour jitter and relief shading that carry flat drawings towards other styles, (h, w, 3) float32."""
    colour = rgba[..., :3]
    grey = colour @ np.asarray([0.299, 0.587, 0.114], np.float32)
    colour = grey[..., None] + (colour - grey[..., None]) * rng.uniform(0.6, 1.3)
    colour = (colour - 128) * rng.uniform(0.7, 1.2) + 128 + rng.uniform(-22, 22) + rng.uniform(-16, 16, 3)
    h, w = grey.shape
    if rng.random() < 0.65:
        sigma = max(1.0, max(h, w) * rng.uniform(0.02, 0.07))
        relief = cv2.GaussianBlur(rgba[..., 3] / 255 + 0.3 * grey / 255, (0, 0), sigma)
        light = rng.uniform(0, 2 * np.pi)
        across, down = cv2.Sobel(relief, cv2.CV_32F, 1, 0), cv2.Sobel(relief, cv2.CV_32F, 0, 1)
        slope = across * np.cos(light) + down * np.sin(light)
        colour = colour + (slope * sigma * rng.uniform(10, 45))[..., None] * rng.uniform(0.6, 1.0, 3)
    if rng.random() < 0.5:
        direction, tint = rng.uniform(0, 2 * np.pi), rng.uniform(-45, 45, 3)
        across, down = np.linspace(-0.5, 0.5, w)[None, :], np.linspace(-0.5, 0.5, h)[:, None]
        ramp = across * np.cos(direction) + down * np.sin(direction)
        colour = colour + ramp[..., None] * tint
    if rng.random() < 0.15:
        colour = colour[..., rng.permutation(3)]
    return colour.astype(np.float32)


def _photographic(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Exposure, blur and sensor noise over a whole scene, (H, W, 3) uint8."""
    result: np.ndarray = (image.astype(np.float32) - 128) * rng.uniform(0.8, 1.15) + 128 + rng.uniform(-18, 18)
    if rng.random() < 0.25:
        result = cv2.GaussianBlur(result, (0, 0), rng.uniform(0.4, 1.1))
    if rng.random() < 0.3:
        result = result + rng.normal(0, rng.uniform(2, 8), image.shape)
    return np.clip(result, 0, 255).astype(np.uint8)
