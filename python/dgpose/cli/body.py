"""`dgpose heatmap` and `dgpose crop`: what the ops make of a keypoint file and its images."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from dgpose._errors import one_line
from dgpose.cli.terminal import fail, progress

# Nothing that imports torch here: `dgpose --help` would wait for it.
if TYPE_CHECKING:
    from dgpose.data.keypoint_files import PersonKeypoints

__all__ = ["crop", "heatmap"]

_SHEET_TILES = 24
_MAX_SIDE = 4096


class Kind(str, Enum):
    """What is drawn."""

    GAUSSIAN = "gaussian"
    LIMB = "limb"
    DISK = "disk"
    MASK = "mask"


class Preset(str, Enum):
    """Data sets with a size of image that their keypoints are given for."""

    MARKET = "market"
    DEEPFASHION = "deepfashion"


#: Size of the images, and DPIG's radii of disks and mask.
_PRESETS = {Preset.MARKET: ((128, 64), 4.0, 7.0), Preset.DEEPFASHION: ((256, 256), 4.0, 8.0)}

Keypoints = Annotated[
    Path,
    typer.Argument(
        help="Market/DeepFashion text, .npz (names or ids, xy), COCO's .json, OpenPose's .json or "
        "a folder of these."
    ),
]
Images = Annotated[Path | None, typer.Option(help="Folder or .zip of the images.")]
Out = Annotated[Path, typer.Option(help="Folder for the pictures.")]
SkeletonName = Annotated[
    str | None,
    typer.Option(help="Joint order, where the file does not say it: coco17, body_25, ..."),
]
PresetName = Annotated[
    Preset | None,
    typer.Option(
        help="Keypoints are pixels of 128x64 (market) or 256x256 (deepfashion) images, whatever "
        "size the images have now; else they are pixels of the images themselves."
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Stop after so many people.")]


def heatmap(
    keypoints: Keypoints,
    out: Out,
    images: Images = None,
    kind: Annotated[Kind, typer.Option(help="What to draw.")] = Kind.GAUSSIAN,
    sigma: Annotated[
        float | None,
        typer.Option(help="Of gaussian and limb, in pixels; 2 for 128 pixels if not given."),
    ] = None,
    radius: Annotated[
        float | None,
        typer.Option(
            help="Of disk and mask, in pixels; 4 and 7 (deepfashion: 4 and 8) for images of the "
            "preset's size if not given, without a preset for 128 pixels."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="HxW", help="Of the maps; the image's or the preset's if not given."),
    ] = None,
    preset: PresetName = None,
    skeleton: SkeletonName = None,
    limit: Limit = None,
) -> None:
    """Draw keypoints as maps: over their images, or on black where there is no image.

    Writes OUT/pictures/NAME.png, OUT/masks/NAME.png (mask alone: 0 and 255) and OUT/sheet.png.
    """
    from dgpose.data.image_files import save_picture
    from dgpose.skeletons import OPENPOSE18
    from dgpose.viz.body import body_page, enlarge, maps_over

    try:
        wanted = None if size is None else _parse_size(size)
        for name, value in (("sigma", sigma), ("radius", radius)):
            if value is not None and not 0 < value <= _MAX_SIDE:
                raise ValueError(f"{name} must lie in (0, {_MAX_SIDE}] pixels, got {value:g}")
        people = _people(keypoints, skeleton, limit, out)
        smooth = kind in (Kind.GAUSSIAN, Kind.LIMB)
        if kind == Kind.MASK:
            colors: Any = [(90, 180, 70)]
        else:
            colors = OPENPOSE18.edge_colors if kind == Kind.LIMB else OPENPOSE18.joint_colors
        shown = {round((k + 0.5) * len(people) / _SHEET_TILES - 0.5) for k in range(_SHEET_TILES)}
        tiles, written = [], 0
        for index, (name, person, image) in enumerate(_with_images(people, images)):
            if isinstance(image, ValueError):
                continue
            picture, xy = _canvas(person, image, preset, wanted)
            maps = _maps(kind, person, xy, picture.shape[:2], sigma, radius, preset)
            large = enlarge(picture)
            strength = 0.5 if kind == Kind.MASK and image is not None else 0.85
            view = maps_over(large, maps, colors, strength=strength, smooth=smooth)
            save_picture(out / "pictures" / f"{name}.png", view)
            if kind == Kind.MASK:
                grey = (maps[0] * 255).astype("uint8")
                save_picture(out / "masks" / f"{name}.png", grey[..., None].repeat(3, 2))
            written += 1
            if index in shown:
                tiles.append((view, name[:24]))
        if not written:
            _nothing(images)
        save_picture(out / "sheet.png", body_page(tiles, f"{keypoints.name}: {kind.value}"))
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    typer.echo(f"{written} of {len(people)} people drawn; contact sheet: {out / 'sheet.png'}")


def crop(
    keypoints: Keypoints,
    images: Annotated[Path, typer.Option(help="Folder or .zip of the images.")],
    out: Out,
    size: Annotated[str, typer.Option(metavar="HxW", help="Of the crops.")] = "48x48",
    preset: PresetName = None,
    skeleton: SkeletonName = None,
    limit: Limit = None,
) -> None:
    """Cut the seven body parts of Disentangled Person Image Generation (CVPR 2018) from images.

    Margins are the preset's; without one those of market for images at least 1.5 times as high as
    wide, and of deepfashion for others. Writes OUT/parts/NAME_PART.png, OUT/boxes.csv (pixels of
    the images) and OUT/pictures/NAME.png, which shows them all.
    """
    from dgpose.data.image_files import save_picture
    from dgpose.skeletons import DPIG_PART_NAMES
    from dgpose.viz.body import parts_picture
    from dgpose_ext.tensor_file import write_bytes_atomically

    try:
        crop_size = _parse_size(size)
        people = _people(keypoints, skeleton, limit, out)
        rows = ["name,part,present,x1,y1,x2,y2"]
        written = 0
        for name, person, image in _with_images(people, images):
            if image is None:
                typer.echo(f"no image {person.image}", err=True)
            if image is None or isinstance(image, ValueError):
                continue
            _, xy = _canvas(person, image, preset, None)
            boxes, present, crops = _parts(person, xy, image, preset, crop_size)
            for part, box, there, piece in zip(DPIG_PART_NAMES, boxes, present, crops, strict=True):
                corners = ",".join(f"{value:.3f}" for value in box)
                rows.append(f"{name},{part},{int(there)},{corners}")
                if there:
                    save_picture(out / "parts" / f"{name}_{part}.png", piece)
            save_picture(
                out / "pictures" / f"{name}.png",
                parts_picture(image, xy, person.visible, boxes, present, crops, name),
            )
            written += 1
        if not written:
            _nothing(images)
        write_bytes_atomically(out / "boxes.csv", ("\n".join(rows) + "\n").encode())
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    typer.echo(f"{written} of {len(people)} people cut: pictures, parts and boxes.csv in {out}")


def _parse_size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    sides = [int(side) for side in (height, width) if side.isascii() and side.isdigit()]
    if len(sides) != 2 or not all(1 <= side <= _MAX_SIDE for side in sides):
        raise ValueError(f"size must be HxW with sides of 1 to {_MAX_SIDE} pixels, got {text!r}")
    return sides[0], sides[1]


def _people(
    keypoints: Path, skeleton: str | None, limit: int | None, out: Path
) -> list[tuple[str, PersonKeypoints]]:
    """People with a name for their output files, each its own."""
    from dgpose.data.keypoint_files import read_keypoints

    people = read_keypoints(keypoints, skeleton, limit=limit)
    out.mkdir(parents=True, exist_ok=True)
    named, counts = [], dict.fromkeys((Path(p.image).stem for p in people), 0)
    for person in people:
        name = Path(person.image).stem
        counts[name] += 1
        while counts[name] > 1 and f"{name}_{counts[name]}" in counts:
            counts[name] += 1
        unique = name if counts[name] == 1 else f"{name}_{counts[name]}"
        named.append((unique, person))
    return named


def _with_images(
    people: list[tuple[str, PersonKeypoints]], images: Path | None
) -> Iterator[tuple[str, PersonKeypoints, Any]]:
    """Each person with the image, None where there is none, or the error, which has been told."""
    from dgpose.data.image_files import ImageFiles, ImageFormatError

    files = None if images is None else ImageFiles(images)
    for name, person in progress(people, len(people), "drawing"):
        try:
            image: Any = None if files is None else files.read(person.image)
        except ImageFormatError as error:
            typer.echo(f"bad image {one_line(error)}", err=True)
            image = error
        yield name, person, image


def _nothing(images: Path | None) -> NoReturn:
    raise ValueError(f"images must hold at least one image of a person in the file, got {images}")


def _canvas(
    person: PersonKeypoints, image: Any, preset: Preset | None, size: tuple[int, int] | None
) -> tuple[Any, Any]:
    """The picture to draw on, and the keypoints in its pixels."""
    import cv2
    import numpy as np

    given = _PRESETS[preset][0] if preset is not None else person.size
    if image is None:
        height, width = size or given or _no_size(person)
        if max(height, width) > _MAX_SIDE:
            raise ValueError(
                f"{person.image} must have sides of 1 to {_MAX_SIDE} pixels to be drawn on black, "
                f"got {height}x{width}: give --size HxW"
            )
        image = np.zeros((height, width, 3), np.uint8)
    elif size is not None and image.shape[:2] != size:
        given = given or image.shape[:2]
        shrinks = size[0] < image.shape[0]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        image = cv2.resize(image, size[::-1], interpolation=how)
    return image, _rescaled(person.xy, given or image.shape[:2], image.shape[:2])


def _no_size(person: PersonKeypoints) -> NoReturn:
    raise ValueError(
        f"the size of {person.image} must be known: give --size HxW, --preset, or --images with it"
    )


def _rescaled(xy: Any, old: tuple[int, int], new: tuple[int, int]) -> Any:
    """Pixels of an image of size `old` as those of the same image in size `new`."""
    import numpy as np

    scale = np.array([new[1] / old[1], new[0] / old[0]], np.float32)
    return (xy + np.float32(0.5)) * scale - np.float32(0.5) if (scale != 1).any() else xy


def _maps(
    kind: Kind,
    person: PersonKeypoints,
    xy: Any,
    size: tuple[int, int],
    sigma: float | None,
    radius: float | None,
    preset: Preset | None,
) -> Any:
    """[K, H, W] in 0 to 1."""
    import torch

    import dgpose_ext
    from dgpose.skeletons import DPIG_LIMBS, OPENPOSE18

    points, visible = torch.from_numpy(xy)[None], torch.from_numpy(person.visible)[None]
    scale = max(size) / 128
    disk, mask = 4 * scale, 7 * scale
    if preset is not None:
        (height, _), *radii = _PRESETS[preset]
        disk, mask = (own * size[0] / height for own in radii)
    if kind == Kind.GAUSSIAN:
        maps = dgpose_ext.gaussian_heatmap(points, size, sigma or 2 * scale, visible=visible)
    elif kind == Kind.LIMB:
        maps = dgpose_ext.limb_heatmap(
            points, OPENPOSE18.edges, size, sigma or 2 * scale, visible=visible
        )
    elif kind == Kind.DISK:
        maps = dgpose_ext.disk_heatmap(points, size, radius or disk, visible=visible)
    else:
        maps = dgpose_ext.body_mask(points, DPIG_LIMBS, size, radius or mask, visible=visible)
    return maps[0].numpy()


def _parts(
    person: PersonKeypoints,
    xy: Any,
    image: Any,
    preset: Preset | None,
    crop_size: tuple[int, int],
) -> tuple[Any, Any, Any]:
    """Boxes [7, 4] in pixels of the image, present [7], crops [7, h, w, 3]."""
    import torch

    from dgpose.data.dpig_parts import dpig_part_boxes
    from dgpose_ext import crop_and_resize

    height, width = image.shape[:2]
    if preset is None:
        preset = Preset.MARKET if height >= 1.5 * width else Preset.DEEPFASHION
    size = _PRESETS[preset][0]
    points = torch.from_numpy(_rescaled(xy, (height, width), size))[None]
    boxes, present = dpig_part_boxes(points, size, torch.from_numpy(person.visible)[None])
    corners = _rescaled(boxes[0].numpy().reshape(7, 2, 2), size, (height, width)).reshape(7, 4)
    features = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    crops = crop_and_resize(features, torch.from_numpy(corners)[None], crop_size)
    pieces = crops[0].round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return corners, present[0].numpy(), pieces
