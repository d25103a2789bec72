"""Procedural backgrounds of the demo scenes: grass, sky, water, road, wall, ground."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

KINDS = ("grass", "sky", "water", "road", "wall", "ground")


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: float, stretch: float = 1.0) -> np.ndarray:
    """Band-limited noise in about [-1, 1], (height, width) float32; `cell` px per feature, `stretch` times wider."""
    grid = (max(2, round(height / cell)), max(2, round(width / (cell * stretch))))
    small = rng.uniform(-1, 1, grid).astype(np.float32)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def render_background(kind: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """One background of a kind of ``KINDS``, (height, width, 3) uint8 RGB."""
    painter = {"grass": _grass, "sky": _sky, "water": _water, "road": _road, "wall": _wall, "ground": _ground}[kind]
    return np.clip(painter(rng, height, width), 0, 255).astype(np.uint8)


def _tint(rng: np.random.Generator, colour: tuple[float, float, float], spread: float) -> np.ndarray:
    return np.asarray(colour, np.float32) + rng.uniform(-spread, spread, 3).astype(np.float32)


def _grass(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    base = _tint(rng, (88, 140, 52), 25)
    blades = smooth_noise(rng, h, w, 7, 0.35) + 0.6 * smooth_noise(rng, h, w, 3, 0.5)
    shade = 22 * blades + 14 * smooth_noise(rng, h, w, 60)
    return base + shade[..., None] * np.asarray([0.8, 1.0, 0.5], np.float32)


def _sky(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    top, bottom = _tint(rng, (70, 130, 215), 30), _tint(rng, (175, 210, 240), 25)
    ramp = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
    image = top * (1 - ramp) + bottom * ramp + np.zeros((h, w, 1), np.float32)
    clouds = smooth_noise(rng, h, w, 70, 2) + 0.5 * smooth_noise(rng, h, w, 28, 2) - rng.uniform(0.1, 0.8)
    cover = np.clip(clouds * 1.6, 0, 0.85)[..., None]
    return image * (1 - cover) + 246 * cover


def _water(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    base = _tint(rng, (38, 105, 150), 28)
    waves = smooth_noise(rng, h, w, 6, 5) + 0.6 * smooth_noise(rng, h, w, 14, 4)
    glints = np.clip(waves - 0.75, 0, 1) * 140
    return base + (24 * waves)[..., None] * np.asarray([0.6, 0.9, 1.0], np.float32) + glints[..., None]


def _road(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    level = rng.uniform(75, 130)
    image = level + 9 * smooth_noise(rng, h, w, 2) + 8 * smooth_noise(rng, h, w, 40)
    image = np.repeat(image[..., None], 3, axis=2) + rng.uniform(-6, 6, 3).astype(np.float32)
    for _ in range(int(rng.integers(1, 4))):  # lane marks: dashed lines of any direction
        angle, gap = rng.uniform(-0.5, 0.5), int(rng.integers(26, 60))
        x, y = float(rng.uniform(0, w)), float(rng.uniform(0, h))
        colour = (235.0, 235.0, 225.0) if rng.random() < 0.7 else (225.0, 190.0, 70.0)
        step = np.asarray([np.cos(angle), np.sin(angle)])
        for k in range(-20, 20):
            start = np.asarray([x, y]) + step * gap * k
            end = start + step * gap * 0.55
            cv2.line(image, tuple(map(int, start)), tuple(map(int, end)), colour, int(rng.integers(3, 7)))
    return image


def _wall(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    style = rng.integers(0, 3)
    if style == 0:  # bricks
        brick_h, brick_w = int(rng.integers(10, 22)), int(rng.integers(26, 52))
        base, mortar = _tint(rng, (165, 90, 70), 35), _tint(rng, (200, 195, 185), 20)
        rows = np.arange(h) // brick_h
        columns = np.arange(w)[None, :] + (rows % 2)[:, None] * brick_w // 2
        shade = rng.uniform(-22, 22, (h // brick_h + 1, w // brick_w + 3)).astype(np.float32)
        image = base + shade[rows[:, None], columns // brick_w][..., None]
        joint = (np.arange(h)[:, None] % brick_h < 2) | (columns % brick_w < 2)
        image[joint] = mortar
        return image + 6 * smooth_noise(rng, h, w, 3)[..., None]
    if style == 1:  # plaster
        grain = 8 * smooth_noise(rng, h, w, 5) + 10 * smooth_noise(rng, h, w, 50)
        return _tint(rng, (205, 190, 165), 40) + grain[..., None]
    # wallpaper: stripes or soft abstract blobs in any colours
    first, second = rng.uniform(60, 235, 3).astype(np.float32), rng.uniform(60, 235, 3).astype(np.float32)
    second = first * 0.5 + second * 0.5
    if rng.random() < 0.5:
        angle, period = rng.uniform(0, np.pi), rng.uniform(14, 60)
        phase = (np.arange(w)[None, :] * np.cos(angle) + np.arange(h)[:, None] * np.sin(angle)) / period
        mix = (np.sin(phase * 2 * np.pi) > 0).astype(np.float32)
    else:
        mix = np.clip(smooth_noise(rng, h, w, rng.uniform(30, 90)) * 2 + 0.5, 0, 1)
    return first * (1 - mix[..., None]) + second * mix[..., None]


def _ground(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    base = _tint(rng, (150, 120, 85), 28)
    grain = 16 * smooth_noise(rng, h, w, 3) + 16 * smooth_noise(rng, h, w, 16, 1.4) + 12 * smooth_noise(rng, h, w, 70)
    image = base + grain[..., None]
    for _ in range(int(rng.integers(4, 18))):  # pebbles
        centre = (int(rng.integers(0, w)), int(rng.integers(0, h)))
        size = (int(rng.integers(2, 9)), int(rng.integers(2, 6)))
        angle, colour = float(rng.uniform(0, 180)), tuple(map(float, _tint(rng, (165, 150, 130), 35)))
        cv2.ellipse(image, centre, size, angle, 0, 360, colour, -1)
    return image


@lru_cache(maxsize=4)
def background_bank(seed: int) -> BackgroundBank:
    """The bank of a seed, kept: rendering one takes about a second."""
    return BackgroundBank(seed)


class BackgroundBank:
    """Large backgrounds rendered once, from which scenes cut random windows (rendering one anew costs more).

    Args:
        seed: seeds the textures. per_kind: how many of each kind. side: their side in pixels.
    """

    def __init__(self, seed: int, per_kind: int = 16, side: int = 512):
        rng = np.random.default_rng(seed)
        self.side = side
        self._images = {kind: [render_background(kind, side, side, rng) for _ in range(per_kind)] for kind in KINDS}

    def cut(self, kind: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """A window of a random background of that kind, mirrored at random, (height, width, 3) uint8."""
        choices = self._images[kind]
        image = choices[int(rng.integers(len(choices)))]
        scale = rng.uniform(0.8, 1.25)
        h, w = min(self.side, round(height / scale)), min(self.side, round(width / scale))
        y, x = int(rng.integers(0, self.side - h + 1)), int(rng.integers(0, self.side - w + 1))
        window = image[y : y + h, x : x + w]
        if rng.random() < 0.5:
            window = window[:, ::-1]
        return cv2.resize(window, (width, height), interpolation=cv2.INTER_LINEAR)
