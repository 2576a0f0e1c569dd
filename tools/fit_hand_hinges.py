"""Fits the weights with which `dgpose.skeletons.nyu36_to_21` places the hinges of a hand's fingers.

    DGPOSE_DATA=../shared/data python tools/fit_hand_hinges.py

The NYU layout marks the bones beside their hinges. Each hinge is a weighted mean of four of its
points; the weights are fitted to the hinges of kinematic hands and of NYU's labels, the first half
of either. Prints the weights for that module, how far the hinges are from those of the other half,
with the new and with the present weights, and with the nearest NYU points alone, and the error of
the model "accurate" over the 36 and over the 21 joints.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dgpose.data.counter_rng import CounterRng
from dgpose.data.hand_kinematics import FINGERS, hinge_points, sample_palm_joints, to_palm_frame
from dgpose.data.nyu import load_poses
from dgpose.data.synthetic_hands import SyntheticHands
from dgpose.inference import HandEstimator
from dgpose.skeletons import HINGE_POINTS, HINGE_WEIGHTS, nyu36_to_21

Array = npt.NDArray[np.float64]

FRAMES = 600
"""Rendered ones, of the test split."""

HANDS = 12_000
"""Kinematic ones; a few more than NYU's labels."""

RIDGE_MM = 2.2
"""Keeps the weights near those of the two points beside the hinge: without it they would fit
better by a millimetre, and make up to twice as much of an estimate's error."""

START = np.array([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0]])
"""Knuckle: the nearest point; other hinges: the middle of the two bones' ends."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("DGPOSE_DATA"))
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or DGPOSE_DATA must name the data folder")
    labels = load_poses(options.data).xyz_mm.astype(np.float64)
    hands = {
        "kinematic": sample_palm_joints(CounterRng(0, np.arange(HANDS))),
        "NYU labels": to_palm_frame(labels)[0],
    }
    pairs = {name: (joints, hinge_points(joints)) for name, joints in hands.items()}
    for finger, name in enumerate(FINGERS):
        for hinge in range(3):
            points = list(HINGE_POINTS[name][hinge])
            fitted = fit(
                [
                    (joints[: len(joints) // 2, points], true[: len(joints) // 2, finger, hinge])
                    for joints, true in pairs.values()
                ],
                START[hinge],
            )
            print(f"{name} hinge {hinge + 1}: {', '.join(f'{w:.2f}' for w in fitted)}")
            for what, (joints, true) in pairs.items():
                rest = slice(len(joints) // 2, None)
                found, wanted = joints[rest, points], true[rest, finger, hinge]
                errors = [
                    f"{label} {error(weights, found, wanted):.1f}"
                    for label, weights in (
                        ("new", fitted),
                        ("present", np.array(HINGE_WEIGHTS[name][hinge])),
                        ("nearest", START[hinge]),
                    )
                ]
                print(f"    {what}: {', '.join(errors)} mm")
    batch = SyntheticHands(31, data_dir=options.data, split="test").batch(range(FRAMES))
    half = batch.cube_mm[:, None, None] / 2
    answer, truth = HandEstimator.load().regress(batch.crop) * half, batch.joints * half
    whole = float((answer - truth).norm(dim=2).mean())
    part = float((nyu36_to_21(answer) - nyu36_to_21(truth)).norm(dim=2).mean())
    print(f"{FRAMES} rendered frames: 36 joints {whole:.1f} mm, 21 joints {part:.1f} mm")


def fit(pairs: list[tuple[Array, Array]], start: Array) -> Array:
    """Weights [4] of sum 1, in hundredths, of points [N, 4, 3] that give hinges [N, 3]."""
    points, hinges = (np.concatenate(part) for part in zip(*pairs, strict=True))
    known = np.isfinite(hinges).all(axis=1)
    points, hinges = points[known], hinges[known]
    rest = (hinges - np.einsum("npc,p->nc", points, start)).reshape(-1)
    moves = (points[:, 1:] - points[:, :1]).transpose(0, 2, 1).reshape(-1, 3)
    square = moves.T @ moves + len(rest) * RIDGE_MM**2 * np.eye(3)
    change = np.linalg.solve(square, moves.T @ rest)
    last = np.round(start[1:] + change, 2)
    return np.concatenate([[1 - last.sum()], last])


def error(weights: Array, points: Array, hinges: Array) -> float:
    """Mean distance in mm; hinges that are not known are left out."""
    distance = np.linalg.norm(np.einsum("npc,p->nc", points, weights) - hinges, axis=1)
    return float(np.nanmean(distance))


if __name__ == "__main__":
    main()
