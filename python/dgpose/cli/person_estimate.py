"""`dgpose person estimate`, and examples to try it on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from dgpose.cli.image_inputs import free_name, parse_box
from dgpose.cli.options import Threads, use_threads
from dgpose.cli.person_inputs import FloatArray, PersonImages, Picture
from dgpose.cli.person_options import SEMI, BoxOption, Device, Images
from dgpose.cli.terminal import fail
from dgpose.data.image_files import save_picture
from dgpose.data.synthetic_people import SyntheticPeople
from dgpose.inference.person_keypoints import KeypointEstimate, KeypointEstimator
from dgpose.viz.person import estimate_picture
from dgpose_ext.tensor_file import write_bytes_atomically

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

    Beside each stands how sure it is. The confidence of a DGPose model is the mean over joints of
    the probability that a joint lies within 0.2 torso lengths of its estimate, and "low" below 0.5.
    A keypoint network (person_judge) has a score, which is no probability.

    The other commands take OUT/poses.json as --source-pose and as --pose.

    The exit code is 1 where an image could not be used; the others are estimated all the same.
    """
    use_threads(threads)
    found: list[dict[str, Any]] = []
    taken: set[str] = set()
    try:
        estimator = KeypointEstimator.load(model, device=device)
        around = parse_box(box)
        inputs = PersonImages(images)

        def make(picture: Picture, _: FloatArray | None) -> tuple[Picture, KeypointEstimate]:
            return picture, estimator.estimate(picture, boxes=around)

        try:
            for path, (picture, result) in inputs.each(make, "estimating"):
                found.append(_fields(path, picture, result))
                line = _line(found[-1])
                typer.echo(json.dumps(found[-1]) if as_json else line)
                if out is not None:
                    drawn = estimate_picture(picture, result.poses_px[0], line)
                    save_picture(out / "pictures" / f"{free_name(path.stem, taken)}.png", drawn)
        finally:  # after Ctrl-C, too
            if out is not None and found:
                _save_poses(out / "poses.json", found)
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
    """Write rendered people to try the other commands on: an image and its pose each.

    OUT/poses.json has all the poses, OUT/person_0.json that of OUT/person_0.png, and so on.
    """
    try:
        people = SyntheticPeople(seed, poses="kinematic", split="test", size=size)
        batch = people.batch(range(count))
        pictures = np.rint(255 * batch.image.permute(0, 2, 3, 1).numpy()).astype(np.uint8)
        records = []
        for number, (picture, pose, visible) in enumerate(
            zip(pictures, batch.keypoints_px, batch.keypoint_visible, strict=True)
        ):
            name = f"person_{number}.png"
            save_picture(out / name, picture)
            record = _record(name, picture, pose.numpy())
            records.append({**record, "visible": visible.tolist()})
            _save_poses(out / f"person_{number}.json", records[-1:])
        _save_poses(out / "poses.json", records)
    except (ValueError, OSError) as error:
        fail(error)
    typer.echo(f"{count} people, .png and .json each, and poses.json: {out}")


def _record(image: str, picture: Picture, pose_px: npt.NDArray[Any]) -> dict[str, Any]:
    """A pose as `dgpose.data.pose_files` reads it: pixels to a hundredth."""
    return {
        "image": image,
        "size": list(picture.shape[:2]),
        "keypoints_px": np.round(pose_px.astype(np.float64), 2).tolist(),
    }


def _save_poses(path: Path, records: list[dict[str, Any]]) -> None:
    text = json.dumps({"poses": records}, indent=1) + "\n"
    write_bytes_atomically(path, text.encode())


def _fields(path: Path, picture: Picture, found: KeypointEstimate) -> dict[str, Any]:
    """One estimate for JSON."""
    sure, std = found.confidence, found.std_px
    return {
        **_record(str(path), picture, found.poses_px[0]),
        "confidence": round(float(sure[0].mean()), 3),
        "joint_confidence": np.round(sure[0], 3).tolist(),
        "joint_std_px": None if std is None else np.round(std[0], 2).tolist(),
    }


def _line(fields: dict[str, Any]) -> str:
    sure, std = fields["confidence"], fields["joint_std_px"]
    if std is None:
        return f"{fields['image']}: score {sure:.2f}"
    low = " (low)" if sure < _LOW_CONFIDENCE else ""
    return f"{fields['image']}: confidence {sure:.2f}{low}, joints +- {np.mean(std):.1f} px"
