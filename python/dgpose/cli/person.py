"""`dgpose person`: images of people with DGPose: the same, in other poses, and new ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from dgpose.cli.image_inputs import parse_box
from dgpose.cli.option_groups import with_groups
from dgpose.cli.person_edit import edit
from dgpose.cli.person_estimate import estimate, examples
from dgpose.cli.person_eval import evaluate
from dgpose.cli.person_inputs import FloatArray, PersonImages, Picture, read_targets
from dgpose.cli.person_options import (
    BoxOption,
    Images,
    Limit,
    ModelOptions,
    Only,
    Out,
    SkeletonName,
    SourceOptions,
    Target,
)
from dgpose.cli.person_results import require_out, write_drawn, write_results
from dgpose.cli.terminal import fail
from dgpose.data.image_files import read_image
from dgpose.inference.generated_people import GeneratedPeople

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Images of people in given poses, with DGPose.")


@app.command()
@with_groups
def reconstruct(
    images: Images,
    *,
    out: Out = Path("reconstruction.png"),
    source: SourceOptions,
    box: BoxOption = None,
    only: Only = False,
    model: ModelOptions,
) -> None:
    """Rebuild images from their appearance and pose.

    The exit code is 1 where an image could not be used; the others are made all the same.
    """
    try:
        generator = model.load(source.estimator)
        around = parse_box(box)
        inputs = PersonImages(images, source.poses(generator.estimator))

        def make(picture: Picture, pose: FloatArray | None) -> GeneratedPeople:
            return generator.reconstruct(picture, pose, boxes=around)

        write_results(inputs, make, out, f"{model.name}: reconstruction", only=only)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    inputs.finish()


@app.command()
@with_groups
def transfer(
    images: Images,
    pose: Target,
    *,
    out: Out = Path("transfer.png"),
    source: SourceOptions,
    box: BoxOption = None,
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place", help="--pose is in pixels of the image, and stays where it is there."
        ),
    ] = False,
    limit: Limit = 8,
    only: Only = False,
    model: ModelOptions,
) -> None:
    """Show the people of images in other poses: one image and one pose in, one image out.

    Several images or poses: each image in each pose. A pose may come from any picture: it is placed
    by the box around its joints.

    The exit code is 1 where an image could not be used; the others are made all the same.
    """
    try:
        generator = model.load(source.estimator)
        around = parse_box(box)
        inputs = PersonImages(images, source.poses(generator.estimator))
        targets, names = read_targets(pose, source.skeleton, limit)

        def make(picture: Picture, own: FloatArray | None) -> GeneratedPeople:
            if not in_place:
                return generator.transfer(picture, own, targets, boxes=around)
            wanted = [torch.from_numpy(target) for target in targets]
            edits = [lambda _pose, _known, target=target: target for target in wanted]
            return generator.edit(picture, own, edits, boxes=around)

        title = f"{model.name}: transfer"
        write_results(inputs, make, out, title, only=only, poses=names)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    inputs.finish()


@app.command("indirect-transfer")
@with_groups
def indirect_transfer(
    images: Images,
    pose_image: Annotated[Path, typer.Option(help="Picture of the person who has the pose.")],
    *,
    out: Out = Path("indirect_transfer.png"),
    source: SourceOptions,
    box: BoxOption = None,
    pose_box: Annotated[
        str | None, typer.Option(help="x1,y1,x2,y2 around the person in --pose-image.")
    ] = None,
    only: Only = False,
    model: ModelOptions,
) -> None:
    """Show the people of images in the pose of another image, which is estimated.

    The exit code is 1 where an image could not be used; the others are made all the same.
    """
    try:
        generator = model.load(source.estimator)
        if generator.estimator is None:
            raise ValueError(
                "--estimator must be given with a conditional model, which estimates no poses"
            )
        around = parse_box(box)
        other = parse_box(pose_box)
        inputs = PersonImages(images, source.poses(generator.estimator))
        shown = read_image(pose_image)

        def make(picture: Picture, own: FloatArray | None) -> GeneratedPeople:
            return generator.indirect_transfer(
                picture, shown, poses=own, boxes=around, pose_boxes=other
            )

        title = f"{model.name}: the pose of {pose_image.name}"
        write_results(inputs, make, out, title, only=only)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    inputs.finish()


@app.command()
@with_groups
def generate(
    *,
    out: Out = Path("people.png"),
    pose: Annotated[
        list[Path] | None,
        typer.Option(
            help="File of poses to show; several times. Else poses are drawn, too, "
            "which a conditional model cannot."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="People; with --pose of each pose.")] = 12,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    limit: Limit = 8,
    only: Only = False,
    skeleton: SkeletonName = None,
    model: ModelOptions,
) -> None:
    """Draw people who never were: their appearance, and their poses unless given."""
    try:
        generator = model.load()
        if not pose and generator.model.config.system == "conditional":
            raise ValueError("--pose must be given with a conditional model, which draws no poses")
        poses, names = read_targets(pose, skeleton, limit) if pose else (None, [])
        require_out(out, only=only, several=count * max(1, len(names)) > 1)
        people = generator.generate(poses, count=count, seed=seed)
        title = f"{model.name}: people drawn with seed {seed}"
        write_drawn(people, out, title, only=only, poses=names)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)


for _command in (edit, estimate, examples):
    app.command()(_command)
app.command(name="eval")(evaluate)
