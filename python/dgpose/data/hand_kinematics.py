"""A kinematic hand that yields the 36 joints of the NYU layout, and changes of such joints.

Coordinates: x right, y UP, z forward, millimetres. All geometry is that of a RIGHT hand; a left
hand is its mirror image (see ``synthetic_hands``). The *palm frame* used here has its origin in
joint 34 (PALM_5), y from the wrist to the knuckles, x toward the thumb side and z out of the back
of the hand (the palm faces -z), so an upright right hand that shows its palm to the camera has the
identity as rotation. A rotation [B,3,3] holds the palm axes as rows: ``camera = palm @ rotation``.

The NYU layout marks every finger bone by two points, A (distal) and B (proximal), that lie near the
ends of the bone but not on its hinges. Joint order of a finger: tip bone A, B, middle bone A, B,
proximal bone A, B; fingers: little, ring, middle, index, thumb; then six palm points that move
rigidly, as does the thumb's last point (29).

The table values are measured on the labels of the NYU hand data set (Tompson et al. 2014, CC BY
4.0): mean segment lengths (fixed to 0.01 mm within an actor), mean palm points, and the hinges that
fit the labels best in the least-squares sense (residual 0.7-5 mm: the labels come from a skinned
mesh, not from a chain of hinges). Joint limits and couplings are common anatomy.
"""

from __future__ import annotations

import numpy as np

from dgpose.data.counter_rng import CounterRng, FloatArray
from dgpose.data.rotations import (
    apply_rotation,
    cross,
    dot,
    rotate_about,
    rotation_from_vector,
    unit,
)

FINGERS = ("little", "ring", "middle", "index", "thumb")
RIGID_JOINTS = (29, 30, 31, 32, 33, 34, 35)
# palm_frame's measures along y and x for the reference hand (the first NYU actor).
REFERENCE_LENGTH_MM = 69.284
REFERENCE_WIDTH_MM = 59.243

# Palm points 29..35 in the palm frame.
_RIGID_POINTS = np.array(
    [
        [3.6, -27.1, -27.8],
        [-23.9, -48.9, -0.1],
        [10.6, -53.0, -6.9],
        [3.2, 27.7, -0.1],
        [-23.2, 21.4, -6.8],
        [0.0, 0.0, 0.0],
        [-6.6, -56.8, 0.1],
    ]
)
# Hinge of the proximal bone in the palm frame, and the distance from it to point B.
_KNUCKLE = np.array(
    [
        [-38.3, 39.0, -6.0],
        [-13.2, 50.2, -1.8],
        [11.6, 52.7, -4.6],
        [31.9, 44.3, -7.0],
        [3.6, -27.1, -27.8],
    ]
)
_KNUCKLE_TO_B = np.array([8.7, 10.9, 4.2, 0.9, 0.0])
# |A-B| of the proximal, middle and tip bones.
_BONE_MM = np.array(
    [
        [20.53, 12.58, 12.86],
        [19.59, 13.15, 16.72],
        [25.00, 14.94, 19.12],
        [30.16, 16.93, 14.46],
        [33.38, 20.66, 24.64],
    ]
)
# From A of a bone to B of the next: along the bone, palmar of it, along the next bone, palmar of
# that, and along the hinge. First row of each finger: middle hinge, second: the one at the tip
# bone.
_HINGE_MM = np.array(
    [
        [[6.97, -2.35, 5.17, 1.43, 1.44], [13.68, -2.05, 4.54, 3.16, 0.39]],
        [[18.06, 6.06, -1.48, -2.27, 6.27], [8.95, 4.47, 10.76, -4.16, 2.26]],
        [[25.29, 2.13, 2.77, 2.22, 3.37], [21.36, 4.94, 1.27, -2.00, 2.59]],
        [[21.50, 0.81, 3.69, -0.65, 1.43], [7.52, -2.47, 12.48, 2.54, 1.16]],
        [[18.61, 2.10, 9.87, -1.43, 4.73], [25.70, -2.44, 2.42, 5.67, -1.40]],
    ]
)
# Angle between the A-B lines of neighbouring bones in a straight finger (degrees): the lines do
# not run along the hinges, so straight is not zero.
_STRAIGHT_DEG = np.array([[8.0, 9.0], [7.0, 10.0], [14.0, 3.0], [8.0, 3.0], [12.0, 6.0]])
_KNUCKLE_STRAIGHT_DEG = -6.0
_SPREAD_DEG = np.array([10.0, 3.0, 0.0, -8.0])

