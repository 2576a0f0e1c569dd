"""Reader of ChictopiaPlus, the images of ClothNet (Lassner, Pons-Moll, Gehler: ICCV 2017).

The archive itself was not seen: the layout is what its authors' tools write and read, and errors
say so.

| what | where, below `generation/data/pose/extracted/{train,val,test}` |
|---|---|
| images | `NNNNN_image.png` |
| bodies | `NNNNN_body.pkl`, or `NNNNN_image.png_body.pkl` there or in `pose/input/...` |
| segments of the body | `NNNNN_bodysegments.png`, 0 where no body is |

A body is SMPL fitted to the image; of it `j2d` is read, the 24 joints and the top of the head in
pixels. The pickle is parsed and not run (`dgpose.data.pickled_arrays`). Masks are those of the
fitted body, without clothes and hair that stand off.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dgpose.data.image_files import ImageFiles
from dgpose.data.person_crops import person_box
from dgpose.data.person_photos import PersonPhotos, PhotoSetError
from dgpose.data.pickled_arrays import read_array_pickle
from dgpose.skeletons import LSP14, to_openpose18

__all__ = ["open_chictopia"]

_UNSEEN = "the archive was not seen by this reader's authors: its layout may be another one"
# SMPL's joints (and the top of the head) in the order of LSP14.
_LSP14_OF_SMPL = (8, 5, 2, 1, 4, 7, 21, 19, 17, 16, 18, 20, 12, 24)


def open_chictopia(path: str | Path, split: str) -> PersonPhotos:
    """Read the labels of one part; images are read when asked for.

    Args:
        path: folder of the data set: that with `generation`, or with the parts themselves.
        split: "train", "val" or "test".

    Raises:
        FileNotFoundError: no image of that part with a body.
        PhotoSetError, PickleFormatError: a body that is not as described.
    """
    root = Path(path)
    extracted = root / "generation" / "data" / "pose" / "extracted"
    base = extracted if extracted.is_dir() else root
    names, masks, joints = [], [], []
    for image in sorted((base / split).glob("*_image*.png")):
        body = _body(image)
        if body is not None:
            names.append(image.relative_to(base).as_posix())
            segments = image.with_name(f"{image.name.partition('_')[0]}_bodysegments.png")
            masks.append(segments.relative_to(base).as_posix())
            joints.append(_read_joints(body))
    if not names:
        raise FileNotFoundError(
            f"{base}: must hold {split}/NNNNN_image.png with NNNNN_body.pkl "
            f"beside it (ChictopiaPlus, of Generating People in Clothing; {_UNSEEN})"
        )
    xy = np.array(joints, np.float32)
    keypoints, known = to_openpose18(xy, LSP14)
    has_masks = all((base / mask).is_file() for mask in masks)
    return PersonPhotos(
        ImageFiles(base),
        tuple(names),
        keypoints,
        known,
        f"ChictopiaPlus, {split} part",
        person_box(xy),
        mask_names=tuple(masks) if has_masks else (),
    )


def _body(image: Path) -> Path | None:
    number = image.name.partition("_")[0]
    long_name = f"{image.name}_body.pkl"
    places = (
        image.with_name(f"{number}_body.pkl"),
        image.with_name(long_name),
        image.parent.parent.parent / "input" / image.parent.name / long_name,
    )
    return next((place for place in places if place.is_file()), None)


def _read_joints(path: Path) -> npt.NDArray[Any]:
    """[14, 2] pixels, in the order of LSP14."""
    content = read_array_pickle(path)
    joints = content.get("j2d") if isinstance(content, dict) else None
    if (
        not isinstance(joints, np.ndarray)
        or joints.shape != (25, 2)
        or joints.dtype.kind != "f"
        or not np.isfinite(joints).all()
    ):
        got = list(content) if isinstance(content, dict) else type(content).__name__
        shape = f", j2d of shape {list(joints.shape)}" if isinstance(joints, np.ndarray) else ""
        raise PhotoSetError(
            f"{path}: must hold j2d, finite numbers of shape [25, 2]; got {got!r:.80}{shape} "
            f"({_UNSEEN})"
        )
    return joints[list(_LSP14_OF_SMPL)]
