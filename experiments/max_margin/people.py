"""What the max-margin experiments learn from and are tested on: people rendered in CMU poses.

Motions, persons, outfits, textures and backgrounds of the test part are all unseen. Candidates are
the training part's poses, thinned at 10 mm, in 24 headings. The poses were obtained from
mocap.cs.cmu.edu; that database was created with funding from NSF EIA-0196217.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dgpose.data.body_poses import BodyPoses
from dgpose.data.pose_pool import PosePool, people_pool
from dgpose.data.pose_sources import candidate_poses, read_poses
from dgpose.data.synthetic_people import SyntheticPeople, SyntheticPeopleConfig
from dgpose.metrics.pose_retrieval import nearest_candidates
from dgpose_ext.tensor_file import read_tensor_file, write_tensor_file

SIZE = 64
FRAMES = {"train": 20_000, "val": 500, "test": 2_000}
THIN_MM, HEADINGS = 10.0, 24
# Candidates are turned about the vertical axis alone: what the camera tilts, none of them reaches.
# The default's tilts of up to 20 degrees and more would move joints by 61 mm on average.
CONFIG = SyntheticPeopleConfig(elevation_deg=(-5.0, 5.0), roll_std_deg=2.0)


def command_line(description: str | None, threads: int) -> argparse.ArgumentParser:
    """The options that all these experiments have: --data, --out (runs and pools), --threads."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/max_margin"))
    parser.add_argument("--threads", type=int, default=threads)
    return parser


@dataclass(frozen=True, eq=False)
class People:
    """Pools of crops, candidate poses [N, 17, 3], and the rows of the candidates that lie nearest
    to the poses of the test pool."""

    train: PosePool
    val: PosePool
    test: PosePool
    candidates: Tensor
    nearest: Tensor


def rendered_people(data: Path, split_by: str, folder: Path) -> People:
    """All of it for one kind of split; pools are rendered once, and kept in `folder`.

    Raises:
        ValueError: `folder` holds those of other settings.
    """
    pools = {}
    for split, frames in FRAMES.items():
        path = folder / f"{split_by}_{split}.safetensors"
        said = f"SyntheticPeople, CMU poses, {split} part by {split_by}, {frames} frames, {CONFIG}"
        if not path.exists():
            part: Any = {"split": split, "split_by": split_by}
            people = SyntheticPeople(poses="cmu", data_dir=data, size=SIZE, config=CONFIG, **part)
            people_pool(people, frames, bodies=BodyPoses.load(data), source=said).save(path)
        pools[split] = PosePool.load(path)
        _require_settings(path, pools[split].source, said)
    poses, name = read_poses("cmu", data, split="train", split_by=split_by, every=1)
    candidates, _, _, described = candidate_poses(poses, name, thin_mm=THIN_MM, headings=HEADINGS)
    path = folder / f"{split_by}_nearest.safetensors"
    said = f"{pools['test'].source}; {described}"
    kind: Any = {"kind": "nearest_candidates", "version": 1}
    if not path.exists():
        rows = nearest_candidates(pools["test"].poses, candidates)
        write_tensor_file(path, {"rows": rows}, metadata={"of": said}, **kind)
    tensors, metadata = read_tensor_file(path, **kind)
    _require_settings(path, metadata["of"], said)
    return People(**pools, candidates=candidates, nearest=tensors["rows"])


def _require_settings(path: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise ValueError(f"{path} must hold {wanted!r}, got {found!r}: delete it")
