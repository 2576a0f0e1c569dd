"""Colour of rendered people: cloth laid out on the surface, light, and the camera.

Works on one image at a time in float32, and uses no function whose result depends on the length of
its input: the same image always comes out bit for bit.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from dgpose.data.body_capsules import BODY_PARTS
from dgpose.data.counter_rng import CounterRng, FloatArray, IntArray
from dgpose.data.people_appearance import MATERIALS, PATTERNS, Appearance
from dgpose.data.people_backgrounds import Map, NoiseTiles, fraction
from dgpose.data.rotations import unit

__all__ = [
    "CameraLook",
    "Lights",
    "PartFrames",
    "expose",
    "sample_camera_look",
    "sample_lights",
    "shade",
]

_HEAD, _TORSO = BODY_PARTS.index("head"), BODY_PARTS.index("torso")
# How much folds and grain change the light, by material.
_ROUGH = np.full(len(MATERIALS), 0.35, np.float32)
_ROUGH[[MATERIALS.index("skin"), MATERIALS.index("hair")]] = 0.08, 0.5
_RADIUS_MM = np.full(len(BODY_PARTS), 55.0, np.float32)
_RADIUS_MM[[_TORSO, BODY_PARTS.index("skirt")]] = 150.0
# Texels of folds around a part.
_TEXELS = np.where(_RADIUS_MM > 100, 256, 96).astype(np.float32)
_F = np.float32


class Lights(NamedTuple):
    """Light of B images: ambient [B, 3]; direction [B, 2, 3] toward two lights in world axes (y
    DOWN), their colour [B, 2, 3]."""

    ambient: FloatArray
    direction: FloatArray
    color: FloatArray


class CameraLook(NamedTuple):
    """What the camera does to B images: gain [B, 3], blur [B] pixels, noise [B], start of the
    noise [B]."""

    gain: FloatArray
    blur: FloatArray
    noise: FloatArray
    start: IntArray


class PartFrames(NamedTuple):
    """Frames of one person's parts in the camera: origins [P, 3] mm, axes [P, 3, 3] rows across,
    along, front."""

    origins: Map
    axes: Map


def sample_lights(rng: CounterRng) -> Lights:
    """Draw light: a main light from any side but below, a weaker one, and ambient light."""
    azimuth = rng.uniform("light.azimuth", 2, high=2 * np.pi)
    height = np.radians(rng.uniform("light.height", 2, low=20.0, high=75.0))
    direction = np.stack(
        [np.cos(height) * np.cos(azimuth), -np.sin(height), -np.cos(height) * np.sin(azimuth)], -1
    )
    warmth = rng.normal("light.warmth", 3, 1, std=0.06) * np.array([1.0, 0.1, -1.0])
    strength = rng.uniform("light.strength", 2, 1) * np.array([[0.55], [0.3]]) + np.array(
        [[0.3], [0.0]]
    )
    ambient = rng.uniform("light.ambient", 1, low=0.42, high=0.75)
    return Lights(ambient * (1.0 + warmth[:, 0]), unit(direction), strength * (1.0 + warmth[:, 1:]))


def sample_camera_look(rng: CounterRng) -> CameraLook:
    """Draw exposure, white balance, focus and noise."""
    gain = rng.log_normal("camera.gain", 1, std=0.12) * rng.log_normal("camera.white", 3, std=0.035)
    return CameraLook(
        gain=gain,
        blur=rng.uniform("camera.blur", low=0.3, high=0.8),
        noise=rng.uniform("camera.noise", low=0.002, high=0.02),
        start=rng.integers("camera.noise_start", 1 << 30),
    )


class Beams(NamedTuple):
    """Light of one image: ambient [3], direction [2, 3] in the camera, color [2, 3]."""

    ambient: Map
    direction: Map
    color: Map


class Surface(NamedTuple):
    """What n pixels of one image see: part [n], point and normal (x, y, z) [n] in the camera, and
    openness [n], how much ambient light comes (0 to 1)."""

    part: IntArray
    point: tuple[Map, ...]
    normal: tuple[Map, ...]
    openness: Map


def shade(
    surface: Surface,
    frames: PartFrames,
    look: Appearance,
    b: int,
    beams: Beams,
    head: float,
    tiles: NoiseTiles,
) -> Map:
    """Colours [3, n] of a person's visible surface.

    Args:
        surface: of the person.
        frames: of the parts.
        look: of B people; b: which.
        beams: the light.
        head: size of the head's features.
        tiles: folds and grain.
    """
    part = surface.part
    offset = [surface.point[i] - frames.origins[:, i].take(part) for i in range(3)]
    across, along, front = (
        offset[0] * frames.axes[:, r, 0].take(part)
        + offset[1] * frames.axes[:, r, 1].take(part)
        + offset[2] * frames.axes[:, r, 2].take(part)
        for r in range(3)
    )
    around = np.arctan2(across, front) * _F(0.5 / np.pi)
    material = np.where(
        along > look.cut[b].astype(np.float32).take(part),
        look.above[b].take(part),
        look.below[b].take(part),
    )
    table = look.cloth.color[b].T.astype(np.float32)
    color: Map = np.stack([row.take(material) for row in table])
    _patterns(color, material, part, around, along, look, b)
    grain = tiles.look_up(0, along * _F(0.25) + 1024, around * _TEXELS.take(part) + 1024)
    light = 1 + _ROUGH.take(material) * (grain - _F(0.5))
    _face(light, part, across, along, front, head)

    normal = _smooth_trunk(part, across, front, surface.normal, frames)
    skylight = (_F(0.82) - _F(0.18) * normal[1]) * surface.openness * light
    first, second = (
        np.maximum(normal[0] * d[0] + normal[1] * d[1] + normal[2] * d[2], 0) * light
        for d in beams.direction
    )
    for c in range(3):
        color[c] *= (
            skylight * beams.ambient[c] + first * beams.color[0, c] + second * beams.color[1, c]
        )
    return color


def _patterns(
    color: Map,
    material: IntArray,
    part: IntArray,
    around: Map,
    along: Map,
    look: Appearance,
    b: int,
) -> None:
    """Change ``color`` where cloth has a pattern."""
    for m in np.flatnonzero(look.cloth.pattern[b]):
        kind = PATTERNS[look.cloth.pattern[b, m]]
        at = np.flatnonzero(material == m)
        p = part.take(at)
        period = look.cloth.period[b, m]
        # A whole number of periods around, so that there is no seam.
        count = np.maximum(np.rint(_F(2 * np.pi / period) * _RADIUS_MM), 2).take(p)
        turns = around.take(at)
        u = turns * count + _F(look.cloth.phase[b, m])
        v = along.take(at) * _F(1.0 / period) + _F(look.cloth.phase[b, m])
        if kind == "stripes across":
            on = fraction(v) < 0.5
        elif kind == "stripes along":
            on = fraction(u) < 0.4
        elif kind == "checks":
            on = (fraction(u) < 0.5) ^ (fraction(v) < 0.5)
        elif kind == "dots":
            x, y = fraction(u) - _F(0.5), fraction(v) - _F(0.5)
            on = x * x + y * y < 0.08
        elif kind == "logo":
            chest = along.take(at)
            on = (p == _TORSO) & (np.abs(turns) < 0.1) & (chest > 240) & (chest < 240 + period)
        elif kind == "mottled":
            on = fraction(u + _F(0.7) * fraction(_F(1.7) * v)) + fraction(_F(2.3) * v - u) < 0.8
        elif kind == "diagonal":
            on = fraction(u + v) < 0.5
        elif kind == "blocks":
            on = along.take(at) > np.where(p == _TORSO, _F(280.0), _F(-150.0))
        else:
            on = np.abs(fraction(u) - _F(0.5)) + np.abs(fraction(v) - _F(0.5)) < 0.35
        for c in range(3):
            color[c][at[on]] = look.cloth.second[b, m, c]


def _face(
    light: Map,
    part: IntArray,
    across: Map,
    along: Map,
    front: Map,
    size: float,
) -> None:
    """Eyes, brows and mouth."""
    at = np.flatnonzero((part == _HEAD) & (front > 40 * size))
    x, y = np.abs(across.take(at)) * _F(1 / size), along.take(at) * _F(1 / size)

    def dark(x0: float, y0: float, rx: float, ry: float, factor: float) -> None:
        dx, dy = (x - _F(x0)) * _F(1 / rx), (y - _F(y0)) * _F(1 / ry)
        light[at[dx * dx + dy * dy < 1]] *= _F(factor)

    dark(30.0, 14.0, 14.0, 9.0, 0.3)
    dark(31.0, 34.0, 18.0, 6.0, 0.55)
    dark(0.0, -48.0, 24.0, 8.0, 0.6)


def _smooth_trunk(
    part: IntArray,
    across: Map,
    front: Map,
    normal: tuple[Map, ...],
    frames: PartFrames,
) -> list[Map]:
    """Normals, on the trunk mixed with those of an oval: its columns shall not show."""
    at = np.flatnonzero(part == _TORSO)
    x, z = across.take(at) * _F(1 / 150.0**2), front.take(at) * _F(1 / 105.0**2)
    scale = _F(1.6) / np.sqrt(x * x + z * z + _F(1e-9))
    mixed = []
    own = [n.take(at) for n in normal]
    axes = frames.axes[_TORSO]
    added = [own[i] + scale * (x * axes[0, i] + z * axes[2, i]) for i in range(3)]
    length = 1 / np.sqrt(added[0] ** 2 + added[1] ** 2 + added[2] ** 2 + _F(1e-9))
    for i in range(3):
        n = normal[i].copy()
        n[at] = added[i] * length
        mixed.append(n)
    return mixed


def expose(image: Map, look: CameraLook, b: int, tiles: NoiseTiles) -> Map:
    """The photograph [3, H, W] in 0 to 1 of light [H, W, 3]."""
    seen = cv2.GaussianBlur(image, (0, 0), float(look.blur[b]))
    # As cameras do, if not to the end.
    exposure = min(max(0.42 / (float(seen.mean()) + 0.02), 0.6), 2.2) ** 0.6
    seen *= (exposure * look.gain[b]).astype(np.float32)
    count = seen.size
    start = int(look.start[b]) % max(tiles.white.size - count, 1)
    if tiles.white.size >= count:
        grain = tiles.white[start : start + count]
    else:
        grain = np.resize(tiles.white, count)
    seen += grain.reshape(seen.shape) * _F(look.noise[b])
    return np.ascontiguousarray(np.clip(seen, 0.0, 1.0).transpose(2, 0, 1))
