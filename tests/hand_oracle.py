"""Networks that know the answer, so that tests see the pipeline around them and not their error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dgpose.data.cameras import Camera, project
from dgpose.data.synthetic_hands import HandFrame
from dgpose.inference import HandEstimator
from dgpose.nn.hand_regressor import HandRegressor, save_weights

CUBE_MM = 300.0
CENTER_JOINT = 34


def palm_center(frame: HandFrame) -> tuple[float, float, float]:
    """(u, v, mm) of the palm."""
    u, v, mm = project(frame.joints_mm[CENTER_JOINT].astype(float), frame.camera).tolist()
    return u, v, mm


def crop_coordinates(
    joints_mm: Any, center: tuple[float, float, float], camera: Camera
) -> np.ndarray[Any, Any]:
    """[36, 3] mm to the (a, b, c) that a network should give for the crop around `center`."""
    half = CUBE_MM / 2
    scale = np.array([half * camera.fx / center[2], half * camera.fy / center[2], half])
    coords = (project(np.asarray(joints_mm, np.float64), camera) - np.array(center)) / scale
    return coords.astype(np.float32)


def oracle(coords: Any, hand: str = "right") -> HandEstimator:
    """An estimator whose network always answers `coords` [36, 3] (of the image as it is)."""
    answer = torch.as_tensor(np.array(coords, np.float32))[None]
    if hand == "left":
        answer = answer * torch.tensor([-1.0, 1.0, 1.0])

    def network(crop: Tensor) -> Tensor:
        return answer.clone()

    return HandEstimator(network, hand=hand, cube_mm=CUBE_MM, description={})


def save_constant_model(path: Path, coords: Any) -> None:
    """A weight file of a network that answers `coords` [36, 3] for every crop."""
    model = HandRegressor()
    cells = 16
    with torch.no_grad():
        model.head.weight.zero_()
        a, b, c = torch.as_tensor(np.array(coords, np.float32)).unbind(1)
        # Equal attention everywhere: the anchors' mean is 0, and offsets count in cells.
        bias = torch.stack([torch.zeros_like(a), a * cells / 2, b * cells / 2, c])
        model.head.bias.copy_(bias.flatten())
    save_weights(model, path, dtype=torch.float32)
