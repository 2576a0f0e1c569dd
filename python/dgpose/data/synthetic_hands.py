"""Rendered depth images of hands with exact joints: training data without end.

Poses come from a kinematic hand with joint limits, and, where the project's data folder is given,
from labelled poses of the NYU hand data set (Tompson et al. 2014, listed as CC BY 4.0: name the
authors wherever poses, or models trained on them, are passed on). The radii of the joints are
those of melonwan/sphereHand (MIT). Surface, viewpoints and sensor effects are this project's own.

A sample goes through: articulation (finger exchange between poses, bone lengths, angle noise) ->
rotation and place -> capsules of the surface, nearby objects (``hand_surface``) ->
``dgpose_ext.capsule_depth`` straight into the crop -> sensor effects -> normalisation. Everything
drawn is a function of (seed, index) alone (``counter_rng``): bit for bit on one machine; another
processor's logarithm and cosine may differ in the last place.

A left hand is the mirrored image of a right one: fingers keep their joint indices.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from dgpose.data.cameras import CAMERAS, Camera
from dgpose.data.counter_rng import CounterRng, FloatArray
from dgpose.data.depth_sensor import (
    Image,
    SensorConfig,
    SensorDraws,
    SensorNoise,
    structured_light,
    with_plane,
)
from dgpose.data.hand_kinematics import (
    perturb_fingers,
    sample_palm_joints,
    sample_viewpoint,
    scale_bones,
    to_palm_frame,
)
from dgpose.data.hand_surface import (
    EDGES,
    NODE_NAMES,
    SurfaceShape,
    hand_capsules,
    sample_surface,
)
from dgpose.data.nyu import load_poses
from dgpose.data.rotations import (
    apply_rotation,
    dot,
    rotation_from_vector,
    unit,
    vector_from_rotation,
)
from dgpose_ext import capsule_depth

CENTER_JOINT = 34
CUBE_MM = 300.0
# From joint 34 to the farthest finger tip, nearly always.
_HAND_REACH_MM = 150.0
# Objects near the hand: something held or touched, a thin thing before it, the body behind it,
# another hand beside it.
_OBJECTS = 4
_ALL_EDGES = np.concatenate(
    [EDGES, len(NODE_NAMES) + np.arange(2 * _OBJECTS, dtype=np.int64).reshape(-1, 2)]
)


@dataclass(frozen=True)
class SyntheticHandsConfig(SensorConfig):
    """What varies in the rendered hands, and by how much. Lengths in mm, angles in degrees.

    The sensor's fields are those of ``SensorConfig``.

    ``std`` are standard deviations; ``chance`` and ``share`` are probabilities per frame.
    """

    # Poses.
    kinematic_share: float = 0.2  # of poses="mixed"
    exchange_chance: float = (
        0.4  # one or two fingers take their pose from another frame (NYU poses)
    )
    angle_noise_deg: float = 5.0  # of the knuckles' flexion; other joints in proportion
    finger_length_std: float = 0.05  # log, per finger
    bone_length_std: float = 0.03  # log, per segment
    palm_std: float = 0.04  # log, each axis of the palm
    size_std: float = 0.07  # log, whole hand, around the pose's own size
    kinematic_size: tuple[float, float] = (0.75, 1.10)  # of the reference hand (NYU's first actor)

    # Viewpoint and place.
    in_plane_std_deg: float = 25.0  # rotation in the image, around the pose's own
    in_plane_any_share: float = 0.2  # any rotation in the image
    tilt_std_deg: float = 10.0  # rotation out of the image, each axis
    uniform_view_share: float = 0.15  # kinematic poses: any rotation at all
    distance_std: float = 0.12  # log, around the pose's own distance
    any_distance_share: float = 0.3
    distance_mm: tuple[float, float] = (400.0, 1300.0)  # of the share above, and of kinematic poses

    # Surface.
    radius_std: float = 0.06  # log, common thickness
    # mm on all radii. The table of radii fits structured light, which widens what is near; other
    # sensors see thinner fingers.
    structured_growth_std: float = 0.8
    flight_growth: tuple[float, float] = (-3.0, 0.5)
    no_forearm_chance: float = 0.12  # images cut at the wrist
    sleeve_chance: float = 0.3

    # Surroundings.
    held_object_chance: float = 0.05
    thin_occluder_chance: float = 0.03
    body_chance: float = 0.12  # head, torso or knee inside the cube, behind or below
    neighbour_chance: float = 0.06  # fingers or an arm beside the hand

    # Crop.
    given_center_share: float = 0.55  # centre near joint 34; else found from the depth image
    center_std_mm: float = 8.0
    center_wide_share: float = 0.1  # ... with a larger error
    center_wide_std_mm: float = 20.0
    found_center_std_mm: float = 5.0
    cube_std: float = 0.05  # log, of the cube's edge; limited to 10 %


class HandBatch(NamedTuple):
    """Crops and their joints.

    crop [B,1,S,S] float32 in [-1, 1] ("cube" normalisation of ``dgpose_ext.depth_crop``); joints
    [B,36,3] float32 in crop coordinates (a, b, c): (u - u_c)/half window, (v - v_c)/half window,
    (z - mm_c)/(cube/2); joints_mm [B,36,3] float32, x right, y up, z forward; centers [B,3] (u, v,
    mm); cube_mm [B]; camera [B,4]; left [B] bool.
    """

    crop: torch.Tensor
    joints: torch.Tensor
    joints_mm: torch.Tensor
    centers: torch.Tensor
    cube_mm: torch.Tensor
    camera: torch.Tensor
    left: torch.Tensor


class HandFrame(NamedTuple):
    """A whole depth image: depth [H,W] uint16 mm, 0 = no measurement; joints_mm [36,3] float32,
    x right, y up, z forward; camera; whether it is a left hand."""

    depth: npt.NDArray[np.uint16]
    joints_mm: npt.NDArray[np.float32]
    camera: Camera
    left: bool


@dataclass(frozen=True)
class _Hands:
    """B right hands, taken apart."""

    palm: FloatArray  # [B, 36, 3] joints in the palm frame, at the reference size
    rotation: FloatArray  # [B, 3, 3] palm axes as rows
    size: FloatArray  # [B] relative to the reference hand
    origin: FloatArray  # [B, 3] joint 34 in the camera frame

    def joints_mm(self) -> FloatArray:
        turned = apply_rotation(self.palm * self.size[:, None, None], self.rotation[:, None])
        return self.origin[:, None] + turned


@dataclass(frozen=True)
class _Scene:
    """B hands in camera coordinates (y up), mirrored already where they are left hands."""

    joints_mm: FloatArray  # [B, 36, 3]
    nodes: FloatArray  # [B, N, 3], objects included
    radii: FloatArray  # [B, N]
    camera: FloatArray  # [B, 4]
    left: npt.NDArray[np.bool_]  # [B]


class SyntheticHands:
    """Rendered hands, addressed by index: any integer from 0 on is a sample.

    Args:
        seed: another seed, another endless data set.
        poses: "kinematic" (joint limits only), "nyu" (labelled poses), "mixed" (both, by
            ``config.kinematic_share``), or "auto": "mixed" if the data folder is there, else
            "kinematic".
        data_dir: folder with ``hand/nyu/labels``; default: the environment's DGPOSE_DATA.
        split: which NYU poses: contiguous blocks of rows are held out for "val" and "test", with a
            gap between, so that no neighbour of a validation pose is trained on. Kinematic poses
            of the splits differ by index alone.
        hand: "right", "left", or "both" (half and half).
        size: S, the crop's edge in pixels, 16 to 512.
        cube_mm: edge of the cube around the hand (reference; varied by ``config.cube_std``).
        config: what varies.
        actors: NYU actors to use: 0 (the training actor of that set) and 1.

    Attributes:
        poses: "kinematic", "nyu" or "mixed", what "auto" came to.
        pose_rows: [N] rows of the NYU test labels whose poses are drawn from (empty: none).

    Raises:
        ValueError: an unknown option, a size or cube out of range, no pose left.
        FileNotFoundError: ``poses`` needs the data folder and it is not there.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        poses: Literal["auto", "kinematic", "nyu", "mixed"] = "auto",
        data_dir: str | Path | None = None,
        split: Literal["train", "val", "test"] = "train",
        hand: Literal["right", "left", "both"] = "right",
        size: int = 128,
        cube_mm: float = CUBE_MM,
        config: SyntheticHandsConfig | None = None,
        actors: Sequence[int] = (0, 1),
    ) -> None:
        _require_option("poses", poses, ("auto", "kinematic", "nyu", "mixed"))
        _require_option("split", split, _SPLITS)
        _require_option("hand", hand, ("right", "left", "both"))
        if not 16 <= size <= 512:
            raise ValueError(f"size must lie in 16..512, got {size}")
        if not (math.isfinite(cube_mm) and cube_mm > 0):
            raise ValueError(f"cube_mm must be positive, got {cube_mm}")
        folder = data_dir if data_dir is not None else os.environ.get("DGPOSE_DATA")
        if poses == "auto":
            known = folder is not None and (Path(folder) / _POSE_FILE).is_file()
            poses = "mixed" if known else "kinematic"
        self.poses: Literal["kinematic", "nyu", "mixed"] = poses
        self.config = config if config is not None else SyntheticHandsConfig()
        self.size = size
        self.cube_mm = float(cube_mm)
        self.hand = hand
        # The splits of one seed share no random number.
        self._seed = seed * len(_SPLITS) + _SPLITS.index(split)
        self._library: _PoseLibrary | None = None
        if poses != "kinematic":
            if folder is None:
                raise FileNotFoundError(
                    f'poses="{poses}" needs data_dir, the folder that holds {_POSE_FILE}'
                )
            self._library = _PoseLibrary(Path(folder), split, tuple(actors))
        self.pose_rows = (
            np.zeros(0, dtype=np.int32) if self._library is None else self._library.rows
        )
        self._noise = SensorNoise(self.config.jag_px)

    def batch(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> HandBatch:
        """Samples ``indices`` as crops; each depends on (seed, index) alone, bit for bit.

        Raises:
            ValueError, TypeError: indices that are not a list of non-negative integers.
        """
        rng = CounterRng(self._seed, indices)
        return self._crops(rng, self._hands(rng, self.config))

    def posed(
        self,
        joints_mm: npt.NDArray[np.floating],
        indices: Sequence[int] | npt.NDArray[np.integer],
    ) -> HandBatch:
        """Crops of hands in given poses: surface, sensor and surroundings are those of ``indices``.

        Args:
            joints_mm: [B, 36, 3] of right hands, mm from the camera, x right, y UP, z forward.
            indices: B samples.

        Raises:
            ValueError: joints of another shape, not finite, or not before the camera.
        """
        joints = np.asarray(joints_mm, np.float64)
        rng = CounterRng(self._seed, indices)
        if joints.shape != (len(rng), 36, 3):
            raise ValueError(
                f"joints_mm must have shape [{len(rng)}, 36, 3], got {list(joints.shape)}"
            )
        if not (np.isfinite(joints).all() and (joints[..., 2] > 0).all()):
            raise ValueError("joints_mm must be finite, and z positive")
        return self._crops(rng, _Hands(*to_palm_frame(joints), joints[:, CENTER_JOINT]))

    def _crops(self, rng: CounterRng, hands: _Hands) -> HandBatch:
        shape = self._shape(rng, self.config, hands.rotation)
        scene = self._scene(rng, self.config, hands, shape, _cameras(rng))
        jitter = rng.log_normal("cube", std=self.config.cube_std)
        cube = (self.cube_mm * np.clip(jitter, 0.9, 1.1)).astype(np.float32).astype(np.float64)
        centers = self._centers(rng, scene)
        half = 0.5 * cube[:, None] * scene.camera[:, :2] / centers[:, 2:]
        # The camera whose pixels are the crop's: pixel i sees u_c - half + (i + 0.5) 2 half / S.
        scale = self.size / (2.0 * half)
        offset = (scene.camera[:, 2:] - centers[:, :2] + half) * scale - 0.5
        window = np.concatenate([scene.camera[:, :2] * scale, offset], axis=1)
        depth = _render(scene, window, (self.size, self.size))
        crop = self._noise.crops(depth, rng, self.config, centers, half, cube)
        uvd = _project(scene.joints_mm, scene.camera)
        joints = (uvd - centers[:, None]) / np.concatenate([half, 0.5 * cube[:, None]], 1)[:, None]
        return HandBatch(
            crop=torch.from_numpy(crop),
            joints=_tensor(joints),
            joints_mm=_tensor(scene.joints_mm),
            centers=_tensor(centers),
            cube_mm=_tensor(cube),
            camera=_tensor(scene.camera),
            left=torch.from_numpy(scene.left),
        )

    def frame(
        self,
        index: int,
        size: tuple[int, int] = (480, 640),
        camera: Camera = CAMERAS["nyu"],
    ) -> HandFrame:
        """Sample ``index`` as a whole depth image (H, W): the hand, a person behind it and a wall.

        Raises:
            ValueError: a size that leaves no room for a hand, or a negative index.
        """
        _require_size(size)
        rng = CounterRng(self._seed, [index])
        hands = self._hands(rng, self.config, _view_edges(camera, size))
        shape = _with_arm(self._shape(rng, self.config, hands.rotation))
        scene = self._scene(rng, self.config, hands, shape, np.array([camera]))
        draws = SensorDraws(rng, self.config)
        return self._sensed_frame(rng, scene, draws, size, camera, hands.origin[0])

    def sequence(
        self,
        seed: int,
        length: int,
        size: tuple[int, int] = (480, 640),
        camera: Camera = CAMERAS["nyu"],
        *,
        hold: int = 24,
    ) -> Iterator[HandFrame]:
        """A moving hand: ``length`` frames that pass smoothly from pose to pose, one each ``hold``.

        The hand's shape, its side, the person and the sensor stay; pose, rotation and place change.

        Raises:
            ValueError: length or hold below 1, a size that leaves no room for a hand.
        """
        if length < 1 or hold < 1:
            raise ValueError(f"length and hold must be at least 1, got {length} and {hold}")
        _require_size(size)
        return self._moving(seed, length, size, camera, hold)

    def _moving(
        self, seed: int, length: int, size: tuple[int, int], camera: Camera, hold: int
    ) -> Iterator[HandFrame]:
        # Views change little from pose to pose, and nothing else floats about.
        config = replace(
            self.config,
            in_plane_any_share=0.0,
            uniform_view_share=0.0,
            any_distance_share=0.0,
            distance_mm=(600.0, 800.0),
            held_object_chance=0.0,
            thin_occluder_chance=0.0,
            body_chance=0.0,
            neighbour_chance=0.0,
        )
        base = _mixed_seed(self._seed, seed)
        keys = CounterRng(base, np.arange((length - 1) // hold + 2))
        first = CounterRng(base, [0])
        poses = self._hands(keys, config, _view_edges(camera, size))
        near = poses.origin[0] + 0.4 * (poses.origin - poses.origin[0])
        poses = replace(poses, origin=near)
        wrist = self._shape(keys, config, poses.rotation).wrist_bend
        shape = _with_arm(self._shape(first, config, poses.rotation[:1]))
        stand = np.append(poses.origin[0, :2], poses.origin[:, 2].max())
        draws = SensorDraws(first, config)
        for t in range(length):
            k, w = t // hold, (t % hold) / hold
            w = w * w * (3.0 - 2.0 * w)
            between = _interpolated(poses, k, w)
            bend = (1.0 - w) * wrist[k] + w * wrist[k + 1]
            scene = self._scene(
                first, config, between, replace(shape, wrist_bend=bend[None]), np.array([camera])
            )
            # The same sensor with other noise.
            draws.window = SensorDraws(CounterRng(base, [t]), config).window
            yield self._sensed_frame(first, scene, draws, size, camera, stand)

    def _sensed_frame(
        self,
        rng: CounterRng,
        scene: _Scene,
        draws: SensorDraws,
        size: tuple[int, int],
        camera: Camera,
        stand: FloatArray,
    ) -> HandFrame:
        """``stand``: a place the person stands behind, that of a right hand."""
        nodes, radii, edges = _person(rng, scene, stand)
        whole = replace(
            scene,
            nodes=np.concatenate([scene.nodes, nodes], axis=1),
            radii=np.concatenate([scene.radii, radii], axis=1),
        )
        depth = _render(whole, np.array([camera]), size, np.concatenate([_ALL_EDGES, edges]))[0]
        wall = rng.uniform("frame.wall", 3)[0]
        mm = float(scene.joints_mm[0, CENTER_JOINT, 2])
        depth = with_plane(depth, max(mm + 900.0, 1500.0) + 800.0 * float(wall[0]), 600.0, wall)
        if not draws.clean[0]:
            depth = self._noise.sense(depth, draws, 0, mm)
        return HandFrame(
            np.rint(np.clip(depth, 0.0, 65535.0)).astype(np.uint16),
            scene.joints_mm[0].astype(np.float32),
            camera,
            bool(scene.left[0]),
        )

    def _scene(
        self,
        rng: CounterRng,
        config: SyntheticHandsConfig,
        hands: _Hands,
        shape: SurfaceShape,
        camera: FloatArray,
    ) -> _Scene:
        """Surfaces of the hands and the objects around them, mirrored for left hands."""
        joints = hands.joints_mm()
        nodes, radii = hand_capsules(joints, shape)
        objects, object_radii = _objects(rng, config, joints, hands.origin)
        nodes = np.concatenate([nodes, objects], axis=1)
        radii = np.concatenate([radii, object_radii], axis=1)
        if self.hand == "both":
            left = rng.chance("left", 0.5)
        else:
            left = np.full(len(rng), self.hand == "left")
        mirror = np.where(left, -1.0, 1.0)[:, None]
        joints[..., 0] *= mirror
        nodes[..., 0] *= mirror
        return _Scene(joints, nodes, radii, camera, left)

    def _shape(
        self, rng: CounterRng, config: SyntheticHandsConfig, rotation: FloatArray
    ) -> SurfaceShape:
        return sample_surface(
            rng,
            rotation,
            no_forearm=config.no_forearm_chance,
            sleeve=config.sleeve_chance,
            radius_std=config.radius_std,
            growth=np.where(
                structured_light(rng, config),
                rng.normal("growth", std=config.structured_growth_std),
                rng.uniform(
                    "growth.flight", low=config.flight_growth[0], high=config.flight_growth[1]
                ),
            ),
        )

    def _hands(
        self, rng: CounterRng, config: SyntheticHandsConfig, edges: FloatArray | None = None
    ) -> _Hands:
        """Draw right hands; ``edges``: of the view, inside which they must be whole."""
        batch = len(rng)
        place = rng.uniform("place", 2, low=-1.0, high=1.0) * np.array([0.35, 0.26])
        near, far = config.distance_mm
        distance = rng.uniform("distance", 1, low=near, high=far)
        origin = np.concatenate([place * distance, distance], axis=1)
        if self._library is None:
            kinematic = np.ones(batch, dtype=bool)
        elif self.poses == "nyu":
            kinematic = np.zeros(batch, dtype=bool)
        else:
            kinematic = rng.chance("kinematic", config.kinematic_share)

        palm, rotation = sample_palm_joints(rng), sample_viewpoint(rng, config.uniform_view_share)
        smallest, largest = config.kinematic_size
        size = rng.uniform("kinematic_size", low=smallest, high=largest)
        if self._library is not None:
            pose, view, scale, own = self._library.sample(rng, config.exchange_chance)
            ray = own / own[:, 2:]
            ray[:, :2] += rng.normal("ray", 2, std=0.03)
            stretch = rng.log_normal("distance_factor", 1, std=config.distance_std)
            own = ray * np.maximum(own[:, 2:] * stretch, 0.75 * near)
            own = np.where(rng.chance("any_distance", config.any_distance_share, 1), origin, own)
            palm = np.where(kinematic[:, None, None], palm, pose)
            rotation = np.where(kinematic[:, None, None], rotation, view)
            size = np.where(kinematic, size, scale)
            origin = np.where(kinematic[:, None], origin, own)
        if edges is not None:
            room = np.maximum(edges * origin[:, 2:] - _HAND_REACH_MM, 0.0)
            origin[:, :2] = np.clip(origin[:, :2], -room, room)

        palm = perturb_fingers(palm, rng, config.angle_noise_deg)
        lengths = rng.log_normal("finger_length", 5, 1, std=config.finger_length_std)
        lengths = lengths * rng.log_normal("bone_length", 5, 5, std=config.bone_length_std)
        palm = scale_bones(palm, lengths, rng.log_normal("palm", 3, std=config.palm_std))
        size = size * rng.log_normal("size", std=config.size_std)
        return _Hands(palm, self._turned(rng, config, rotation), size, origin)

    def _turned(
        self, rng: CounterRng, config: SyntheticHandsConfig, rotation: FloatArray
    ) -> FloatArray:
        """Extra rotation: in the image any or moderate, out of it moderate."""
        vector = rng.normal("tilt", 3, std=config.tilt_std_deg)
        vector[:, 2] = np.where(
            rng.chance("in_plane_any", config.in_plane_any_share),
            rng.uniform("in_plane", low=-180.0, high=180.0),
            rng.normal("in_plane_small", std=config.in_plane_std_deg),
        )
        tilt = rotation_from_vector(np.radians(vector * np.array([1.0, 1.0, 0.0])))
        roll = rotation_from_vector(np.radians(vector * np.array([0.0, 0.0, 1.0])))
        return apply_rotation(apply_rotation(rotation, tilt[:, None]), roll[:, None])

    def _centers(self, rng: CounterRng, scene: _Scene) -> FloatArray:
        """Crop centres (u, v, mm), float32 values: joint 34 with an error, or found."""
        config = self.config
        std = np.where(
            rng.chance("center_wide", config.center_wide_share, 1),
            config.center_wide_std_mm,
            config.center_std_mm,
        )
        shift = rng.normal("center", 3) * std
        given = _project(scene.joints_mm[:, CENTER_JOINT] + shift, scene.camera)
        find = ~rng.chance("given_center", config.given_center_share)
        if find.any():
            found = _found_centers(scene, find)
            pixel = scene.camera[find, :2] / found[:, 2:]
            shift = rng.normal("found_center", 3, std=config.found_center_std_mm)[find]
            shift[:, :2] *= pixel
            given[find] = found + shift
        return given.astype(np.float32).astype(np.float64)


_SPLITS = ("train", "val", "test")
_POSE_FILE = "hand/nyu/labels/nyu_poses36.npz"
_CROP_CAMERAS = ("nyu", "kinect2", "icvl")
_CAMERA_SHARES = np.array([0.65, 0.25, 0.10])


class _PoseLibrary:
    """Labelled poses, taken apart into articulation, rotation, size and place."""

    def __init__(self, folder: Path, split: str, actors: tuple[int, ...]) -> None:
        poses = load_poses(folder)
        use = _split_mask(poses.row, split) & np.isin(poses.actor, actors)
        if not use.any():
            raise ValueError(f"actors must name actors of the poses (0, 1), got {actors}")
        self.rows = poses.row[use]
        joints = poses.xyz_mm[use].astype(np.float64)
        self.palm, self.rotation, self.size = to_palm_frame(joints)
        self.place = joints[:, CENTER_JOINT]

    def sample(
        self, rng: CounterRng, exchange_chance: float
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """A pose a sample; some get one or two fingers, or the proportions, of another pose."""
        count = len(self.palm)
        row = rng.integers("row", count)
        palm = self.palm[row].copy()
        donor = self.palm[rng.integers("donor", count, 2)]
        finger = rng.integers("donor_finger", 5, 2)
        swap = rng.chance("exchange", exchange_chance, 1) & np.stack(
            [np.ones(len(rng), bool), rng.chance("exchange_two", 0.4)], axis=1
        )
        for k in range(2):
            b = np.flatnonzero(swap[:, k])
            span = 6 * finger[b, k, None] + np.arange(6)
            palm[b[:, None], span] = donor[b[:, None], k, span]
        return palm, self.rotation[row], self.size[row], self.place[row].copy()


def _split_mask(row: npt.NDArray[np.int32], split: str) -> npt.NDArray[np.bool_]:
    """Blocks of 160 rows: of ten, one is for validation, one for tests, with 20 rows left out of
    training at each side of them (a movement lasts a few dozen frames)."""
    block, gap = 160, 20
    kind = np.array([0, 0, 0, 0, 1, 0, 0, 0, 0, 2])
    own = kind[row // block % 10]
    if split != "train":
        chosen: npt.NDArray[np.bool_] = own == _SPLITS.index(split)
        return chosen
    before = kind[np.maximum(row - gap, 0) // block % 10]
    after = kind[(row + gap) // block % 10]
    train: npt.NDArray[np.bool_] = (own == 0) & (before == 0) & (after == 0)
    return train


def _require_option(name: str, value: str, options: Sequence[str]) -> None:
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}")


def _with_arm(shape: SurfaceShape) -> SurfaceShape:
    """The same surface with a whole forearm, as a picture of a person needs."""
    return replace(shape, forearm_length=np.maximum(shape.forearm_length, 230.0))


def _require_size(size: tuple[int, int]) -> None:
    if min(size) < 32:
        raise ValueError(f"size must be (H, W), at least 32 each, got {tuple(size)}")


def _view_edges(camera: Camera, size: tuple[int, int]) -> FloatArray:
    """|x/z| and |y/z| [2] of the nearer image borders: a hand may be mirrored."""
    height, width = size
    x = min(camera.cx, width - 1 - camera.cx) / camera.fx
    y = min(camera.cy, height - 1 - camera.cy) / camera.fy
    return np.array([x, y])


def _mixed_seed(a: int, b: int) -> int:
    return int(CounterRng(a, [0]).bits("sequence", 1)[0, 0]) ^ (b * 0x9E3779B97F4A7C15)


def _cameras(rng: CounterRng) -> FloatArray:
    """The camera of each crop [B, 4]."""
    known = np.array([CAMERAS[name] for name in _CROP_CAMERAS])
    picks: FloatArray = known[
        np.searchsorted(np.cumsum(_CAMERA_SHARES[:-1]), rng.uniform("camera"), "right")
    ]
    return picks


def _interpolated(poses: _Hands, k: int, w: float) -> _Hands:
    """The hand between poses k and k + 1; the bones keep the lengths of the first pose."""
    mixed = (1.0 - w) * poses.palm[k] + w * poses.palm[k + 1]
    palm = poses.palm[:1].copy()
    fingers, chain = mixed[:30].reshape(5, 6, 3), palm[0, :30].reshape(5, 6, 3)
    lengths = np.linalg.norm(chain[:, :-1] - chain[:, 1:], axis=-1)
    for j in range(4, -1, -1):
        step = fingers[:, j] - fingers[:, j + 1]
        # Even segments are bones, odd ones span a hinge and change with its angle.
        chain[:, j] = chain[:, j + 1] + (unit(step) * lengths[:, j, None] if j % 2 == 0 else step)
    relative = apply_rotation(poses.rotation[k].T, poses.rotation[k + 1])
    turn = rotation_from_vector(w * vector_from_rotation(relative))
    return _Hands(
        palm,
        apply_rotation(poses.rotation[k], turn)[None],
        poses.size[:1],
        ((1.0 - w) * poses.origin[k] + w * poses.origin[k + 1])[None],
    )


def _project(joints_mm: FloatArray, camera: FloatArray) -> FloatArray:
    """(u, v, mm) of points [B, ..., 3] in B cameras [B, 4]."""
    fx, fy, cx, cy = camera.T.reshape(4, -1, *([1] * (joints_mm.ndim - 2)))
    x, y, z = joints_mm[..., 0], joints_mm[..., 1], joints_mm[..., 2]
    return np.stack([cx + fx * x / z, cy - fy * y / z, z], axis=-1)


def _tensor(values: FloatArray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _render(
    scene: _Scene,
    window: FloatArray,
    size: tuple[int, int],
    edges: npt.NDArray[np.int64] = _ALL_EDGES,
) -> Image:
    """Depth [B, H, W] mm of the scene for the cameras ``window`` [B, 4]; 0 where nothing is."""
    nodes = scene.nodes * np.array([1.0, -1.0, 1.0])
    depth = capsule_depth(
        _tensor(nodes), torch.from_numpy(edges), _tensor(scene.radii), _tensor(window), size
    )[0]
    image: Image = depth.numpy()
    return image


def _objects(
    rng: CounterRng, config: SyntheticHandsConfig, joints: FloatArray, origin: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Two nodes and radii for each kind of object; radius 0 where there is none."""
    batch = len(rng)
    nodes = np.empty((batch, 2 * _OBJECTS, 3))
    radii = np.zeros((batch, 2 * _OBJECTS))
    away = unit(rng.normal("object.side", _OBJECTS, 3))
    along = unit(rng.normal("object.along", _OBJECTS, 3))
    u = rng.uniform("object.size", _OBJECTS, 4)
    finger = joints[np.arange(batch), rng.integers("object.joint", 36)]

    def put(
        slot: int, shown: npt.NDArray[np.bool_], a: FloatArray, b: FloatArray, r: FloatArray
    ) -> None:
        nodes[:, 2 * slot], nodes[:, 2 * slot + 1] = a, b
        radii[:, 2 * slot : 2 * slot + 2] = np.where(shown, r, 0.0)[:, None]

    # Held or touched: beside a joint, so that it hides a part of the hand only.
    radius = 8.0 + 25.0 * u[:, 0, 0]
    middle = finger + away[:, 0] * (radius + 12.0)[:, None]
    half = along[:, 0] * (10.0 + 80.0 * u[:, 0, 1])[:, None]
    shown = rng.chance("object.held", config.held_object_chance)
    put(0, shown, middle - half, middle + half, radius)

    # Thin, before the hand.
    middle = finger - np.array([0.0, 0.0, 1.0]) * (25.0 + 60.0 * u[:, 1, 0])[:, None]
    half = unit(along[:, 1] * np.array([1.0, 1.0, 0.3])) * (60.0 + 150.0 * u[:, 1, 1])[:, None]
    shown = rng.chance("object.thin", config.thin_occluder_chance)
    put(1, shown, middle - half, middle + half, 1.5 + 4.0 * u[:, 1, 2])

    # Body: large, wholly behind the palm.
    radius = 60.0 + 90.0 * u[:, 2, 0]
    middle = origin + away[:, 2] * np.array([160.0, 160.0, 0.0])
    middle[:, 2] += radius + 45.0 + 110.0 * u[:, 2, 1]
    half = along[:, 2] * np.array([1.0, 1.0, 0.2]) * (150.0 * u[:, 2, 2])[:, None]
    shown = rng.chance("object.body", config.body_chance)
    put(2, shown, middle - half, middle + half, radius)

    # Neighbour: a limb beside the hand.
    radius = 9.0 + 22.0 * u[:, 3, 0]
    reach = 115.0 + 45.0 * u[:, 3, 1]
    side = unit(away[:, 3] * np.array([1.0, 1.0, 0.5]))
    middle = origin + side * (reach + radius)[:, None]
    across = along[:, 3] - side * dot(along[:, 3], side)
    half = unit(across) * (25.0 + 90.0 * u[:, 3, 2])[:, None]
    shown = rng.chance("object.neighbour", config.neighbour_chance)
    put(3, shown, middle - half, middle + half, radius)
    return nodes, radii


def _person(
    rng: CounterRng, scene: _Scene, stand: FloatArray
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Head, trunk and upper arm for the one hand of ``scene``: nodes, radii and edges to append."""
    hand = scene.joints_mm[:, CENTER_JOINT]
    elbow = scene.nodes[:, NODE_NAMES.index("forearm_2_centre")]
    elbow_radius = scene.radii[:, NODE_NAMES.index("forearm_2_centre")]
    draw = rng.uniform("person", 4)
    mirror = np.where(scene.left, -1.0, 1.0)[:, None]
    behind = (330.0 + 250.0 * draw[:, 0:1]) * np.array([0.0, 0.0, 1.0])
    # The trunk is on the side of the hand's own shoulder, seen from the front.
    chest = (
        stand * np.concatenate([mirror, np.ones((1, 2))], axis=1)
        + behind
        + mirror * (60.0 + 200.0 * draw[:, 1:2]) * np.array([1.0, 0.0, 0.0])
    )
    chest = chest + (300.0 * draw[:, 2:3] - 200.0) * np.array([0.0, 1.0, 0.0])
    head = chest + np.array([0.0, 270.0, -20.0])
    waist = chest + np.array([0.0, -600.0, 0.0])
    shoulder = chest - mirror * np.array([150.0, 0.0, 0.0]) + np.array([0.0, 60.0, 0.0])
    crown = head + np.array([0.0, 60.0, 0.0])
    nodes = np.stack([head, crown, chest, waist, elbow, shoulder], axis=1)
    shown = draw[:, 3] < 0.8
    # An upper arm only where the elbow lies behind the hand, or it would come before the hand.
    arm = shown & (elbow[:, 2] > hand[:, 2] + 60.0) & (elbow_radius > 0.0)
    radii = np.stack(
        [85.0 * shown, 95.0 * shown, 150.0 * shown, 160.0 * shown, elbow_radius * arm, 55.0 * arm],
        axis=1,
    )
    start = scene.nodes.shape[1]
    return nodes, radii, start + np.arange(6, dtype=np.int64).reshape(3, 2)


# Window of the coarse image in which a centre is searched.
_SEARCH_MM, _SEARCH_PX = 440.0, 48


def _found_centers(scene: _Scene, chosen: npt.NDArray[np.bool_]) -> FloatArray:
    """Centres (u, v, mm) as ``dgpose_ext.find_hand_center`` would find them, for the chosen hands.

    Works on a coarse noise-free image around the hand: mean of the nearest slab, then five times
    the centre of mass inside a 250 mm cube. Where that leads off the hand, joint 34 is taken.
    """
    joints, camera = scene.joints_mm[chosen], scene.camera[chosen]
    part = _Scene(joints, scene.nodes[chosen], scene.radii[chosen], camera, scene.left[chosen])
    palm = _project(joints[:, CENTER_JOINT], camera)
    half = 0.5 * _SEARCH_MM * camera[:, :2] / palm[:, 2:]
    scale = 0.5 * _SEARCH_PX / half
    offset = (camera[:, 2:] - palm[:, :2] + half) * scale - 0.5
    window = np.concatenate([camera[:, :2] * scale, offset], axis=1)
    depth = (
        _render(part, window, (_SEARCH_PX, _SEARCH_PX)).reshape(len(palm), -1).astype(np.float64)
    )
    valid = depth > 0
    row, column = np.divmod(np.arange(_SEARCH_PX**2), _SEARCH_PX)

    # In units of the window's pixels, as the mean is taken over pixels.
    def mean(inside: npt.NDArray[np.bool_], fallback: FloatArray) -> FloatArray:
        count = inside.sum(axis=1)
        total = np.stack([(inside * value).sum(axis=1) for value in (column, row, depth)], axis=1)
        centre = total / np.maximum(count, 1)[:, None]
        return np.where((count > 0)[:, None], centre, fallback)

    start = np.concatenate([(palm[:, :2] - camera[:, 2:]) * scale + offset, palm[:, 2:]], axis=1)
    nearest = np.where(valid, depth, np.inf).min(axis=1, keepdims=True)
    centre = mean(valid & (depth <= nearest + 75.0), start)
    for _ in range(5):
        reach = 125.0 * camera[:, :2] * scale / centre[:, 2:]
        inside = (
            valid
            & (np.abs(column - centre[:, 0:1]) <= reach[:, 0:1])
            & (np.abs(row - centre[:, 1:2]) <= reach[:, 1:2])
            & (np.abs(depth - centre[:, 2:]) <= 125.0)
        )
        centre = mean(inside, centre)
    uv = (centre[:, :2] - offset) / scale + camera[:, 2:]
    found = np.concatenate([uv, centre[:, 2:]], axis=1)
    error = (found - palm) * np.concatenate(
        [palm[:, 2:] / camera[:, :2], np.ones_like(palm[:, 2:])], 1
    )
    near = (np.abs(error) < 100.0).all(axis=1, keepdims=True)
    return np.where(near, found, palm)
