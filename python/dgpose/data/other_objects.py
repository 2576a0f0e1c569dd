"""Rendered depth images of things that are not hands: what a hand estimator must refuse.

Each is one object, at a hand's distance, before a far wall, with a little noise. The shapes are
simple, the sizes and places random.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from dgpose.data.cameras import CAMERAS, Camera
from dgpose_ext import capsule_depth

__all__ = ["OBJECT_KINDS", "object_depth"]

Image = npt.NDArray[np.float64]


def object_depth(
    kind: str,
    seed: int,
    index: int,
    *,
    size: tuple[int, int] = (480, 640),
    camera: Camera = CAMERAS["nyu"],
) -> npt.NDArray[np.uint16]:
    """A depth image of one object; a function of all arguments alone.

    Args:
        kind: one of `OBJECT_KINDS`.
        seed, index: non-negative.
        size: (H, W).
        camera: of the image.

    Returns:
        `[H, W]` uint16 mm, 0 = no depth.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(OBJECT_KINDS)}, got {kind!r}")
    rng = np.random.default_rng((seed, index, OBJECT_KINDS.index(kind)))
    depth = _KINDS[kind](_Scene(rng, size, camera))
    depth = np.where(depth > 0, depth, rng.uniform(1600.0, 2500.0))
    depth += rng.normal(0.0, 1.5, depth.shape)
    depth[rng.random(depth.shape) < 0.01] = 0.0
    return np.rint(np.clip(depth, 0.0, 65535.0)).astype(np.uint16)


class _Scene:
    """Draws shapes; y DOWN, mm."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], camera: Camera) -> None:
        self.rng = rng
        self.size = size
        self.camera = camera
        rows, columns = np.mgrid[: size[0], : size[1]]
        x, y = (columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy
        self.rays = np.stack([x, y, np.ones_like(x)], axis=-1)

    def place(self) -> Image:
        z = self.rng.uniform(450.0, 1000.0)
        return np.array([self.rng.uniform(-0.3, 0.3) * z, self.rng.uniform(-0.2, 0.2) * z, z])

    def direction(self) -> Image:
        vector = self.rng.normal(size=3)
        unit: Image = vector / np.linalg.norm(vector)
        return unit

    def capsules(self, nodes: Image, edges: list[tuple[int, int]], radii: Image) -> Image:
        depth = capsule_depth(
            torch.from_numpy(nodes[None].astype(np.float32)),
            torch.tensor(edges),
            torch.from_numpy(radii[None].astype(np.float32)),
            self.camera,
            self.size,
        )[0]
        return depth[0].numpy().astype(np.float64)


def _wall(scene: _Scene) -> Image:
    normal = np.array([*scene.rng.normal(0.0, 0.4, 2), 1.0])
    distance = scene.rays @ normal
    depth = scene.rng.uniform(450.0, 1200.0) / np.where(distance > 0.1, distance, np.inf)
    return np.where(depth < 4000.0, depth, 0.0)


def _ball(scene: _Scene) -> Image:
    return scene.capsules(scene.place()[None], [(0, 0)], scene.rng.uniform(30.0, 110.0, 1))


def _stick(scene: _Scene) -> Image:
    place, half = scene.place(), scene.direction() * scene.rng.uniform(40.0, 200.0)
    return scene.capsules(
        np.stack([place - half, place + half]), [(0, 1)], scene.rng.uniform(8.0, 45.0, 2)
    )


def _blob(scene: _Scene) -> Image:
    count = int(scene.rng.integers(2, 7))
    spread = scene.rng.uniform(20.0, 60.0)
    nodes = scene.place() + scene.rng.normal(0.0, spread, (count, 3))
    edges = [(i, (i + 1) % count) for i in range(count)]
    return scene.capsules(nodes, edges, scene.rng.uniform(10.0, 50.0, count))


def _box(scene: _Scene) -> Image:
    axes = np.linalg.qr(scene.rng.normal(size=(3, 3)))[0]
    half = scene.rng.uniform(30.0, 150.0, 3)
    along, start = scene.rays @ axes, scene.place() @ axes
    with np.errstate(divide="ignore"):
        first, second = (start - half) / along, (start + half) / along
    enter = np.minimum(first, second).max(axis=-1)
    leave = np.maximum(first, second).min(axis=-1)
    return np.where((leave > enter) & (enter > 0), enter, 0.0)


def _head(scene: _Scene) -> Image:
    """A head with a nose, a neck and shoulders."""
    places = [[0, 0, 0], [0, 35, 10], [0, -5, -75], [0, 150, 40], [-160, 260, 80], [160, 260, 80]]
    edges = [(0, 1), (2, 2), (1, 3), (3, 4), (3, 5), (4, 5)]
    scale = scene.rng.uniform(0.85, 1.1)
    radii = np.array([85.0, 70.0, 14.0, 60.0, 80.0, 80.0])
    return scene.capsules(scene.place() + np.array(places) * scale, edges, radii * scale)


def _arm(scene: _Scene) -> Image:
    """A forearm that ends at the wrist."""
    place = scene.place()
    along = np.array([scene.rng.normal(0.0, 0.5), 1.0, scene.rng.normal(0.0, 0.4)])
    along *= 300.0 / np.linalg.norm(along)
    radii = np.array([scene.rng.uniform(25.0, 32.0), 45.0])
    return scene.capsules(np.stack([place, place + along]), [(0, 1)], radii)


def _box_at_a_wall(scene: _Scene) -> Image:
    wall, box = _wall(scene), _box(scene)
    return np.where((box > 0) & ((box < wall) | (wall == 0)), box, wall)


_KINDS: dict[str, Callable[[_Scene], Image]] = {
    "wall": _wall,
    "ball": _ball,
    "stick": _stick,
    "blob": _blob,
    "box": _box,
    "head": _head,
    "arm": _arm,
    "box at a wall": _box_at_a_wall,
}
OBJECT_KINDS = tuple(_KINDS)
"""What `object_depth` can render."""
