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

__all__ = [
    "Map",
    "NoiseTiles",
    "Places",
    "Shadow",
    "View",
    "fraction",
    "paint_place",
    "sample_places",
]

Map = npt.NDArray[np.float32]

_TILE = 256
_TILES = 16
_SURFACES = ("plain", "noise", "stripes", "checks", "planks", "bricks", "discs", "diagonals")
_SEEN = 5
_BOXES = 5
_FLOORS = np.array(
    [
        *((0.58, 0.43, 0.29), (0.42, 0.29, 0.20), (0.72, 0.62, 0.47), (0.52, 0.51, 0.50)),
        *((0.36, 0.36, 0.37), (0.69, 0.68, 0.65), (0.33, 0.42, 0.21), (0.43, 0.46, 0.27)),
        *((0.76, 0.69, 0.54), (0.45, 0.22, 0.20), (0.27, 0.30, 0.38), (0.85, 0.84, 0.82)),
    ]
)
_WALLS = np.array(
    [
        *((0.93, 0.92, 0.89), (0.86, 0.83, 0.76), (0.76, 0.77, 0.79), (0.61, 0.63, 0.66)),
        *((0.82, 0.72, 0.60), (0.57, 0.37, 0.30), (0.47, 0.54, 0.50), (0.40, 0.47, 0.57)),
        *((0.31, 0.31, 0.33), (0.70, 0.78, 0.80), (0.36, 0.42, 0.28), (0.88, 0.85, 0.60)),
    ]
)


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


def fraction(x: Map) -> Map:
    """x - floor(x)."""
    rest: Map = x - np.floor(x)
    return rest


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
    # Mostly colours that floors and walls have, now and then any.
    index = rng.integers("place.color", 1 << 20, 2)
    known = np.stack([_FLOORS[index[:, 0] % len(_FLOORS)], _WALLS[index[:, 1] % len(_WALLS)]], 1)
    odd = rng.uniform("place.odd", 2, 1, low=0.2, high=0.8)
    odd = odd * (1.0 + rng.normal("place.tint", 2, 3, std=0.2, clip=2.0))
    base = np.where(rng.chance("place.is_odd", 0.2, 2, 1), odd, known)[:, :, None]
    shade = rng.log_normal("place.shade", 2, 1, 1, std=0.15)
    contrast = np.exp(rng.normal("place.contrast", 2, 1, 1, std=0.3, clip=2.0)) ** [[0.0], [1.0]]
    tint = 1.0 + rng.normal("place.second", 2, 2, 3, std=0.04)
    color = np.clip(base * shade * contrast * tint, 0.03, 0.97)
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
    box_color = _WALLS[rng.integers("place.box_color", len(_WALLS), _BOXES)]
    box_color = box_color * rng.uniform("place.box_value", _BOXES, 1, low=0.3, high=1.05)
    tint = 1.0 + rng.normal("place.box_tint", _BOXES, 3, std=0.12, clip=2.0)
    box_color = np.clip(box_color * tint, 0.03, 0.97)
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
        blur=rng.uniform("place.blur", low=0.5, high=2.3),
    )


class View(NamedTuple):
    """camera [4] (fx, fy, cx, cy); world [3, 3]: from the camera's axes to the world's (x, y DOWN
    along gravity, z forward); size (H, W)."""

    camera: Map
    world: Map
    size: tuple[int, int]


class Shadow(NamedTuple):
    """On the floor: from (x, z), toward (x, z), width in mm, strength 0 to 1."""

    start: FloatArray
    end: FloatArray
    width: float
    strength: float


def paint_place(
    places: Places,
    b: int,
    view: View,
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
    height, width = view.size
    blur = float(places.blur[b]) * max(height, width) / 128.0
    if blur < 1.0:
        picture = _sharp_place(places, b, _rays(view, view.size), floor, beyond, shadow, tiles)
    else:
        # What is out of focus needs half the pixels; enlarging them blurs by half a pixel or so.
        half = (height + 1) // 2, (width + 1) // 2
        small = _sharp_place(places, b, _rays(view, half), floor, beyond, shadow, tiles)
        picture = np.asarray(
            cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.float32
        )
        blur = (blur * blur - 0.5) ** 0.5
    if blur > 0.3:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), blur), np.float32)
    return picture


class _Rays(NamedTuple):
    """Directions [h, w] of pixels along the world's axes."""

    x: Map
    y: Map
    z: Map


def _rays(view: View, size: tuple[int, int]) -> _Rays:
    """Of an image of (h, w) pixels that covers the view."""
    height, width = size
    fx, fy, cx, cy = view.camera
    scale = view.size[0] / height, view.size[1] / width
    x = (((np.arange(width) + 0.5) * scale[1] - 0.5 - cx) / fx).astype(np.float32)
    y = (((np.arange(height) + 0.5) * scale[0] - 0.5 - cy) / fy).astype(np.float32)
    to = view.world
    return _Rays(*(x * to[0, i] + (y * to[1, i] + to[2, i])[:, None] for i in range(3)))


def _sharp_place(
    places: Places,
    b: int,
    rays: _Rays,
    floor: float,
    beyond: float,
    shadow: Shadow,
    tiles: NoiseTiles,
) -> Map:
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
    return image.reshape(height, width, 3)


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
            pattern = fraction(a) < 0.5
        elif kind == "checks":
            pattern = (fraction(a) < 0.5) ^ (fraction(d) < 0.5)
        elif kind == "planks":
            pattern = (fraction(d) < 0.08) | (fraction(a * np.float32(0.25)) < 0.02)
        elif kind == "bricks":
            course = np.floor(2 * d)
            pattern = (fraction(2 * d) < 0.12) | (fraction(a + np.float32(0.5) * course) < 0.06)
        elif kind == "discs":
            p, q = fraction(a) - np.float32(0.5), fraction(d) - np.float32(0.5)
            pattern = p * p + q * q < 0.09
        else:
            pattern = fraction(a + d) < 0.4
        share = np.float32(0.75) * pattern + np.float32(0.25) * noise
    color: Map = first + share[:, None] * (second - first)
    return color
