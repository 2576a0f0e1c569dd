"""What `dgpose person` is given: images, the poses of people in them, and poses to show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import typer

from dgpose._errors import one_line
from dgpose.cli.image_inputs import free_name, image_files
from dgpose.cli.terminal import progress
from dgpose.data.image_files import read_image
from dgpose.data.pose_files import PoseFile, read_pose_file

__all__ = ["ImagePoses", "PersonImages", "read_targets"]

T = TypeVar("T")
FloatArray = npt.NDArray[np.float64]
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ImagePoses:
    """Poses of the people in images.

    Attributes:
        path: of the file.
        poses: [18, 2] each, NaN where not known.
        images: name of each pose's image, or "".
        number: which one, of several people in an image; None: there must be one.
    """

    path: Path
    poses: list[FloatArray]
    images: tuple[str, ...]
    number: int | None = None

    @classmethod
    def read(cls, path: Path, skeleton: str | None, number: int | None) -> ImagePoses:
        """Raises as `read_pose_file`."""
        file = read_pose_file(path, skeleton)
        return cls(path, _with_nan(file), file.images, number)

    def of(self, image: Path, *, alone: bool) -> FloatArray:
        """The pose in an image; for one that is `alone` the file may name no image, or another.

        Raises:
            ValueError: none, or several and no number.
        """
        named = [Path(name).stem for name in self.images]
        found = [p for p, name in zip(self.poses, self.images, strict=True) if name == str(image)]
        if not found:
            found = [p for p, name in zip(self.poses, named, strict=True) if name == image.stem]
        if not found and alone and len(set(named)) == 1:
            found = self.poses
        if not found:
            raise ValueError(f"{self.path}: must hold a pose for {image.name}, got none")
        if self.number is None and len(found) > 1:
            raise ValueError(
                f"{self.path}: must hold one pose for {image.name}, got {len(found)} "
                "(--person takes one of them)"
            )
        if self.number is not None and self.number >= len(found):
            raise ValueError(
                f"--person must be below {len(found)} for {image.name}, got {self.number}"
            )
        return found[self.number or 0]


def _with_nan(file: PoseFile) -> list[FloatArray]:
    return list(np.where(file.known[..., None], file.keypoints_px.astype(np.float64), np.nan))


def read_targets(
    files: list[Path], skeleton: str | None, limit: int
) -> tuple[list[FloatArray], list[str]]:
    """All poses [18, 2] of files, up to `limit`, and a different name for each.

    Raises:
        as `read_pose_file`.
    """
    poses: list[FloatArray] = []
    names: list[str] = []
    for path in files:
        file = read_pose_file(path, skeleton)
        poses += _with_nan(file)
        for image in file.images:
            names.append(free_name(Path(image).stem or path.stem, set(names)))
    return poses[:limit], names[:limit]


class PersonImages:
    """Images of people, read one at a time; what fails is told and counted.

    Args:
        images: files, and folders of them.
        poses: of the people in them; None: not known.

    Raises:
        FileNotFoundError, ValueError: as `image_files`.
    """

    def __init__(self, images: list[Path], poses: ImagePoses | None = None) -> None:
        self.files = list(image_files(images))
        self.poses = poses
        self.failed = 0

    def each(
        self, make: Callable[[Picture, FloatArray | None], T], what: str, limit: int | None = None
    ) -> Iterator[tuple[Path, T]]:
        """What `make` makes of each image and its pose; at most `limit` of them."""
        made = 0
        for path in progress(self.files, len(self.files), what):
            if made == limit:
                return
            try:
                picture = read_image(path)
                alone = len(self.files) == 1
                pose = None if self.poses is None else self.poses.of(path, alone=alone)
                result = make(picture, pose)
            except (ValueError, OSError) as error:
                said = one_line(error)
                typer.echo(f"error: {said if str(path) in said else f'{path}: {said}'}", err=True)
                self.failed += 1
                continue
            made += 1
            yield path, result

    def finish(self) -> None:
        """Ends the command with exit code 1 where an image failed."""
        if self.failed:
            raise typer.Exit(1)
