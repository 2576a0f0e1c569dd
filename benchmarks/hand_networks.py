"""The networks of the HandNet measurements: shipped models and the published path.

Each comes with the way from a raw frame to its crop and from its output to millimetres, written
with OpenCV and NumPy as its peers must do it, and with rendered crops for calibration.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CAMERA = (588.03, 587.07, 320.0, 240.0)
CENTER = (330.0, 250.0, 720.0)  # of the hand in frame()
SIZE = 128
CALIBRATION = 128  # crops
CHECK = 16  # crops


def frame(seed: int = 0) -> NDArray[np.uint16]:
    """A hand-sized bumpy surface in front of a wall, with holes: [480, 640] mm."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:480, :640]
    depth = np.full((480, 640), 1400, np.uint16)
    hand = ((x - CENTER[0]) / 90) ** 2 + ((y - CENTER[1]) / 100) ** 2 < 1
    surface = CENTER[2] + 40 * np.sin(x / 17) * np.cos(y / 23) + rng.normal(0, 2, x.shape)
    depth[hand] = surface[hand].astype(np.uint16)
    depth[rng.random(depth.shape) < 0.01] = 0
    return depth


@dataclass(frozen=True)
class Network:
    """One network.

    `module` makes the torch module in evaluation mode; two of one network are equal. `output` says
    what comes out: "crop", coordinates -1..1 over the crop (`dgpose.nn.hand_regressor`), or
    "metric", units of `unit_mm` from the centre, y up (`dgpose.models.crossing_nets`).
    """

    name: str
    module: Callable[[], Any]
    cube_mm: float
    normalize: Literal["cube", "nearest_pixel"]
    output: Literal["crop", "metric"]
    unit_mm: float = 50.0

    def crops(self, count: int, *, calibration: bool) -> Floats:
        """[count, 1, 128, 128] rendered hands; those for calibration share none with the others."""
        return rendered_crops(count, self.normalize, "train" if calibration else "val")

    def run_options(self) -> dict[str, Any]:
        """What `HandNet.run` has to know of it."""
        return {
            "cube_mm": self.cube_mm,
            "normalize": self.normalize,
            "output": self.output,
            "unit_mm": self.unit_mm,
        }

    def crop_with_opencv(
        self, depth: NDArray[np.uint16], center: tuple[float, float, float] = CENTER
    ) -> Floats:
        """[1, 1, 128, 128] as `dgpose_ext.depth_crop` makes it: one affine resampling, and NumPy's
        arithmetic in place."""
        import cv2

        u, v, mm = center
        half_u, half_v = self.cube_mm / 2 * CAMERA[0] / mm, self.cube_mm / 2 * CAMERA[1] / mm
        step_u, step_v = 2 * half_u / SIZE, 2 * half_v / SIZE
        window = np.array(
            [[step_u, 0, u - half_u + step_u / 2], [0, step_v, v - half_v + step_v / 2]]
        )
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        crop: Floats = cv2.warpAffine(depth, window, (SIZE, SIZE), flags=flags).astype(np.float32)
        crop[crop == 0] = np.inf
        crop -= np.float32(mm)
        crop *= np.float32(2 / self.cube_mm)
        np.clip(crop, -1, 1, out=crop)
        if self.normalize == "nearest_pixel":
            stretch_to_nearest(crop)
        return crop[None, None]

    def joints_mm(
        self, result: Floats, center: tuple[float, float, float] = CENTER
    ) -> NDArray[np.float32]:
        """[J, 3] of the network to [J, 3] mm: x right, y up, z forward, camera origin."""
        u, v, mm = center
        fx, fy, cx, cy = CAMERA
        if self.output == "metric":
            origin = np.array(((u - cx) * mm / fx, -(v - cy) * mm / fy, mm), np.float32)
            return result * np.float32(self.unit_mm) + origin
        d = mm + result[:, 2] * (self.cube_mm / 2)
        x = (u + result[:, 0] * (self.cube_mm / 2 * fx / mm) - cx) * d / fx
        y = -(v + result[:, 1] * (self.cube_mm / 2 * fy / mm) - cy) * d / fy
        return np.stack((x, y, d), axis=1)


def stretch_to_nearest(crop: Floats) -> None:
    """The normalisation "nearest_pixel" from "cube", in place: the nearest pixel becomes -1."""
    nearest = crop.min()
    if nearest < 1:
        crop -= np.float32(1)
        crop *= np.float32(2) / (np.float32(1) - nearest)
        crop += np.float32(1)


@functools.lru_cache(maxsize=4)
def rendered_crops(count: int, normalize: str, split: Literal["train", "val"]) -> Floats:
    """[count, 1, 128, 128] hands of `dgpose.data.synthetic_hands`, without any data folder."""
    from dgpose.data.synthetic_hands import SyntheticHands

    crops: Floats = (
        SyntheticHands(7, poses="kinematic", split=split).batch(range(count)).crop.numpy()
    )
    if normalize == "nearest_pixel":
        for crop in crops:
            stretch_to_nearest(crop)
    return crops


def _published() -> Any:
    """Random weights, with the statistics that batch normalisation would have."""
    import torch

    from dgpose.models.crossing_nets import CrossingNetsPath

    torch.manual_seed(0)
    path = CrossingNetsPath()
    for layer in path.modules():
        if isinstance(layer, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            layer.momentum = None  # a plain mean
    with torch.no_grad():
        path(torch.from_numpy(rendered_crops(32, "nearest_pixel", "train")))
    return path.eval()


def _shipped(file: Path) -> Any:
    from dgpose.nn.hand_regressor import load_weights

    return load_weights(file)[0]


def networks() -> list[Network]:
    """The published path and every shipped hand model."""
    import dgpose
    from dgpose.models.crossing_nets import CrossingNetsConfig

    c = CrossingNetsConfig()
    found = [
        Network("published path", _published, c.cube_mm, c.normalize, "metric", c.unit_mm),
    ]
    weights = Path(dgpose.__file__).parent / "weights"
    for file in sorted(weights.glob("hand_*.safetensors")):
        name = f"model {file.stem.removeprefix('hand_')}"
        found.append(Network(name, lambda file=file: _shipped(file), 300.0, "cube", "crop"))
    return found
