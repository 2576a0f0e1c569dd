"""What all estimators of one hand in a depth image share, whatever network they run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from dgpose.data.cameras import Camera
from dgpose.inference.depth_input import Depth, Place
from dgpose.inference.hand_crop import CropOptions, CropPose, crop_view, estimate_in_view
from dgpose.inference.hand_pose import HandPose, Look, estimate_pose
from dgpose.skeletons import Skeleton

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["DepthEstimator"]


class DepthEstimator(ABC):
    """Estimates one hand in a depth image, or in a crop of one; a subclass looks at the cube.

    Each image stands alone; `HandTracker` follows a hand through a stream. An estimator may be
    called from several threads at once.

    Attributes:
        skeleton: the joints of the poses.
    """

    skeleton: Skeleton

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        *,
        hand: str,
        cube_mm: float,
        common_cube_mm: float,
        description: dict[str, Any],
    ) -> None:
        """
        Args:
            network: crops [B, 1, S, S] of right hands -> [B, J, 3].
            hand: which hand is looked for: "right", or "left", which is mirrored.
            cube_mm: edge of the cube that is looked at.
            common_cube_mm: ... for a hand of common size.
            description: what `info` says.
        """
        self._network = network
        self._mirrored = hand == "left"
        self._cube_mm = cube_mm
        self._common_cube_mm = common_cube_mm
        self._description = description

    def info(self) -> dict[str, Any]:
        """What runs: model, engine, precision, device, CPU capability, size, joints, hand, cube."""
        return dict(self._description)

    def __call__(
        self,
        depth: Depth,
        camera: str | Sequence[float],
        center: Sequence[float] | None = None,
        *,
        unit: Literal["mm", "m"] = "mm",
        look_again: bool | None = None,
    ) -> HandPose:
        """Estimate the hand in one depth image.

        Args:
            depth: `[H, W]`, NumPy or torch on the CPU: uint16 in mm, or float32 in `unit`. 0, NaN
                and Inf mean "no depth".
            camera: (fx, fy, cx, cy) in pixels (OpenCV's convention), or a name: "nyu", "kinect2",
                "icvl", "msra".
            center: (u, v, mm) of the hand's middle; None: it is found in the image, as the nearest
                object of a hand's size.
            unit: of float32 depth.
            look_again: crop a second time, around the palm that the first look saw, where that is
                more than 15 mm from the centre; None: where the centre was found, not given.

        Returns:
            The pose. Where there is no hand, or the estimate contradicts the image, `found` is
            false, the joints are NaN and `reason` says why.

        Raises:
            TypeError: depth is no array or tensor, or of another dtype.
            ValueError: the shape, camera, centre or unit is wrong, or values cannot be in `unit`.
        """
        return estimate_pose(
            self._look,
            depth,
            camera,
            center,
            unit=unit,
            look_again=look_again,
            skeleton=self.skeleton,
            cube_mm=self._cube_mm,
            common_cube_mm=self._common_cube_mm,
        )

    def from_crop(
        self, crop: Depth, skeleton: Skeleton | None = None, **shows: Unpack[CropOptions]
    ) -> CropPose:
        """Estimate the hand in a crop that was made elsewhere.

        Args:
            crop, skeleton: as for `dgpose.hand_from_crop`, with its errors.
            shows: its cube_mm, center_mm, focal_px, unit and background; without cube_mm the crop
                shows a cube as large as the one that is looked at.
        """
        return estimate_in_view(self, crop_view(crop, self._cube_mm, **shows), skeleton)

    def regress(self, crop: Tensor) -> Tensor:
        """The network alone, on crops of right hands: as the subclass says."""
        with torch.inference_mode():
            return self._network(crop)

    @abstractmethod
    def _look(self, image: Tensor, optics: Camera, place: Place) -> Look:
        """What the network sees in the cube around (u, v, mm) of an image `[H, W]` in mm."""
