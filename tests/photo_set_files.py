"""Tiny data sets of photographs of people, in the exact layouts of the real ones."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from dgpose.skeletons import OPENPOSE18

STANDING18 = np.array(
    [
        *[(50, 12), (50, 25), (40, 25), (36, 42), (34, 58), (60, 25), (64, 42), (66, 58)],
        *[(44, 60), (43, 85), (42, 110), (56, 60), (57, 85), (58, 110)],
        *[(47, 9), (53, 9), (44, 11), (56, 11)],
    ],
    np.float32,
)
"""A person in OpenPose-18, in an image 100 wide and 120 high."""

LSP_ROWS = (10, 9, 8, 11, 12, 13, 4, 3, 2, 5, 6, 7, 1)
"""Rows of OpenPose-18 of LSP's joints but for the last, the top of the head."""


def standing(seed: int, scale: float, origin: tuple[float, float]) -> npt.NDArray[np.float32]:
    """[18, 2] pixels: a person near the one above."""
    moved = STANDING18 + np.random.default_rng(seed).normal(0, 1.5, STANDING18.shape)
    return (scale * moved + origin).astype(np.float32)


def draw(path: Path, size: tuple[int, int], points: npt.NDArray[Any], seed: int = 0) -> None:
    """A (H, W) image: a stick figure on a colour of its own."""
    color = np.random.default_rng(seed).integers(40, 200, 3)
    picture = np.full((*size, 3), color, np.uint8)
    for a, b in OPENPOSE18.edges:
        start, end = np.rint(points[[a, b]]).astype(int).tolist()
        cv2.line(picture, start, end, (240, 240, 240), 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def write_lsp(root: Path, count: int, *, extended: bool) -> npt.NDArray[np.float64]:
    """joints.mat, in the order of axes of LSP or LSPe, and images; the joints [N, 14, 3]."""
    from scipy.io import savemat

    joints = np.zeros((count, 14, 3))
    for row in range(count):
        points = standing(row, 1.0, (20, 10))
        joints[row, :13, :2] = points[list(LSP_ROWS)] + 1  # MATLAB's pixels
        joints[row, 13, :2] = points[0] + (1, -9)
        joints[row, :, 2] = 1
        name = f"im{row + 1:0{5 if extended else 4}d}.jpg"
        draw(root / "images" / name, (140, 140), points, row)
    if extended:
        joints[0, 0] = 0  # a joint without coordinates
    axes = (1, 2, 0) if extended else (2, 1, 0)
    savemat(root / "joints.mat", {"joints": joints.transpose(axes)})
    return joints


def write_deepfashion(root: Path, *, form: str, items: int = 8) -> list[str]:
    """Raw images and keypoints of 256 pixels ("raw"), or PATN's 176-wide ones ("patn"), whose two
    files spell names otherwise; the keypoint files' names of the images."""
    lines: dict[str, list[str]] = {"train": [], "test": []}
    partition = []
    names = []
    resized = form == "patn"
    for item in range(items):
        part = "test" if item % 4 == 3 else "train"
        for view, word in (("1", "front"), ("2", "side")):
            points = np.rint(standing(10 * item + int(view), 2.0, (28, 8))).astype(int)
            if resized:
                points -= (40, 0)
            raw = f"WOMEN/Tees_Tanks/id_{item + 1:08d}/01_{view}_{word}.jpg"
            spelled = f"fasionWOMENTeesTanksid{item + 1:08d}01_{view}{word}.jpg"
            flat = f"fashionWOMENTees_Tanksid{item + 1:08d}01_{view}{word}.jpg"
            file = root / part / flat if resized else root / "Img/img" / raw
            draw(file, (256, 176 if resized else 256), points, item)
            status = "train" if part == "train" else ("query" if view == "1" else "gallery")
            partition.append(f"img/{raw}  id_{item + 1:08d}  {status}")
            ys, xs = points[:, 1].tolist(), points[:, 0].tolist()
            ys[17] = xs[17] = -1
            lines[part].append(f"{spelled}: {ys}: {xs}")
            names.append(spelled)
    for part, people in lines.items():
        stem = f"fasion-{'resize-' if resized else ''}annotation-{part}.csv"
        text = "\n".join(["name:keypoints_y:keypoints_x", *people])
        (root / stem).write_text(f"{text}\n", encoding="utf-8")
        listed = [line.split(":")[0] for line in people]
        if resized:
            (root / f"{part}.lst").write_text("\n".join(listed) + "\n", encoding="utf-8")
    if not resized:
        (root / "Eval").mkdir(parents=True)
        head = f"{len(partition)}\nimage_name item_id evaluation_status"
        text = "\n".join([head, *partition])
        (root / "Eval" / "list_eval_partition.txt").write_text(text + "\n", encoding="utf-8")
    pairs = "\n".join(
        ["from,to", *(f"{a},{b}" for a, b in zip(names[::2], names[1::2], strict=True))]
    )
    (root / "fasion-pairs-train.csv").write_text(pairs + "\n", encoding="utf-8")
    return names


def write_market(root: Path) -> None:
    """Two persons to train on, one to test on, a distractor and junk."""
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for folder, part, persons in (
        ("bounding_box_train", "train", ("0002", "0007")),
        ("bounding_box_test", "test", ("0001", "0000", "-1")),
        ("query", "test", ("0001",)),
    ):
        for person in persons:
            name = f"{person}_c{1 if folder == 'query' else 2}s1_000451_03.jpg"
            points = np.rint(standing(abs(int(person)), 1.0, (-18, 4))).astype(int)
            draw(root / folder / name, (128, 64), points)
            lines[part].append(f"{name}: {points[:, 1].tolist()}: {points[:, 0].tolist()}")
    for part, people in lines.items():
        text = "\n".join(["name:keypoints_y:keypoints_x", *people])
        (root / f"market-annotation-{part}.csv").write_text(f"{text}\n", encoding="utf-8")


def write_chictopia(root: Path, counts: dict[str, int]) -> None:
    """Images, SMPL bodies in pickles as Python 2 wrote them, and segments."""
    of_smpl = {8: 10, 5: 9, 2: 8, 1: 11, 4: 12, 7: 13, 21: 4, 19: 3, 17: 2, 16: 5, 18: 6, 20: 7}
    number = 0
    for part, count in counts.items():
        folder = root / "generation" / "data" / "pose" / "extracted" / part
        for _ in range(count):
            points = standing(number, 2.0, (40, 20)).astype(np.float64)
            body = np.full((25, 2), 143.0)
            for row, joint in of_smpl.items():
                body[row] = points[joint]
            body[12], body[24] = points[1], points[0] - (0, 14)
            draw(folder / f"{number:05d}_image.png", (286, 286), points, number)
            content = {"j2d": body, "pose": np.zeros(72), "f": 5000.0, "betas": np.zeros(10)}
            (folder / f"{number:05d}_body.pkl").write_bytes(pickle.dumps(content, 0))
            segments = np.zeros((286, 286), np.uint8)
            segments[40:250, 100:180] = 3
            cv2.imwrite(str(folder / f"{number:05d}_bodysegments.png"), segments)
            number += 1
