"""Places where rendered people stand: a floor and what is behind it, textured and out of focus.

Every place is a floor plane at the person's feet and an upright plane behind (a wall, or a far
backdrop under a sky), so that floors recede and the horizon fits the camera. Kinds of surface:
plain, noise, stripes, checks and planks; bricks, discs and diagonals are seen in the test split
alone. Noise comes from tiles that each split draws for itself.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from dgpose.data.counter_rng import CounterRng, FloatArray, IntArray

__all__ = ["NoiseTiles", "Places", "Rays", "paint_place", "sample_places"]

Map = npt.NDArray[np.float32]

_TILE = 256
_TILES = 16
_SURFACES = ("plain", "noise", "stripes", "checks", "planks", "bricks", "discs", "diagonals")
_SEEN = 5
_BOXES = 5


class NoiseTiles:
    """Smooth random maps [T, 256, 256] in 0 to 1 that repeat without seams; white noise beside."""

    def __init__(self, seed: int) -> None:
        rng = CounterRng(seed, np.arange(_TILES))
        white = rng.normal("tile", _TILE, _TILE)
        power = rng.uniform("tile.power", low=0.7, high=1.7)
        stretch = np.exp(rng.normal("tile.stretch", std=0.8))
        f = np.fft.fftfreq(_TILE)
        self.smooth = np.empty((_TILES, _TILE * _TILE), np.float32)
        for i in range(_TILES):
            radius = np.hypot(f[:, None] * stretch[i], f / stretch[i])
            radius[0, 0] = 1.0
            field = np.fft.ifft2(np.fft.fft2(white[i]) * radius ** -power[i]).real
            order = (field - field.mean()) / field.std()
            self.smooth[i] = np.clip(0.5 + 0.25 * order, 0.0, 1.0).ravel()
        self.white: Map = white.astype(np.float32).ravel()

    def look_up(self, tile: int, u: Map, v: Map) -> Map:
        """Values at (u, v), in texels; nearest."""
        column = u.astype(np.int32) & (_TILE - 1)
        row = v.astype(np.int32) & (_TILE - 1)
        found: Map = self.smooth[tile].take(row * _TILE + column)
        return found


class Places(NamedTuple):
    """B places. Lengths in mm; surfaces: first the floor, then what is behind."""

    surface: IntArray  # [B, 2] of _SURFACES
    color: FloatArray  # [B, 2, 2, 3] two colours of each
    period: FloatArray  # [B, 2]
    tile: IntArray  # [B, 2]
    phase: FloatArray  # [B, 2, 2]
    distance: FloatArray  # [B] of the upright plane behind the person
    turn: FloatArray  # [B] of that plane about the vertical, radians
    sky: FloatArray  # [B, 2, 3] at the horizon and above; outdoors only
    outdoors: npt.NDArray[np.bool_]
    boxes: FloatArray  # [B, N, 4] on the upright plane: left, right, bottom, top above the floor
    box_color: FloatArray  # [B, N, 3]
    blur: FloatArray  # [B] pixels for an image of 128


def sample_places(rng: CounterRng, *, unseen: bool) -> Places:
    """Draw places; ``unseen``: half of the surfaces are of the kinds that only tests see."""
    batch = len(rng)
    surface = rng.integers("place.surface", _SEEN, 2)
    if unseen:
        new = _SEEN + rng.integers("place.unseen", len(_SURFACES) - _SEEN, 2)
        surface = np.where(rng.chance("place.is_unseen", 0.5, 2), new, surface)
    outdoors = rng.chance("place.outdoors", 0.45)
    # Colours of rooms and streets are mild.
    base = rng.uniform("place.value", 2, 1, 1, low=0.2, high=0.85)
    tint = 1.0 + rng.normal("place.tint", 2, 1, 3, std=0.14, clip=2.0)
    contrast = 1.0 + rng.normal("place.contrast", 2, 2, 1, std=0.22, clip=2.0)
    color = np.clip(base * tint * contrast, 0.03, 0.97)
    blue = rng.uniform("place.sky", 1, 1, low=0.55, high=0.98)
    sky = blue * np.array([[[0.95, 0.97, 1.0], [0.55, 0.72, 0.98]]])
    grey = rng.chance("place.overcast", 0.4, 1, 1)
    sky = np.where(grey, blue * np.array([[[0.97, 0.97, 0.98], [0.82, 0.84, 0.88]]]), sky)
    distance = np.where(
        outdoors,
        rng.uniform("place.far", low=6000.0, high=40000.0),
        rng.uniform("place.near", low=500.0, high=3500.0),
    )
    u = rng.uniform("place.boxes", _BOXES, 5)
    reach = (1200.0 + 0.4 * distance)[:, None]
    middle = (u[..., 0] - 0.5) * 3.0 * reach
    half = (0.08 + 0.5 * u[..., 1]) * reach
    low = np.where(outdoors[:, None], 0.0, 2200.0 * u[..., 2])
    high = low + np.where(outdoors[:, None], 0.15 + u[..., 3], 0.1 + 0.9 * u[..., 3]) * reach
    boxes = np.stack([middle - half, middle + half, low, high], axis=-1)
    none = u[..., 4] < 0.35
    boxes[none] = 0.0
    box_color = np.clip(
        rng.uniform("place.box_value", _BOXES, 1, low=0.1, high=0.9)
        * (1.0 + rng.normal("place.box_tint", _BOXES, 3, std=0.2, clip=2.0)),
        0.03,
        0.97,
    )
    return Places(
        surface=surface,
        color=color,
        period=rng.uniform("place.period", 2, low=120.0, high=700.0),
        tile=rng.integers("place.tile", _TILES, 2),
        phase=rng.uniform("place.phase", 2, 2, high=float(_TILE)),
        distance=distance,
        turn=rng.normal("place.turn", std=0.25, clip=2.0),
        sky=np.broadcast_to(sky, (batch, 2, 3)),
        outdoors=outdoors,
        boxes=boxes,
        box_color=box_color,
        blur=rng.uniform("place.blur", low=0.0, high=2.2),
    )


class Rays(NamedTuple):
    """Directions [H, W] of the pixels of one image along world axes (x, y DOWN, z forward)."""

    x: Map
    y: Map
    z: Map


class Shadow(NamedTuple):
    """On the floor: from (x, z), toward (x, z), width in mm, strength 0 to 1."""

    start: tuple[float, float]
    end: tuple[float, float]
    width: float
    strength: float


def paint_place(
    places: Places,
    b: int,
    rays: Rays,
    floor: float,
    beyond: float,
    shadow: Shadow,
    tiles: NoiseTiles,
) -> Map:
    """Place b as an image [H, W, 3], before light.

    Args:
        floor: y of the floor.
        beyond: z of the person, from which the upright plane's distance counts.
        shadow: of the person.
    """
    height, width = rays.x.shape
    turn = float(places.turn[b])
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    toward = np.maximum(rays.z * c + rays.x * s, np.float32(1e-3))
    depth = np.float32(beyond + places.distance[b]) / toward
    on_floor = rays.y * depth > np.float32(floor)
    image = np.empty((height * width, 3), np.float32)

    flat = np.flatnonzero(on_floor)
    t = np.float32(floor) / rays.y.take(flat)
    x, z = rays.x.take(flat) * t, rays.z.take(flat) * t
    ground = _surface(places, b, 0, x * c - z * s, x * s + z * c, tiles)
    image[flat] = ground * _shadow(x, z, shadow)[:, None]

    up = np.flatnonzero(~on_floor)
    t = depth.take(up)
    x, z = rays.x.take(up), rays.z.take(up)
    across, high = (x * c - z * s) * t, np.float32(floor) - rays.y.take(up) * t
    if places.outdoors[b]:
        image[up] = _sky(places, b, x, rays.y.take(up), tiles)
        band = high < np.float32(0.07 * places.distance[b])
    else:
        band = np.ones(len(up), bool)
    image[up[band]] = _surface(places, b, 1, across[band], high[band], tiles)
    for box, color in zip(places.boxes[b], places.box_color[b], strict=True):
        if box[1] > box[0]:
            left, right, low, top = box.astype(np.float32)
            inside = (across > left) & (across < right) & (high > low) & (high < top)
            image[up[inside]] = color.astype(np.float32)
    picture = image.reshape(height, width, 3)
    blur = float(places.blur[b]) * max(height, width) / 128.0
    if blur > 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), blur)
    return picture


def _shadow(x: Map, z: Map, shadow: Shadow) -> Map:
    """What the light on the floor is multiplied by."""
    ax, az = shadow.start
    dx, dz = shadow.end[0] - ax, shadow.end[1] - az
    px, pz = x - np.float32(ax), z - np.float32(az)
    along = (px * np.float32(dx) + pz * np.float32(dz)) * np.float32(
        1.0 / (dx * dx + dz * dz + 1.0)
    )
    along = np.clip(along, 0.0, 1.0)
    px, pz = px - along * np.float32(dx), pz - along * np.float32(dz)
    near = np.float32(1.0 / shadow.width**2) * (px * px + pz * pz)
    fade = np.float32(shadow.strength) * (1 - np.float32(0.6) * along)
    shade: Map = 1 - fade / (1 + near * near)
    return shade


def _sky(places: Places, b: int, x: Map, y: Map, tiles: NoiseTiles) -> Map:
    low, high = places.sky[b].astype(np.float32)
    share = np.clip(np.float32(-1.6) * y, 0.0, 1.0)
    u, v = (places.phase[b, 1]).astype(np.float32)
    cloud = tiles.look_up(int(places.tile[b, 1]), (x + 2) * 90 + u, (y + 2) * 200 + v)
    share = np.clip(share - np.float32(0.7) * np.maximum(cloud - np.float32(0.5), 0), 0.0, 1.0)
    sky: Map = low + share[:, None] * (high - low)
    return sky


def _surface(places: Places, b: int, which: int, u: Map, v: Map, tiles: NoiseTiles) -> Map:
    """Colours [n, 3] of a surface at (u, v) mm."""
    kind = _SURFACES[places.surface[b, which]]
    period = np.float32(1.0 / places.period[b, which])
    phase = places.phase[b, which].astype(np.float32)
    first, second = places.color[b, which].astype(np.float32)
    scale = np.float32(0.06)
    # Large enough that no index is negative before it wraps.
    noise = tiles.look_up(
        int(places.tile[b, which]), u * scale + phase[0] + 65536, v * scale + phase[1] + 65536
    )
    if kind in ("plain", "noise"):
        share = noise if kind == "noise" else np.float32(0.3) * noise
    else:
        a, d = u * period + phase[0], v * period + phase[1]
        if kind == "stripes":
            pattern = _fraction(a) < 0.5
        elif kind == "checks":
            pattern = (_fraction(a) < 0.5) ^ (_fraction(d) < 0.5)
        elif kind == "planks":
            pattern = (_fraction(d) < 0.08) | (_fraction(a * np.float32(0.25)) < 0.02)
        elif kind == "bricks":
            course = np.floor(2 * d)
            pattern = (_fraction(2 * d) < 0.12) | (_fraction(a + np.float32(0.5) * course) < 0.06)
        elif kind == "discs":
            p, q = _fraction(a) - np.float32(0.5), _fraction(d) - np.float32(0.5)
            pattern = p * p + q * q < 0.09
        else:
            pattern = _fraction(a + d) < 0.4
        share = np.float32(0.75) * pattern + np.float32(0.25) * noise
    color: Map = first + share[:, None] * (second - first)
    return color


def _fraction(x: Map) -> Map:
    fraction: Map = x - np.floor(x)
    return fraction
