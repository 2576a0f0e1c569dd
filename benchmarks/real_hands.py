"""The shipped hand models on real depth frames: `python -m benchmarks.real_hands [--model M]
[--kinect-sheet PNG]`.

NYU (three labelled frames, Tompson et al. 2014, CC BY 4.0): error over the 14 scored joints with
the given and the found centre, beside the mean pose and the nearest pose of the pool; overlays to
docs/systems/img. Kinect (60 frames without labels): how many give a pose, and the median |rendered
- observed| inside it; the contact sheet is for looking at, not for publishing. Writes
results/real_hands.json, unless --model names other models. These frames are for testing only.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

import dgpose
from dgpose.data import nyu
from dgpose.data.cameras import CAMERAS
from dgpose.data.depth_io import open_source
from dgpose.metrics.hand_residual import rendered_residual
from dgpose.skeletons import NYU_SCORED14
from dgpose.viz.hand import SheetTile, contact_sheet

from .harness import RESULTS, environment

SHIPPED = ("accurate", "fast", "crossing_nets")
ROOT = Path(__file__).resolve().parents[1]
SCORED = list(NYU_SCORED14)


def error_mm(estimate: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Mean distance over the 14 scored joints."""
    return float(np.linalg.norm(estimate[SCORED] - truth[SCORED], axis=1).mean())


def baselines(frames: list[nyu.RealFrame], data: Path) -> dict[str, list[float]]:
    """Poses of the pool placed at the given centre: the mean, and the one nearest to the truth."""
    pool = nyu.load_poses(data).xyz_mm
    relative = pool - pool[:, nyu.CENTER_JOINT : nyu.CENTER_JOINT + 1]
    mean, nearest = [], []
    for frame in frames:
        truth = frame.joints_mm - frame.joints_mm[nyu.CENTER_JOINT]
        distances = np.linalg.norm(relative[:, SCORED] - truth[SCORED], axis=-1).mean(-1)
        nearest.append(float(distances.min()))
        mean.append(error_mm(relative.mean(0), truth))
    return {"mean pose": mean, "nearest pose of the pool (knows the truth)": nearest}


def nyu_errors(model: str, data: Path, pictures: Path | None) -> dict[str, Any]:
    """Errors by frame; writes the overlay sheet."""
    estimator = dgpose.load(model)
    frames = nyu.load_real_frames(data)
    table: dict[str, Any] = {}
    tiles = []
    for name in ("given centre", "found centre"):
        errors = []
        for frame in frames:
            center = frame.given_center if name == "given centre" else None
            pose = estimator(frame.depth, frame.camera, center)
            error = error_mm(pose.joints_mm, frame.joints_mm) if pose.found else float("nan")
            errors.append(error)
            tiles.append(
                SheetTile(
                    frame.depth, frame.camera, pose.center or frame.given_center,
                    pose.joints_px if pose.found else None, frame.uvd[:, :2],
                    f"row {frame.row}, {name}: {error:.1f} mm",
                )
            )  # fmt: skip
        table[name] = errors
    if pictures is not None:
        title = "Real frames of the NYU test set (Tompson et al. 2014, CC BY 4.0)"
        sheet = contact_sheet(tiles, title, columns=3)
        cv2.imwrite(str(pictures / "nyu_real.png"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    return table


def kinect(model: str, data: Path, sheet: Path | None) -> dict[str, Any]:
    """Found poses and residuals on the 60 frames."""
    estimator = dgpose.load(model)
    camera = CAMERAS["kinect2"]
    residuals, inside, tiles, reasons = [], [], [], []
    items = open_source(str(data / "hand" / "kinect2_real"))
    for item in items:
        depth = item.load().depth
        pose = estimator(depth, camera)
        state = f"confidence {pose.confidence:.2f}" if pose.found else "not found"
        caption = f"{item.name}: {state}"
        if pose.found:
            residual = rendered_residual(pose.joints_mm, depth, camera)
            residuals.append(residual.median_abs_mm)
            inside.append(residual.inside)
            caption += f", {residual.median_abs_mm:.1f} mm"
        else:
            reasons.append(f"{item.name}: {pose.reason}")
        joints = pose.joints_px if pose.found else None
        tiles.append(SheetTile(depth, camera, pose.center, joints, None, caption))
    if sheet is not None:
        picture = contact_sheet(tiles, "Kinect V2", columns=10, size=240)
        cv2.imwrite(str(sheet), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return {
        "frames": len(items),
        "found": len(residuals),
        "median |rendered - observed| mm, median over frames": float(np.median(residuals)),
        "p90 over frames": float(np.quantile(residuals, 0.9)),
        "share of the silhouette within 30 mm, median": float(np.median(inside)),
        "not found": reasons,
    }


def main() -> None:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", help="repeat it; the shipped ones by default")
    parser.add_argument(
        "--kinect-sheet", type=Path, help="contact sheet to look at; do not publish"
    )
    options = parser.parse_args()
    data = Path(os.environ.get("DGPOSE_DATA", ROOT.parent / "shared" / "data"))
    frames = nyu.load_real_frames(data)
    result: dict[str, Any] = {
        "environment": environment(),
        "rows": [frame.row for frame in frames],
        "baselines": baselines(frames, data),
        "models": {},
    }
    for name, errors in result["baselines"].items():
        print_errors(name, errors)
    for model in options.model or SHIPPED:
        pictures = ROOT / "docs/systems/img" if model == "accurate" else None
        found = {
            "nyu": nyu_errors(model, data, pictures),
            "kinect": kinect(model, data, options.kinect_sheet),
        }
        for name, errors in found["nyu"].items():
            print_errors(f"{model}, {name}", errors)
        print(json.dumps(found["kinect"], indent=1))
        result["models"][model] = found
    if options.model is None:
        path = RESULTS / "real_hands.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"wrote {path}")


def print_errors(name: str, errors: list[float]) -> None:
    """One line a method."""
    each = ", ".join(f"{error:.2f}" for error in errors)
    print(f"{name:<45} mean {np.mean(errors):6.2f} mm  ({each})")


if __name__ == "__main__":
    main()
