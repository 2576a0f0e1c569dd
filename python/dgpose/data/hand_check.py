"""What of a hand data set is on disk: labels, images, and whether they fit each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dgpose._errors import one_line
from dgpose.data.cameras import unproject
from dgpose.data.depth_io import DepthFormatError
from dgpose.data.hand_datasets import (
    MSRA_GESTURES,
    MSRA_SUBJECTS,
    HandSample,
    HandSet,
    IcvlHands,
    MsraHands,
    NyuHands,
)
from dgpose_ext import find_hand_center

__all__ = ["HandSetPart", "HandSetReport", "LookedAt", "check_hand_set"]

_MUST_HOLD = {
    "nyu": "train/joint_data.mat, test/joint_data.mat and depth_1_0000001.png, ... beside them",
    "icvl": "Training/labels.txt, Testing/test_seq_1.txt, Testing/test_seq_2.txt and their Depth",
    "msra": "P0/1/joint.txt, P0/1/000000_depth.bin, ... to P8/Y",
}


@dataclass(frozen=True)
class HandSetPart:
    """A part of a data set that comes as one.

    Attributes:
        name: what its folder or sequence is called.
        label_files: those that could be read.
        problems: those that are missing or damaged, a sentence each.
        labels: labelled images.
        missing: paths of labelled images that are not there.
        published: labelled images that the part has when it is complete, where that is known.
    """

    name: str
    label_files: tuple[Path, ...]
    problems: tuple[str, ...]
    labels: int
    missing: tuple[str, ...]
    published: int | None

    @property
    def complete(self) -> bool:
        """Whether all labels and all their images are there."""
        short = self.published is not None and self.labels < self.published
        return not (self.problems or self.missing or short)


@dataclass(frozen=True, eq=False)
class LookedAt:
    """One image that was opened.

    Attributes:
        name: its path.
        sample: image and label; None: it could not be read.
        problem: why not.
        center: (u, v, mm) where `find_hand_center` finds the hand; None: nowhere.
        off_mm: from that place to the mean of the labelled joints, mm.
    """

    name: str
    sample: HandSample | None
    problem: str = ""
    center: tuple[float, float, float] | None = None
    off_mm: float | None = None


@dataclass(frozen=True, eq=False)
class HandSetReport:
    """What `check_hand_set` found.

    Attributes:
        parts: all parts that the data set has.
        looked_at: the first, the middle and the last image that is there.
    """

    parts: tuple[HandSetPart, ...]
    looked_at: tuple[LookedAt, ...]

    @property
    def complete(self) -> bool:
        """Whether all parts are complete, and the images that were opened can be read."""
        return all(part.complete for part in self.parts) and not any(
            image.problem for image in self.looked_at
        )


def check_hand_set(
    root: str | Path, name: str, *, progress: Callable[[int, int], None] | None = None
) -> HandSetReport:
    """Looks for every label file and every image of a data set, and opens three images.

    What is missing or damaged is part of the report and no error.

    Args:
        root: its folder, as for the loaders of `dgpose.data.hand_datasets`.
        name: "nyu" (camera 1), "icvl" or "msra".
        progress: called with (parts done, parts in all).

    Raises:
        ValueError: another name, or a folder without any label file of that data set.
    """
    if name not in _MUST_HOLD:
        raise ValueError(f"name must be one of {', '.join(_MUST_HOLD)}, got {name!r}")
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder")
    openers = list(_openers(root, name))
    parts, present = [], []
    for number, (title, published, calls) in enumerate(openers, 1):
        part, there = _look_into(title, published, calls)
        parts.append(part)
        present += there
        if progress is not None:
            progress(number, len(openers))
    if not any(part.label_files for part in parts):
        why = next(problem for part in parts for problem in part.problems)
        raise ValueError(
            f"{root} is not {name}, which holds {_MUST_HOLD[name]}; the first problem: {why}"
        )
    places = sorted({0, len(present) // 2, len(present) - 1}) if present else []
    looked_at = tuple(_look_at(*present[place]) for place in places)
    return HandSetReport(tuple(parts), looked_at)


Open = Callable[[], HandSet]


def _openers(root: Path, name: str) -> Iterator[tuple[str, int | None, list[Open]]]:
    """Title, published number of images, and what opens its pieces, for every part."""
    if name == "nyu":
        yield "train", 72_757, [lambda: NyuHands(root, "train")]
        yield "test", 8_252, [lambda: NyuHands(root, "test")]
    elif name == "icvl":
        yield "Training", None, [lambda: IcvlHands(root, "train")]
        yield "Testing, sequence 1", 702, [lambda: IcvlHands(root, "test", sequences=[1])]
        yield "Testing, sequence 2", 894, [lambda: IcvlHands(root, "test", sequences=[2])]
    else:
        for subject in MSRA_SUBJECTS:
            yield f"P{subject}", None, [_msra(root, subject, g) for g in MSRA_GESTURES]


def _msra(root: Path, subject: int, gesture: str) -> Open:
    return lambda: MsraHands(root, [subject], gestures=[gesture], faulty=True)


def _look_into(
    title: str, published: int | None, calls: Sequence[Open]
) -> tuple[HandSetPart, list[tuple[HandSet, int]]]:
    """The part, and its images that are there."""
    files: list[Path] = []
    problems, missing = [], []
    labels, there = 0, []
    for call in calls:
        try:
            hands = call()
        except (ValueError, OSError) as error:
            problems.append(one_line(error))
            continue
        files += hands.label_files
        labels += len(hands)
        lost = set(hands.missing())
        missing += [name for name in hands.names if name in lost]
        there += [(hands, row) for row, name in enumerate(hands.names) if name not in lost]
    part = HandSetPart(title, tuple(files), tuple(problems), labels, tuple(missing), published)
    return part, there


def _look_at(hands: HandSet, row: int) -> LookedAt:
    try:
        sample = hands[row]
    except (OSError, DepthFormatError) as error:
        return LookedAt(hands.names[row], None, one_line(error))
    image = torch.from_numpy(np.ascontiguousarray(sample.depth))
    center = find_hand_center(image, sample.camera)
    if center is None:
        return LookedAt(sample.name, sample)
    found = unproject(np.array(center, np.float64), sample.camera)
    off_mm = float(np.linalg.norm(found - sample.joints_mm.mean(axis=0)))
    return LookedAt(sample.name, sample, "", center, off_mm)
