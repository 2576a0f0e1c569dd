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
from dgpose.cli.image_inputs import image_files
from dgpose.cli.terminal import progress
from dgpose.data.image_files import read_image
from dgpose.data.keypoint_files import PersonKeypoints, read_keypoints

__all__ = ["PersonImages", "PoseFile", "read_targets"]

T = TypeVar("T")
FloatArray = npt.NDArray[np.float64]
Picture = npt.NDArray[np.uint8]


def _pose(person: PersonKeypoints) -> FloatArray:
    """[18, 2] pixels, NaN where not known."""
    return np.where(person.visible[:, None], person.xy.astype(np.float64), np.nan)


@dataclass(frozen=True)
class PoseFile:
    """A keypoint file, whose poses belong to images.

    Attributes:
        path: of the file.
        people: in its order.
        number: which one, of several people in an image; None: there must be one.
    """

    path: Path
    people: list[PersonKeypoints]
    number: int | None = None

    @classmethod
    def read(cls, path: Path, skeleton: str | None, number: int | None) -> PoseFile:
        """Raises as `read_keypoints`."""
        return cls(path, read_keypoints(path, skeleton), number)

    def of(self, image: Path, *, alone: bool) -> FloatArray:
        """The pose [18, 2] in an image; of an image that is `alone`, whatever its name.

        Raises:
            ValueError: none, or several and no number.
        """
        found = [person for person in self.people if Path(person.image).stem == image.stem]
        if not found and alone and len({person.image for person in self.people}) == 1:
            found = self.people
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
        return _pose(found[self.number or 0])


def read_targets(
    files: list[Path], skeleton: str | None, limit: int
) -> tuple[list[FloatArray], list[str]]:
    """All poses [18, 2] of keypoint files, up to `limit`, and a name for each.

    Raises:
        as `read_keypoints`.
    """
    poses: list[FloatArray] = []
    names: list[str] = []
    for path in files:
        people = read_keypoints(path, skeleton, limit=limit)
        for number, person in enumerate(people):
            name = Path(person.image).stem or path.stem
            same = sum(other.image == person.image for other in people)
            names.append(f"{name}_{number}" if same > 1 else name)
            poses.append(_pose(person))
    return poses[:limit], names[:limit]


class PersonImages:
    """Images of people, read one at a time; what fails is told and counted.

    Args:
        images: files, and folders of them.
        poses: of the people in them; None: not known.

    Raises:
        FileNotFoundError, ValueError: as `image_files`.
    """

    def __init__(self, images: list[Path], poses: PoseFile | None = None) -> None:
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
