"""`dgpose person edit`: another height, other limbs, joints elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from torch import Tensor

from dgpose.cli.image_inputs import parse_box
from dgpose.cli.option_groups import with_groups
from dgpose.cli.person_inputs import FloatArray, PersonImages, Picture
from dgpose.cli.person_options import (
    BoxOption,
    Images,
    ModelOptions,
    Only,
    Out,
    SourceOptions,
)
from dgpose.cli.person_results import write_results
from dgpose.cli.terminal import fail
from dgpose.data.pose_edits import LIMBS, drag_joint, scale_height, scale_limb
from dgpose.inference.generated_people import GeneratedPeople
from dgpose.skeletons import BODY14
from dgpose.viz.drawing import animation
from dgpose.viz.person import person_tile
from dgpose_ext.tensor_file import write_bytes_atomically

__all__ = ["edit"]


@dataclass(frozen=True)
class _Edits:
    """Height, then limbs, then dragged joints."""

    height: float
    limbs: tuple[tuple[str, float], ...]
    drags: tuple[tuple[str, tuple[float, float]], ...]

    @classmethod
    def parse(cls, height: float | None, limbs: list[str], drags: list[str]) -> _Edits:
        """Of the options.

        Raises:
            ValueError: none, or one that does not read as it should.
        """
        if height is None and not limbs and not drags:
            raise ValueError("give one of --height, --limb and --drag")
        scales, places = [], []
        for text in limbs:
            limb, _, factor = text.partition(":")
            if limb not in LIMBS:
                raise ValueError(f"--limb must name one of {', '.join(LIMBS)}, got {text!r}")
            scales.append((limb, _numbers("--limb", "LIMB:FACTOR", factor, text)[0]))
        for option, value in [("--height", height), *(("--limb", value) for _, value in scales)]:
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{option} must have a positive factor, got {value:g}")
        for text in drags:
            joint, _, place = text.partition(":")
            if joint not in BODY14.joints:
                raise ValueError(
                    f"--drag must name one of {', '.join(BODY14.joints)}, got {text!r}"
                )
            x, y = _numbers("--drag", "JOINT:X,Y", place, text)
            places.append((joint, (x, y)))
        return cls(1.0 if height is None else height, tuple(scales), tuple(places))

    def edited(self, pose_px: Tensor, known: Tensor, share: float) -> Tensor:
        """The pose [14, 2] after a share of the edits, 0 to 1."""
        pose = scale_height(pose_px, self.height**share, known)
        for limb, factor in self.limbs:
            pose = scale_limb(pose, limb, factor**share, known)
        for joint, place in self.drags:
            start = pose[BODY14.joints.index(joint)]
            pose = drag_joint(pose, joint, start.lerp(start.new_tensor(place), share), known)
        return pose

    def __str__(self) -> str:
        said = [f"height x {self.height:g}"] if self.height != 1 else []
        said += [f"{limb.replace('_', ' ')} x {factor:g}" for limb, factor in self.limbs]
        said += [f"{joint.replace('_', ' ')} to {x:g}, {y:g}" for joint, (x, y) in self.drags]
        return "; ".join(said) or "unchanged"


def _numbers(option: str, form: str, text: str, whole: str) -> list[float]:
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 1 + form.count(","):
        raise ValueError(f"{option} must be {form}, got {whole!r}")
    return values


@with_groups
def edit(
    images: Images,
    *,
    out: Out = Path("edit.png"),
    height: Annotated[
        float | None, typer.Option(help="Factor of the person's height; the feet stay.")
    ] = None,
    limb: Annotated[
        list[str] | None,
        typer.Option(help="LIMB:FACTOR, such as legs:1.2 or right_forearm:0.7; several times."),
    ] = None,
    drag: Annotated[
        list[str] | None,
        typer.Option(
            help="JOINT:X,Y, such as left_wrist:120,40 in pixels of the image; several times."
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=2, help="Also OUT as .gif: the edit in so many steps.")
    ] = None,
    source: SourceOptions,
    box: BoxOption = None,
    only: Only = False,
    model: ModelOptions,
) -> None:
    """Change the pose in images: height, then limbs, then dragged joints.

    The exit code is 1 where an image could not be used; the others are made all the same.
    """
    try:
        options = _Edits.parse(height, limb or [], drag or [])
        generator = model.load(source.estimator)
        around = parse_box(box)
        inputs = PersonImages(images, source.poses(generator.estimator))
        if frames is not None and len(inputs.files) > 1:
            raise ValueError(f"--frames must have one image, got {len(inputs.files)}")
        shares = np.linspace(0, 1, frames) if frames is not None else np.ones(1)
        moving: list[GeneratedPeople] = []

        def make(picture: Picture, own: FloatArray | None) -> GeneratedPeople:
            steps = [partial(options.edited, share=float(share)) for share in shares]
            made = generator.edit(picture, own, steps, boxes=around)
            moving.append(made)
            return made[-1:]

        write_results(inputs, make, out, f"{model.name}: {options}", only=only)
        if frames is not None and moving:
            path = out.with_suffix(".gif")
            tiles = [
                np.hstack([person_tile(picture), person_tile(picture, pose)])
                for picture, pose in zip(
                    moving[0].pictures(), moving[0].poses_px.numpy(), strict=True
                )
            ]
            write_bytes_atomically(path, animation(tiles))
            typer.echo(f"animation: {path}")
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    inputs.finish()
