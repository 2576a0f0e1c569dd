"""Tiny data sets in the two forms of Human3.6M."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dgpose.data.human36m import BodyCamera, read_cameras
from dgpose.data.person_crops import person_box

CAMERA_NUMBERS = ("54138969", "60457274")
RECORDINGS = {
    "S1": ("Walking", "Walking 1", "WalkDog 1"),
    "S9": ("Walking", "Photo 1", "WalkDog"),
    "S11": ("Eating 1",),
}
# Rough, but a person: x right, y up of its own, z towards where it looks, metres.
STANDING = np.array(
    [
        [0, 0.95, 0], [-0.13, 0.95, 0], [-0.13, 0.5, 0.03], [-0.13, 0.08, 0], [0.13, 0.95, 0],
        [0.13, 0.5, 0.03], [0.13, 0.08, 0], [0, 1.2, 0], [0, 1.45, 0], [0, 1.55, 0.06],
        [0, 1.7, 0.02], [0.17, 1.4, 0], [0.25, 1.15, 0], [0.25, 0.9, 0.08], [-0.17, 1.4, 0],
        [-0.25, 1.15, 0], [-0.25, 0.9, 0.08],
    ]
)  # fmt: skip
_OF_32 = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)


def world_poses(frames: int, seed: int) -> npt.NDArray[np.float32]:
    """[frames, 17, 3] m, z up: a person that turns and waves."""
    random = np.random.default_rng(seed)
    poses = []
    for turn in random.uniform(0, 2 * np.pi, frames):
        body = STANDING + random.normal(0, 0.03, STANDING.shape)
        x, up, ahead = body.T
        c, s = np.cos(turn), np.sin(turn)
        poses.append(np.stack([c * x - s * ahead, s * x + c * ahead, up], axis=1))
    return np.array(poses, np.float32)


def write_cameras(path: Path) -> dict[tuple[str, str], BodyCamera]:
    """Cameras that stand before and behind the person and look at it, with lens distortion."""
    content = {}
    for subject in RECORDINGS:
        for number, y in zip(CAMERA_NUMBERS, (-5.0, 5.0), strict=True):
            ahead = np.array([0.0, -np.sign(y), 0.0])
            down = np.array([0.0, 0.0, -1.0])
            content[subject, number] = {
                "R": np.stack([np.cross(down, ahead), down, ahead], axis=1),
                "T": np.array([[0.0], [y], [1.0]]),
                "c": np.array([[100.0], [101.0]]),
                "f": np.array([[220.0], [221.0]]),
                "k": np.array([[-0.2], [0.25], [-0.003]]),
                "p": np.array([[-0.0014], [-0.001]]),
                "w": 200,
                "h": 202,
                "name": "camera",
                "id": number,
            }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, 2))
    return read_cameras(path)


def write_videopose3d(root: Path, frames: int = 6) -> dict[str, dict[str, npt.NDArray[np.float32]]]:
    """data_3d_h36m.npz, with 32 joints, and cameras.pkl; the poses [frames, 17, 3] m."""
    written: dict[str, dict[str, Any]] = {}
    files: dict[str, dict[str, Any]] = {}
    for number, (subject, recordings) in enumerate(RECORDINGS.items()):
        written[subject], files[subject] = {}, {}
        for seed, recording in enumerate(recordings):
            poses = world_poses(frames, 10 * number + seed)
            full = np.full((frames, 32, 3), 99.0, np.float32)
            full[:, _OF_32] = poses
            written[subject][recording], files[subject][recording] = poses, full
    root.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(root / "data_3d_h36m.npz", positions_3d=np.array(files, object))
    write_cameras(root / "cameras.pkl")
    return written


def write_mmpose(root: Path, frames: int = 6, *, images: bool = True) -> None:
    """annotation_body3d and, where wanted, images: a stick figure on grey."""
    cameras = write_cameras(root / "annotation_body3d" / "cameras.pkl")
    for split, subjects in (("train", ("S1",)), ("test", ("S9", "S11"))):
        names, joints, drawn, centers, scales = [], [], [], [], []
        for number, subject in enumerate(subjects):
            for seed, recording in enumerate(RECORDINGS[subject]):
                world = 1000 * world_poses(frames, 10 * number + seed + 5)
                for camera in CAMERA_NUMBERS:
                    seen = cameras[subject, camera].to_camera(world)
                    pixels = cameras[subject, camera].project(seen)
                    boxes = person_box(pixels)
                    take = f"{subject}_{recording.replace(' ', '_')}.{camera}"
                    for frame in range(frames):
                        name = f"{subject}/{take}/{take}_{frame + 1:06d}.jpg"
                        names.append(name)
                        joints.append(np.append(seen[frame] / 1000, np.ones((17, 1)), axis=1))
                        drawn.append(np.append(pixels[frame], np.ones((17, 1)), axis=1))
                        centers.append((boxes[frame, :2] + boxes[frame, 2:]) / 2)
                        scales.append((boxes[frame, 2] - boxes[frame, 0]) / 200)
                        if images:
                            _draw(root / "images" / name, pixels[frame])
        path = root / "annotation_body3d" / "fps50" / f"h36m_{split}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, imgname=names, S=joints, part=drawn, center=centers, scale=scales)


def _draw(path: Path, pixels: npt.NDArray[np.float64]) -> None:
    picture = np.full((202, 200, 3), 90, np.uint8)
    for x, y in np.rint(pixels).astype(int).tolist():
        cv2.circle(picture, (x, y), 4, (40, 200, 220), -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)
