"""3D body poses and labelled crops by the names that commands have for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dgpose.data.body_kinematics import sample_body_poses
from dgpose.data.body_poses import SPLITS, BodyPoses
from dgpose.data.counter_rng import CounterRng
from dgpose.data.human36m import Split, open_human36m
from dgpose.data.human36m_pool import human36m_pool
from dgpose.data.pickled_arrays import read_array_npz
from dgpose.data.pose_candidates import require_millimetres, thin_poses, with_headings
from dgpose.data.pose_pool import PosePool, people_pool
from dgpose.data.synthetic_people import SyntheticPeople

__all__ = ["Candidates", "candidate_poses", "labelled_pool", "read_poses"]

PoolSource = Literal["people", "h36m", "pool"]
Progress = Callable[[int, int], None]

_KINEMATIC_POSES = 5000


class Candidates(NamedTuple):
    """Poses to retrieve from, and how they came about."""

    poses_mm: Tensor
    read: int
    thinned: int
    description: str


def read_poses(
    source: str, data: Path | None, *, split: str, split_by: str, every: int
) -> tuple[Tensor, str]:
    """Root-relative poses [N, 17, 3] float32 mm, and a sentence about them.

    Args:
        source: "cmu", "h36m", "kinematic" (5,000 draws of `sample_body_poses`, which need no
            data), or a file: a pose pool, an .npz with `poses`, or an .npy.
        data: the data folder of "cmu" and "h36m"; of no use to the others.
        split, split_by: part of CMU's poses (`BodyPoses.rows`); of Human3.6M the split alone.
        every: of Human3.6M's frames.

    Raises:
        FileNotFoundError, ValueError: nothing there, or not poses.
    """
    if source in ("cmu", "h36m"):
        if data is None:
            raise ValueError(f"--data must name the folder of {source}'s poses")
        if source == "cmu":
            bodies = BodyPoses.load(data)
            poses = bodies.positions[bodies.rows(split, split_by)]
            return torch.from_numpy(poses), f"CMU, {split} part by {split_by}"
        frames = open_human36m(data, _human36m_split(split), every=every)
        return torch.from_numpy(frames.relative_mm), f"Human3.6M, {split} part"
    if source == "kinematic":
        rng = CounterRng(SPLITS.index(split), range(_KINEMATIC_POSES))
        drawn = sample_body_poses(rng).astype(np.float32)
        return torch.from_numpy(drawn), f"kinematic poses, {split} part"
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file (poses must be cmu, h36m, kinematic or a file)"
        )
    if path.suffix in (".npz", ".npy"):
        poses = _read_array(path)
        if poses.dtype.kind not in "fiu" or poses.ndim != 3 or poses.shape[1:] != (17, 3):
            raise ValueError(
                f"{path}: poses must be numbers of shape [N, 17, 3], "
                f"got {poses.dtype} of shape {list(poses.shape)}"
            )
        poses = poses.astype(np.float32)
        return torch.from_numpy(poses - poses[:, :1]), path.name
    return PosePool.load(path).poses, path.name


def _read_array(path: Path) -> npt.NDArray[Any]:
    """What an .npy holds, or an .npz under `poses`."""
    if path.suffix == ".npz":
        return np.asarray(read_array_npz(path, "poses"))
    try:
        with path.open("rb") as file:
            array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError):
        raise ValueError(f"{path}: must be a whole .npy file of numbers") from None
    return array


def candidate_poses(poses_mm: Tensor, name: str, *, thin_mm: float, headings: int) -> Candidates:
    """Poses without near-duplicates, seen from all around.

    Args:
        poses_mm: [N, 17, 3] root-relative.
        name: of the poses, for the description.
        thin_mm: as for `thin_poses`; negative: none is left out.
        headings: as for `with_headings`.

    Raises:
        ValueError: poses that are not finite, or not in millimetres.
    """
    if not bool(poses_mm.isfinite().all()):
        raise ValueError(f"{name} must be finite, got NaN or Inf")
    require_millimetres(name, poses_mm)
    kept = poses_mm if thin_mm < 0 else poses_mm[thin_poses(poses_mm, thin_mm)]
    turned = with_headings(kept, headings)
    how = f"{name}, thinned at {thin_mm:g} mm" if thin_mm >= 0 else name
    return Candidates(turned, len(poses_mm), len(kept), f"{how}, {headings} headings")


def labelled_pool(
    source: PoolSource,
    data: Path | None,
    size: int,
    *,
    frames: int | None,
    split: str,
    split_by: str,
    every: int,
    seed: int,
    progress: Progress | None = None,
) -> PosePool:
    """Labelled crops of `size` pixels.

    Args:
        source: "people": rendered people; "h36m": Human3.6M, its frames whose image is there;
            "pool": a file of `PosePool.save`.
        data: folder or label file of Human3.6M, or the pool's file; of people, the data folder
            with CMU's poses: without it they have kinematic ones.
        size: S; a pool's must be it.
        frames: people to render (default 1,000), or of the others so many, evenly spread.
        split, split_by, every: as for `read_poses`.
        seed: of the people.
        progress: called with (crops made, all).

    Raises:
        FileNotFoundError, ValueError: as `read_poses`.
    """
    if source == "people":
        part: Any = {"split": split, "split_by": split_by}  # SyntheticPeople says what is wrong
        if data is None:
            people = SyntheticPeople(seed, poses="kinematic", size=size, **part)
            bodies, said = None, f"SyntheticPeople, kinematic poses, {split} part"
        else:
            people = SyntheticPeople(seed, poses="cmu", data_dir=data, size=size, **part)
            bodies = BodyPoses.load(data)
            said = f"SyntheticPeople, CMU poses, {split} part by {split_by}"
        return people_pool(people, frames or 1000, bodies=bodies, source=said, progress=progress)
    if data is None:
        raise ValueError(f"--data must name the folder or file of {source}")
    if source == "h36m":
        labelled = open_human36m(data, _human36m_split(split), every=every).with_images()
        if frames is not None:
            labelled = labelled.rows(_spread(len(labelled), frames).numpy())
        return human36m_pool(labelled, size, progress=progress)
    pool = PosePool.load(data)
    if pool.image_size != size:
        raise ValueError(
            f"{data}: crops must have {size} pixels, as the model's, got {pool.image_size}"
        )
    return pool if frames is None else pool.subset(_spread(len(pool), frames))


def _spread(count: int, wanted: int) -> Tensor:
    """`wanted` of `count` rows, evenly spread; all where there are fewer."""
    return torch.linspace(0, max(count - 1, 0), min(wanted, count)).round().long()


def _human36m_split(split: str) -> Split:
    if split not in ("train", "test"):
        raise ValueError(f"--split of Human3.6M must be train or test, got {split!r}")
    return "train" if split == "train" else "test"
