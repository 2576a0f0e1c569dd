"""HandEstimator: from one depth image to 36 hand joints, on a CPU.

Centre -> crop of a metric cube (`dgpose_ext.depth_crop`) -> network (`dgpose_ext.HandNet`, or
torch) -> millimetres -> check; the first and the last are in `hand_pose`, how it is called in
`depth_estimator`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dgpose.data.cameras import Camera
from dgpose.inference.depth_estimator import DepthEstimator
from dgpose.inference.depth_input import Place
from dgpose.inference.hand_calibration import calibration_crops
from dgpose.inference.hand_engine import (
    Engine,
    Hand,
    Precision,
    check_options,
    chosen_engine,
    compiled,
    described,
)
from dgpose.inference.hand_pose import Look
from dgpose.model_zoo import model_path
from dgpose.nn.hand_regressor import CROP_SIZE, HandRegressor, load_weights
from dgpose.skeletons import NYU36, Skeleton
from dgpose_ext import depth_crop

__all__ = ["CUBE_MM", "HandEstimator"]

CUBE_MM = 300.0
"""Edge of the cube around a hand of common size."""


class HandEstimator(DepthEstimator):
    """Estimates the 36 joints of one hand with a `HandRegressor`; make one with `load`."""

    skeleton: Skeleton = NYU36

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        *,
        hand: str,
        cube_mm: float,
        description: dict[str, Any],
    ) -> None:
        super().__init__(
            network, hand=hand, cube_mm=cube_mm, common_cube_mm=CUBE_MM, description=description
        )

    @classmethod
    def load(
        cls,
        model: str | Path = "accurate",
        *,
        hand: Hand = "right",
        engine: Engine = "auto",
        cube_mm: float = CUBE_MM,
        precision: Precision = "float32",
    ) -> HandEstimator:
        """Load a model.

        Args:
            model: name of a shipped model ("accurate", which "default" means too, or
                "fast"), or a weight file of
                `dgpose.nn.hand_regressor.save_weights`.
            hand: which hand is looked for. One network serves both: a left hand is mirrored.
            engine: "native" is `dgpose_ext.HandNet`, "torch" the plain module; "auto" takes the
                native one where the compiled core is there.
            cube_mm: edge of the cube that the hand lies in; less for a child's hand.
            precision: of the native engine. "bfloat16" and "int8" are faster on processors that
                multiply them in one instruction (AVX-512 BF16; AVX-512 VNNI, AVX-VNNI); "int8" is
                calibrated here, on rendered hands, which takes about a second.

        Raises:
            ValueError: an unknown name or option, a damaged file, a network of other joints, a
                precision that engine="torch" does not have.
            FileNotFoundError: no such file.
            RuntimeError: engine="native", or another precision than float32, and the compiled core
                is missing.
        """
        regressor, _ = load_weights(model_path(model))
        return cls.from_module(
            regressor,
            hand=hand,
            engine=engine,
            cube_mm=cube_mm,
            precision=precision,
            name=str(model),
        )

    @classmethod
    def from_module(
        cls,
        module: HandRegressor,
        *,
        hand: Hand = "right",
        engine: Engine = "torch",
        cube_mm: float = CUBE_MM,
        precision: Precision = "float32",
        name: str = "unnamed",
    ) -> HandEstimator:
        """An estimator from a network in memory; arguments as for `load`.

        Raises:
            ValueError: the network has other joints than `skeleton`; an unknown precision, or one
                that engine="torch" does not have.
            RuntimeError: engine="native" and the compiled core is missing.
        """
        if module.config.joints != len(cls.skeleton):
            raise ValueError(
                f"model must have the {len(cls.skeleton)} joints of {cls.skeleton.name}, "
                f"got {module.config.joints}"
            )
        check_options(hand, engine, precision, cube_mm)
        chosen = chosen_engine(engine, precision)
        module = copy.deepcopy(module).eval()  # the caller's may go on training
        estimator = cls(
            compiled(module, chosen, precision, CROP_SIZE, calibration_crops),
            hand=hand,
            cube_mm=float(cube_mm),
            description=described(
                name, chosen, precision, module, cls.skeleton.name, hand, float(cube_mm)
            )
            | {"multiply_adds": module.macs()},
        )
        # The first call allocates workspaces: it must not be a user's first frame.
        estimator.regress(torch.ones(1, 1, CROP_SIZE, CROP_SIZE))
        return estimator

    def _look(self, image: Tensor, optics: Camera, place: Place) -> Look:
        centers = torch.tensor([place], dtype=torch.float64)
        crop = depth_crop(image[None], centers, optics, self._cube_mm, CROP_SIZE)
        if self._mirrored:
            crop = crop.flip(-1)
        coords = self.regress(crop).numpy()[0]
        half = self._cube_mm / 2
        width, height = half * optics.fx / place[2], half * optics.fy / place[2]
        scale = np.array([-width if self._mirrored else width, height, half], np.float32)
        uvd = coords * scale + np.array(place, np.float32)
        return Look(crop.numpy()[0, 0], coords, uvd)

    def regress(self, crop: Tensor) -> Tensor:
        """The network alone: crops [B, 1, 128, 128] of `dgpose_ext.depth_crop`, of right hands ->
        [B, 36, 3] crop coordinates."""
        return super().regress(crop)
