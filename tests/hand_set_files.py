"""Small hand data sets, written in the folders and files that the public ones come in.

Every image shows a square hand around its joints, large enough for `find_hand_center`.
"""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

from dgpose.data.cameras import Camera, project
from dgpose.data.hand_datasets import MSRA_GESTURES, MSRA_SUBJECTS, IcvlHands, MsraHands, NyuHands

Array = np.ndarray


def hands_mm(rng: np.random.Generator, *shape: int) -> Array:
    """Joints [*shape, 3] in front of the camera."""
    joints = rng.normal(0, 25, (*shape, 3))
    joints[..., 2] += 450
    return joints.astype(np.float32)


def square_hand(joints_mm: Array, camera: Camera, background: int) -> Array:
    """Depth image [H, W] uint16 with a square of 130 mm at the mean of the joints."""
    u, v, mm = project(joints_mm.mean(axis=0), camera)
    half = 65 * camera.fx / mm
    depth = np.full((int(2 * camera.cy), int(2 * camera.cx)), background, np.uint16)
    depth[round(v - half) : round(v + half), round(u - half) : round(u + half)] = round(mm)
    return depth


def write_nyu(root: Path, rng: np.random.Generator, train: int = 6, test: int = 4) -> None:
    from scipy.io import savemat

    for split, count in (("train", train), ("test", test)):
        (root / split).mkdir(parents=True)
        xyz = np.stack([hands_mm(rng, count, 36)] * 3)
        uvd = project(xyz, NyuHands.camera).astype(np.float32)
        savemat(root / split / "joint_data.mat", {"joint_xyz": xyz, "joint_uvd": uvd})
        for row, joints in enumerate(xyz[0]):
            depth = square_hand(joints, NyuHands.camera, 2001)
            packed = np.stack((depth & 255, depth >> 8, np.zeros_like(depth)), -1).astype(np.uint8)
            cv2.imwrite(str(root / split / f"depth_1_{row + 1:07d}.png"), packed)


def write_icvl(root: Path, rng: np.random.Generator, frames: int = 3) -> None:
    """As many frames in the training part and in each of the two test sequences."""
    for labels, folder in (
        ("Training/labels.txt", "201403121135"),
        ("Testing/test_seq_1.txt", "test_seq_1"),
        ("Testing/test_seq_2.txt", "test_seq_2"),
    ):
        images = (root / labels).parent / "Depth" / folder
        images.mkdir(parents=True)
        lines = []
        for number, joints in enumerate(hands_mm(rng, frames, 16)):
            name = f"image_{number:04d}.png"
            cv2.imwrite(str(images / name), square_hand(joints, IcvlHands.camera, 32001))
            values = " ".join(f"{x:.3f}" for x in project(joints, IcvlHands.camera).ravel())
            lines.append(f"{folder}/{name} {values}")
        (root / labels).write_text("\n".join(lines) + "\n")


def write_msra(root: Path, rng: np.random.Generator) -> None:
    """One frame of every gesture of every subject."""
    for subject in MSRA_SUBJECTS:
        for gesture in MSRA_GESTURES:
            folder = root / f"P{subject}" / gesture
            folder.mkdir(parents=True)
            (joints,) = hands_mm(rng, 1, 21)
            values = " ".join(map(str, (joints * (1, 1, -1)).ravel()))
            (folder / "joint.txt").write_text(f"1\n{values}\n")
            depth = square_hand(joints, MsraHands.camera, 0)
            rows, columns = (np.flatnonzero(depth.any(axis)) for axis in (1, 0))
            box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            hand = depth[box[1] : box[3], box[0] : box[2]].astype("<f4")
            header = struct.pack("<6I", 320, 240, *box)
            (folder / "000000_depth.bin").write_bytes(header + hand.tobytes())
