"""`dgpose person estimate`, and examples to try it on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from dgpose.cli.hand import save_picture
from dgpose.cli.image_inputs import free_name, parse_box
from dgpose.cli.options import Threads
from dgpose.cli.person_inputs import FloatArray, PersonImages, Picture
from dgpose.cli.person_options import SEMI, BoxOption, Device, Images
from dgpose.cli.terminal import fail
from dgpose.data.keypoint_documents import write_coco, write_openpose
from dgpose.data.synthetic_people import SyntheticPeople
from dgpose.inference.person_keypoints import KeypointEstimate, KeypointEstimator
from dgpose.viz.person import estimate_picture

__all__ = ["estimate", "examples"]

_LOW_CONFIDENCE = 0.5


def estimate(
    images: Images,
    box: BoxOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for a picture of each image, and poses.json.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, with the poses.")
    ] = False,
    model: Annotated[
        str, typer.Option(help="person_semi, person_judge, or a weight file that estimates poses.")
    ] = SEMI,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Estimate 2D poses: BODY14 in pixels of the images.

    confidence: mean over joints of the probability, by the model's own posterior, of lying within
    0.2 torso lengths (of a keypoint network its score); "low" below 0.5. It is not calibrated.
    OUT/poses.json is a COCO file with OpenPose's joints, which all commands take as --pose.

    The exit code is 1 where an image could not be used; the others are estimated all the same.
    """
    sizes: list[tuple[str, int, int]] = []
    found: list[KeypointEstimate] = []
    taken: set[str] = set()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        estimator = KeypointEstimator.load(model, device=device)
        around = None if box is None else parse_box(box)
        inputs = PersonImages(images)

        def make(picture: Picture, _: FloatArray | None) -> tuple[Picture, KeypointEstimate]:
            return picture, estimator.estimate(picture, boxes=around)

        for path, (picture, pose) in inputs.each(make, "estimating"):
            sizes.append((str(path), *picture.shape[:2]))
            found.append(pose)
            typer.echo(json.dumps(_fields(path, pose)) if as_json else _said(path, pose))
            if out is not None:
                name = free_name(path.stem, taken)
                save_picture(
                    out / "pictures" / f"{name}.png",
                    estimate_picture(picture, pose.poses_px[0], _said(path, pose)),
                )
        if out is not None and found:
            poses, scores = ([getattr(pose, field)[0] for pose in found]
                             for field in ("poses_px", "confidence"))  # fmt: skip
            write_coco(out / "poses.json", sizes, poses, scores)
            typer.echo(f"saved {out / 'poses.json'} and {len(found)} pictures", err=as_json)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    inputs.finish()


def examples(
    out: Annotated[Path, typer.Option(help="Folder for person_0.png, person_0.json, ...")],
    count: Annotated[int, typer.Option(min=1, help="How many people.")] = 6,
    size: Annotated[int, typer.Option(min=16, max=1024, help="Pixels of an image.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the rendered people.")] = 0,
) -> None:
    """Write rendered people with their poses (OpenPose's JSON), to try the other commands on."""
    try:
        people = SyntheticPeople(seed, poses="kinematic", split="test", size=size)
        batch = people.batch(range(count))
        pictures = np.rint(255 * batch.image.permute(0, 2, 3, 1).numpy()).astype(np.uint8)
        for number, (picture, pose) in enumerate(zip(pictures, batch.keypoints_px, strict=True)):
            save_picture(out / f"person_{number}.png", picture)
            write_openpose(out / f"person_{number}.json", [pose.numpy()])
    except (ValueError, OSError) as error:
        fail(error)
    typer.echo(f"{count} people, .png and .json each: {out}")


def _fields(path: Path, found: KeypointEstimate) -> dict[str, Any]:
    """One estimate for JSON: pixels to a hundredth."""
    std = found.std_px
    return {
        "image": str(path),
        "confidence": round(float(found.confidence[0].mean()), 3),
        "std_px": None if std is None else round(float(std[0].mean()), 2),
        "pose_px": np.round(found.poses_px[0], 2).tolist(),
        "joint_confidence": np.round(found.confidence[0], 3).tolist(),
    }


def _said(path: Path, found: KeypointEstimate) -> str:
    fields = _fields(path, found)
    sure, std = fields["confidence"], fields["std_px"]
    text = f"{path}: confidence {sure:.2f}{' (low)' if sure < _LOW_CONFIDENCE else ''}"
    return text if std is None else f"{text}, joints +- {std:.1f} px"
