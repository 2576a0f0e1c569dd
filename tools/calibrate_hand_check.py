"""Fits the weights of `dgpose.inference.hand_evidence` to rendered images, and says how it does.

    python tools/calibrate_hand_check.py [--model FILE]

Estimated hands (SyntheticHands, test split; those that the network places well) against other
objects (`dgpose.data.other_objects`, centres found as for a hand). Prints the constants for that
module, and the shares kept and refused on images that the fit has not seen, with the new and with
the present constants.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dgpose.data.cameras import CAMERAS, Camera, unproject
from dgpose.data.other_objects import OBJECT_KINDS, object_depth
from dgpose.data.synthetic_hands import SyntheticHands
from dgpose.inference import HandEstimator, hand_evidence
from dgpose.inference.hand_evidence import weigh_evidence
from dgpose.skeletons import NYU_SCORED14
from dgpose_ext import crop_to_uvd, depth_crop, find_hand_center

Array = npt.NDArray[np.float64]

KEEP = 0.993
"""Share of well placed hands to keep, on what is fitted; a little less is kept of others."""

WORST_SHARE = 0.001
"""Share of them that one fact alone may refuse."""

GOOD_MM, LOST_MM = 25.0, 45.0
"""Mean errors: the fit learns from hands better than the first; those above the second are lost."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="accurate", help="shipped model or weight file")
    parser.add_argument("--hands", type=int, default=3000)
    parser.add_argument("--objects", type=int, default=150, help="of each kind")
    options = parser.parse_args()
    torch.set_num_threads(1)
    estimator = HandEstimator.load(options.model)
    hands, errors = measure_hands(estimator, options.hands)
    others = {kind: measure_objects(estimator, kind, options.objects) for kind in OBJECT_KINDS}

    good, lost = errors < GOOD_MM, errors > LOST_MM
    print(f"hands: mean error {errors.mean():.1f} mm, well placed {good.mean():.1%}")
    # Even rows to fit, odd rows to judge.
    sample = hands[good][::2]
    typical = np.median(sample, axis=0)
    direction = np.sign(hand_evidence.WEIGHTS[1:])
    worst = direction * np.quantile(direction * sample, WORST_SHARE, axis=0)
    worst[3] = hand_evidence.WORST[3]  # users' hands differ more than rendered ones
    weights = fit(
        clipped(sample, typical, direction),
        clipped(np.concatenate([facts[::2] for facts in others.values()]), typical, direction),
    )
    new = Check(typical, worst, weights, 0.0)
    passed = np.where(new.accepts(sample), new.confidence(sample), 0.0)
    new = new._replace(accept=float(np.quantile(passed, 1 - KEEP)))
    present = Check(
        np.array(hand_evidence.TYPICAL),
        np.array(hand_evidence.WORST),
        np.array(hand_evidence.WEIGHTS),
        hand_evidence.ACCEPT,
    )
    for name, values in zip(("TYPICAL", "WORST", "WEIGHTS"), new[:3], strict=True):
        print(f"{name} = ({', '.join(f'{value:.3f}' for value in values)})")
    print(f"ACCEPT = {new.accept:.3f}")
    for title, check in (("new", new), ("present", present)):
        print(f"{title}: hands kept {check.accepts(hands[1::2]).mean():.1%}", end="")
        print(f", well placed ones {check.accepts(hands[good][1::2]).mean():.1%}", end="")
        if lost.any():
            print(f", lost ones refused {1 - check.accepts(hands[lost]).mean():.1%}", end="")
        refused = {k: 1 - check.accepts(facts[1::2]).mean() for k, facts in others.items()}
        print(f"; others refused {np.mean(list(refused.values())):.1%}: ", end="")
        print(", ".join(f"{kind} {share:.0%}" for kind, share in refused.items()))


class Check(NamedTuple):
    """What `hand_evidence` holds, over arrays of facts [N, 5]."""

    typical: Array
    worst: Array
    weights: Array
    accept: float

    def confidence(self, facts: Array) -> Array:
        odds = self.weights[0] + clipped(facts, self.typical, self.direction) @ self.weights[1:]
        result: Array = 1 / (1 + np.exp(-odds))
        return result

    def accepts(self, facts: Array) -> npt.NDArray[np.bool_]:
        inside = (self.direction * (facts - self.worst) >= 0).all(axis=1)
        accepted: npt.NDArray[np.bool_] = inside & (self.confidence(facts) >= self.accept)
        return accepted

    @property
    def direction(self) -> Array:
        sign: Array = np.sign(self.weights[1:])
        return sign


def clipped(facts: Array, typical: Array, direction: Array) -> Array:
    """What is better than typical counts as typical."""
    return direction * np.minimum(direction * facts, direction * typical)


def measure_hands(estimator: HandEstimator, count: int) -> tuple[Array, Array]:
    """Facts [N, 5] and mean errors [N]; half of the poses from NYU's where DGPOSE_DATA is set."""
    facts, errors = [], []
    sources = [SyntheticHands(9, poses=poses, split="test") for poses in ("kinematic", "auto")]
    for start in range(0, count // 2, 50):
        for source in sources:
            batch = source.batch(range(start, start + 50))
            joints = estimator.regress(batch.crop)
            for i, coords in enumerate(joints.split(1)):
                cube = float(batch.cube_mm[i])
                camera = Camera(*batch.camera[i].tolist())
                uvd = crop_to_uvd(coords, batch.centers[i : i + 1], camera, cube)
                joints_mm = unproject(uvd[0].numpy(), camera)
                evidence = weigh_evidence(
                    batch.crop[i, 0].numpy(), coords[0].numpy(), joints_mm, cube
                )
                facts.append(evidence.facts)
                distance = np.linalg.norm(joints_mm - batch.joints_mm[i].numpy(), axis=1)
                errors.append(distance[list(NYU_SCORED14)].mean())
    return np.array(facts), np.array(errors)


def measure_objects(estimator: HandEstimator, kind: str, count: int) -> Array:
    """Facts [N, 5] of objects of one kind."""
    camera, cube = CAMERAS["nyu"], 300.0
    facts = []
    for index in range(count):
        depth = torch.from_numpy(object_depth(kind, 1, index))
        center = find_hand_center(depth, camera)
        if center is None:
            continue
        centers = torch.tensor([center], dtype=torch.float64)
        crop = depth_crop(depth[None], centers, camera, cube)
        joints = estimator.regress(crop)
        joints_mm = unproject(crop_to_uvd(joints, centers, camera, cube)[0].numpy(), camera)
        evidence = weigh_evidence(crop[0, 0].numpy(), joints[0].numpy(), joints_mm, cube)
        facts.append(evidence.facts)
    return np.array(facts)


def fit(hands: Array, others: Array) -> Array:
    """Logistic regression, both classes with the same total weight: [6], the constant first."""
    facts = np.concatenate([hands, others])
    design = np.concatenate([np.ones((len(facts), 1)), facts], axis=1)
    truth = np.repeat([1.0, 0.0], [len(hands), len(others)])
    share = np.repeat([0.5 / len(hands), 0.5 / len(others)], [len(hands), len(others)])
    weights = np.zeros(design.shape[1])
    for _ in range(50):  # Newton's method, slightly regularised
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (share * (truth - p)) - 1e-4 * weights
        curvature = (design * (share * p * (1 - p))[:, None]).T @ design
        weights += np.linalg.solve(curvature + 1e-4 * np.eye(len(weights)), gradient)
    return weights


if __name__ == "__main__":
    main()
