"""Who a rendered person is and what they wear: build, skin, hair and outfit as functions of ids.

An identity fixes build, skin, hair, hat and bag; an outfit fixes clothes and their cloth. Several
identities wear the same outfit, so that colours of clothes alone do not tell people apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dgpose.data.body_capsules import BODY_PARTS, BodyShape
from dgpose.data.body_head import HAIR_STYLES
from dgpose.data.body_kinematics import REFERENCE_BONES_MM
from dgpose.data.counter_rng import CounterRng, FloatArray, IntArray

__all__ = [
    "MATERIALS",
    "PATTERNS",
    "UNSEEN_PATTERNS",
    "Appearance",
    "Cloth",
    "IdentityConfig",
    "Outfits",
    "People",
    "sample_outfits",
    "sample_people",
    "wear",
]

MATERIALS = ("skin", "hair", "top", "bottom", "shoes", "hat", "bag")
_M = {name: i for i, name in enumerate(MATERIALS)}
PATTERNS = (
    *("plain", "stripes across", "stripes along", "checks", "dots", "logo", "mottled"),
    *("diagonal", "blocks", "diamonds"),
)
UNSEEN_PATTERNS = ("diagonal", "blocks", "diamonds")
"""Patterns that only the test split has."""

_SKIN = np.array(
    [
        *((0.95, 0.78, 0.67), (0.91, 0.71, 0.58), (0.84, 0.63, 0.49), (0.76, 0.55, 0.41)),
        *((0.65, 0.45, 0.32), (0.52, 0.35, 0.25), (0.40, 0.26, 0.18), (0.29, 0.19, 0.14)),
    ]
)
_HAIR = np.array(
    [
        *((0.06, 0.05, 0.05), (0.12, 0.08, 0.06), (0.22, 0.14, 0.09), (0.35, 0.22, 0.13)),
        *((0.52, 0.38, 0.22), (0.75, 0.60, 0.36), (0.50, 0.23, 0.10), (0.62, 0.61, 0.60)),
    ]
)
_NEUTRALS = np.array(
    [
        *((0.08, 0.08, 0.09), (0.17, 0.17, 0.19), (0.35, 0.35, 0.36), (0.60, 0.60, 0.60)),
        *((0.90, 0.90, 0.88), (0.13, 0.17, 0.30), (0.28, 0.37, 0.52), (0.45, 0.38, 0.29)),
        *((0.72, 0.65, 0.52), (0.30, 0.32, 0.22)),
    ]
)


@dataclass(frozen=True)
class IdentityConfig:
    """How people differ. ``std`` are of the logarithm."""

    size_std: float = 0.05  # all lengths
    bone_std: float = 0.03  # each bone beside it; right and left are alike
    girth_std: float = 0.12
    hat_chance: float = 0.16
    bag_chance: float = 0.22


class People(NamedTuple):
    """B people: bones_mm [B, 16] (order of ``REFERENCE_BONES_MM``), and the rest of the build."""

    bones_mm: FloatArray
    size: FloatArray
    girth: FloatArray
    shoulders: FloatArray
    hips: FloatArray
    belly: FloatArray
    bust: FloatArray
    head: FloatArray
    hair: IntArray
    hat: IntArray
    bag: IntArray
    skin_color: FloatArray  # [B, 3]
    hair_color: FloatArray
    hat_color: FloatArray
    bag_color: FloatArray


class Cloth(NamedTuple):
    """Materials [B, M]: two colours [B, M, 3], pattern, period in mm and phase."""

    color: FloatArray
    second: FloatArray
    pattern: IntArray
    period: FloatArray
    phase: FloatArray


class Outfits(NamedTuple):
    """B outfits: cuts, and cloth of the materials top, bottom and shoes (others are empty)."""

    loose_top: FloatArray
    loose_bottom: FloatArray
    sleeve: FloatArray
    leg: FloatArray  # trousers: 1 to the knee, 2 to the ankle
    skirt: FloatArray
    dress: npt.NDArray[np.bool_]  # the skirt is of the top's cloth: a dress or a coat
    waist: FloatArray  # mm above the hips where the top ends
    cloth: Cloth


class Appearance(NamedTuple):
    """What shading needs: cloth [B, M], and for each part [B, P] which material above and below
    a cut along it (mm in the part's frame)."""

    cloth: Cloth
    above: IntArray
    below: IntArray
    cut: FloatArray


def sample_people(rng: CounterRng, config: IdentityConfig) -> People:
    """Draw people; the indices of ``rng`` are identities."""
    curvy = rng.chance("person.curvy", 0.5)
    size = rng.log_normal("person.size", std=config.size_std)
    size = size * np.exp(config.size_std * np.where(curvy, -0.6, 0.4))
    side = rng.log_normal("person.bones", 10, std=config.bone_std)
    same = [0, 1, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 7, 8, 9]
    bones = REFERENCE_BONES_MM * size[:, None] * side[:, same]
    girth = rng.log_normal("person.girth", std=config.girth_std) * np.where(curvy, 0.94, 1.02)
    heavy = np.clip((girth - 1.0) / 0.3, 0.0, 1.0)
    styles = np.cumsum(
        np.where(
            curvy[:, None],
            [0.01, 0.12, 0.24, 0.34, 0.11, 0.15],
            [0.10, 0.72, 0.05, 0.03, 0.02, 0.02],
        ),
        axis=1,
    )
    hair = (rng.uniform("person.hair", 1) > styles).sum(axis=1)
    tone = rng.uniform("person.skin", high=len(_SKIN) - 1.001)
    low = tone.astype(np.int64)
    skin = _SKIN[low] + (tone - low)[:, None] * (_SKIN[low + 1] - _SKIN[low])
    # Dark skin and light hair seldom go together.
    shade = rng.integers("person.hair_color", len(_HAIR))
    shade = np.where(low > 3, shade % 3, shade)
    hat = rng.chance("person.hat", config.hat_chance) * (1 + rng.integers("person.hat_style", 2))
    bag = rng.chance("person.bag", config.bag_chance) * (1 + rng.integers("person.bag_style", 2))
    return People(
        bones_mm=bones,
        size=size,
        girth=np.clip(girth, 0.72, 1.45),
        shoulders=np.where(curvy, 0.93, 1.06) * rng.log_normal("person.shoulders", std=0.04),
        hips=np.where(curvy, 1.04, 0.95) * rng.log_normal("person.hips", std=0.03),
        belly=heavy * rng.uniform("person.belly"),
        bust=curvy * rng.uniform("person.bust", low=0.3, high=1.0),
        head=rng.log_normal("person.head", std=0.03) / np.sqrt(size),
        hair=np.minimum(hair, len(HAIR_STYLES) - 1),
        hat=hat,
        bag=bag,
        skin_color=skin * rng.log_normal("person.skin_shade", 1, std=0.05),
        hair_color=_HAIR[shade] * rng.log_normal("person.hair_shade", 1, std=0.15),
        hat_color=_colors(rng, "person.hat_color"),
        bag_color=_colors(rng, "person.bag_color"),
    )


def _colors(rng: CounterRng, stream: str, neutral: float = 0.5) -> FloatArray:
    """Colours of cloth [B, 3]: neutral ones, or any hue."""
    u = rng.uniform(stream, 5)
    plain = _NEUTRALS[(u[:, 0] * len(_NEUTRALS)).astype(np.int64)]
    value = 0.25 + 0.7 * u[:, 1:2]
    saturation = 0.35 + 0.6 * u[:, 2:3]
    hue = 6.0 * u[:, 3:4] + np.array([0.0, 4.0, 2.0])
    wheel = np.clip(np.abs(hue % 6.0 - 3.0) - 1.0, 0.0, 1.0)
    lively = value * (1.0 - saturation + saturation * wheel)
    colors: FloatArray = np.where(u[:, 4:5] < neutral, plain, lively)
    return colors


def sample_outfits(rng: CounterRng, *, unseen_patterns: bool) -> Outfits:
    """Draw outfits; the indices of ``rng`` are outfits.

    ``unseen_patterns``: half of the patterned cloth has one of UNSEEN_PATTERNS.
    """
    batch = len(rng)
    shape = (batch, len(MATERIALS))
    color, second = np.zeros((*shape, 3)), np.zeros((*shape, 3))
    pattern = np.zeros(shape, np.int64)
    seen = len(PATTERNS) - len(UNSEEN_PATTERNS)
    for name, plain in (("top", 0.35), ("bottom", 0.85), ("shoes", 1.0)):
        m = _M[name]
        color[:, m] = _colors(rng, f"outfit.{name}", 0.5 if name == "top" else 0.75)
        second[:, m] = _colors(rng, f"outfit.{name}.second", 0.5)
        choice = 1 + rng.integers(f"outfit.{name}.pattern", seen - 1)
        if unseen_patterns:
            new = seen + rng.integers(f"outfit.{name}.unseen", len(UNSEEN_PATTERNS))
            choice = np.where(rng.chance(f"outfit.{name}.is_unseen", 0.5), new, choice)
        pattern[:, m] = np.where(rng.chance(f"outfit.{name}.plain", plain), 0, choice)
    # A pattern must be seen: where the two colours are close, the second is made darker or lighter.
    near = np.abs(color - second).sum(axis=-1, keepdims=True) < 0.35
    opposite = np.where(
        color.mean(axis=-1, keepdims=True) > 0.45, 0.25 * second, 0.6 + 0.4 * second
    )
    second = np.where(near, opposite, second)

    skirt = rng.chance("outfit.skirt", 0.2)
    coat = rng.chance("outfit.coat", 0.14) & ~skirt
    dress = (skirt & rng.chance("outfit.dress", 0.5)) | coat
    length = rng.uniform("outfit.skirt_length", low=0.5, high=1.55)
    tails = rng.uniform("outfit.tails", low=0.3, high=0.9)
    sleeve_kind = rng.uniform("outfit.sleeve")
    sleeve = np.where(
        sleeve_kind < 0.5,
        2.0,
        np.where(
            sleeve_kind < 0.9,
            rng.uniform("outfit.sleeve_length", low=0.4, high=0.9),
            np.where(sleeve_kind < 0.95, 1.4, 0.0),
        ),
    )
    short = rng.chance("outfit.shorts", 0.22)
    leg = np.where(short, rng.uniform("outfit.shorts_length", low=0.45, high=1.1), 2.0)
    leg = np.where(skirt, np.where(rng.chance("outfit.bare_legs", 0.7), 0.2, 2.0), leg)
    return Outfits(
        loose_top=np.where(coat, 18.0, rng.uniform("outfit.loose_top", low=2.0, high=14.0)),
        loose_bottom=np.where(skirt, 0.0, rng.uniform("outfit.loose_bottom", low=0.0, high=14.0)),
        sleeve=np.where(coat, 2.0, sleeve),
        leg=leg,
        skirt=np.where(skirt, length, np.where(coat, tails, 0.0)),
        dress=dress,
        waist=rng.uniform("outfit.waist", low=-20.0, high=90.0),
        cloth=Cloth(
            color,
            second,
            pattern,
            rng.uniform("outfit.period", *shape[1:], low=45.0, high=150.0),
            rng.uniform("outfit.phase", *shape[1:]),
        ),
    )


def wear(people: People, outfits: Outfits, bones_mm: FloatArray) -> tuple[BodyShape, Appearance]:
    """People in outfits, row by row; ``bones_mm`` [B, 16]: of their poses."""
    shape = BodyShape(
        **{
            name: getattr(people, name)
            for name in (
                *("size", "girth", "shoulders", "hips", "belly", "bust"),
                *("head", "hair", "hat", "bag"),
            )
        },
        **{
            name: getattr(outfits, name)
            for name in ("loose_top", "loose_bottom", "sleeve", "skirt")
        },
    )
    cloth = outfits.cloth
    color, pattern = cloth.color.copy(), cloth.pattern.copy()
    for name in ("skin", "hair", "hat", "bag"):
        color[:, _M[name]] = getattr(people, f"{name}_color")
        pattern[:, _M[name]] = 0
    batch = len(people.size)
    above = np.zeros((batch, len(BODY_PARTS)), np.int64)
    below = np.zeros_like(above)
    cut = np.zeros(above.shape)

    def dress(part: str, upper: str, lower: str, at: FloatArray | float = 0.0) -> None:
        i = BODY_PARTS.index(part)
        above[:, i], below[:, i], cut[:, i] = _M[upper], _M[lower], at

    dress("torso", "top", "bottom", np.where(outfits.dress, -1e4, outfits.waist * people.size))
    dress("neck", "skin", "top", 12.0)
    for part, material in (("head", "skin"), ("hair", "hair"), ("hat", "hat"), ("bag", "bag")):
        dress(part, material, material)
    dress("skirt", "top", "top")
    above[:, BODY_PARTS.index("skirt")] = np.where(outfits.dress, _M["top"], _M["bottom"])
    below[:, BODY_PARTS.index("skirt")] = above[:, BODY_PARTS.index("skirt")]
    for side, upper_arm, thigh in (("right", 14, 1), ("left", 11, 4)):
        sleeve, leg = outfits.sleeve, outfits.leg
        # The last fifth of a whole sleeve or leg ends before the joint, where cuffs do.
        dress(f"{side}_upper_arm", "top", "skin", -sleeve * bones_mm[:, upper_arm])
        cuff = np.where(sleeve > 1.0, np.minimum(sleeve - 1.0, 0.97), -1.0)
        dress(f"{side}_forearm", "top", "skin", -cuff * bones_mm[:, upper_arm + 1])
        dress(f"{side}_hand", "skin", "skin")
        dress(f"{side}_thigh", "bottom", "skin", -leg * bones_mm[:, thigh])
        hem = np.where(leg > 1.0, np.minimum(leg - 1.0, 0.96), -1.0)
        dress(f"{side}_shank", "bottom", "skin", -hem * bones_mm[:, thigh + 1])
        dress(f"{side}_foot", "shoes", "shoes")
        i = BODY_PARTS.index(f"{side}_upper_arm")
        above[outfits.sleeve == 0.0, i] = _M["skin"]
    return shape, Appearance(
        Cloth(color, cloth.second, pattern, cloth.period, cloth.phase), above, below, cut
    )
