"""Poses as JSON that `dgpose.data.keypoint_files` and other programs read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dgpose.skeletons import OPENPOSE18
from dgpose_ext.tensor_file import write_bytes_atomically

__all__ = ["write_coco", "write_openpose"]


def _joints(pose_px: npt.NDArray[Any], value: float) -> list[float]:
    """[J, 2] of the first J joints of OpenPose-18, NaN where not known, as 18 of x, y, value."""
    rows = np.zeros((len(OPENPOSE18), 3))
    known = np.flatnonzero(np.isfinite(pose_px).all(axis=1))
    rows[known, :2], rows[known, 2] = pose_px[known], value
    listed: list[float] = np.round(rows, 3).ravel().tolist()
    return listed


def write_openpose(path: Path, poses_px: Sequence[npt.NDArray[Any]]) -> None:
    """Writes the people of one image as OpenPose does, 18 joints each (COCO model).

    Args:
        path: the file.
        poses_px: `[J, 2]` each, the first J joints of OPENPOSE18; NaN where not known.
    """
    people = [{"pose_keypoints_2d": _joints(pose, 1)} for pose in poses_px]
    document = {"version": 1.3, "people": people}
    write_bytes_atomically(path, (json.dumps(document) + "\n").encode())


def write_coco(
    path: Path,
    images: Sequence[tuple[str, int, int]],
    poses_px: Sequence[npt.NDArray[Any]],
    scores: Sequence[npt.NDArray[Any]],
) -> None:
    """Writes one person an image in COCO's form, with the joints of OpenPose-18.

    Args:
        path: the file.
        images: file name, height and width of each.
        poses_px: `[J, 2]` each, the first J joints of OPENPOSE18; NaN where not known.
        scores: `[J]` each, in 0 to 1; kept as "scores", their mean as "score".
    """
    annotations = []
    for number, (pose, sure) in enumerate(zip(poses_px, scores, strict=True), start=1):
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "keypoints": _joints(pose, 2),
                "num_keypoints": int(np.isfinite(pose).all(axis=1).sum()),
                "score": round(float(np.mean(sure)), 3),
                "scores": np.round(np.asarray(sure, np.float64), 3).tolist(),
            }
        )
    document = {
        "images": [
            {"id": number, "file_name": name, "height": height, "width": width}
            for number, (name, height, width) in enumerate(images, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": list(OPENPOSE18.joints)}],
    }
    write_bytes_atomically(path, (json.dumps(document, indent=1) + "\n").encode())
