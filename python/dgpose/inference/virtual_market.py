"""Virtual Market: people who never were, in real poses, in the layout of Market-1501 (DPIG, CVPR
2018): a set to train re-identification on without a labelled image.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path, PurePath

import torch

from dgpose.data.image_files import encode_picture
from dgpose.data.keypoint_files import keypoint_text
from dgpose.data.person_pool import PersonPool
from dgpose.inference.factor_codec import FactorCodec
from dgpose.models.dpig import DPIG

__all__ = ["require_new_folder", "virtual_market", "write_market"]

Progress = Callable[[int, int], None]

_IMAGES = 24  # of an identity
_CAMERAS = 6
_MOST = 9999  # four digits
_LEAST_JOINTS = 4
_TRAIN = "bounding_box_train"


def virtual_market(
    model: DPIG,
    poses: PersonPool,
    identities: int,
    *,
    backgrounds: int = _IMAGES,
    seed: int = 0,
    progress: Progress | None = None,
) -> PersonPool:
    """Images of drawn identities: one foreground code each, and for every image of it a background
    of its own, which is drawn, and a pose of its own, which is real.

    The published setting has 24 images an identity. Background b of an identity stands for camera
    1 + b modulo 6, so that each is seen by all cameras equally often.

    Args:
        model: stage 1 and the mappers of foreground and background must have been trained; used
            where it is.
        poses: its visible joints are what is shown; those of fewer than four are left out.
        identities: how many people, at most 9,999.
        backgrounds: images of each.
        seed: of all draws. The first people of a larger set are those of a smaller one.
        progress: called with (images made, all).

    Returns:
        The first identity's images first; identities count from 1, names are Market-1501's.

    Raises:
        ValueError: a count out of range; a model without a background, or that was not trained so
            far; a pool of another size, or without a pose to show.
    """
    if not 1 <= identities <= _MOST:
        raise ValueError(f"identities must be from 1 to {_MOST:,}, got {identities}")
    if backgrounds < 1:
        raise ValueError(f"backgrounds must be at least 1, got {backgrounds}")
    model.require("stage1", "foreground_mapper")
    if poses.size != model.config.size:
        height, width = model.config.size
        raise ValueError(
            f"poses must be of images of {width}x{height} pixels, as the model's, got "
            f"{poses.size[1]}x{poses.size[0]}"
        )
    rows = (poses.visible.sum(1) >= _LEAST_JOINTS).nonzero()[:, 0]
    if not len(rows):
        raise ValueError(f"poses must have one of {_LEAST_JOINTS} visible joints, got none")
    codec, total = FactorCodec(model), identities * backgrounds
    images = torch.empty(total, 3, *model.config.size, dtype=torch.uint8)
    keypoints = torch.where(poses.visible[..., None], poses.keypoints_px, torch.nan)
    shown = []
    for person in range(identities):
        random = torch.Generator().manual_seed(seed * _MOST + person)
        foreground = model.sample("foreground", 1, random)
        behind = model.sample("background", backgrounds, random)
        rounds = -(-backgrounds // len(rows))  # the same pose twice only after all others
        draws = [torch.randperm(len(rows), generator=random) for _ in range(rounds)]
        shown.append(rows[torch.cat(draws)[:backgrounds]])
        first = person * backgrounds
        made = codec.decode(
            {
                "foreground": foreground.expand(backgrounds, -1),
                "background": behind,
                "pose": keypoints[shown[-1]],
            }
        )
        images[first : first + backgrounds] = (255 * made).round().to(torch.uint8)
        if progress is not None:
            progress(first + backgrounds, total)
    chosen = torch.cat(shown)
    visible = poses.visible[chosen]
    return PersonPool(
        images,
        poses.keypoints_px[chosen].where(visible[..., None], 0),
        visible,
        visible.clone(),
        1 + torch.arange(identities).repeat_interleave(backgrounds),
        names=tuple(
            f"{1 + person:04d}_c{1 + b % _CAMERAS}s1_{b:06d}_00.jpg"
            for person in range(identities)
            for b in range(backgrounds)
        ),
        source=f"Virtual Market: {identities} drawn people in poses of {poses.source}",
    )


def _is_file_name(name: str) -> bool:
    return name.endswith(".jpg") and PurePath(name).name == name


def require_new_folder(folder: Path) -> None:
    """FileExistsError for a file, or a folder that holds something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder}: must be a new or an empty folder")


def write_market(pool: PersonPool, folder: str | Path, *, progress: Progress | None = None) -> None:
    """Writes images as Market-1501's training part: `bounding_box_train/NAME`, and their visible
    joints as `market-annotation-train.csv`, in whole pixels.

    The folder is there when all of it is.

    Args:
        pool: with names of files that end in .jpg.
        folder: a new one, or an empty one.
        progress: called with (images written, all).

    Raises:
        FileExistsError: the folder holds something, or is a file.
        ValueError: a pool without such names.
        OSError: it cannot be written.
    """
    folder = Path(folder).resolve()  # "." and links to folders can be taken the place of, too
    require_new_folder(folder)
    if not pool.names or not all(_is_file_name(name) for name in pool.names):
        raise ValueError("pool must have names of files, without folders, that end in .jpg")
    beside = folder.parent / f".{folder.name}.{secrets.token_hex(8)}"
    (beside / _TRAIN).mkdir(parents=True)
    try:
        for row, name in enumerate(pool.names):
            picture = pool.images[row].permute(1, 2, 0).numpy()
            (beside / _TRAIN / name).write_bytes(encode_picture(picture, ".jpg"))
            if progress is not None:
                progress(row + 1, len(pool))
        text = keypoint_text(pool.names, pool.keypoints_px.numpy(), pool.visible.numpy())
        (beside / "market-annotation-train.csv").write_text(text, encoding="utf-8")
        beside.replace(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
