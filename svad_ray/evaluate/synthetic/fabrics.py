"""What cloth, hair and soles look like: colour of cloth coordinates, evaluated per pixel so that no pattern is blurred by the mesh.

Every material maps an (M, 6) array of cloth coordinates to (M, 3) linear-ish RGB in [0, 1]. The columns are
``u`` (metres across), ``v`` (metres up along the piece), ``edge`` (metres to the nearest edge of the garment) and the rest position ``x, y, z``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

Color = tuple[float, float, float]
CHANNELS = 6


class Material(Protocol):
    """Colour of cloth coordinates."""

    def __call__(self, coords: np.ndarray) -> np.ndarray: ...


def _rows(color: Color, count: int) -> np.ndarray:
    return np.broadcast_to(np.asarray(color, np.float32), (count, 3))


def _mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    s = share.astype(np.float32)[:, None]
    return a * (1 - s) + b * s


def grain(coords: np.ndarray, *, size: float, seed: int = 0) -> np.ndarray:
    """(M,) smooth noise in about [-1, 1] over the rest position: a few plane waves of seeded directions, wavelength about ``size`` metres."""
    rng = np.random.default_rng(seed)
    waves = rng.normal(size=(6, 3)) * (2 * np.pi / size / np.sqrt(3))
    phase = coords[:, 3:6].astype(np.float32) @ waves.T.astype(np.float32) + rng.uniform(0, 2 * np.pi, 6).astype(np.float32)
    return np.sin(phase).sum(1) / 3


@dataclass(frozen=True)
class Solid:
    """One colour with a little cloudiness."""

    color: Color
    mottle: float = 0.03

    def __call__(self, coords: np.ndarray) -> np.ndarray:
        return _rows(self.color, len(coords)) * (1 + self.mottle * grain(coords, size=0.05))[:, None]


@dataclass(frozen=True)
class Stripes:
    """Stripes across the piece."""

    color: Color
    ground: Color
    period: float = 0.048
    share: float = 0.44

    def __call__(self, coords: np.ndarray) -> np.ndarray:
        on = np.mod(coords[:, 1] / self.period, 1) < self.share
        return _mix(_rows(self.ground, len(coords)), _rows(self.color, len(coords)), on)


@dataclass(frozen=True)
class Plaid:
    """Darker bars both ways over a ground, with a thin light line."""

    ground: Color
    line: Color
    period: float = 0.057
    depth: tuple[float, float] = (0.45, 0.35)

    def __call__(self, coords: np.ndarray) -> np.ndarray:
        u, v = np.mod(coords[:, 0] / self.period, 1), np.mod(coords[:, 1] / self.period, 1)
        dark = (1 - self.depth[0] * (v < 0.34)) * (1 - self.depth[1] * (u < 0.34))
        thin = 0.30 * ((np.abs(u - 0.67) < 0.04) | (np.abs(v - 0.67) < 0.04))
        return _mix(_rows(self.ground, len(coords)) * dark[:, None].astype(np.float32), _rows(self.line, len(coords)), thin)


@dataclass(frozen=True)
class Dots:
    """Round dots in staggered rows."""

    color: Color
    ground: Color
    period: float = 0.05
    radius: float = 0.012

    def __call__(self, coords: np.ndarray) -> np.ndarray:
        row = np.floor(coords[:, 1] / self.period)
        du = (np.mod(coords[:, 0] / self.period + 0.5 * row, 1) - 0.5) * self.period
        dv = (np.mod(coords[:, 1] / self.period, 1) - 0.5) * self.period
        return _mix(_rows(self.ground, len(coords)), _rows(self.color, len(coords)), np.hypot(du, dv) < self.radius)


@dataclass(frozen=True)
class Denim:
    """Cotton twill: a colour, paler where it wears, with stitched edges."""

    color: Color

    def __call__(self, coords: np.ndarray) -> np.ndarray:
        worn = 0.10 * grain(coords, size=0.25, seed=3) + 0.03 * grain(coords, size=0.012, seed=4)
        return np.clip(_rows(self.color, len(coords)) * (1 + worn)[:, None], 0, 1)


@dataclass(frozen=True)
class Trimmed:
    """A material with a band of another colour along the garment's edges."""

    cloth: Material
    trim: Color
    width: float = 0.016

    def __call__(self, coords: np.ndarray) -> np.ndarray:
        return _mix(self.cloth(coords), _rows(self.trim, len(coords)), coords[:, 2] < self.width)


@dataclass(frozen=True)
class Buttoned:
    """A material with a placket and buttons (or, without buttons, a zip) down the middle of the front."""

    cloth: Material
    button: Color
    spacing: float = 0.085
    buttons: bool = True

    def __call__(self, coords: np.ndarray) -> np.ndarray:
        x, y, front = coords[:, 3], coords[:, 4], coords[:, 5] > 0.02
        rgb = np.array(self.cloth(coords))
        rgb *= (1 - 0.18 * (front & (np.abs(np.abs(x) - 0.016) < 0.0013)))[:, None]
        button = np.hypot(x, (np.mod(y / self.spacing, 1) - 0.5) * self.spacing) < 0.0055
        spot = button if self.buttons else np.abs(x) < 0.004
        return _mix(rgb, _rows(self.button, len(coords)), spot & front)


@dataclass(frozen=True)
class Printed:
    """A material with a ring printed on the chest."""

    cloth: Material
    ink: Color
    centre: tuple[float, float] = (0.0, 0.33)
    radius: float = 0.065

    def __call__(self, coords: np.ndarray) -> np.ndarray:
        r = np.hypot(coords[:, 3] - self.centre[0], coords[:, 4] - self.centre[1])
        ring = ((np.abs(r - self.radius) < 0.010) | (r < 0.028)) & (coords[:, 5] > 0.02)
        return _mix(self.cloth(coords), _rows(self.ink, len(coords)), ring)


@dataclass(frozen=True)
class Shoe:
    """Uppers over a pale sole, laces at the front. ``v`` is the height above the ground, ``u`` the distance from the instep line."""

    color: Color
    sole: Color = (0.88, 0.87, 0.84)
    sole_height: float = 0.026

    def __call__(self, coords: np.ndarray) -> np.ndarray:
        rgb = _mix(_rows(self.color, len(coords)), _rows(self.sole, len(coords)), coords[:, 1] < self.sole_height)
        lace = (np.abs(coords[:, 0]) < 0.020) & (np.mod(coords[:, 5] / 0.014, 1) < 0.4) & (coords[:, 2] > 0.5)
        return _mix(rgb, _rows(self.sole, len(coords)) * 0.95, lace)


@dataclass(frozen=True)
class Hair:
    """Strands: fine streaks across ``u`` (metres round the head), slowly changing along ``v`` (metres down the strand), with a soft sheen."""

    color: Color
    seed: int = 0
    contrast: float = 0.22

    def __call__(self, coords: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        u, v = coords[:, 0].astype(np.float32), coords[:, 1].astype(np.float32)
        tone = np.zeros(len(u), np.float32)
        for wavelength in (0.0035, 0.0051, 0.0090, 0.0170, 0.0310):
            bend, phase = rng.uniform(-0.25, 0.25), rng.uniform(0, 2 * np.pi)
            tone += np.sin((u + bend * wavelength * np.sin(v * 40 + phase)) * np.float32(2 * np.pi / wavelength) + phase)
        sheen = 0.35 * np.exp(-(((v - 0.07) / 0.035) ** 2))
        base = _rows(self.color, len(coords)) * (1 + self.contrast * tone / 3)[:, None]
        return np.clip(base * (1 + sheen)[:, None] + 0.04 * sheen[:, None], 0, 1)
