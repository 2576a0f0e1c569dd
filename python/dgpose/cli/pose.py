"""`dgpose pose`: 3D body poses of person images, retrieved among candidates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer

from dgpose._errors import one_line
from dgpose.cli.image_inputs import free_name, image_files, parse_box
from dgpose.cli.index import Storage
from dgpose.cli.options import Split, SplitBy, SplitByOption, SplitOption, Threads, use_threads
from dgpose.cli.pose_eval import embedding, evaluate, pool
from dgpose.cli.terminal import counted, fail, progress
from dgpose.cli.train_max_margin import train
from dgpose.data.image_files import read_image, save_picture
from dgpose.data.pose_sources import candidate_poses, labelled_pool, read_poses
from dgpose.inference.pose_retriever import LOW_CONFIDENCE, PoseEstimate, PoseRetriever
from dgpose.models.max_margin import load_model
from dgpose.viz.body_pose import retrieval_picture
from dgpose_ext.tensor_file import write_bytes_atomically

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="3D body poses of person images, by retrieval.")
app.command()(train)

_DRAWN = 20
_CALIBRATION = 300

Model = Annotated[Path, typer.Argument(help="Weight file of dgpose pose train.")]
Index = Annotated[Path, typer.Argument(help="Index of dgpose pose index, for this model.")]


@app.command()
def index(
    model: Model,
    poses: Annotated[
        str,
        typer.Option(
            help="cmu, h36m, kinematic (needs no data), or a file: a pose pool, .npz with poses "
            "[N,17,3] mm relative to the hip (x right, y down, z forward), or .npy."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write, such as poses.dgx.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of cmu (with mocap/) or of h36m.", envvar="DGPOSE_DATA"),
    ] = None,
    split: SplitOption = Split.TRAIN,
    split_by: SplitByOption = SplitBy.SEQUENCE,
    every: Annotated[int, typer.Option(min=1, help="h36m: every so many frames.")] = 5,
    thin: Annotated[
        float, typer.Option(help="Leave out poses within so many mm of another one; -1: none.")
    ] = 10.0,
    headings: Annotated[
        int | None,
        typer.Option(min=1, help="Turn each pose so many times; 24 for cmu, kinematic, else 1."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Pose pool whose images are the measure of confidence; of cmu and kinematic, if "
            "not given, 300 rendered people of the validation part."
        ),
    ] = None,
    storage: Annotated[
        Storage, typer.Option(help="Of the codes; results are exact with each.")
    ] = Storage.AUTO,
    threads: Threads = None,
) -> None:
    """Embed candidate poses and write their index, which only this model can use.

    The index also keeps how the model scores images of a calibration pool: the confidence of an
    estimate is its rank among them.
    """
    use_threads(threads)
    try:
        networks = load_model(model)
        read, name = read_poses(
            poses, data, split=split.value, split_by=split_by.value, every=every
        )
        upright = poses in ("cmu", "kinematic")  # without a camera
        turns = headings if headings is not None else 24 if upright else 1
        candidates = candidate_poses(read, name, thin_mm=thin, headings=turns)
        images: torch.Tensor | None = None
        if calibration is not None or (upright and split is Split.TRAIN):
            with counted("calibrating") as watch:
                images = labelled_pool(
                    "people" if calibration is None else "pool",
                    calibration or (data if poses == "cmu" else None),
                    networks.config.image_size,
                    frames=_CALIBRATION if calibration is None else None,
                    split="val",
                    split_by=split_by.value,
                    every=every,
                    seed=0,
                    progress=watch,
                ).images
        with counted("embedding") as watch:
            retriever = PoseRetriever.build(
                networks,
                candidates.poses_mm,
                storage=storage.value,
                images=images,
                description=candidates.description,
                progress=watch,
            )
        retriever.save(out)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    typer.echo(
        f"{candidates.read:,} poses, {candidates.thinned:,} after thinning, x {turns} headings: "
        f"{len(retriever.index):,} candidates"
    )
    typer.echo(f"saved {out}: {out.stat().st_size:,} bytes, {retriever.index.storage}")


@app.command()
def estimate(
    model: Model,
    index: Index,
    images: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.")],
    box: Annotated[
        str | None,
        typer.Option(help="x1,y1,x2,y2 tight around the person, in pixels; else the whole image."),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Candidates to average.")] = 500,
    out: Annotated[
        Path | None, typer.Option(help="Folder for a picture of each image, and poses.json.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, with the poses.")
    ] = False,
    threads: Threads = None,
) -> None:
    """Estimate the pose of one person an image: the mean of the k best candidates.

    confidence: the image's rank among the calibration images of the index, 0 to 1, "low" below
    0.05; spread: how far the 20 best candidates lie from their mean; apart: how far the auxiliary
    head's pose lies from it. None of these knows the truth.

    The exit code is 1 where an image could not be read; the others are estimated all the same.
    """
    use_threads(threads)
    found: list[dict[str, Any]] = []
    taken: set[str] = set()
    unread = 0
    try:
        around = parse_box(box)
        files = list(image_files(images))
        retriever = PoseRetriever.load(model, index)
        for path in progress(files, len(files)):
            try:
                crop = retriever.crop(read_image(path), around)
            except (ValueError, OSError) as error:
                said = one_line(error)
                typer.echo(f"error: {said if str(path) in said else f'{path}: {said}'}", err=True)
                unread += 1
                continue
            result = retriever.estimate(crop, k)
            found.append(_fields(path, result))
            typer.echo(json.dumps(found[-1]) if as_json else _line(found[-1]))
            if out is not None:
                save_picture(
                    out / "pictures" / f"{free_name(path.stem, taken)}.png",
                    _picture(retriever, path.name, crop, result),
                )
        if out is not None and found:
            text = json.dumps({"joints": "h36m17", "poses": found}, indent=1) + "\n"
            write_bytes_atomically(out / "poses.json", text.encode())
            typer.echo(f"saved {out / 'poses.json'} and {len(found)} pictures", err=as_json)
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    if unread:
        raise typer.Exit(1)


app.command(name="eval")(evaluate)
app.command()(embedding)
app.command()(pool)


def _fields(path: Path, result: PoseEstimate) -> dict[str, Any]:
    """One estimate for JSON: distances in mm to a tenth."""

    def rounded(values: torch.Tensor) -> Any:
        return np.round(values.double().numpy(), 1).tolist()

    apart, sure = result.auxiliary_distance_mm, result.confidence
    return {
        "image": str(path),
        "spread_mm": rounded(result.spread_mm)[0],
        "confidence": None if sure is None else round(float(sure[0]), 3),
        "auxiliary_distance_mm": None if apart is None else rounded(apart)[0],
        "best_score": float(result.scores[0, 0]),
        "best_row": int(result.rows[0, 0]),
        "pose_mm": rounded(result.pose_mm)[0],
        "best_mm": rounded(result.best_mm)[0],
    }


def _line(fields: dict[str, Any]) -> str:
    sure, apart = fields["confidence"], fields["auxiliary_distance_mm"]
    facts = []
    if sure is not None:
        facts.append(f"confidence {sure:.2f}{' (low)' if sure < LOW_CONFIDENCE else ''}")
    facts.append(f"spread {fields['spread_mm']:.0f} mm")
    if apart is not None:
        facts.append(f"apart {apart:.0f} mm")
    return f"{fields['image']}: {', '.join(facts)}"


def _picture(
    retriever: PoseRetriever, name: str, crop: torch.Tensor, result: PoseEstimate
) -> npt.NDArray[np.uint8]:
    rows = result.rows[0, :_DRAWN]
    sure = result.confidence
    told = "" if sure is None else f"confidence {float(sure[0]):.2f}, "
    return retrieval_picture(
        crop.numpy(),
        result.pose_mm[0].numpy(),
        retriever.index.poses(rows).numpy(),
        result.scores[0].tolist(),
        f"{name}: {told}best 20 candidates {float(result.spread_mm[0]):.0f} mm from their mean",
        count=result.rows.shape[1],
    )
