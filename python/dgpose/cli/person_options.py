"""Options of `dgpose person`, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from dgpose.cli.options import Threads, use_threads
from dgpose.cli.person_inputs import ImagePoses
from dgpose.data.keypoint_files import SKELETONS
from dgpose.inference.person_generator import PersonGenerator
from dgpose.inference.person_keypoints import KeypointEstimator

__all__ = [
    "SEMI",
    "BoxOption",
    "Device",
    "Images",
    "Limit",
    "ModelOptions",
    "Only",
    "Out",
    "SkeletonName",
    "SourceOptions",
    "Target",
]

SEMI = "person_semi"

Images = Annotated[list[Path], typer.Argument(help="Pictures of a person each, or folders.")]
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
Device = Annotated[str, typer.Option(help="cpu, cuda, ...")]


@dataclass(frozen=True)
class SourceOptions:
    """The poses of people in images: given, or estimated."""

    source_pose: Annotated[
        Path | None,
        typer.Option(
            help="File of the poses in IMAGES, in their pixels (OpenPose's or COCO's JSON, .npz, "
            ".csv, poses.json of dgpose person estimate, ...); of several images found by name. "
            "Else they are estimated (see --estimator)."
        ),
    ] = None
    estimator: Annotated[
        str | None,
        typer.Option(
            help="What estimates poses that are not given: person_judge, person_semi, or a weight "
            "file; if not given the model itself, which a conditional one cannot."
        ),
    ] = None
    skeleton: SkeletonName = None
    person: Annotated[
        int | None,
        typer.Option("--person", min=0, help="Of several people in an image of --source-pose."),
    ] = None

    seen: ClassVar[bool] = False  #: whether only visible joints of files are taken

    def poses(self, estimator: KeypointEstimator | None) -> ImagePoses | None:
        """Those that are given, beside what estimates others.

        Raises:
            ValueError: a number without a file, or no file where nothing estimates poses; else as
                `ImagePoses.read`.
        """
        path = self.source_pose
        if path is None and estimator is None:
            raise ValueError(
                "--source-pose or --estimator (such as person_judge) must be given with a "
                "model that estimates no poses"
            )
        if path is None and self.person is not None:
            raise ValueError("--person must come with --source-pose")
        if path is None:
            return None
        return ImagePoses.read(path, self.skeleton, self.person, seen=self.seen)


@dataclass(frozen=True)
class ModelOptions:
    """A model of `dgpose person`."""

    model: Annotated[
        str, typer.Option(help="person_semi, person_conditional, or a weight file.")
    ] = SEMI
    device: Device = "cpu"
    threads: Threads = None

    @property
    def name(self) -> str:
        """For headlines."""
        return Path(self.model).name

    def load(self, estimator: str | None = None) -> PersonGenerator:
        """Raises as `PersonGenerator.load`."""
        use_threads(self.threads)
        return PersonGenerator.load(self.model, estimator=estimator, device=self.device)
