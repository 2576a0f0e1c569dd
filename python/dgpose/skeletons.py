"""Joint names, their order, and the lines that draw a skeleton.

Joint orders follow the data sets' own label files: the NYU hand set (Tompson et al. 2014, names as
in `joint_data.mat`), ICVL (Tang et al. 2014) and MSRA15 (Sun et al. 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

__all__ = [
    "FINGER_COLORS",
    "ICVL16",
    "MSRA21",
    "NYU14",
    "NYU36",
    "NYU_SCORED14",
    "Skeleton",
]

FINGER_COLORS: dict[str, tuple[int, int, int]] = {
    "thumb": (230, 85, 60),
    "index": (245, 170, 40),
    "middle": (90, 180, 70),
    "ring": (60, 140, 220),
    "little": (160, 95, 205),
    "palm": (140, 145, 155),
}
"""RGB colour (0 to 255) of each joint group of a hand."""


@dataclass(frozen=True)
class Skeleton:
    """A fixed set of joints.

    Attributes:
        name: short name, e.g. `"nyu36"`.
        joints: joint names; a joint's index is its row in every `[..., J, 3]` array.
        groups: the group of each joint ("thumb", "index", "middle", "ring", "little", "palm").
        edges: pairs of joint indices, each drawn as one line.

    Raises:
        ValueError: a group per joint is missing, or an edge names a joint that does not exist.
    """

    name: str
    joints: tuple[str, ...]
    groups: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if len(self.groups) != len(self.joints):
            raise ValueError(
                f"groups must name one group per joint ({len(self.joints)}), got {len(self.groups)}"
            )
        for edge in self.edges:
            if not all(0 <= joint < len(self.joints) for joint in edge):
                raise ValueError(f"edges must lie in 0..{len(self.joints) - 1}, got {edge}")

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def edge_groups(self) -> tuple[str, ...]:
        """The group of each edge: a line from the palm to a finger counts as the palm's."""
        return tuple(
            self.groups[a] if self.groups[a] == self.groups[b] else "palm" for a, b in self.edges
        )

    @property
    def edge_colors(self) -> tuple[tuple[int, int, int], ...]:
        """The RGB colour of each edge."""
        return tuple(FINGER_COLORS[group] for group in self.edge_groups)

    @property
    def joint_colors(self) -> tuple[tuple[int, int, int], ...]:
        """The RGB colour of each joint."""
        return tuple(FINGER_COLORS[group] for group in self.groups)


def _chain(*joints: int) -> tuple[tuple[int, int], ...]:
    return tuple(pairwise(joints))


_NYU_FINGERS = (
    ("F1", "little"),
    ("F2", "ring"),
    ("F3", "middle"),
    ("F4", "index"),
    ("TH", "thumb"),
)
# Each finger runs from its tip (KNU3_A) to its root (KNU1_B). Palm: 30 and 31 are the sides of the
# wrist (little finger's, thumb's), 35 its middle, 32 and 33 lie under the knuckles, 34 in between.
NYU36 = Skeleton(
    name="nyu36",
    joints=tuple(
        f"{prefix}_KNU{knuckle}_{end}"
        for prefix, _ in _NYU_FINGERS
        for knuckle in (3, 2, 1)
        for end in "AB"
    )
    + tuple(f"PALM_{i}" for i in range(1, 7)),
    groups=tuple(finger for _, finger in _NYU_FINGERS for _ in range(6)) + ("palm",) * 6,
    edges=(
        *_chain(0, 1, 2, 3, 4, 5),
        *_chain(6, 7, 8, 9, 10, 11),
        *_chain(12, 13, 14, 15, 16, 17),
        *_chain(18, 19, 20, 21, 22, 23),
        *_chain(24, 25, 26, 27, 28, 29),
        (5, 33),
        (11, 33),
        (17, 32),
        (23, 32),
        (29, 34),
        (29, 35),
        *_chain(32, 33, 34, 32),
        (34, 35),
        *_chain(30, 35, 31),
    ),
)
"""All 36 joints of the NYU hand set."""

NYU_SCORED14 = (0, 3, 6, 9, 12, 15, 18, 21, 24, 25, 27, 30, 31, 32)
"""The 14 of the 36 NYU joints that every published NYU error is measured on."""

NYU14 = Skeleton(
    name="nyu14",
    joints=tuple(NYU36.joints[j] for j in NYU_SCORED14),
    groups=tuple(NYU36.groups[j] for j in NYU_SCORED14),
    edges=(
        *_chain(0, 1, 13),
        *_chain(2, 3, 13),
        *_chain(4, 5, 13),
        *_chain(6, 7, 13),
        *_chain(8, 9, 10, 12),
        *_chain(13, 11, 12, 13),
    ),
)
"""The 14 scored NYU joints alone, in the order of `NYU_SCORED14`."""

_ICVL_FINGERS = ("thumb", "index", "middle", "ring", "little")
ICVL16 = Skeleton(
    name="icvl16",
    joints=(
        "palm",
        *(f"{finger}_{part}" for finger in _ICVL_FINGERS for part in ("root", "mid", "tip")),
    ),
    groups=("palm", *(finger for finger in _ICVL_FINGERS for _ in range(3))),
    edges=tuple(edge for root in range(1, 16, 3) for edge in _chain(0, root, root + 1, root + 2)),
)
"""The 16 joints of the ICVL hand set."""

_MSRA_FINGERS = ("index", "middle", "ring", "little", "thumb")
MSRA21 = Skeleton(
    name="msra21",
    joints=(
        "wrist",
        *(f"{finger}_{part}" for finger in _MSRA_FINGERS for part in ("mcp", "pip", "dip", "tip")),
    ),
    groups=("palm", *(finger for finger in _MSRA_FINGERS for _ in range(4))),
    edges=tuple(
        edge for mcp in range(1, 21, 4) for edge in _chain(0, mcp, mcp + 1, mcp + 2, mcp + 3)
    ),
)
"""The 21 joints of the MSRA15 hand set."""
