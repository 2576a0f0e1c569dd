"""What a depth camera does to a clean depth image: noise, steps, ragged edges, blind spots.

Two kinds of sensor: structured light (Kinect v1) measures in steps that grow with the square of
the distance and is blind behind edges at one side; time of flight (Kinect v2) measures finely, but
pixels that see an edge float between hand and background. Both lose pixels on steep surfaces and in
blobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from dgpose.data.counter_rng import CounterRng, FloatArray

Image = npt.NDArray[np.float32]
_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class SensorConfig:
    """What a depth camera does to an image: structured light (Kinect v1, NYU) or time of flight
    (Kinect v2, Intel). Lengths in mm; ``chance`` and ``share`` are probabilities."""

    plane_chance: float = 0.05  # a wall or table inside the cube, behind what is shown
    structured_light_share: float = 0.65
    clean_share: float = 0.04  # no sensor effects at all
    noise_mm: tuple[float, float] = (0.3, 2.5)  # blobs of 2-3 px
    wave_mm: tuple[float, float] = (0.0, 2.5)  # blobs of 5-8 px
    disparity_step: float = 2.87e-6  # structured light: depth step / depth squared, 1/mm
    jag_px: tuple[float, float] = (0.0, 1.2)  # displacement of the image, silhouettes get ragged
    hole_share: tuple[float, float] = (0.0, 0.02)  # of the pixels, in blobs
    steep_hole_chance: float = 0.5  # frames with holes where the surface is steep or ends
    shadow_chance: float = 0.6  # structured light: blind strip at one side of near silhouettes
    dropout_share: tuple[float, float] = (0.0, 0.01)  # single pixels
    flying_share: tuple[float, float] = (
        0.1,
        0.7,
    )  # time of flight: silhouette pixels that float back
    flying_mm: float = 60.0  # how far


def structured_light(rng: CounterRng, config: SensorConfig) -> npt.NDArray[np.bool_]:
    """Which samples [B] have a structured-light sensor; the others measure time of flight."""
    return rng.chance("sensor.structured", config.structured_light_share)


class SensorDraws:
    """The sensor of each sample: kind and strength of its effects."""

    def __init__(self, rng: CounterRng, config: SensorConfig) -> None:
        def between(name: str, limits: tuple[float, float]) -> FloatArray:
            return rng.uniform(f"sensor.{name}", low=limits[0], high=limits[1])

        self.clean = rng.chance("sensor.clean", config.clean_share)
        self.structured = structured_light(rng, config)
        self.noise = between("noise", config.noise_mm)
        self.wave = between("wave", config.wave_mm)
        self.jag = between("jag", config.jag_px)
        self.step = config.disparity_step * rng.log_normal("sensor.step", std=0.3)
        self.shadow = rng.chance("sensor.shadow", config.shadow_chance)
        self.steep = rng.chance("sensor.steep", config.steep_hole_chance)
        self.steep_level = rng.uniform("sensor.steep_level", low=0.3, high=2.0)
        # Squares: strong effects are the rarer ones.
        hole = config.hole_share[0] + (config.hole_share[1] - config.hole_share[0]) * (
            rng.uniform("sensor.hole") ** 2
        )
        self.hole_level = np.array([_normal_quantile(share) for share in hole])
        dropout = config.dropout_share[0] + (config.dropout_share[1] - config.dropout_share[0]) * (
            rng.uniform("sensor.dropout") ** 2
        )
        self.keep = 1.0 - dropout
        self.flying = between("flying", config.flying_share)
        self.flying_mm = config.flying_mm * rng.uniform("sensor.flying_mm") ** 2
        self.window = rng.integers("sensor.window", SensorNoise.BANK, 4, 2)


class SensorNoise:
    """Sensor effects on depth images (0 = nothing measured), one image at a time to stay in cache.

    Fields of random values are windows of a periodic bank, at a place hashed from (seed, index).
    """

    BANK = 512
    _PADDED = 640  # the bank is repeated this far, so that most windows are plain slices
    _MARGIN = 4  # largest displacement, px
    _LEVELS_PX = 0.25  # between the strengths of displacement that are kept

    def __init__(self, jag_px: tuple[float, float]) -> None:
        rng = CounterRng(0, np.arange(self.BANK))
        white = rng.normal("bank.white", 4, self.BANK)
        fine = [_blurred(white[:, k], 0.9) for k in range(3)]
        self._fine = self._padded(fine[0].astype(np.float32))
        self._coarse = self._padded(_blurred(white[:, 3], 2.3).astype(np.float32))
        self._salt = self._padded(rng.uniform("bank.salt", self.BANK).astype(np.float32))
        self._levels = np.arange(0.0, jag_px[1] + self._LEVELS_PX, self._LEVELS_PX)
        self._displaced = fine[1:]
        self._cached: dict[tuple[int, int], npt.NDArray[np.int64]] = {}

    def crops(
        self,
        depth: Image,
        rng: CounterRng,
        config: SensorConfig,
        centers: FloatArray,
        half: FloatArray,
        cube: FloatArray,
    ) -> Image:
        """Sensed and normalised crops [B, 1, S, S] of the rendered ones [B, S, S]."""
        batch, size, _ = depth.shape
        draws = SensorDraws(rng, config)
        has_plane = rng.chance("plane", config.plane_chance)
        plane = rng.uniform("plane.place", 3)
        out = np.empty((batch, 1, size, size), dtype=np.float32)
        for b in range(batch):
            image = depth[b]
            mm = float(centers[b, 2])
            if has_plane[b]:
                image = with_plane(image, mm, float(cube[b]), plane[b])
            if not draws.clean[b]:
                image = self.sense(image, draws, b, mm)
                if 2.0 * half[b].min() < 0.95 * size:
                    # A sensor with fewer pixels than the crop: each is seen several times.
                    rows = _nearest_cells(float(centers[b, 1]), float(half[b, 1]), size)
                    columns = _nearest_cells(float(centers[b, 0]), float(half[b, 0]), size)
                    image = image[rows[:, None], columns]
            target = out[b, 0]
            np.subtract(image, np.float32(mm), out=target)
            target *= np.float32(2.0 / cube[b])
            np.maximum(target, np.float32(-1.0), out=target)
            target[(image <= 0.0) | (target > 1.0)] = 1.0
        return out

    def sense(self, depth: Image, draws: SensorDraws, b: int, mm: float) -> Image:
        """Image [H, W] as the sensor of sample b measures it; ``mm``: distance of the hand."""
        height, width = depth.shape
        fine, coarse, salt = (
            _window(bank, draws.window[b, k], height, width)
            for k, bank in enumerate((self._fine, self._coarse, self._salt))
        )
        level = int(np.searchsorted(self._levels, draws.jag[b], "right")) - 1
        moved = _window(self._displacement(level, width), draws.window[b, 3], height, width)
        z: Image = np.take(depth.reshape(-1), self._grid(height, width) + moved)
        valid = z > 0.0
        reach = 2
        jump = z[:, reach:] - z[:, :-reach]
        if not draws.structured[b]:
            # Pixels that see both the hand's edge and the background measure something between.
            share = np.float32(draws.flying[b])
            ends = valid[:, 1:-1] & ~(valid[:, 2:] & valid[:, :-2]) & (salt[:, 1:-1] < share)
            depth_gain = np.float32(draws.flying_mm[b]) / share
            z[:, 1:-1] += np.where(ends, depth_gain * salt[:, 1:-1], np.float32(0.0))
        z += np.float32(draws.noise[b]) * fine
        z += np.float32(draws.wave[b]) * coarse
        if draws.structured[b]:
            step = np.float32(max(draws.step[b] * mm * mm, 0.25))
            z *= np.float32(1.0) / step
            np.rint(z, out=z)
            z *= step
            if draws.shadow[b]:
                # The projector stands beside the camera: behind an edge, at one side, it is dark.
                valid[:, reach:] &= jump < 25.0
        if draws.steep[b]:
            # Jumps against the background count as well: silhouettes crumble.
            lost = (np.abs(jump) > 14.0) & (coarse[:, reach:] > np.float32(draws.steep_level[b]))
            valid[:, reach:] &= ~lost
            valid[:, :-reach] &= ~lost
        valid &= coarse > np.float32(draws.hole_level[b])
        valid &= salt < np.float32(draws.keep[b])
        z *= valid
        return z

    def _displacement(self, level: int, width: int) -> npt.NDArray[np.int64]:
        """Steps in a flattened image of the given width, for each pixel of the bank."""
        if (level, width) not in self._cached:
            dy, dx = (
                np.clip(np.rint(self._levels[level] * field), -self._MARGIN, self._MARGIN)
                for field in self._displaced
            )
            self._cached[level, width] = self._padded((dy * width + dx).astype(np.int64))
        return self._cached[level, width]

    def _grid(self, height: int, width: int) -> npt.NDArray[np.int64]:
        """Flat pixel indices, kept away from the border by the largest displacement."""
        key = (-height, width)
        if key not in self._cached:
            margin = self._MARGIN
            row = np.clip(np.arange(height), margin, height - 1 - margin)
            column = np.clip(np.arange(width), margin, width - 1 - margin)
            self._cached[key] = row[:, None] * width + column
        return self._cached[key]

    def _padded(self, bank: npt.NDArray[_T]) -> npt.NDArray[_T]:
        return np.pad(bank, (0, self._PADDED - self.BANK), mode="wrap")


def _window(
    bank: npt.NDArray[_T], corner: npt.NDArray[np.int64], height: int, width: int
) -> npt.NDArray[_T]:
    """A window [H, W] of a padded periodic bank; one beyond the padding is gathered."""
    y, x = int(corner[0]), int(corner[1])
    if y + height <= bank.shape[0] and x + width <= bank.shape[1]:
        return bank[y : y + height, x : x + width]
    rows = (y + np.arange(height)) % SensorNoise.BANK
    columns = (x + np.arange(width)) % SensorNoise.BANK
    return bank[rows[:, None], columns]


def _blurred(white: FloatArray, sigma_px: float) -> FloatArray:
    """Periodic Gaussian blur of white noise, scaled back to variance 1."""
    frequency = np.fft.fftfreq(white.shape[0])
    falloff = np.exp(-2.0 * (np.pi * sigma_px * frequency) ** 2)
    smooth = np.fft.ifft2(np.fft.fft2(white) * falloff[:, None] * falloff).real
    scaled: FloatArray = smooth / smooth.std()
    return scaled


def _normal_quantile(share: float) -> float:
    return NormalDist().inv_cdf(share) if share > 0.0 else -np.inf


def _nearest_cells(center: float, half: float, size: int) -> npt.NDArray[np.int64]:
    """Crop pixel that each crop pixel's nearest sensor pixel falls into, along one axis."""
    seen = center - half + (np.arange(size) + 0.5) * (2.0 * half / size)
    sensor = np.floor(seen + 0.5)
    inside = np.floor((sensor - center + half) * (size / (2.0 * half)))
    cells: npt.NDArray[np.int64] = np.clip(inside, 0, size - 1).astype(np.int64)
    return cells


def with_plane(image: Image, mm: float, cube: float, draw: FloatArray) -> Image:
    """Fill the background with a tilted plane in the back part of the cube."""
    height, width = image.shape
    tilt = (draw[1:] - 0.5) * 0.6 * cube
    row = np.linspace(-0.5, 0.5, height)[:, None]
    column = np.linspace(-0.5, 0.5, width)
    plane = mm + cube * (0.2 + 0.3 * draw[0]) + tilt[0] * row + tilt[1] * column
    filled: Image = np.where(image > 0.0, image, plane).astype(np.float32)
    return filled
