"""`dgpose dpig`: people drawn, changed and interpolated factor by factor, with DPIG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dgpose.cli.dpig_eval import evaluate
from dgpose.cli.dpig_invert import invert
from dgpose.cli.dpig_options import DPIGModelOptions, DPIGSourceOptions, Seed, parse_factors
from dgpose.cli.dpig_reid import reid
from dgpose.cli.dpig_virtual_market import virtual_market
from dgpose.cli.image_inputs import parse_box
from dgpose.cli.option_groups import with_groups
from dgpose.cli.person_inputs import FloatArray, ImagePoses, PersonImages, Picture, read_targets
from dgpose.cli.person_options import BoxOption, Images, Limit, Only, Out, Target
from dgpose.cli.person_results import require_out, write_drawn, write_results
from dgpose.cli.terminal import fail
from dgpose.data.image_files import read_image, save_picture
from dgpose.inference.generated_people import GeneratedPeople
from dgpose.viz.person_factors import variation_sheet, way_animation, way_sheet
from dgpose_ext.tensor_file import write_bytes_atomically

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="People as foreground, background and pose, with DPIG."
)

Vary = Annotated[
    list[str] | None,
    typer.Option(
        help="Factors that are drawn, such as foreground or background,pose; several times for "
        "several rows. Else each by itself, and all."
    ),
]
SomeImages = Annotated[
    list[Path] | None, typer.Argument(help="Pictures of a person each, or folders.")
]


@app.command()
@with_groups
def sample(
    images: SomeImages = None,
    *,
    out: Out = Path("sample.png"),
    vary: Vary = None,
    pose: Annotated[
        list[Path] | None,
        typer.Option(help="Without IMAGES: file of poses to show; several times."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Draws a row; with --pose of each pose.")] = 8,
    seed: Seed = 0,
    source: DPIGSourceOptions,
    box: BoxOption = None,
    limit: Limit = 8,
    only: Only = False,
    model: DPIGModelOptions,
) -> None:
    """Draw factors of people: foreground, background, pose; the rest is kept from IMAGES.

    Without IMAGES nobody is kept: people who never were, in drawn poses or those of --pose.

    The exit code is 1 where an image could not be used; the others are made all the same.
    """
    inputs = None
    try:
        factors = model.load(source.estimator)
        choices = vary or [*factors.factors, "all"]
        drawn = [parse_factors(choice, factors.factors) for choice in choices]
        if not images:
            if vary or source.source_pose or box:
                raise ValueError("--vary, --source-pose and --box must come with IMAGES")
            poses, names = (
                read_targets(pose, source.skeleton, limit, seen=True) if pose else (None, [])
            )
            require_out(out, only=only, several=count * max(1, len(names)) > 1)
            people = factors.sample(poses=poses, count=count, seed=seed)
            title = f"{model.name}: people drawn with seed {seed}"
            write_drawn(people, out, title, only=only, poses=names)
            return
        if pose:
            raise ValueError("--pose must come without IMAGES (dpig pose-guided shows them in it)")
        around = parse_box(box)
        own = source.poses(factors.estimator)
        inputs = PersonImages(images, own)

        def make(picture: Picture, own: FloatArray | None) -> GeneratedPeople:
            made = [
                factors.sample(picture, own, vary=wanted, count=count, seed=seed, boxes=around)
                for wanted in drawn
            ]
            return GeneratedPeople.joined(made)

        def sheet(people: GeneratedPeople, names: Sequence[str], title: str) -> Picture:
            return variation_sheet(people, names, title, [c.replace(",", ", ") for c in choices])

        files = [f"{c.replace(',', '_')}_{number}" for c in choices for number in range(count)]
        title = f"{model.name}: factors drawn with seed {seed}"
        write_results(inputs, make, out, title, only=only, poses=files, sheet=sheet)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    inputs.finish()


@app.command("pose-guided")
@with_groups
def pose_guided(
    images: Images,
    pose: Target,
    *,
    out: Out = Path("pose_guided.png"),
    source: DPIGSourceOptions,
    box: BoxOption = None,
    background: Annotated[
        Path | None, typer.Option(help="Picture of another person whose background is taken.")
    ] = None,
    background_pose: Annotated[
        Path | None, typer.Option(help="File of the pose in --background, as --source-pose.")
    ] = None,
    limit: Limit = 8,
    only: Only = False,
    model: DPIGModelOptions,
) -> None:
    """Show the people of images in other poses, and with --background in another place.

    Several images or poses: each image in each pose. A pose may come from any picture: it is placed
    by the box around its joints.

    The exit code is 1 where an image could not be used; the others are made all the same.
    """
    try:
        factors = model.load(source.estimator)
        around = parse_box(box)
        own = source.poses(factors.estimator)
        inputs = PersonImages(images, own)
        targets, names = read_targets(pose, source.skeleton, limit, seen=True)
        behind, their = None, None
        if background is not None:
            if background_pose is None and factors.estimator is None:
                raise ValueError("--background-pose or --estimator must come with --background")
            behind = read_image(background)
            if background_pose is not None:
                others = ImagePoses.read(background_pose, source.skeleton, None, seen=True)
                their = others.of(background, behind, alone=True)
        elif background_pose is not None:
            raise ValueError("--background-pose must come with --background")

        def make(picture: Picture, own: FloatArray | None) -> GeneratedPeople:
            return factors.swap(
                picture,
                own,
                targets=targets,
                backgrounds=behind,
                background_poses=their,
                boxes=around,
            )

        title = f"{model.name}: pose-guided"
        write_results(inputs, make, out, title, only=only, poses=names)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    inputs.finish()


@app.command()
@with_groups
def interpolate(
    image: Annotated[
        Path | None, typer.Argument(help="Picture of a person who keeps what is not on the way.")
    ] = None,
    *,
    out: Out = Path("interpolation.png"),
    vary: Vary = None,
    frames: Annotated[int, typer.Option(min=2, help="On the way, both ends included.")] = 8,
    seed: Seed = 0,
    to_seed: Annotated[
        int | None, typer.Option(help="Of the draws at the other end; default: --seed + 1.")
    ] = None,
    source: DPIGSourceOptions,
    box: BoxOption = None,
    model: DPIGModelOptions,
) -> None:
    """Walk from one draw to another, a row for each choice of factors; also OUT as .gif."""
    try:
        require_out(out, only=False, several=False)
        factors = model.load(source.estimator)
        choices = vary or [*factors.factors, "all"]
        ends = seed, seed + 1 if to_seed is None else to_seed
        picture, own = None, None
        if image is not None:
            picture = read_image(image)
            poses = source.poses(factors.estimator)
            own = None if poses is None else poses.of(image, picture, alone=True)
        elif source.source_pose or box:
            raise ValueError("--source-pose and --box must come with IMAGE")
        ways = {
            choice.replace(",", ", "): factors.interpolate(
                picture,
                own,
                vary=parse_factors(choice, factors.factors),
                count=frames,
                seeds=ends,
                boxes=parse_box(box),
            )
            for choice in choices
        }
        title = f"{model.name}: from seed {ends[0]} to {ends[1]}"
        save_picture(out, way_sheet(ways, title))
        write_bytes_atomically(out.with_suffix(".gif"), way_animation(ways))
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    said = f"{len(ways)} way{'s' * (len(ways) > 1)} of {frames} frames"
    typer.echo(f"{said}: {out}, {out.with_suffix('.gif')}")


for _command in (invert, reid):
    app.command()(_command)
app.command("virtual-market")(virtual_market)
app.command("eval")(evaluate)
