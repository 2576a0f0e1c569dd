"""From where a rendered person is seen: the camera's place, and the crop around the person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dgpose.data.counter_rng import CounterRng, FloatArray
from dgpose.data.rotations import rotate_about

__all__ = ["ViewConfig", "crop_cameras", "place_hips", "sample_views"]


@dataclass(frozen=True)
class ViewConfig:
    """Where cameras are; ranges are drawn from uniformly."""

    distance_mm: tuple[float, float] = (2500.0, 7000.0)
    elevation_deg: tuple[float, float] = (-10.0, 20.0)  # of the camera above the person
    roll_std_deg: float = 2.5
    off_axis: tuple[float, float] = (0.22, 0.08)  # tangents, to each side
    margin: tuple[float, float] = (1.06, 1.32)  # image to person
    shift_std: float = 0.035  # of the image's size


def sample_views(rng: CounterRng, config: ViewConfig) -> FloatArray:
    """Rotations [B, 3, 3] from the world (y along gravity) to the camera."""
    low, high = config.elevation_deg
    elevation = np.radians(rng.uniform("elevation", 1, 1, low=low, high=high))
    roll = np.radians(rng.normal("roll", 1, 1, std=config.roll_std_deg))
    world = np.broadcast_to(np.eye(3), (len(rng), 3, 3))
    pitched = rotate_about(world, np.array([1.0, 0.0, 0.0]), elevation)
    return rotate_about(pitched, np.array([0.0, 0.0, 1.0]), roll)


def place_hips(
    rng: CounterRng, view: FloatArray, floor: FloatArray, config: ViewConfig
) -> FloatArray:
    """Where the hip is [B, 3]; the camera stays above the floor."""
    distance = rng.uniform("distance", low=config.distance_mm[0], high=config.distance_mm[1])
    aside = rng.uniform("off_axis", 2, low=-1.0, high=1.0) * np.array(config.off_axis)
    # y of the hip in the world, by the world's vertical in the camera.
    vertical = view[:, 1]
    lowest = (250.0 - floor) / distance
    height = aside[:, 0] * vertical[:, 0] + aside[:, 1] * vertical[:, 1] + vertical[:, 2]
    aside[:, 1] += np.maximum(lowest - height, 0.0) / vertical[:, 1]
    return np.concatenate([aside, np.ones((len(rng), 1))], axis=1) * distance[:, None]


def crop_cameras(
    rng: CounterRng,
    nodes: FloatArray,
    radii: FloatArray,
    size: tuple[int, int],
    config: ViewConfig,
) -> FloatArray:
    """Cameras [B, 4] whose image is the crop around the person."""
    height, width = size
    depth = np.maximum(nodes[..., 2], 100.0)
    reach = np.where(radii > 0, radii / depth, -np.inf)
    places = nodes[..., :2] / depth[..., None]
    low = (places - reach[..., None]).min(axis=1, where=radii[..., None] > 0, initial=np.inf)
    high = (places + reach[..., None]).max(axis=1, where=radii[..., None] > 0, initial=-np.inf)
    margin = rng.uniform("margin", low=config.margin[0], high=config.margin[1])
    extent = (high - low) / np.array([width, height])
    focal = 1.0 / (extent.max(axis=1) * margin)
    shift = rng.normal("shift", 2, std=config.shift_std) * np.array([width, height])
    middle = 0.5 * (low + high) * focal[:, None] + shift
    center = 0.5 * np.array([width - 1.0, height - 1.0]) - middle
    return np.concatenate([focal[:, None], focal[:, None], center], axis=1)
