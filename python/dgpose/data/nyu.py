"""The NYU hand set (Tompson et al. 2014): labelled poses, and three real frames to test on.

These readers take the small excerpt that the project's tests and training use (`hand/nyu` in the
data folder), not the full download. The real frames are for testing only: nothing may be trained,
tuned or chosen on them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dgpose.data.cameras import CAMERAS, Camera, project
from dgpose.data.depth_io import DepthFormatError, read_depth

__all__ = [
    "CENTER_JOINT",
    "CUBE_MM",
    "NyuPoses",
    "RealFrame",
    "crop_window",
    "load_poses",
    "load_real_frames",
]

CUBE_MM = 300.0
"""Edge of the cube around a hand; published NYU results use it."""

CENTER_JOINT = 34
"""The joint (PALM_5, the middle of the palm) that the given centres and the crops are around."""

_CROP_SIZE = 128
_CROP_BACKGROUND = 255
_FULL_FRAME_ROW = 0


@dataclass(frozen=True)
class NyuPoses:
    """Labelled hand poses of the NYU test set.

    Attributes:
        xyz_mm: `[N, 36, 3]` float32, mm from the camera, x right, y UP, z forward.
        uvd: `[N, 36, 3]` float32, pixels of the 640x480 image and mm.
        row: `[N]` row of the pose in the test set's labels.
        actor: `[N]` 0 (also the training set's actor) or 1 (another one, hand 0.83 as large).
    """

    xyz_mm: npt.NDArray[np.float32]
    uvd: npt.NDArray[np.float32]
    row: npt.NDArray[np.int32]
    actor: npt.NDArray[np.int8]


@dataclass(frozen=True)
class RealFrame:
    """One real depth frame with its label.

    Attributes:
        name: `"nyu_test_0"`, ...
        row: row in the test set's labels.
        depth: `[H, W]` mm, 0 = no depth: the 640x480 frame (uint16), or the 128x128 crop (float32).
        camera: the camera of `depth`; of a crop, the one that sees just the crop's window.
        joints_mm: `[36, 3]` float32, mm from the camera, x right, y UP, z forward.
        uvd: `[36, 3]` the joints in pixels of `depth`, and mm.
        given_center: (u, v, mm) of joint 34 in pixels of `depth`: the centre the set's users give.
        cube_mm: edge of the cube around the hand.
    """

    name: str
    row: int
    depth: npt.NDArray[Any]
    camera: Camera
    joints_mm: npt.NDArray[np.float32]
    uvd: npt.NDArray[np.float32]
    given_center: tuple[float, float, float]
    cube_mm: float = CUBE_MM


def load_poses(data_dir: Path) -> NyuPoses:
    """The labelled poses of `hand/nyu/labels/nyu_poses36.npz`.

    The file has the arrays of `NyuPoses`, of the test set's labels (camera 1). Rows close to the
    real test frames are not among them, so that they may be trained on.

    Args:
        data_dir: the data folder.

    Raises:
        FileNotFoundError: the file is not there.
    """
    path = _labels(data_dir) / "nyu_poses36.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"no such file: {path}, labelled NYU poses (arrays xyz_mm, uvd, row and actor)"
        )
    with np.load(path, allow_pickle=False) as file:
        return NyuPoses(file["xyz_mm"], file["uvd"], file["row"], file["actor"])


def load_real_frames(data_dir: Path) -> list[RealFrame]:
    """The three distinct real frames: test rows 0 (the full frame), 772 and 1150 (crops).

    Args:
        data_dir: the data folder.

    Raises:
        FileNotFoundError: a file is not there.
        DepthFormatError: a picture is damaged.
    """
    frames_dir = data_dir / "hand" / "nyu" / "depth_real"
    with np.load(_labels(data_dir) / "nyu_real_frames36.npz", allow_pickle=False) as labels:
        rows, xyz_mm, uvd = labels["row"], labels["xyz_mm"], labels["uvd"]
    frames = []
    for row, joints_mm, joints_uvd in zip(rows.tolist(), xyz_mm, uvd, strict=True):
        depth: npt.NDArray[Any]
        if row == _FULL_FRAME_ROW:
            depth = read_depth(frames_dir / "test_depth_1_0000001.png").depth
            camera = CAMERAS["nyu"]
        else:
            center = joints_uvd[CENTER_JOINT].tolist()
            crop = _read_crop(frames_dir / f"crop300_test_index_{row}.png")
            depth = _crop_depth(crop, center[2])
            camera = _crop_camera(center)
        in_frame = project(joints_mm, camera)
        u, v, mm = in_frame[CENTER_JOINT].tolist()
        frames.append(
            RealFrame(f"nyu_test_{row}", row, depth, camera, joints_mm, in_frame, (u, v, mm))
        )
    return frames


def crop_window(
    center: tuple[float, float, float],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which pixel of the 640x480 frame each pixel of a 128x128 crop shows.

    The crops were made as DeepPrior makes them (Oberweger et al. 2015): the cube's window is
    rounded down to whole pixels, its longer side scaled to 128 by nearest neighbour, and the
    shorter side centred. Row 0, there as a crop and as a full frame, agrees in every pixel.

    Args:
        center: (u, v, mm) of the cube's centre.

    Returns:
        `[128]` columns u and `[128]` rows v; -1 where the crop shows nothing.
    """
    columns = _crop_axis(center, 0)
    rows = _crop_axis(center, 1)
    return columns.source(), rows.source()


@dataclass(frozen=True)
class _CropAxis:
    """Pixels `start ... start + span - 1` of the frame, shown by `count` pixels from `first` on."""

    start: int
    span: int
    first: int
    count: int

    def source(self) -> npt.NDArray[np.int64]:
        shown = np.arange(_CROP_SIZE) - self.first
        pixels = self.start + shown * self.span // self.count
        return np.where((shown >= 0) & (shown < self.count), pixels, -1)

    def intrinsics(self, focal: float, principal: float) -> tuple[float, float]:
        # Pixel i shows start + floor((i - first) * step); a floor is half a pixel below on average
        # (over the fractions 0, 1/count, ...: (count - 1) / (2 count)).
        step = self.span / self.count
        offset = self.start - self.first * step - (self.count - 1) / (2 * self.count)
        return focal / step, (principal - offset) / step


def _crop_axis(center: tuple[float, float, float], axis: int) -> _CropAxis:
    bounds = []
    for position, focal in zip(center[:2], CAMERAS["nyu"][:2], strict=True):
        half = CUBE_MM / 2 * focal / center[2]
        bounds.append((math.floor(position - half), math.floor(position + half)))
    spans = [end - start for start, end in bounds]
    count = spans[axis] * _CROP_SIZE // max(spans)
    return _CropAxis(bounds[axis][0], spans[axis], _CROP_SIZE // 2 - count // 2, count)


def _crop_camera(center: tuple[float, float, float]) -> Camera:
    camera = CAMERAS["nyu"]
    fx, cx = _crop_axis(center, 0).intrinsics(camera.fx, camera.cx)
    fy, cy = _crop_axis(center, 1).intrinsics(camera.fy, camera.cy)
    return Camera(fx, fy, cx, cy)


def _read_crop(path: Path) -> npt.NDArray[np.uint8]:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None or picture.shape != (_CROP_SIZE, _CROP_SIZE):
        raise DepthFormatError(f"{path}: not a readable {_CROP_SIZE}x{_CROP_SIZE} picture")
    return picture.astype(np.uint8, copy=False)


def _crop_depth(crop: npt.NDArray[np.uint8], center_mm: float) -> npt.NDArray[np.float32]:
    depth = np.float32(center_mm) + (crop.astype(np.float32) / 255 * 2 - 1) * CUBE_MM / 2
    return np.where(crop == _CROP_BACKGROUND, 0, depth).astype(np.float32)


def _labels(data_dir: Path) -> Path:
    return data_dir / "hand" / "nyu" / "labels"
