"""Reader of Leeds Sports Pose and its extension (Johnson, Everingham: BMVC 2010, CVPR 2011).

| set | files |
|---|---|
| lsp | `joints.mat` (3, 14, 2000), `images/im0001.jpg`, ... |
| lspe | `joints.mat` (14, 3, 10000), `images/im00001.jpg`, ... |
| lspe | `lspet_crops128.npz` (`ids`, `xy`), `lspet_crops128.zip`: person-centred crops |

Both orders of the axes are read. Joints are those of LSP14. What the third number of a joint says
is not agreed on: in LSPe 0 is a joint without coordinates; LSP has coordinates of all joints, and
they are taken as known whatever the number is.

Parts: LSP's own are the first 1,000 images and the others; every tenth block of ten of the first
1,000 is "val". LSPe has none: here an image belongs to a part by its number alone, so that the
crops and the whole set have the same ones. Of the 2,200 crops 200 are "test" and 100 "val"; three
that show the photographs of test images once more are in no part. The rest of the 10,000 was not
searched for such.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from dgpose.data.image_files import ImageFiles
from dgpose.data.keypoint_files import read_keypoints
from dgpose.data.person_crops import person_box
from dgpose.data.person_photos import PersonPhotos, PhotoSetError
from dgpose.skeletons import LSP14, to_openpose18

__all__ = ["lsp_part", "open_lsp"]

_CROPS = "lspet_crops128"
_LAYOUT = {
    "lsp": "joints.mat and images/im0001.jpg, ... (Leeds Sports Pose, lsp_dataset.zip)",
    "lspe": "joints.mat and images/im00001.jpg, ... (Leeds Sports Pose Extended, "
    f"lspet_dataset.zip), or {_CROPS}.npz and .zip",
}
_AGAIN = (598, 2127, 2494)  # of LSPe: the photographs of 4160, 3615 and 1195, which are "test"
_DIGITS = {"lsp": 4, "lspe": 5}


def lsp_part(name: Literal["lsp", "lspe"], number: int) -> str | None:
    """The part that an image belongs to: "train", "val" or "test"; None for one that is left out.

    Args:
        name: the set.
        number: of the image, from 1.
    """
    block = number // 10
    if name == "lsp":
        return "test" if number > 1000 else "val" if block % 10 == 9 else "train"
    if number in _AGAIN:
        return None
    return "test" if block % 11 == 9 else "val" if block % 22 == 6 else "train"


def open_lsp(path: str | Path, name: Literal["lsp", "lspe"], split: str) -> PersonPhotos:
    """Read the labels of one part; images are read when asked for.

    Args:
        path: folder of the set, or the project's data folder with `body/lsp_extended`.
        name: which of the two it is.
        split: "train", "val" or "test", as `lsp_part` has it.

    Raises:
        FileNotFoundError: the labels or the images are not there.
        PhotoSetError, KeypointFormatError: a damaged label file, or one of something else.
    """
    root = Path(path)
    for folder in (root, root / "body" / "lsp_extended"):
        if name == "lspe" and (folder / f"{_CROPS}.npz").is_file():
            return _part(_read_crops(folder), name, split)
    labels = root / "joints.mat"
    if not labels.is_file() or not (root / "images").is_dir():
        raise FileNotFoundError(f"{root}: must hold {_LAYOUT[name]}")
    xy, known = _read_joints(labels, name)
    keypoints, seen = to_openpose18(xy, LSP14, known)
    several = known.sum(axis=1) > 1  # a single joint has no box
    points = np.where(known[..., None], xy, np.nan)[several]
    boxes = person_box(np.stack([np.nanmin(points, axis=1), np.nanmax(points, axis=1)], axis=1))
    large = boxes[:, 2] > boxes[:, 0]
    rows = np.flatnonzero(several)[large]
    names = tuple(f"im{row + 1:0{_DIGITS[name]}d}.jpg" for row in rows.tolist())
    source = "Leeds Sports Pose" + (" Extended" if name == "lspe" else "")
    photos = PersonPhotos(
        ImageFiles(root / "images"), names, keypoints[rows], seen[rows], source, boxes[large]
    )
    return _part(photos, name, split)


def _read_crops(folder: Path) -> PersonPhotos:
    people = read_keypoints(folder / f"{_CROPS}.npz", "lsp14")
    images = folder / f"{_CROPS}.zip"
    return PersonPhotos(
        ImageFiles(images if images.is_file() else folder / "images"),
        tuple(person.image for person in people),
        np.stack([person.xy for person in people]),
        np.stack([person.visible for person in people]),
        "Leeds Sports Pose Extended, person-centred crops",
    )


def _read_joints(
    path: Path, name: Literal["lsp", "lspe"]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Pixels [N, 14, 2] with the centre of the first at 0, 0, and which are known [N, 14]."""
    from scipy.io import loadmat

    try:
        joints = np.asarray(loadmat(path, variable_names=("joints",))["joints"], np.float32)
    except Exception as error:  # loadmat raises errors of many kinds on a damaged file
        raise PhotoSetError(f"{path}: not the joints of {name} ({error})") from None
    if joints.ndim == 3 and joints.shape[:2] == (14, 3):
        joints = joints.transpose(1, 0, 2)
    if joints.ndim != 3 or joints.shape[:2] != (3, 14) or joints.shape[2] == 0:
        raise PhotoSetError(
            f"{path}: joints must have shape [3, 14, N] or [14, 3, N], got {list(joints.shape)}"
        )
    x, y, flag = joints.transpose(0, 2, 1)
    xy = np.stack([x, y], axis=-1)
    known = np.isfinite(xy).all(axis=-1) & (np.isfinite(flag) & (flag != 0) | (name == "lsp"))
    # MATLAB counts pixels from 1.
    return np.where(known[..., None], xy - 1, 0).astype(np.float32), known


def _part(photos: PersonPhotos, name: Literal["lsp", "lspe"], split: str) -> PersonPhotos:
    numbers = [int(text.removeprefix("im").split(".")[0]) for text in photos.names]
    return photos.rows([r for r, number in enumerate(numbers) if lsp_part(name, number) == split])
