"""What bfloat16 and int8 cost the shipped hand model: `python -m benchmarks.hand_precision`.

On 2,000 rendered crops that neither training nor calibration has seen, and on the three real frames
of the data folder (for testing only): the mean error over the 14 scored joints in float32, how
much it changes, and how far joints move. Writes results/hand_precision.json.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dgpose import HandEstimator
from dgpose.data import nyu
from dgpose.data.cameras import Camera, unproject
from dgpose.data.synthetic_hands import HandBatch, SyntheticHands
from dgpose.skeletons import NYU_SCORED14

from .harness import RESULTS, environment

ROOT = Path(__file__).resolve().parents[1]
SCORED = list(NYU_SCORED14)
PRECISIONS = ("float32", "bfloat16", "int8")
SEED = 103
BATCH = 100

Joints = np.ndarray[Any, np.dtype[np.float64]]


def joints_mm(coords: torch.Tensor, batch: HandBatch) -> Joints:
    """Crop coordinates [B, 36, 3] as millimetres."""
    half = batch.cube_mm[:, None] / 2
    window = half * batch.camera[:, :2] / batch.centers[:, 2:]
    uvd = coords * torch.cat([window, half], 1)[:, None] + batch.centers[:, None]
    frames = zip(uvd.double().numpy(), batch.camera.tolist(), strict=True)
    return np.stack([unproject(frame, Camera(*camera)) for frame, camera in frames])


def rendered(estimators: dict[str, HandEstimator], count: int) -> tuple[dict[str, Joints], Joints]:
    """Joints by precision, and the true ones, [N, 36, 3] mm."""
    hands = SyntheticHands(SEED, split="test", data_dir=os.environ.get("DGPOSE_DATA"))
    found: dict[str, list[Joints]] = {name: [] for name in estimators}
    truth = []
    for begin in range(0, count, BATCH):
        batch = hands.batch(range(begin, min(begin + BATCH, count)))
        truth.append(batch.joints_mm.double().numpy())
        for name, estimator in estimators.items():
            found[name].append(joints_mm(estimator.regress(batch.crop), batch))
    return {name: np.concatenate(parts) for name, parts in found.items()}, np.concatenate(truth)


def real(estimators: dict[str, HandEstimator], data: Path) -> tuple[dict[str, Joints], Joints]:
    """The same of the real frames, with the given centre."""
    frames = nyu.load_real_frames(data)
    found = {
        name: np.stack([e(f.depth, f.camera, f.given_center).joints_mm for f in frames])
        for name, e in estimators.items()
    }
    return found, np.stack([frame.joints_mm for frame in frames])


def compare(found: dict[str, Joints], truth: Joints) -> dict[str, dict[str, float]]:
    """By precision: mean error (14 joints), its change, and the displacement of all joints, mm."""
    exact = found["float32"]
    error = np.linalg.norm((exact - truth)[:, SCORED], axis=-1).mean()
    table = {}
    for name, joints in found.items():
        moved = np.linalg.norm(joints - exact, axis=-1)
        table[name] = {
            "mean error": float(np.linalg.norm((joints - truth)[:, SCORED], axis=-1).mean()),
            "mean displacement": float(moved.mean()),
            "p99 displacement": float(np.quantile(moved, 0.99)),
        }
        table[name]["change of the mean error"] = table[name]["mean error"] - float(error)
    return table


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--frames", type=int, default=2000, help="rendered ones")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = Path(os.environ.get("DGPOSE_DATA", ROOT.parent / "shared" / "data"))
    estimators = {p: HandEstimator.load(options.model, precision=p) for p in PRECISIONS}
    tables = {f"{options.frames} rendered": compare(*rendered(estimators, options.frames))}
    if (data / "hand" / "nyu").is_dir():
        tables["real, NYU"] = compare(*real(estimators, data))
    for title, table in tables.items():
        print(f"{title}: mm")
        for name, row in table.items():
            print(f"  {name:<9}", ", ".join(f"{key} {value:.3f}" for key, value in row.items()))
    if options.model == "default":
        path = RESULTS / "hand_precision.json"
        result = {"environment": environment(), "model": options.model, "tables": tables}
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