# Curl of the four fingers and of the thumb (0 straight, 1 bent), and how far the thumb is brought
# before the palm (0 beside it, 1 opposed).
_GESTURES = np.array(
    [
        [0.00, 0.00, 0.00, 0.00, 0.05, 0.2],  # open
        [0.05, 0.03, 0.00, 0.03, 0.10, 0.5],  # flat
        [0.95, 0.97, 0.97, 0.95, 0.70, 0.8],  # fist
        [0.90, 0.92, 0.92, 0.02, 0.60, 0.7],  # point
        [0.90, 0.92, 0.02, 0.02, 0.60, 0.8],  # two
        [0.90, 0.02, 0.02, 0.02, 0.60, 0.9],  # three
        [0.02, 0.02, 0.02, 0.02, 0.80, 1.0],  # four
        [0.90, 0.92, 0.92, 0.05, 0.00, 0.0],  # thumb and index
        [0.90, 0.92, 0.92, 0.92, 0.00, 0.0],  # thumb up
        [0.02, 0.90, 0.90, 0.90, 0.05, 0.0],  # thumb and little finger
        [0.02, 0.90, 0.90, 0.02, 0.60, 0.8],  # horns
        [0.10, 0.15, 0.20, 0.55, 0.35, 0.9],  # pinch, others open
        [0.70, 0.70, 0.65, 0.55, 0.35, 0.9],  # pinch, others bent
        [0.45, 0.45, 0.45, 0.45, 0.30, 0.9],  # grasp
        [0.25, 0.25, 0.25, 0.25, 0.15, 0.5],  # relaxed
    ]
)
# Directions of the thumb's metacarpal bone: spread, opposed, along the index finger; and its hinge.
_THUMB_SPREAD = np.array([0.88, 0.42, -0.20])
_THUMB_OPPOSED = np.array([0.58, 0.40, -0.71])
_THUMB_ALONG = np.array([0.62, 0.70, -0.35])
_THUMB_HINGE = np.array([0.10, 0.25, 0.80])


