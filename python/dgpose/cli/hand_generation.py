"""`dgpose hand generate` and `dgpose hand refine`: the generative side of Crossing Nets."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dgpose._errors import one_line
from dgpose.cli.hand import Hand, Unit, parse_center
from dgpose.cli.options import CameraOption, CenterOption
from dgpose.cli.terminal import fail, progress

# Nothing that imports torch here: `dgpose --help` would wait for it.
if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from dgpose.data.depth_sources import SourceFrame
    from dgpose.inference.hand_generation import GeneratedHands
    from dgpose.inference.hand_refinement import FrameRefinement
    from dgpose.models.crossing_nets import CrossingNets

__all__ = ["generate", "refine"]

_MODEL_HELP = "A shipped model of Crossing Nets, or a weight file."
_SUMMARISED = (
    ("misfit of the generated map", "misfit", "refined_misfit"),
    ("hand's surface to the image, mm", "residual_before_mm", "residual_after_mm"),
    ("error, mm", "error_before_mm", "error_after_mm"),
)
_SHEET_TILES = 24
_AT_ONCE = 64


def generate(
    out: Annotated[Path, typer.Option(help="Folder for hands.png, hands.npz and walk.gif.")],
    model: Annotated[str, typer.Option(help=_MODEL_HELP)] = "crossing_nets",
    pose: Annotated[
        Path | None,
        typer.Option(
            help="Poses: .npz with joints_mm or xyz_mm [N,J,3] (mm, y up), or text with "
            "J x (u v d) a line and --camera. All are generated, or those of --walk."
        ),
    ] = None,
    random: Annotated[
        int | None, typer.Option(min=1, help="So many random hands, near the training poses.")
    ] = None,
    walk: Annotated[
        str | None,
        typer.Option(
            help="A:B, a walk between two rows of --pose (from 0 on); or random, between two "
            "random hands."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Hands of a walk, its ends included.")] = 24,
    seed: Annotated[int, typer.Option(help="Of random hands.")] = 0,
    camera: Annotated[
        str | None, typer.Option(help="Of a text file: nyu, kinect2, icvl, msra, or fx,fy,cx,cy.")
    ] = None,
) -> None:
    """Make depth maps and joints of hands: from poses, from random latents, along a walk.

    hands.npz holds all hands: depth_mm [N,S,S] and joints_mm [N,J,3] relative to the cube's
    centre (x right, y up, z forward; NaN = no depth), latent [N,L], cube_mm. hands.png shows the
    first 24, of a walk 24 along it; walk.gif plays a walk forth and back.
    """
    try:
        if (pose is not None) + (random is not None) + (walk == "random") != 1:
            raise ValueError("give one of --pose, --random and --walk random")
        if pose is None and walk not in (None, "random"):
            raise ValueError(f"--walk {walk} is between rows of --pose: give it")
        nets, facts = _load(model)
        latent, names = _latents(nets, facts, pose, random, walk, steps, seed, camera)
        hands = _generate(nets, latent)
        out.mkdir(parents=True, exist_ok=True)
        _save_hands(hands, out / "hands.npz")
        title = f"{Path(model).name}: {len(hands)} hands" + (f", walk {walk}" if walk else "")
        _save_sheet(hands, names, title, out / "hands.png", spread=walk is not None)
        if walk is not None:
            _save_animation(hands, out / "walk.gif")
    except (ValueError, OSError) as error:
        fail(error)
    typer.echo(f"{len(hands)} hands: hands.npz, hands.png{', walk.gif' * bool(walk)} in {out}")


def _load(model: str) -> tuple[CrossingNets, dict[str, Any]]:
    from dgpose.model_zoo import model_path
    from dgpose.models.crossing_nets import load_crossing_nets

    nets, facts = load_crossing_nets(model_path(model))
    weights = nets.config.weights
    if not (weights.generates_from_labels or weights.cycle):
        raise ValueError(
            f"{model}: the generator must have been trained, and no loss of this model's teaches it"
        )
    return nets, facts


def _latents(
    nets: CrossingNets,
    facts: dict[str, Any],
    pose: Path | None,
    random: int | None,
    walk: str | None,
    steps: int,
    seed: int,
    camera: str | None,
) -> tuple[Tensor, list[str]]:
    """What to generate from, and a name for each."""
    from dgpose.data.cameras import parse_camera
    from dgpose.inference.hand_generation import latent_of_poses
    from dgpose.inference.hand_generation import walk as walk_between
    from dgpose.inference.hand_run import read_labels
    from dgpose.models.crossing_nets import LatentDistribution

    if pose is None:
        latent = LatentDistribution.from_facts(facts).draw(random or 2, seed)
        if walk is None:
            return latent, [f"random {row}" for row in range(len(latent))]
        ends = (0, 1)
    else:
        optics = parse_camera(camera) if camera is not None else None
        poses = read_labels(pose, optics, (nets.config.joints,))
        latent = latent_of_poses(nets, poses)
        if walk is None:
            return latent, [f"pose {row}" for row in range(len(latent))]
        ends = _parse_walk(walk, len(poses))
    between = walk_between(latent[ends[0]], latent[ends[1]], steps)
    return between, [f"step {step}" for step in range(steps)]


def _parse_walk(walk: str, rows: int) -> tuple[int, int]:
    first, _, last = walk.partition(":")
    if not (first.isdecimal() and last.isdecimal() and max(int(first), int(last)) < rows):
        raise ValueError(
            f"walk must be random, or A:B with rows 0..{rows - 1} of the poses, got {walk!r}"
        )
    return int(first), int(last)


def _generate(nets: CrossingNets, latent: Tensor) -> GeneratedHands:
    from dgpose.inference.hand_generation import GeneratedHands
    from dgpose.inference.hand_generation import generate as generate_hands

    parts = range(0, len(latent), _AT_ONCE)
    return GeneratedHands.joined(
        [
            generate_hands(nets, latent[first : first + _AT_ONCE])
            for first in progress(parts, len(parts), "generating")
        ]
    )


def _save_hands(hands: GeneratedHands, path: Path) -> None:
    import numpy as np

    from dgpose_ext.tensor_file import write_bytes_atomically

    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        depth_mm=hands.depth_mm,
        joints_mm=hands.joints_mm,
        latent=hands.latent,
        cube_mm=np.float32(hands.cube_mm),
    )
    write_bytes_atomically(path, buffer.getvalue())


def _save_sheet(
    hands: GeneratedHands, names: list[str], title: str, path: Path, *, spread: bool
) -> None:
    import numpy as np

    from dgpose.data.image_files import save_picture
    from dgpose.viz.generated_hands import generated_sheet

    count = min(len(hands), _SHEET_TILES)
    shown = np.linspace(0, len(hands) - 1, count).round().astype(int) if spread else range(count)
    if count < len(hands):
        title += f", {count} shown"
    picture = generated_sheet(
        hands.depth_mm[shown],
        hands.joints_mm[shown],
        hands.cube_mm,
        [names[row] for row in shown],
        title,
    )
    save_picture(path, picture)


def _save_animation(hands: GeneratedHands, path: Path) -> None:
    from dgpose.viz.drawing import animation
    from dgpose.viz.generated_hands import hand_pair
    from dgpose_ext.tensor_file import write_bytes_atomically

    pictures = [
        hand_pair(depth, joints, hands.cube_mm, size=256)
        for depth, joints in zip(hands.depth_mm, hands.joints_mm, strict=True)
    ]
    write_bytes_atomically(path, animation(pictures))


def refine(
    source: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, patterns or synthetic:SEED, as for `dgpose hand run`."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for refined.json and pictures.")],
    model: Annotated[str, typer.Option(help=_MODEL_HELP)] = "crossing_nets",
    camera: CameraOption = None,
    center: CenterOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="True joints, one row a frame: .npz with joints_mm or xyz_mm [N,J,3], or text "
            "with J x (u v d) a line."
        ),
    ] = None,
    hand: Annotated[Hand, typer.Option(help="Which hand is in the frames.")] = Hand.RIGHT,
    unit: Annotated[Unit, typer.Option(help="Unit of floating-point depth.")] = Unit.MM,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many (synthetic: 100 if not given).")
    ] = None,
    starts: Annotated[int, typer.Option(min=1, help="Latents to start from.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Of Adam.")] = 30,
    prior: Annotated[
        float, typer.Option(min=0, help="Weight that holds the latent near the estimate.")
    ] = 1.0,
    pictures: Annotated[bool, typer.Option(help="Save a picture per frame.")] = True,
) -> None:
    """Fit the latent of each frame until its generated depth map looks like the frame.

    Says how far the joints move, how far the hand's surface lies from what is seen before and
    after (which needs no label), and, with --labels, the error before and after.
    """
    from dgpose.data.cameras import parse_camera
    from dgpose.data.depth_sources import depth_source
    from dgpose.data.image_files import save_picture
    from dgpose.inference.hand_refinement import RefineConfig, refine_frame
    from dgpose.inference.hand_run import read_labels, to_json, with_labels
    from dgpose.skeletons import NYU36, NYU_SCORED14
    from dgpose_ext.tensor_file import write_bytes_atomically

    done: list[FrameRefinement] = []
    problems: dict[str, str] = {}
    try:
        nets, _ = _load(model)
        config = RefineConfig(starts=starts, steps=steps, prior=prior)
        optics = parse_camera(camera) if camera is not None else None
        place = parse_center(center) if center is not None else None
        opened = depth_source(source, camera=optics, unit=unit.value, hand=hand.value, limit=frames)
        inputs: Iterator[SourceFrame] = opened.frames()
        if labels is not None:
            joints = nets.config.joints
            counts = (joints, len(NYU_SCORED14)) if joints == len(NYU36) else (joints,)
            truth = read_labels(labels, optics, counts)
            inputs = with_labels(inputs, truth, opened.total, limited=frames is not None)
        (out / "pictures" if pictures else out).mkdir(parents=True, exist_ok=True)
        try:
            for item in progress(inputs, opened.total, "refining"):
                try:
                    done.append(refine_frame(nets, item, place, hand=hand.value, config=config))
                except (TypeError, ValueError) as error:
                    problems[item.name] = one_line(error)
                    typer.echo(f"{item.name}: {problems[item.name]}", err=True)
                    continue
                if pictures:
                    save_picture(out / "pictures" / f"{item.name}.png", _picture(nets, done[-1]))
        except KeyboardInterrupt:
            typer.echo("stopped: what was refined so far is saved", err=True)
        summary = _summary(done)
        document = {
            "model": model,
            "summary": summary,
            "problems": problems,
            "frames": [_document(frame) for frame in done],
        }
        write_bytes_atomically(out / "refined.json", to_json(document))
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    typer.echo(f"frames: {len(done)} refined, {len(problems)} without a hand or not readable")
    if done:
        typer.echo(f"  joints moved, mm: {summary['change_mm']:g}")
    for name, before, after in _SUMMARISED:
        if before in summary and after in summary:
            typer.echo(f"  {name}: {summary[before]:g} -> {summary[after]:g}")
    typer.echo(f"saved refined.json{' and pictures' * pictures} in {out}")
    if not done:
        raise typer.Exit(code=2)


def _summary(done: list[FrameRefinement]) -> dict[str, Any]:
    """Means over frames: of all, of those with a residual, of those with a label."""
    import numpy as np

    if not done:
        return {}
    sides = {"before": [f.before for f in done], "after": [f.after for f in done]}
    summary: dict[str, Any] = {"change_mm": float(np.mean([frame.change_mm for frame in done]))}
    for name in ("misfit", "refined_misfit"):
        summary[name] = float(np.mean([float(getattr(frame.fit, name)) for frame in done]))
    for side, estimates in sides.items():
        seen = [e.residual.median_abs_mm for e in estimates if e.residual is not None]
        if np.isfinite(seen).any():
            summary[f"residual_{side}_mm"] = float(np.nanmean(seen))
        errors = [e.error_mm for e in estimates if e.error_mm is not None]
        if errors:
            summary[f"error_{side}_mm"] = float(np.mean(errors))
    return {name: round(value, 3) for name, value in summary.items()}


def _document(frame: FrameRefinement) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": frame.name,
        "center": [round(value, 3) for value in frame.center],
        "change_mm": round(frame.change_mm, 3),
        "misfit": [round(float(frame.fit.misfit), 4), round(float(frame.fit.refined_misfit), 4)],
    }
    for side, estimate in (("before", frame.before), ("after", frame.after)):
        residual = estimate.residual
        known = residual is not None and residual.median_abs_mm == residual.median_abs_mm
        document[side] = {
            "joints_mm": estimate.joints_mm.astype(float).round(3).tolist(),
            "residual_mm": round(residual.median_abs_mm, 3) if residual and known else None,
            "error_mm": None if estimate.error_mm is None else round(estimate.error_mm, 3),
        }
    return document


def _picture(nets: CrossingNets, frame: FrameRefinement) -> Any:
    from dgpose.inference.hand_generation import depth_in_mm
    from dgpose.viz.generated_hands import refinement_picture

    fit, config = frame.fit, nets.config
    joints = [value * config.unit_mm for value in (fit.joints, fit.refined_joints)]
    made = [
        depth_in_mm(depth, around, config)[0].numpy()
        for depth, around in zip((fit.generated, fit.refined_generated), joints, strict=True)
    ]
    observed = depth_in_mm(frame.crop, joints[0], config)[0].numpy()
    text = f"{frame.name}: joints moved {frame.change_mm:.1f} mm"
    if frame.before.error_mm is not None and frame.after.error_mm is not None:
        text += f", error {frame.before.error_mm:.1f} -> {frame.after.error_mm:.1f} mm"
    before, after = (value[0].numpy() for value in joints)
    return refinement_picture(observed, (made[0], made[1]), (before, after), config.cube_mm, text)
