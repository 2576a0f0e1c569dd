"""Photographs of dressed bodies: capsules, cloth and light, a place behind, and the camera.

The person is drawn at twice the resolution and averaged, so that outlines and cloth have no stairs;
masks and part maps are of the pixels' centres.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from dgpose.data.body_capsules import EDGE_PARTS, EDGES
from dgpose.data.counter_rng import CounterRng, FloatArray
from dgpose.data.people_appearance import Appearance
from dgpose.data.people_backgrounds import (
    Map,
    NoiseTiles,
    Shadow,
    View,
    paint_place,
    sample_places,
)
from dgpose.data.people_props import PROPS
from dgpose.data.people_shading import (
    Beams,
    PartFrames,
    Surface,
    expose,
    sample_camera_look,
    sample_lights,
    shade,
)
from dgpose.data.rotations import apply_rotation
from dgpose_ext import capsule_depth

__all__ = ["Painted", "Scene", "paint"]

_NODES = int(EDGES.max()) + 1
_ALL_EDGES = torch.from_numpy(
    np.concatenate([EDGES, _NODES + np.arange(2 * PROPS, dtype=np.int64).reshape(-1, 2)])
)
# Part of each capsule; props and the background (the last entry: index -1) have none.
_EDGE_PART = np.append(EDGE_PARTS, np.full(PROPS + 1, -1)).astype(np.int16)
_F = np.float32


class Scene(NamedTuple):
    """B dressed people before their cameras; places in the camera, mm."""

    nodes: Map  # [B, N, 3], those of the props last
    radii: Map  # [B, N]
    camera: Map  # [B, 4]
    origins: FloatArray  # [B, P, 3] of the parts' frames
    axes: FloatArray  # [B, P, 3, 3]
    hip: FloatArray  # [B, 3]
    floor: FloatArray  # [B] y of the floor in the world
    view: FloatArray  # [B, 3, 3] from the world (y along gravity) to the camera
    head: FloatArray  # [B] size of the head's features
    look: Appearance


class Painted(NamedTuple):
    """image [B, 3, H, W] in 0 to 1; parts [B, H, W]; depth [B, H, W] mm, 0 nothing."""

    image: Map
    parts: npt.NDArray[np.int16]
    depth: Map


def paint(
    rng: CounterRng, scene: Scene, size: tuple[int, int], tiles: NoiseTiles, *, unseen: bool
) -> Painted:
    """Photograph scenes; light, place and camera are those of the samples of ``rng``.

    Args:
        rng: of B samples.
        scene: of them.
        size: (H, W).
        tiles: of the split.
        unseen: see ``sample_places``.
    """
    height, width = size
    batch = len(rng)
    image = np.empty((batch, 3, height, width), np.float32)
    parts = np.empty((batch, height, width), np.int16)
    depth = np.empty((batch, height, width), np.float32)
    lights, photo = sample_lights(rng), sample_camera_look(rng)
    places = sample_places(rng, unseen=unseen)
    world = np.swapaxes(scene.view, 1, 2)
    stand = apply_rotation(scene.hip, world)
    toward = apply_rotation(lights.direction, scene.view[:, None])
    darkness = rng.uniform("shadow", low=0.25, high=0.7)
    prop_color = rng.uniform("prop", 2, 1, low=0.1, high=0.7)
    prop_color = prop_color * rng.uniform("prop.tint", 2, 3, low=0.7, high=1.2)
    row, column = np.divmod(np.arange(4 * height * width), 2 * width)
    coarse = (row >> 1) * width + (column >> 1)
    row, column = row.astype(np.float32), column.astype(np.float32)
    # A few at a time: what they need stays in the processor's cache.
    step = max(1, (1 << 19) // (4 * height * width))
    for start in range(0, batch, step):
        chunk = slice(start, min(start + step, batch))
        joints, radii = torch.from_numpy(scene.nodes[chunk]), torch.from_numpy(scene.radii[chunk])
        camera = scene.camera[chunk]
        maps = capsule_depth(joints, _ALL_EDGES, radii, torch.from_numpy(camera), size)
        depth[chunk], parts[chunk] = maps[0].numpy(), _EDGE_PART[maps[1].numpy()]
        # Pixel x is the mean of the pixels 2 x and 2 x + 1.
        doubled = camera * _F(2) + np.array([0.0, 0.0, 0.5, 0.5], np.float32)
        maps = capsule_depth(
            joints,
            _ALL_EDGES,
            radii,
            torch.from_numpy(doubled),
            (2 * height, 2 * width),
            return_normals=True,
        )
        fine_depth, fine_edge, normals = (m.numpy().reshape(len(m), -1) for m in maps)
        for b in range(chunk.start, chunk.stop):
            sun = lights.direction[b, 0]
            start_xz = stand[b, [0, 2]]
            end_xz = start_xz - sun[[0, 2]] / max(-sun[1], 0.3) * 900.0
            picture = paint_place(
                places,
                b,
                View(scene.camera[b], world[b].astype(np.float32), size),
                float(scene.floor[b]),
                float(stand[b, 2]),
                Shadow(start_xz, end_xz, 230.0, float(darkness[b])),
                tiles,
            )
            picture *= (lights.ambient[b] + 0.45 * lights.color[b, 0]).astype(np.float32)

            edge = fine_edge[b - start]
            pixels = np.flatnonzero(edge >= 0)
            at = edge.take(pixels)
            z, x, y = fine_depth[b - start].take(pixels), column.take(pixels), row.take(pixels)
            fx, fy, cx, cy = doubled[b - start]
            surface = Surface(
                part=_EDGE_PART.take(at).astype(np.int64),
                point=((x - cx) / fx * z, (y - cy) / fy * z, z),
                normal=tuple(n.take(pixels) for n in normals[b - start].reshape(3, -1)),
                openness=_openness(depth[b], scene.hip[b, 2]).take(coarse.take(pixels)),
            )
            beams = Beams(
                *(v[b].astype(np.float32) for v in (lights.ambient, toward, lights.color))
            )
            frames = PartFrames(
                scene.origins[b].astype(np.float32), scene.axes[b].astype(np.float32)
            )
            color = shade(surface, frames, scene.look, b, beams, float(scene.head[b]), tiles)
            prop = np.flatnonzero(at >= len(EDGE_PARTS))
            if prop.size:
                lit = _F(0.5) - _F(0.35) * surface.normal[2].take(prop)
                which = (at.take(prop) - len(EDGE_PARTS)) // (PROPS - 1)
                color[:, prop] = lit * prop_color[b].astype(np.float32).T[:, which]
            layer = np.zeros((4, 4 * height * width), np.float32)
            for i in range(3):
                layer[i][pixels] = color[i]
            layer[3][pixels] = 1.0
            merged = cv2.merge(list(layer.reshape(4, 2 * height, 2 * width)))
            drawn = cv2.resize(merged, (width, height), interpolation=cv2.INTER_AREA)
            picture *= 1 - drawn[..., 3:]
            picture += drawn[..., :3]
            image[b] = expose(picture, photo, b, tiles)
    return Painted(image, parts, depth)


def _openness(depth: Map, hip: float) -> Map:
    """How much of the light from all around reaches each pixel: less in folds, behind limbs."""
    filled = np.where(depth > 0, depth, _F(hip + 400.0))
    reach = max(3, round(max(depth.shape) / 14) | 1)
    hidden = (filled - cv2.blur(filled, (reach, reach))) * _F(1 / 140.0)
    openness: Map = 1 - _F(0.45) * np.clip(hidden, 0, 1)
    return openness