def palm_frame(joints_mm: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Palm axes and size from NYU-36 joints of a right hand.

    Args:
        joints_mm: [B, 36, 3] (or any leading shape).

    Returns:
        rotation [B, 3, 3] (palm axes x, y, z as rows), length [B] and width [B] of the palm
        relative to the reference hand.
    """
    j = joints_mm
    wrist = j[..., 30, :] + j[..., 31, :] + j[..., 35, :]
    up = (j[..., 32, :] + j[..., 33, :] + j[..., 34, :] - wrist) / 3.0
    side = j[..., 31, :] - j[..., 30, :] + 0.5 * (j[..., 32, :] + j[..., 34, :]) - j[..., 33, :]
    y = unit(up)
    side = side - y * dot(side, y)
    x = unit(side)
    length = np.sqrt(dot(up, up))[..., 0] / REFERENCE_LENGTH_MM
    width = np.sqrt(dot(side, side))[..., 0] / REFERENCE_WIDTH_MM
    return np.stack([x, y, cross(x, y)], axis=-2), length, width


def to_palm_frame(joints_mm: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Joints of a right hand in its palm frame, at the reference hand's size.

    Returns:
        palm joints [B, 36, 3] (origin joint 34), rotation [B, 3, 3], size [B] (1 = reference hand);
        ``apply_rotation(palm * size, rotation) + joints_mm[:, 34]`` gives the joints back.
    """
    rotation, length, _ = palm_frame(joints_mm)
    local = apply_rotation(
        joints_mm - joints_mm[..., 34:35, :], np.swapaxes(rotation, -1, -2)[..., None, :, :]
    )
    return local / length[..., None, None], rotation, length


def forward_kinematics(
    knuckle_direction: FloatArray, hinge: FloatArray, bend: FloatArray
) -> FloatArray:
    """NYU-36 joints in the palm frame of the reference hand.

    Args:
        knuckle_direction: [B, 5, 3] unit direction of each proximal bone (of the thumb:
        metacarpal). hinge: [B, 5, 3] hinge axis of each finger; a positive bend turns about it,
        toward the palm.
            It need not be orthogonal to the bone.
        bend: [B, 5, 2] angles in radians between the lines of neighbouring bones.

    Returns:
        [B, 36, 3] mm.
    """
    direction = unit(knuckle_direction)
    axis = unit(hinge - direction * dot(hinge, direction))
    batch = direction.shape[0]
    joints = np.empty((batch, 36, 3))
    joints[:, 29:] = _RIGID_POINTS
    fingers = np.empty((batch, 5, 6, 3))
    fingers[:, :, 5] = _KNUCKLE + _KNUCKLE_TO_B[:, None] * direction
    fingers[:, :, 4] = fingers[:, :, 5] + _BONE_MM[:, 0, None] * direction
    for bone in (0, 1):
        offset = _HINGE_MM[:, bone]
        start = fingers[:, :, 4 - 2 * bone]
        start = start + offset[:, 0, None] * direction + offset[:, 1, None] * cross(axis, direction)
        direction = rotate_about(direction, axis, bend[:, :, bone, None])
        start = start + offset[:, 2, None] * direction + offset[:, 3, None] * cross(axis, direction)
        fingers[:, :, 3 - 2 * bone] = start + offset[:, 4, None] * axis
        fingers[:, :, 2 - 2 * bone] = (
            fingers[:, :, 3 - 2 * bone] + _BONE_MM[:, bone + 1, None] * direction
        )
    joints[:, :30] = fingers.reshape(batch, 30, 3)
    return joints


def hinge_points(palm_joints: FloatArray) -> FloatArray:
    """Where the fingers' hinges lie between the A-B points that the NYU layout marks.

    The knuckle is fixed in the palm. A middle or tip hinge is the point that the tables place
    beside both bones that meet there (halfway between the two places, which differ by 0.6-4 mm on
    labels), in the middle of the hinge's length.

    Args:
        palm_joints: [B, 36, 3] in the palm frame, at the reference hand's size.

    Returns:
        [B, 5, 3, 3]: for each finger the hinges of its proximal, middle and tip bone (thumb: of its
        metacarpal and the two others), mm. NaN where two bones are bent by less than 20 degrees:
        their hinge has no direction then.
    """
    fingers = palm_joints[:, :30].reshape(-1, 5, 6, 3)
    directions = [unit(fingers[:, :, tip] - fingers[:, :, tip + 1]) for tip in (4, 2, 0)]
    hinges = np.empty((len(fingers), 5, 3, 3))
    hinges[:, :, 0] = _KNUCKLE
    for bone in (0, 1):
        near, far = directions[bone : bone + 2]
        offset = _HINGE_MM[:, bone, :, None]
        across = cross(near, far)
        axis = unit(across)
        from_near = fingers[:, :, 4 - 2 * bone] + offset[:, 0] * near
        from_near += offset[:, 1] * cross(axis, near) + 0.5 * offset[:, 4] * axis
        from_far = fingers[:, :, 3 - 2 * bone] - offset[:, 2] * far
        from_far -= offset[:, 3] * cross(axis, far) + 0.5 * offset[:, 4] * axis
        bent = np.sqrt(dot(across, across)) > np.sin(np.radians(20.0))
        hinges[:, :, bone + 1] = np.where(bent, 0.5 * (from_near + from_far), np.nan)
    return hinges


def sample_palm_joints(rng: CounterRng, stream: str = "pose") -> FloatArray:
    """Random articulations [B, 36, 3] in the palm frame: gestures, blended and perturbed.

    Flexions of the fingers are correlated (a gesture, a common offset, a per-finger offset), the
    tip joint follows the middle one (about two thirds of its angle), spreading vanishes as a
    finger bends.
    """
    first = _GESTURES[rng.integers(f"{stream}.a", len(_GESTURES))]
    second = _GESTURES[rng.integers(f"{stream}.b", len(_GESTURES))]
    # Most samples stay near a gesture, the rest lies between two.
    weight = rng.uniform(f"{stream}.blend", 1) ** 2
    gesture = first * (1.0 - weight) + second * weight
    common = rng.normal(f"{stream}.common", 1, std=0.08)
    curl = np.clip(gesture[:, :5] + common + rng.normal(f"{stream}.curl", 5, std=0.09), -0.12, 1.08)
    four = curl[:, :4]
    flex = rng.normal(f"{stream}.flex", 4, 2, std=10.0)
    knuckle = np.clip(85.0 * four + flex[..., 0], -25.0, 92.0)
    middle = np.clip(98.0 * four + flex[..., 1], 0.0, 108.0)
    tip = np.clip(0.66 * middle + rng.normal(f"{stream}.tip", 4, std=7.0), -5.0, 80.0)

    open_share = np.clip(1.0 - knuckle / 80.0, 0.0, 1.0)
    spread = rng.uniform(f"{stream}.spread", 1, low=0.2, high=2.2) * _SPREAD_DEG
    abduction = (spread + rng.normal(f"{stream}.abduction", 4, std=4.0)) * open_share
    phi, alpha = np.radians(knuckle + _KNUCKLE_STRAIGHT_DEG), np.radians(abduction)
    # Bent fingers point to the root of the thumb: their hinges turn inward with the finger's place.
    lean = np.radians(np.array([-14.0, -7.0, 0.0, 5.0])) * (1.0 - open_share)
    turn = alpha + lean
    forward = np.cos(phi)
    direction = np.empty((len(rng), 5, 3))
    hinge = np.empty((len(rng), 5, 3))
    direction[:, :4] = np.stack(
        [
            -np.sin(alpha) * forward - np.sin(lean) * np.sin(phi),
            np.cos(alpha) * forward,
            -np.sin(phi),
        ],
        axis=-1,
    )
    hinge[:, :4] = np.stack([-np.cos(turn), -np.sin(turn), np.sin(lean)], axis=-1)

    opposed = np.clip(gesture[:, 5:6] + rng.normal(f"{stream}.opposed", 1, std=0.25), 0.0, 1.0)
    along = rng.uniform(f"{stream}.along", 1)
    beside = _THUMB_SPREAD * (1.0 - along) + _THUMB_ALONG * along
    thumb = beside * (1.0 - opposed) + _THUMB_OPPOSED * opposed
    direction[:, 4] = unit(thumb + rng.normal(f"{stream}.thumb", 3, std=0.10))
    hinge[:, 4] = _THUMB_HINGE + rng.normal(f"{stream}.thumb_hinge", 3, std=0.18)
    thumb_bend = rng.normal(f"{stream}.thumb_bend", 2, std=9.0)
    bend = np.empty((len(rng), 5, 2))
    bend[:, :4, 0], bend[:, :4, 1] = middle, tip
    bend[:, 4, 0] = np.clip(8.0 + 45.0 * curl[:, 4] + thumb_bend[:, 0], -5.0, 60.0)
    bend[:, 4, 1] = np.clip(60.0 * curl[:, 4] + thumb_bend[:, 1], -12.0, 75.0)
    return forward_kinematics(direction, hinge, np.radians(bend + _STRAIGHT_DEG))


def sample_viewpoint(rng: CounterRng, uniform_share: float, stream: str = "view") -> FloatArray:
    """Rotations [B, 3, 3] of the palm frame into the camera frame.

    A hand held up before the camera, palm or back in view, fingers upward and leaning to the
    camera; a share of the samples is uniform over all rotations (Shoemake 1992).
    """
    back = rng.chance(f"{stream}.back", 0.35, 1)
    angle = np.radians(rng.normal(f"{stream}.angles", 3) * np.array([28.0, 35.0, 32.0]))
    pitch = angle[:, 0:1] - np.radians(18.0)  # a negative pitch tips the fingers to the camera
    yaw = angle[:, 1:2] + np.where(back, np.pi, 0.0)
    roll = angle[:, 2:3]
    axes = np.broadcast_to(np.eye(3), (len(rng), 3, 3))
    turned = rotate_about(axes, np.eye(3)[1], yaw[:, None])
    turned = rotate_about(turned, np.eye(3)[0], pitch[:, None])
    turned = rotate_about(turned, np.eye(3)[2], roll[:, None])

    u = rng.uniform(f"{stream}.uniform", 3)
    a, b = np.sqrt(1.0 - u[:, 0]), np.sqrt(u[:, 0])
    s, t = 2.0 * np.pi * u[:, 1], 2.0 * np.pi * u[:, 2]
    x, y, z, w = a * np.sin(s), a * np.cos(s), b * np.sin(t), b * np.cos(t)
    anywhere = np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)], -1),
            np.stack([2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)], -1),
            np.stack([2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)], -1),
        ],
        axis=-2,
    )
    pick = rng.chance(f"{stream}.pick", uniform_share)[:, None, None]
    return np.where(pick, anywhere, turned)


