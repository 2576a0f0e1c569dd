"""Options of `dgpose person`, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from dgpose.cli.person_inputs import ImagePoses
from dgpose.data.keypoint_files import SKELETONS
from dgpose.inference.person_generator import PersonGenerator
from dgpose.inference.person_keypoints import KeypointEstimator

__all__ = [
    "SEMI",
    "BoxOption",
    "Device",
    "Estimator",
    "Images",
    "Limit",
    "Model",
    "Only",
    "Out",
    "PersonNumber",
    "SkeletonName",
    "SourcePose",
    "Target",
    "load_generator",
    "read_poses",
]

Images = Annotated[list[Path], typer.Argument(help="Pictures of a person each, or folders.")]
SourcePose = Annotated[
    Path | None,
    typer.Option(
        help="File of the poses in IMAGES, in their pixels (OpenPose's or COCO's JSON, .npz, .csv, "
        "poses.json of dgpose person estimate, ...); of several images found by name. Else they "
        "are estimated."
    ),
]
Target = Annotated[
    list[Path],
    typer.Option(
        "--pose", help="File of poses to show, as for --source-pose; may be given several times."
    ),
]
Limit = Annotated[int, typer.Option(min=1, help="Most poses to take of --pose.")]
SkeletonName = Annotated[
    str | None,
    typer.Option(help=f"Joint order of pose files, if unclear: {', '.join(SKELETONS)}."),
]
PersonNumber = Annotated[
    int | None,
    typer.Option("--person", min=0, help="Of several people in an image of --source-pose."),
]
BoxOption = Annotated[
    str | None,
    typer.Option(
        "--box",
        help="x1,y1,x2,y2 tight around the person, in pixels; else around the pose where it is "
        "given, else the whole image.",
    ),
]
Out = Annotated[Path, typer.Option(help="Picture to write, .png or .jpg.")]
Only = Annotated[
    bool, typer.Option("--only", help="Write generated images alone; several into the folder OUT.")
]
Model = Annotated[str, typer.Option(help="person_semi, person_conditional, or a weight file.")]
Estimator = Annotated[
    str | None,
    typer.Option(
        help="What estimates poses that are not given: person_judge, person_semi, or a weight "
        "file; if not given the model itself, which a conditional one cannot."
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, ...")]
SEMI = "person_semi"


def load_generator(
    model: str, estimator: str | None, device: str, threads: int | None
) -> PersonGenerator:
    """Raises as `PersonGenerator.load`."""
    if threads is not None:
        torch.set_num_threads(threads)
    return PersonGenerator.load(model, estimator=estimator, device=device)


def read_poses(
    estimator: KeypointEstimator | None,
    path: Path | None,
    skeleton: str | None,
    number: int | None,
    *,
    seen: bool = False,
) -> ImagePoses | None:
    """The options --source-pose, --skeleton and --person, beside what estimates poses; with `seen`
    the visible joints alone.

    Raises:
        ValueError: a number without a file, or no file where nothing estimates poses; else as
            `ImagePoses.read`.
    """
    if path is None and estimator is None:
        raise ValueError(
            "--source-pose or --estimator must be given with a model that estimates no poses"
        )
    if path is None and number is not None:
        raise ValueError("--person must come with --source-pose")
    return None if path is None else ImagePoses.read(path, skeleton, number, seen=seen)
