"""Real body poses: 40,293 of the CMU motion capture data, in 17 joints, by sequence and action.

The data used in this project was obtained from mocap.cs.cmu.edu; the database was created with
funding from NSF EIA-0196217. It may be used freely, and must not be resold as it is.

The neighbours in a sequence are near-duplicates (120 frames a second), and the takes of one action
come close to each other: hence two kinds of splits, both fixed. By "sequence" every action is
trained on, and single takes are held out; by "action" whole actions are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dgpose.data.body_kinematics import REFERENCE_BONES_MM, with_bone_lengths
from dgpose.data.pickled_arrays import read_array_npz

__all__ = ["POSE_FILE", "SPLITS", "SPLIT_KINDS", "BodyPoses"]

POSE_FILE = "mocap/cmu_h36m17.npz"
SPLITS = ("train", "val", "test")
SPLIT_KINDS = ("sequence", "action")

_HELD_OUT: dict[tuple[str, str], tuple[str, ...]] = {
    ("sequence", "val"): (
        "train/basketball/basketball_5.txt",
        "train/basketball_signal/basketball_signal_4.txt",
        "train/jumping/jumping_5.txt",
        "train/running/running_5.txt",
        "train/soccer/soccer_5.txt",
        "train/walking/walking_5.txt",
    ),
    ("sequence", "test"): (
        "test/basketball/basketball_1.txt",
        "test/jumping/jumping_1.txt",
        "test/running/running_1.txt",
        "test/soccer/soccer_1.txt",
        "test/walking/walking_1.txt",
        "train/basketball_signal/basketball_signal_5.txt",
        "train/directing_traffic/directing_traffic_4.txt",
    ),
    ("action", "val"): ("directing_traffic",),
    ("action", "test"): ("soccer", "washwindow"),
}


@dataclass(frozen=True)
class BodyPoses:
    """Poses, and where each comes from.

    Attributes:
        positions: [N, 17, 3] float32 mm, H36M17, hip at 0, x right, y DOWN, z forward; upright.
        sequence: [N] index of ``sequence_names``; frames of a sequence follow each other.
        action: [N] index of ``action_names``.
        sequence_names: such as "train/walking/walking_1.txt".
        action_names: such as "walking".
    """

    positions: npt.NDArray[np.float32]
    sequence: npt.NDArray[np.int64]
    action: npt.NDArray[np.int64]
    sequence_names: tuple[str, ...]
    action_names: tuple[str, ...]

    @classmethod
    def load(cls, data_dir: str | Path, *, reference_bones: bool = True) -> BodyPoses:
        """Read ``mocap/cmu_h36m17.npz`` of the data folder.

        Args:
            data_dir: the folder that holds ``mocap``.
            reference_bones: the poses on the reference body (``body_kinematics``). The skeleton
                of the file is one for all its actors and has a short trunk and short forearms;
                False leaves it.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is not that file.
        """
        path = Path(data_dir) / POSE_FILE
        if not path.is_file():
            raise FileNotFoundError(f"data_dir must hold {POSE_FILE}, got {data_dir}")
        arrays = (read_array_npz(path, key) for key in ("pos", "seq", "seq_names"))
        read, sequence, listed = (np.asarray(array) for array in arrays)
        names = tuple(str(name) for name in listed)
        if read.shape != (sequence.size, 17, 3) or not np.isfinite(read).all():
            raise ValueError(f"{path}: pos must be finite, of shape [N, 17, 3], got {read.shape}")
        if not np.isin(sequence, np.arange(len(names))).all():
            raise ValueError(f"{path}: seq must be rows of the {len(names)} seq_names")
        lost = {name for part in ("val", "test") for name in _HELD_OUT["sequence", part]}
        if lost - set(names):
            raise ValueError(f"{path}: seq_names must hold {min(lost - set(names))}")
        positions, sequence = read.astype(np.float64), sequence.astype(np.int64)
        actions = [name.split("/")[-2] for name in names]
        known = tuple(sorted(set(actions)))
        # The file has y up; half a turn about x keeps right what is right.
        positions *= np.array([1.0, -1.0, -1.0])
        if reference_bones:
            positions = with_bone_lengths(positions, REFERENCE_BONES_MM)
        action = np.array([known.index(name) for name in actions], np.int64)[sequence]
        return cls(positions.astype(np.float32), sequence, action, names, known)

    def rows(self, split: str, split_by: str = "sequence") -> npt.NDArray[np.int64]:
        """Rows of one part: [n] int64, ascending.

        Args:
            split: "train", "val" or "test".
            split_by: "sequence" (whole takes held out) or "action" (whole actions: soccer and
                washwindow for tests, directing_traffic for validation).

        Raises:
            ValueError: another word.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        if split_by not in SPLIT_KINDS:
            raise ValueError(f"split_by must be one of {', '.join(SPLIT_KINDS)}, got {split_by!r}")
        by_action = split_by == "action"
        names = self.action_names if by_action else self.sequence_names
        of_row = self.action if by_action else self.sequence
        part = np.zeros(len(names), np.int64)
        for number, held in enumerate(SPLITS[1:], start=1):
            listed = _HELD_OUT[split_by, held]
            part[[i for i, name in enumerate(names) if name in listed]] = number
        return np.flatnonzero(part[of_row] == SPLITS.index(split))