def perturb_fingers(
    palm_joints: FloatArray, rng: CounterRng, angle_deg: float, stream: str = "bend"
) -> FloatArray:
    """Small random changes of the finger angles: knuckles every way, other hinges in flexion.

    Args:
        palm_joints: [B, 36, 3] in the palm frame.
        angle_deg: standard deviation of the knuckle flexion; the other angles are in proportion.
    """
    out: FloatArray = palm_joints.copy()
    fingers = out[:, :30].reshape(-1, 5, 6, 3)
    side = np.broadcast_to(np.array([-1.0, 0.0, 0.0]), (*fingers.shape[:2], 3)).copy()
    side[:, 4] = unit(_THUMB_HINGE)
    scale = np.radians(angle_deg)
    flex = rng.normal(f"{stream}.flex", 5, 3) * np.array([1.0, 0.9, 0.7]) * scale
    turn = rng.normal(f"{stream}.turn", 5, 3, std=0.45 * scale) + side * flex[..., 0:1]
    # The thumb's last point belongs to the palm, so its chain turns about that point.
    pivot = fingers[:, :, 5:6]
    fingers = pivot + apply_rotation(fingers - pivot, rotation_from_vector(turn)[:, :, None])
    for bone, first in ((1, 4), (2, 2)):
        near, far = fingers[:, :, first], fingers[:, :, first - 1]
        along = unit(near - fingers[:, :, first + 1])
        axis = unit(side - along * dot(side, along))
        pivot = (0.5 * (near + far))[:, :, None]
        turned = rotate_about(
            fingers[:, :, :first] - pivot, axis[:, :, None], flex[:, :, None, bone, None]
        )
        fingers = np.concatenate([pivot + turned, fingers[:, :, first:]], axis=2)
    out[:, :30] = fingers.reshape(-1, 30, 3)
    return out


def scale_bones(
    palm_joints: FloatArray, factors: FloatArray, palm_factors: FloatArray
) -> FloatArray:
    """Change bone lengths and palm proportions, directions kept.

    Args:
        palm_joints: [B, 36, 3] in the palm frame.
        factors: [B, 5, 5] of the five segments of each finger, from the tip (A3-B3, B3-A2, ...).
        palm_factors: [B, 3] along the palm's x, y, z.
    """
    out: FloatArray = palm_joints * palm_factors[:, None]
    fingers = palm_joints[:, :30].reshape(-1, 5, 6, 3)
    result = out[:, :30].reshape(-1, 5, 6, 3).copy()
    for k in range(4, -1, -1):
        result[:, :, k] = result[:, :, k + 1] + factors[:, :, k, None] * (
            fingers[:, :, k] - fingers[:, :, k + 1]
        )
    out[:, :30] = result.reshape(-1, 30, 3)
    return out
