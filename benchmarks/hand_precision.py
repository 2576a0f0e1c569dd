"""What bfloat16 and int8 change: `python -m benchmarks.hand_precision`.

Every shipped hand model at every precision of HandNet, on 2,000 rendered crops (test poses, a seed
that nothing was trained or calibrated on) and on the three real NYU frames with the given centre:
mean error over the 14 scored joints, its change against float32, and how far all joints moved.
int8 is calibrated as HandEstimator does it. Writes results/hand_precision.json.
Needs DGPOSE_DATA for NYU's poses and frames; without it, kinematic poses and no frames.
"""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dgpose.data import nyu
from dgpose.data.synthetic_hands import HandBatch, SyntheticHands
from dgpose.inference.hand_calibration import calibration_crops
from dgpose.nn.hand_regressor import load_weights
from dgpose.skeletons import NYU_SCORED14
from dgpose.train.hand import crop_to_mm
from dgpose_ext.hand_net import HandNet

from .harness import RESULTS, environment, write_json

SEED, FRAMES = 2026, 2000
PRECISIONS = ("float32", "bfloat16", "int8")
SCORED = list(NYU_SCORED14)
Array = npt.NDArray[Any]


def _compare(joints: Array, base: Array, truth: Array) -> dict[str, float]:
    """joints, base (float32's) and truth [N, 36, 3] in mm."""

    def error(estimate: Array) -> float:
        return float(np.linalg.norm(estimate - truth, axis=-1)[:, SCORED].mean())

    moved = np.linalg.norm(joints - base, axis=-1)
    return {
        "error_mm": error(joints),
        "change_mm": error(joints) - error(base),
        "moved_mm": float(moved.mean()),
        "moved_p99_mm": float(np.quantile(moved, 0.99)),
    }


def _rendered(nets: dict[str, HandNet], batches: list[HandBatch]) -> dict[str, dict[str, float]]:
    def joints(net: HandNet) -> Array:
        parts: list[Tensor] = [crop_to_mm(net(batch.crop), batch) for batch in batches]
        return torch.cat(parts).numpy()

    truth = torch.cat([batch.joints_mm for batch in batches]).numpy()
    found = {name: joints(net) for name, net in nets.items()}
    return {name: _compare(found[name], found["float32"], truth) for name in nets}


def _real(nets: dict[str, HandNet], data: Path) -> dict[str, dict[str, float]]:
    frames = nyu.load_real_frames(data)
    truth = np.stack([frame.joints_mm for frame in frames])
    found = {
        name: np.stack(
            [np.asarray(net.run(f.depth, f.camera, f.given_center).joints_mm) for f in frames]
        )
        for name, net in nets.items()
    }
    return {name: _compare(found[name], found["float32"], truth) for name in nets}


def main() -> None:
    """Measures, prints, writes."""
    folder = os.environ.get("DGPOSE_DATA")
    data = Path(folder) if folder else None
    test = SyntheticHands(SEED, split="test", data_dir=data)
    batches = [test.batch(range(i, i + 250)) for i in range(0, FRAMES, 250)]
    calibration = calibration_crops()
    results = []
    weights = Path(str(resources.files("dgpose"))) / "weights"
    for path in sorted(weights.glob("hand_*.safetensors")):
        module, _ = load_weights(path)
        nets = {
            precision: HandNet.from_module(
                module, precision, calibration=calibration if precision == "int8" else None
            )
            for precision in PRECISIONS
        }
        tables = {"rendered": _rendered(nets, batches)}
        if data is not None:
            tables["real"] = _real(nets, data)
        for frames, table in tables.items():
            for precision, row in table.items():
                results.append({"model": path.stem, "frames": frames, "precision": precision} | row)
                print(json.dumps(results[-1]))
    facts = {"poses": test.poses, "rendered_frames": FRAMES, "calibration_crops": len(calibration)}
    write_json(
        {"environment": environment(), **facts, "results": results}, RESULTS / "hand_precision.json"
    )


if __name__ == "__main__":
    main()
