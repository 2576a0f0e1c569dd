"""`dgpose dpig virtual-market`: a set to train re-identification on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dgpose.cli.dpig_options import DPIGModelOptions, Seed
from dgpose.cli.option_groups import with_groups
from dgpose.cli.options import Split, SplitOption
from dgpose.cli.terminal import counted, fail
from dgpose.data.image_files import save_picture
from dgpose.data.person_sources import read_people
from dgpose.inference.virtual_market import require_new_folder, write_market
from dgpose.inference.virtual_market import virtual_market as make_market
from dgpose.viz.person_factors import identities_sheet

__all__ = ["virtual_market"]


@with_groups
def virtual_market(
    out: Annotated[Path, typer.Option(help="New folder, in the layout of Market-1501.")],
    *,
    identities: Annotated[int, typer.Option(min=1, max=9999, help="People.")] = 500,
    backgrounds: Annotated[
        int, typer.Option(min=1, help="Images of each: so many backgrounds, each with a pose.")
    ] = 24,
    people: Annotated[
        str,
        typer.Option(
            help="Whose poses are shown: rendered, market, deepfashion, ... (dgpose data check), "
            "or a file of a PersonPool."
        ),
    ] = "rendered",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of --people; of rendered ones that with mocap/, without which their poses "
            "are kinematic.",
            envvar="DGPOSE_DATA",
        ),
    ] = None,
    split: SplitOption = Split.TRAIN,
    poses: Annotated[
        int, typer.Option(min=1, help="Most people of --people whose poses are taken.")
    ] = 1000,
    seed: Seed = 0,
    picture: Annotated[
        Path | None, typer.Option(help="Picture of the first people to write, .png or .jpg.")
    ] = None,
    model: DPIGModelOptions,
) -> None:
    """Draw a virtual Market: each person has one foreground, in many backgrounds and real poses.

    Writes OUT/bounding_box_train/0001_c1s1_000000_00.jpg, ... and their keypoints as
    OUT/market-annotation-train.csv. Background b of a person counts as camera 1 + b modulo 6. The
    published setting is 24 images a person.
    """
    try:
        if picture is not None and picture.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise ValueError(f"--picture must be a picture, .png or .jpg, got {picture}")
        require_new_folder(out)
        factors = model.load()
        with counted("reading poses") as progress:
            pool = read_people(
                people, data, split=split.value, size=factors.image_size, count=poses,
                progress=progress,
            )  # fmt: skip
        with counted("generating") as progress:
            made = make_market(
                factors.model, pool, identities, backgrounds=backgrounds, seed=seed,
                progress=progress,
            )  # fmt: skip
        with counted("writing") as progress:
            write_market(made, out, progress=progress)
        if picture is not None:
            save_picture(picture, identities_sheet(made, f"{model.name}: virtual Market"))
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    said = f"{identities} people" if identities > 1 else "1 person"
    typer.echo(f"{said}, {len(made)} images: {out}")
    if picture is not None:
        typer.echo(f"picture: {picture}")
