"""The surface of a hand around NYU-36 joints, as tapered capsules (spheres joined by cones).

The bones alone are not what a depth camera sees: a net trained on bare spheres and cones places the
finger joints several millimetres toward the wrist. So besides the fingers there are the columns of
the palm and the fill between them, the webs between the fingers and of the thumb, the balls of the
thumb and of the little finger, the wrist, and an oval forearm with or without a sleeve.

Radii of the joints: melonwan/sphereHand (MIT), measured there for the hand of the first NYU actor;
the places of all other nodes come from anatomy, in the palm frame of ``hand_kinematics``, and
follow the palm's size. Right hands, x right, y UP, z forward, millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dgpose.data.counter_rng import CounterRng, FloatArray
from dgpose.data.hand_kinematics import palm_frame
from dgpose.data.rotations import apply_rotation, rotate_about, rotation_from_vector

# Radius of the sphere at each NYU joint, mm (melonwan/sphereHand mesh/preprocess.py, MIT: table x
# 80).
JOINT_RADIUS_MM = np.array(
    [
        *(8.0, 9.6, 11.2, 12.8, 13.6, 16.8),  # little finger, from the tip
        *(9.6, 11.2, 13.6, 14.4, 15.2, 16.0),  # ring
        *(12.0, 13.6, 14.4, 16.0, 16.0, 16.8),  # middle
        *(11.2, 12.8, 13.6, 14.4, 16.0, 16.8),  # index
        *(13.6, 15.2, 16.0, 20.0, 22.4, 22.4),  # thumb
        *(20.0, 20.0, 22.4, 22.4, 24.0, 22.4),  # palm points 1-6
    ]
)

_THUMB_ROOT = np.array([0.94, 0.94, 0.98])

# Fixed nodes: palm-frame place (x to the thumb, y to the fingers, z out of the back) and radius.
_PALM_NODES: dict[str, tuple[float, float, float, float]] = {
    "root_little": (-21.0, -38.0, -3.5, 17.0),
    "root_ring": (-11.0, -43.0, -1.0, 17.5),
    "root_middle": (0.0, -45.0, -1.0, 17.5),
    "root_index": (10.0, -43.0, -4.0, 18.0),
    "palm_upper": (3.0, 27.0, -4.5, 18.0),
    "palm_side": (-23.0, 21.0, -8.0, 18.0),
    "palm_centre": (0.0, 0.0, -6.0, 19.0),
    "edge_upper": (-33.0, 6.0, -12.0, 16.5),
    "edge_lower": (-28.0, -30.0, -11.0, 18.0),
    "thumb_belly": (22.0, 6.0, -15.0, 14.5),
    "wrist_little": (-22.5, -52.0, -1.0, 18.5),
    "wrist_thumb": (10.5, -54.0, -6.0, 19.0),
    "wrist_centre": (-6.6, -56.8, -1.5, 20.0),
}
_FLESHY = ("edge_upper", "edge_lower", "thumb_belly")
# How far these move (x, y, z) in a full hand, times ``bulk``. From unlabelled Kinect frames: there
# the back between knuckles and wrist and the ball of the little finger lay up to 15 mm nearer to
# the camera than the surface without.
_BULGE = {
    "edge_upper": (1.0, -2.0, -12.0),
    "edge_lower": (0.0, 0.0, -14.0),
    "thumb_belly": (0.0, 0.0, 7.0),
}
# The arch of the back: one node a metacarpal, which rises from within the palm by ``bulk``.
_ARCH: dict[str, tuple[float, float, float, float]] = {
    "little": (-20.0, -8.0, 5.0, 16.0),
    "ring": (-9.0, -8.0, 7.0, 17.0),
    "middle": (2.0, -8.0, 7.5, 17.5),
    "index": (15.0, -4.0, 10.0, 17.5),
}
_ARCH_SUNK_MM = -9.0
# Nodes that follow the fingers; their places are computed in ``hand_capsules``.
_MOVING_NODES = (
    "fill_little_ring",
    "fill_ring_middle",
    "fill_middle_index",
    "fill_root_little_ring",
    "fill_root_ring_middle",
    "fill_root_middle_index",
    "web_little_ring",
    "web_ring_middle",
    "web_middle_index",
    "edge_knuckle",
    "thumb_web_thumb",
    "thumb_web_middle",
    "thumb_web_index",
    "arch_little",
    "arch_ring",
    "arch_middle",
    "arch_index",
    "interosseous",
)
_FOREARM_NODES = tuple(
    f"{part}_{row}_{column}"
    for part in ("forearm", "sleeve")
    for row in range(3)
    for column in ("little", "centre", "thumb")
)
NODE_NAMES = (
    *(f"joint_{i}" for i in range(36)),
    *_PALM_NODES,
    *_MOVING_NODES,
    *_FOREARM_NODES,
)
_NODE = {name: i for i, name in enumerate(NODE_NAMES)}
_KNUCKLES = {"little": 5, "ring": 11, "middle": 17, "index": 23}
_PAIRS = (("little", "ring"), ("ring", "middle"), ("middle", "index"))


def _edges() -> npt.NDArray[np.int64]:
    named: list[tuple[str, str]] = [
        (f"joint_{6 * f + k}", f"joint_{6 * f + k + 1}") for f in range(5) for k in range(5)
    ]
    for name, j in _KNUCKLES.items():
        named += [
            (f"joint_{j}", f"root_{name}"),
            (f"joint_{j}", f"arch_{name}"),
            (f"arch_{name}", f"root_{name}"),
        ]
    for a, b in _PAIRS:
        named += [
            (f"fill_{a}_{b}", f"fill_root_{a}_{b}"),
            (f"fill_{a}_{b}", f"web_{a}_{b}"),
        ]
    named += [
        ("palm_centre", "palm_upper"),
        ("palm_centre", "palm_side"),
        ("palm_centre", "edge_upper"),
        ("edge_knuckle", "edge_upper"),
        ("edge_upper", "edge_lower"),
        ("edge_lower", "wrist_little"),
        ("joint_29", "wrist_thumb"),
        ("joint_29", "palm_centre"),
        ("joint_28", "thumb_belly"),
        ("thumb_belly", "palm_centre"),
        ("thumb_web_thumb", "thumb_web_middle"),
        ("thumb_web_middle", "thumb_web_index"),
        ("thumb_web_middle", "thumb_belly"),
        ("thumb_web_index", "thumb_belly"),
        ("thumb_belly", "root_index"),
        ("interosseous", "arch_index"),
        ("wrist_little", "wrist_centre"),
        ("wrist_centre", "wrist_thumb"),
        ("root_little", "wrist_little"),
        ("root_index", "wrist_thumb"),
        ("root_middle", "wrist_centre"),
    ]
    for part in ("forearm", "sleeve"):
        for column in ("little", "centre", "thumb"):
            named += [(f"{part}_{row}_{column}", f"{part}_{row + 1}_{column}") for row in range(2)]
    return np.array([(_NODE[a], _NODE[b]) for a, b in named], dtype=np.int64)


EDGES = _edges()
# The renderer draws no capsule with a radius of zero: a frame without forearm or sleeve.
_HIDDEN_RADIUS_MM = 0.0


@dataclass(frozen=True)
class SurfaceShape:
    """How the surface of each of B hands differs from the reference hand.

    Factors are relative to the reference; angles in radians; lengths in mm at the reference size.
    """

    joint_radius: FloatArray  # [B, 36] factors on JOINT_RADIUS_MM
    palm_thickness: FloatArray  # [B] factor on the radii of the palm's nodes
    flesh: FloatArray  # [B] factor on the balls of the thumb and the little finger
    bulk: FloatArray  # [B] bulges of the palm and the back: 0 flat, 1 those of full hands
    web: FloatArray  # [B, 3] reach of the webs along the proximal bones, as a share of A-B
    thumb_web: FloatArray  # [B] middle of the thumb's web: 0 in the palm, 1 between the knuckles
    wrist_bend: FloatArray  # [B, 3] rotation vector of the forearm against the hand, palm frame
    forearm_length: FloatArray  # [B] mm beyond the wrist; 0: no forearm
    forearm_width: FloatArray  # [B] factor on half the distance between the two bones' columns
    forearm_radius: FloatArray  # [B] factor
    forearm_twist: FloatArray  # [B] turn of the far cross-section about the arm's axis
    sleeve_start: FloatArray  # [B] mm beyond the wrist
    sleeve_radius: FloatArray  # [B] mm of cloth around the arm; 0: no sleeve
    growth: FloatArray  # [B] mm added to all radii (a sensor that widens silhouettes, gloves)


def sample_surface(
    rng: CounterRng,
    camera_from_palm: FloatArray,
    *,
    no_forearm: float,
    sleeve: float,
    radius_std: float,
    growth: FloatArray,
    stream: str = "surface",
) -> SurfaceShape:
    """Draw surfaces.

    Args:
        camera_from_palm: [B, 3, 3] rotation of the palm frame; of the wrist angles drawn, the one
            is preferred that leads the arm away from the camera and downward.
        no_forearm: probability that the image ends at the wrist (a segmented hand).
        sleeve: probability of a sleeve.
        radius_std: log standard deviation of the common thickness; fingers and joints vary by less.
        growth: [B] mm added to all radii.
    """
    batch = len(rng)

    def factor(name: str, *shape: int, std: float) -> FloatArray:
        return rng.log_normal(f"{stream}.{name}", *shape, std=std)

    common = factor("common", 1, std=radius_std)
    finger = np.concatenate(
        [np.repeat(factor("finger", 5, std=0.6 * radius_std), 6, axis=1), np.ones((batch, 6))],
        axis=1,
    )
    along = np.concatenate([np.tile(np.linspace(-1.0, 1.0, 6), 5), np.zeros(6)])
    taper = rng.normal(f"{stream}.taper", 1, std=0.06) * along
    joint = common * finger * np.exp(taper) * factor("joint", 36, std=0.5 * radius_std)
    # The table's ball of the thumb is wide for its length; hands differ most there.
    joint[:, 27:30] *= _THUMB_ROOT * factor("thumb_root", 1, std=0.08)

    bends = rng.normal(f"{stream}.bend", 3, 3) * np.radians([26.0, 10.0, 14.0])
    arm = apply_rotation(
        apply_rotation(np.array([0.0, -1.0, 0.0]), rotation_from_vector(bends)),
        camera_from_palm[:, None],
    )
    score = arm[..., 2] - 0.5 * arm[..., 1] + rng.normal(f"{stream}.choice", 3, std=0.3)
    best = np.argmax(score, axis=1)
    bend = bends[np.arange(batch), best]

    # Mostly whole forearms; some hidden from near the wrist on.
    length = np.where(
        rng.chance(f"{stream}.whole_arm", 0.75),
        rng.uniform(f"{stream}.length", low=140.0, high=330.0),
        rng.uniform(f"{stream}.short", low=20.0, high=140.0),
    )
    length = np.where(rng.chance(f"{stream}.no_forearm", no_forearm), 0.0, length)
    cloth = rng.uniform(f"{stream}.cloth", low=2.0, high=14.0)
    return SurfaceShape(
        joint_radius=joint,
        palm_thickness=common[:, 0] * factor("palm", std=0.07),
        flesh=common[:, 0] * factor("flesh", std=0.09),
        bulk=np.clip(rng.normal(f"{stream}.bulk", std=0.35) + 0.7, 0.0, 1.4),
        web=rng.uniform(f"{stream}.web", 3, low=0.25, high=0.65),
        thumb_web=rng.uniform(f"{stream}.thumb_web", low=0.55, high=1.05),
        wrist_bend=bend,
        forearm_length=length,
        forearm_width=factor("width", std=0.12),
        forearm_radius=common[:, 0] * factor("arm", std=0.10),
        forearm_twist=rng.normal(f"{stream}.twist", std=np.radians(30.0)),
        sleeve_start=rng.uniform(f"{stream}.sleeve_start", low=0.0, high=110.0),
        sleeve_radius=np.where(rng.chance(f"{stream}.sleeve", sleeve), cloth, 0.0),
        growth=growth,
    )


def hand_capsules(joints_mm: FloatArray, shape: SurfaceShape) -> tuple[FloatArray, FloatArray]:
    """Nodes of the capsules of B right hands; ``EDGES`` joins them.

    Args:
        joints_mm: [B, 36, 3] NYU-36 joints, x right, y up, z forward.
        shape: of the same B hands.

    Returns:
        nodes [B, N, 3] mm (the first 36 are the joints), radii [B, N] mm; N = len(NODE_NAMES).
    """
    batch = joints_mm.shape[0]
    rotation, length, width = palm_frame(joints_mm)
    origin = joints_mm[:, 34:35]
    nodes = np.zeros((batch, len(NODE_NAMES), 3))
    radii = np.zeros((batch, len(NODE_NAMES)))
    size = 0.5 * (length + width)
    to_camera = np.stack([width, length, size], axis=1)[:, :, None] * rotation

    def put(name: str, place: FloatArray, radius: FloatArray | float) -> None:
        nodes[:, _NODE[name]] = place
        radii[:, _NODE[name]] = radius

    def joint(index: int) -> FloatArray:
        return joints_mm[:, index]

    nodes[:, :36] = joints_mm
    radii[:, :36] = JOINT_RADIUS_MM * shape.joint_radius * size[:, None]
    for name, (x, y, z, radius) in _PALM_NODES.items():
        bulge = shape.bulk[:, None] * np.array(_BULGE.get(name, (0.0, 0.0, 0.0)))
        place = apply_rotation(np.array([x, y, z]) + bulge, to_camera)
        thickness = shape.flesh if name in _FLESHY else shape.palm_thickness
        put(name, place + origin[:, 0], radius * thickness * size)

    back = to_camera[:, 2]
    palm_scale = (shape.palm_thickness * size)[:, None]
    for k, (a, b) in enumerate(_PAIRS):
        i, j = _KNUCKLES[a], _KNUCKLES[b]
        middle = 0.5 * (joint(i) + joint(j)) - 1.5 * back
        put(f"fill_{a}_{b}", middle, 15.0 * palm_scale[:, 0])
        root = 0.5 * (nodes[:, _NODE[f"root_{a}"]] + nodes[:, _NODE[f"root_{b}"]])
        put(f"fill_root_{a}_{b}", root, 17.0 * palm_scale[:, 0])
        ahead = 0.5 * (joint(i - 1) - joint(i) + joint(j - 1) - joint(j))
        reach = shape.web[:, k, None]
        thin = 0.5 * (radii[:, i] + radii[:, j]) * (0.78 - 0.35 * shape.web[:, k])
        put(f"web_{a}_{b}", middle + reach * ahead, thin)
    for name, (x, y, z, radius) in _ARCH.items():
        risen = _ARCH_SUNK_MM + (z - _ARCH_SUNK_MM) * shape.bulk
        place = np.stack([np.full(batch, x), np.full(batch, y), risen], axis=1)
        put(
            f"arch_{name}",
            apply_rotation(place, to_camera) + origin[:, 0],
            radius * palm_scale[:, 0],
        )
    put(
        "edge_knuckle",
        joint(5) + apply_rotation(np.array([1.0, -9.0, -5.0]), to_camera),
        14.5 * palm_scale[:, 0],
    )

    # The web of the thumb: a thin sheet from the thumb's knuckle to the index finger's.
    thumb = 0.4 * joint(28) + 0.6 * joint(27)
    index = 0.75 * joint(23) + 0.25 * joint(22) - 4.0 * back
    deep = nodes[:, _NODE["thumb_belly"]]
    out = shape.thumb_web[:, None]
    web = (1.0 - out) * deep + out * (0.5 * (thumb + index))
    put("thumb_web_thumb", thumb, 12.5 * shape.flesh * size)
    put("thumb_web_middle", web, 10.0 * shape.flesh * size)
    put("thumb_web_index", index, 12.0 * shape.flesh * size)
    # The muscle between the metacarpals of thumb and index finger, seen from the back.
    muscle = 0.25 * (joint(27) + joint(28)) + 0.5 * joint(23)
    put(
        "interosseous",
        muscle + (28.0 * shape.bulk - 6.0)[:, None] * back,
        13.0 * shape.flesh * size,
    )

    _put_forearm(nodes, radii, rotation, size, shape)
    grown = np.maximum(radii + shape.growth[:, None], 0.5)
    return nodes, np.where(radii > 0.0, grown, _HIDDEN_RADIUS_MM)


def _put_forearm(
    nodes: FloatArray,
    radii: FloatArray,
    rotation: FloatArray,
    size: FloatArray,
    shape: SurfaceShape,
) -> None:
    """An oval arm: three parallel columns that widen from the wrist to mid-forearm."""
    wrist = nodes[:, _NODE["wrist_centre"]]
    bent = apply_rotation(rotation_from_vector(shape.wrist_bend), rotation[:, None])
    axis = -bent[:, 1]
    side = bent[:, 0]
    arm_scale = shape.forearm_radius * size
    for part in ("forearm", "sleeve"):
        sleeve = part == "sleeve"
        start = np.minimum(shape.sleeve_start, shape.forearm_length) if sleeve else 0.0 * size
        end = shape.forearm_length
        shown = end > 0.0
        if sleeve:
            shown = shown & (shape.sleeve_radius > 0.0)
        cloth = shape.sleeve_radius * size if sleeve else 0.0 * size
        for row in range(3):
            along = start + (end - start) * (0.5 * row)
            # Breadth and thickness of a forearm over the distance from the wrist (reference hand).
            grown = np.clip(along / 170.0, 0.0, 1.0)
            half = (15.0 + 3.5 * grown) * shape.forearm_width * size
            thick = (19.0 + 13.0 * grown) * arm_scale
            turned = rotate_about(side, axis, (shape.forearm_twist * grown)[:, None])
            centre = wrist + axis * (along * size)[:, None]
            for column, sign in (("little", -1.0), ("centre", 0.0), ("thumb", 1.0)):
                k = _NODE[f"{part}_{row}_{column}"]
                place = centre + turned * (sign * half)[:, None]
                radius = thick * (1.0 if sign == 0.0 else 0.92) + cloth
                nodes[:, k] = np.where(shown[:, None], place, wrist)
                radii[:, k] = np.where(shown, radius, _HIDDEN_RADIUS_MM)
