"""Do unlabelled real frames help the hand model? `python -m experiments.hand_models.pseudo_labels
WEIGHTS --out OUT`.

The frames (60 of a Kinect v2, one of MSRA15; no frame of NYU) get labels from WEIGHTS: the mean
estimate over small turns in the image, of frames whose estimate passes the estimator's check and
whose turned estimates agree within `AGREE_MM`. Training goes on from WEIGHTS with every
`EVERY`-th frame one of these, turned, shifted and scaled anew each time; with --none it goes on
for as long without. Chosen, as always, by rendered validation frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dgpose.data.cameras import CAMERAS, Camera
from dgpose.data.counter_rng import CounterRng, FloatArray
from dgpose.data.depth_io import open_source
from dgpose.data.synthetic_hands import CUBE_MM, HandBatch, SyntheticHands
from dgpose.inference.depth_input import Place
from dgpose.inference.hand_estimator import HandEstimator
from dgpose.nn.hand_regressor import CROP_SIZE, HandRegressor, load_weights
from dgpose.train.hand import HandTrainConfig, train_hand
from dgpose_ext import depth_crop

FRAMES = {"kinect2": "hand/kinect2_real", "msra": "hand/msra/depth_real"}
EVERY = 8
TURNS = (-0.4, -0.2, 0.0, 0.2, 0.4)
AGREE_MM = 25.0
_CENTER_STD_MM, _CUBE_STD = 6.0, 0.05


class Frame(NamedTuple):
    """A real frame: depth [H, W] float32 mm, the centre (u, v, mm) that was found."""

    depth: Tensor
    camera: Camera
    center: Place


def found_frames(data: Path, model: Path) -> list[Frame]:
    """Frames whose estimate by `model` passes the check."""
    estimator = HandEstimator.load(model)
    frames = []
    for name, folder in FRAMES.items():
        camera = CAMERAS[name]
        for item in open_source(data / folder):
            image = item.load()
            pose = estimator(image.depth, camera)
            if pose.found and pose.center is not None:
                depth = torch.from_numpy(np.asarray(image.depth, np.float32))
                frames.append(Frame(depth, camera, pose.center))
    return frames


def turned(crop: Tensor, joints: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Crops [B, 1, S, S] and joints [B, J, 3] rotated in the image by angles [B]."""
    cosine, sine = angle.cos(), angle.sin()
    zero = torch.zeros_like(cosine)
    back = torch.stack((cosine, sine, zero, -sine, cosine, zero), 1).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(back, list(crop.shape), align_corners=False)
    moved = 1 + torch.nn.functional.grid_sample(crop - 1, grid, "nearest", align_corners=False)
    x, y, z = joints.unbind(2)
    c, s = cosine[:, None], sine[:, None]
    return moved, torch.stack((c * x - s * y, s * x + c * y, z), 2)


class PseudoLabelled:
    """Rendered hands, every `EVERY`-th frame of them replaced by a labelled real one."""

    def __init__(self, rendered: SyntheticHands, frames: list[Frame], model: HandRegressor) -> None:
        self.rendered, self.frames, self.labels = rendered, [], []
        for frame in frames:
            crop = _crop(frame, np.zeros(3), CUBE_MM).expand(len(TURNS), -1, -1, -1)
            angle = torch.tensor(TURNS)
            views, _ = turned(crop, torch.zeros(len(TURNS), 1, 3), angle)
            with torch.no_grad():
                estimates = model(views.contiguous())
            _, upright = turned(views, estimates, -angle)
            apart = (upright - upright.mean(0)).norm(dim=2).mean() * CUBE_MM / 2
            if apart <= AGREE_MM:
                self.frames.append(frame)
                self.labels.append(upright.mean(0))

    def batch(self, indices: Sequence[int]) -> HandBatch:
        drawn = self.rendered.batch(indices)
        rng = CounterRng(1, indices)
        pick = (rng.uniform("frame") * len(self.frames)).astype(int)
        angle = torch.from_numpy(rng.uniform("angle", low=-0.5, high=0.5)).float()
        shift = rng.normal("center", 3, std=_CENTER_STD_MM)
        cube = CUBE_MM * np.clip(rng.log_normal("cube", std=_CUBE_STD), 0.9, 1.1)
        crop, joints, cubes = drawn.crop.clone(), drawn.joints.clone(), drawn.cube_mm.clone()
        for b, index in enumerate(indices):
            if index % EVERY:
                continue
            frame = self.frames[pick[b]]
            view = _crop(frame, shift[b], cube[b])
            label = (self.labels[pick[b]] * CUBE_MM - 2 * torch.from_numpy(shift[b])) / cube[b]
            crop[b : b + 1], joints[b : b + 1] = turned(view, label[None].float(), angle[b : b + 1])
            cubes[b] = cube[b]
        return drawn._replace(crop=crop, joints=joints, cube_mm=cubes)


def _crop(frame: Frame, shift_mm: FloatArray, cube: float) -> Tensor:
    """[1, 1, S, S]; the centre moved by mm: right, down, away. The window moves with its depth,
    but for the perspective of a few millimetres, which the labels leave out."""
    u, v, z = frame.center
    fx, fy = frame.camera[:2]
    center = torch.tensor([[u + shift_mm[0] * fx / z, v + shift_mm[1] * fy / z, z + shift_mm[2]]])
    return depth_crop(frame.depth[None], center.float(), frame.camera, cube, CROP_SIZE)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--none", action="store_true", help="no real frames, for comparison")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, _ = load_weights(args.weights)
    rendered = SyntheticHands(3, poses="mixed", data_dir=args.data)
    train: SyntheticHands | PseudoLabelled = rendered
    data = "rendered hands (SyntheticHands), right, mixed poses, NYU actors 0, 1"
    if not args.none:
        train = PseudoLabelled(rendered, found_frames(args.data, args.weights), model.eval())
        data += f", and {len(train.frames)} pseudo-labelled real frames"
        print(data)
    config = HandTrainConfig(
        args.out,
        steps=None,
        minutes=args.minutes,
        learning_rate=args.learning_rate,
        validate_every=1000,
        validation_frames=2000,
        init=args.weights,
    )
    validation = SyntheticHands(3, poses="mixed", data_dir=args.data, split="val")
    print(train_hand(config, train, validation, data=data))


if __name__ == "__main__":
    main()
