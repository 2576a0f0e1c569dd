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
from dgpose.inference.person_views import as_pose, pose_box

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
        sizes: (H, W) of each pose's image in pixels, or None where the file does not say it.
        number: which one, of several people in an image; None: there must be one.
    """

    path: Path
    poses: list[FloatArray]
    images: tuple[str, ...]
    sizes: tuple[tuple[int, int] | None, ...]
    number: int | None = None

    @classmethod
    def read(
        cls, path: Path, skeleton: str | None, number: int | None, *, seen: bool = False
    ) -> ImagePoses:
        """Those of a file; with `seen` the visible joints alone. Raises as `read_pose_file`."""
        file = read_pose_file(path, skeleton)
        return cls(path, _with_nan(file, seen), file.images, file.sizes, number)

    def of(self, image: Path, picture: Picture, *, alone: bool) -> FloatArray:
        """The pose in an image; for one that is `alone` the file may name no image, or another.

        Raises:
            ValueError: none, several and no number, or one in pixels of an image of another size.
        """
        named = [Path(name).stem for name in self.images]
        found = [row for row, name in enumerate(self.images) if name == str(image)]
        if not found:
            found = [row for row, name in enumerate(named) if name == image.stem]
        if not found and alone and len(set(named)) == 1:
            found = list(range(len(self.poses)))
            if named[0]:
                said = f"{self.path}: made for {self.images[0]}, taken for {image.name}"
                typer.echo(f"warning: {said}", err=True)
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
        row = found[self.number or 0]
        size, (height, width) = self.sizes[row], picture.shape[:2]
        if size is not None and size != (height, width):
            raise ValueError(
                f"{self.path}: the pose must be in pixels of {image.name}, {width}x{height}, got "
                f"one of an image of {size[1]}x{size[0]}"
            )
        return self.poses[row]


def _with_nan(file: PoseFile, seen: bool) -> list[FloatArray]:
    given = file.visible if seen else file.known
    return list(np.where(given[..., None], file.keypoints_px.astype(np.float64), np.nan))


def read_targets(
    files: list[Path], skeleton: str | None, limit: int, *, seen: bool = False
) -> tuple[list[FloatArray], list[str]]:
    """All poses [18, 2] of files, up to `limit`, and a different name for each; with `seen` their
    visible joints alone.

    Raises:
        ValueError: a pose that cannot be shown; else as `read_pose_file`.
    """
    poses: list[FloatArray] = []
    names: list[str] = []
    for path in files:
        file = read_pose_file(path, skeleton)
        for number, pose in enumerate(_with_nan(file, seen)):
            try:
                pose_box(as_pose(pose))
            except ValueError as error:
                raise ValueError(f"{path}: pose {number}: {error}") from None
            poses.append(pose)
        for image in file.images:
            names.append(free_name(Path(image).stem or path.stem, set(names)))
    if len(poses) > limit:
        typer.echo(f"the first {limit} of {len(poses)} poses are shown: --limit", err=True)
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
        self.made = self.failed = 0

    def each(
        self, make: Callable[[Picture, FloatArray | None], T], what: str, limit: int | None = None
    ) -> Iterator[tuple[Path, T]]:
        """What `make` makes of each image and its pose; at most `limit` of them."""
        for path in progress(self.files, len(self.files), what):
            if self.made == limit:
                return
            try:
                picture = read_image(path)
                alone = len(self.files) == 1
                pose = None if self.poses is None else self.poses.of(path, picture, alone=alone)
                result = make(picture, pose)
            except (ValueError, OSError) as error:
                said = one_line(error)
                typer.echo(f"error: {said if str(path) in said else f'{path}: {said}'}", err=True)
                self.failed += 1
                continue
            self.made += 1
            yield path, result

    def finish(self) -> None:
        """Ends the command with exit code 1 where an image failed, 2 where all did."""
        if self.failed:
            raise typer.Exit(1 if self.made else 2)
