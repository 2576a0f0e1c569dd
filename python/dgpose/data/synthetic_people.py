"""Rendered photographs of people with exact labels: training data without end.

Poses come from a kinematic body with joint limits (``body_kinematics``) and, where the project's
data folder is there, from the CMU motion capture data (``body_poses``; mocap.cs.cmu.edu, NSF
EIA-0196217). Bodies, clothes, places and light are this project's own.

A sample goes through: pose, heading and the identity's bones -> capsules of the dressed body
(``body_surface``) -> a camera and a crop around the person -> ``dgpose_ext.capsule_depth`` -> cloth
and light (``people_shading``) before a place (``people_backgrounds``) -> the camera's blur, white
balance and noise. Everything drawn is a function of (seed, index) alone (``counter_rng``): bit for
bit on one machine, whatever the batch.

Coordinates: x right, y DOWN, z forward, millimetres; pixels with the centre of the first one at
(0, 0). A person who faces the camera has their right at the image's left.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dgpose.data.body_kinematics import (
    BONE_PARENTS,
    sample_body_poses,
    with_bone_lengths,
)
from dgpose.data.body_poses import POSE_FILE, SPLIT_KINDS, SPLITS, BodyPoses
from dgpose.data.body_surface import (
    BODY_PARTS,
    EDGE_PARTS,
    EDGES,
    BodySurface,
    body_surface,
    sample_gesture,
)
from dgpose.data.counter_rng import CounterRng, FloatArray, IntArray
from dgpose.data.people_appearance import (
    Appearance,
    Cloth,
    IdentityConfig,
    Outfits,
    People,
    sample_outfits,
    sample_people,
    wear,
)
from dgpose.data.people_backgrounds import NoiseTiles, Rays, Shadow, paint_place, sample_places
from dgpose.data.people_shading import (
    PartFrames,
    expose,
    sample_camera_look,
    sample_lights,
    shade,
)
from dgpose.data.rotations import apply_rotation, rotate_about
from dgpose_ext import capsule_depth

__all__ = ["PeopleBatch", "SyntheticPeople", "SyntheticPeopleConfig"]

_OCCLUDERS = 2
_NODES = int(EDGES.max()) + 1
_ALL_EDGES = np.concatenate(
    [EDGES, _NODES + np.arange(2 * _OCCLUDERS, dtype=np.int64).reshape(-1, 2)]
)
# Part of each capsule; occluders and the background (the last entry: index -1) have none.
_EDGE_PART = np.append(EDGE_PARTS, np.full(_OCCLUDERS + 1, -1)).astype(np.int16)
# A surface this far before a joint is still the joint's own, in mm.
_JOINT_DEPTH_MM = np.array(
    [
        *(150.0, 130.0, 85.0, 65.0, 130.0, 85.0, 65.0),
        *(150.0, 150.0, 105.0, 120.0),
        *(85.0, 65.0, 50.0, 85.0, 65.0, 50.0),
    ]
)
# Parts that are a joint's own flesh and cloth, and how far before it they may lie.
_OWN_MM = 260.0
_OWN_PARTS = {
    0: ("torso", "skirt"),
    1: ("torso", "skirt", "right_thigh"),
    2: ("skirt", "right_thigh", "right_shank"),
    3: ("skirt", "right_shank", "right_foot"),
    4: ("torso", "skirt", "left_thigh"),
    5: ("skirt", "left_thigh", "left_shank"),
    6: ("skirt", "left_shank", "left_foot"),
    7: ("torso",),
    8: ("torso", "neck"),
    9: ("neck", "head", "hair"),
    10: ("head", "hair", "hat"),
    11: ("torso", "left_upper_arm"),
    12: ("left_upper_arm", "left_forearm"),
    13: ("left_forearm", "left_hand"),
    14: ("torso", "right_upper_arm"),
    15: ("right_upper_arm", "right_forearm"),
    16: ("right_forearm", "right_hand"),
}
_OWN = np.zeros((17, len(BODY_PARTS)), bool)
for _joint, _parts in _OWN_PARTS.items():
    _OWN[_joint, [BODY_PARTS.index(name) for name in _parts]] = True
_FACE_DEPTH_MM = np.array([30.0, 30.0, 30.0, 50.0, 50.0])
# OpenPose-18 from H36M17; the neck is between the shoulders, the face comes from the head.
_OPENPOSE_FROM = [14, 15, 16, 11, 12, 13, 1, 2, 3, 4, 5, 6]
_CHUNK = 32


@dataclass(frozen=True)
class SyntheticPeopleConfig(IdentityConfig):
    """What varies in the rendered people, and by how much.

    The fields of identities are those of ``IdentityConfig``. Angles in degrees, lengths in mm;
    ranges are drawn from uniformly.
    """

    identities: int = 2000  # of each split
    outfits: int = 1200  # of each split
    kinematic_share: float = 0.3  # of poses="mixed"
    distance_mm: tuple[float, float] = (2500.0, 7000.0)
    elevation_deg: tuple[float, float] = (-10.0, 20.0)  # of the camera above the person
    roll_std_deg: float = 2.5
    off_axis: tuple[float, float] = (0.22, 0.08)  # tangents, to each side
    margin: tuple[float, float] = (1.06, 1.4)  # image to person
    shift_std: float = 0.035  # of the image's size
    occluder_chance: float = 0.06


class PeopleBatch(NamedTuple):
    """B photographs of H x W pixels and what is known of them.

    Camera coordinates: x right, y DOWN, z forward, mm. Pixel (0, 0) is the centre of the first.
    """

    image: Tensor  # [B, 3, H, W] float32, RGB in [0, 1]
    mask: Tensor  # [B, 1, H, W] bool: the person
    parts: Tensor  # [B, H, W] int16, index of BODY_PARTS, -1 elsewhere
    joints_mm: Tensor  # [B, 17, 3] float32, H36M17 in the camera, not root-relative
    joints_px: Tensor  # [B, 17, 2] float32
    visible: Tensor  # [B, 17] bool: inside the image and not hidden
    keypoints_px: Tensor  # [B, 18, 2] float32, OpenPose-18
    keypoint_visible: Tensor  # [B, 18] bool
    identity: Tensor  # [B] int64
    outfit: Tensor  # [B] int64; several identities may share one
    camera: Tensor  # [B, 4] float32 (fx, fy, cx, cy) of the crop
    pose_row: Tensor  # [B] int64, row of the CMU file; -1: kinematic or given


class SyntheticPeople:
    """Rendered people, addressed by index: any integer from 0 on is a sample.

    Args:
        seed: another seed, another endless data set.
        poses: "kinematic" (joint limits only), "cmu" (motion capture), "mixed" (both, by
            ``config.kinematic_share``), or "auto": "mixed" if the data folder is there, else
            "kinematic".
        data_dir: folder with ``mocap``; default: the environment's DGPOSE_DATA.
        split: "train", "val" or "test". Identities, outfits, cloth, places and CMU poses of one
            split are in no other; patterns and surfaces of some kinds are in "test" alone.
        split_by: how CMU poses are split, see ``BodyPoses.rows``.
        size: S or (H, W), 16 to 1024.
        config: what varies.

    Attributes:
        poses: "kinematic", "cmu" or "mixed", what "auto" came to.
        pose_rows: [N] rows of the CMU file that are drawn from (empty: none).
        identities: the range of identities of this split.
        outfits: the range of outfits of this split.

    Raises:
        ValueError: an unknown option, a size out of range.
        FileNotFoundError: ``poses`` needs the data folder and it is not there.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        poses: Literal["auto", "kinematic", "cmu", "mixed"] = "auto",
        data_dir: str | Path | None = None,
        split: Literal["train", "val", "test"] = "train",
        split_by: Literal["sequence", "action"] = "sequence",
        size: int | tuple[int, int] = 128,
        config: SyntheticPeopleConfig | None = None,
    ) -> None:
        _require_option("poses", poses, ("auto", "kinematic", "cmu", "mixed"))
        _require_option("split", split, SPLITS)
        _require_option("split_by", split_by, SPLIT_KINDS)
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        if not all(16 <= edge <= 1024 for edge in self.size):
            raise ValueError(f"size must be S or (H, W), 16 to 1024 each, got {size}")
        folder = data_dir if data_dir is not None else os.environ.get("DGPOSE_DATA")
        if poses == "auto":
            known = folder is not None and (Path(folder) / POSE_FILE).is_file()
            poses = "mixed" if known else "kinematic"
        self.poses: Literal["kinematic", "cmu", "mixed"] = poses
        self.config = config if config is not None else SyntheticPeopleConfig()
        self._library: npt.NDArray[np.float32] | None = None
        self.pose_rows: IntArray = np.zeros(0, np.int64)
        if poses != "kinematic":
            if folder is None:
                raise FileNotFoundError(
                    f'poses="{poses}" needs data_dir, the folder that holds {POSE_FILE}'
                )
            known_poses = BodyPoses.load(folder)
            self.pose_rows = known_poses.rows(split, split_by)
            self._library = known_poses.positions[self.pose_rows]

        part, test = SPLITS.index(split), split == "test"
        c = self.config
        self.identities = range(part * c.identities, (part + 1) * c.identities)
        self.outfits = range(part * c.outfits, (part + 1) * c.outfits)
        # The splits of one seed share no random number.
        self._seed = seed * len(SPLITS) + part
        self._test = test
        ids = CounterRng(self._seed, np.array(self.identities))
        self._people = sample_people(ids, c)
        self._wears = ids.integers("person.outfit", c.outfits)
        self._outfits = sample_outfits(
            CounterRng(self._seed, np.array(self.outfits)), unseen_patterns=test
        )
        self._tiles = NoiseTiles(self._seed)

    def batch(self, indices: Sequence[int] | npt.NDArray[np.integer]) -> PeopleBatch:
        """Samples ``indices``; each depends on (seed, index) alone, bit for bit.

        Raises:
            ValueError, TypeError: indices that are not a list of non-negative integers.
        """
        rng = CounterRng(self._seed, indices)
        who = rng.integers("identity", len(self.identities))
        poses, rows = self._sample_poses(rng)
        heading = rng.uniform("heading", 1, 1, high=2 * np.pi)
        poses = rotate_about(poses, np.array([0.0, 1.0, 0.0]), heading)
        poses = with_bone_lengths(poses, self._people.bones_mm[who])
        view = self._views(rng)
        return self._render(rng, apply_rotation(poses, view[:, None]), view, who, rows)

    def posed(
        self,
        joints_mm: Tensor | npt.NDArray[np.floating],
        identities: Sequence[int] | Tensor | npt.NDArray[np.integer],
        indices: Sequence[int] | npt.NDArray[np.integer],
    ) -> PeopleBatch:
        """Given people in given poses; place, light and camera are those of ``indices``.

        Args:
            joints_mm: [B, 17, 3] H36M17 in camera coordinates (x right, y DOWN, z forward), mm;
                only differences to the hip count. The lengths of bones are kept as they are:
                ``with_bone_lengths(joints, people.bone_lengths(identities))`` gives a pose the
                proportions of these people first.
            identities: B members of ``self.identities``.
            indices: B samples.

        Raises:
            ValueError: joints of another shape or not finite, an identity of another split.
        """
        rng = CounterRng(self._seed, indices)
        joints = np.asarray(joints_mm, np.float64)
        if joints.shape != (len(rng), 17, 3):
            raise ValueError(
                f"joints_mm must have shape [{len(rng)}, 17, 3], got {list(joints.shape)}"
            )
        if not np.isfinite(joints).all():
            raise ValueError("joints_mm must be finite, got NaN or infinity")
        who = self._rows_of(identities)
        if who.shape != (len(rng),):
            raise ValueError(f"identities must have shape [{len(rng)}], got {list(who.shape)}")
        rows = np.full(len(rng), -1, np.int64)
        return self._render(rng, joints - joints[:, :1], self._views(rng), who, rows)

    def bone_lengths(
        self, identities: Sequence[int] | Tensor | npt.NDArray[np.integer]
    ) -> FloatArray:
        """Lengths [B, 16] mm of the bones of people, in the order of joints 1 to 16.

        Raises:
            ValueError: an identity of another split.
        """
        lengths: FloatArray = self._people.bones_mm[self._rows_of(identities)]
        return lengths

    def _rows_of(self, identities: Sequence[int] | Tensor | npt.NDArray[np.integer]) -> IntArray:
        ids = np.asarray(identities)
        if ids.size and not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(f"identities must be integers, got {ids.dtype}")
        known = self.identities
        for i in ids.ravel():
            if int(i) not in known:
                raise ValueError(
                    f"identities must lie in [{known.start}, {known.stop}) in this split, got {i}"
                )
        return ids.astype(np.int64) - known.start

    def _sample_poses(self, rng: CounterRng) -> tuple[FloatArray, IntArray]:
        """Poses [B, 17, 3] of the reference body, and rows of the CMU file."""
        if self._library is None:
            return sample_body_poses(rng), np.full(len(rng), -1, np.int64)
        own = rng.integers("pose.row", len(self._library))
        poses, rows = self._library[own].astype(np.float64), self.pose_rows[own]
        if self.poses == "mixed":
            kinematic = rng.chance("pose.kinematic", self.config.kinematic_share)
            poses = np.where(kinematic[:, None, None], sample_body_poses(rng), poses)
            rows = np.where(kinematic, -1, rows)
        return poses, rows

    def _views(self, rng: CounterRng) -> FloatArray:
        """Rotations [B, 3, 3] from the world (y along gravity) to the camera."""
        c = self.config
        low, high = c.elevation_deg
        elevation = np.radians(rng.uniform("elevation", 1, 1, low=low, high=high))
        roll = np.radians(rng.normal("roll", 1, 1, std=c.roll_std_deg))
        world = np.broadcast_to(np.eye(3), (len(rng), 3, 3))
        pitched = rotate_about(world, np.array([1.0, 0.0, 0.0]), elevation)
        return rotate_about(pitched, np.array([0.0, 0.0, 1.0]), roll)

    def _render(
        self,
        rng: CounterRng,
        poses: FloatArray,
        view: FloatArray,
        who: IntArray,
        rows: IntArray,
    ) -> PeopleBatch:
        """``poses`` [B, 17, 3] from the hip, in the camera's axes."""
        wears = self._wears[who]
        lengths = np.sqrt(((poses[:, 1:] - poses[:, list(BONE_PARENTS)]) ** 2).sum(axis=-1))
        shape, look = wear(
            People._make(field[who] for field in self._people),
            _taken(self._outfits, wears),
            lengths,
        )
        world = np.swapaxes(view, 1, 2)
        surface = body_surface(apply_rotation(poses, world[:, None]), shape, sample_gesture(rng))
        place = self._places(rng, view, surface.floor)
        joints = poses + place[:, None]
        nodes = apply_rotation(surface.nodes, view[:, None]) + place[:, None]
        camera = self._crop(rng, nodes, surface.radii)
        occluders, occluder_radii = self._occluders(rng, place, camera)
        scene = _Scene(
            nodes=np.concatenate([nodes, occluders], axis=1).astype(np.float32),
            radii=np.concatenate([surface.radii, occluder_radii], axis=1).astype(np.float32),
            camera=camera.astype(np.float32),
            view=view,
            place=place,
            surface=surface,
            size=shape.size * shape.head,
            look=look,
        )
        height, width = self.size
        image = np.empty((len(rng), 3, height, width), np.float32)
        parts = np.empty((len(rng), height, width), np.int16)
        depth = np.empty((len(rng), height, width), np.float32)
        self._paint(rng, scene, image, parts, depth)

        camera = scene.camera.astype(np.float64)
        joints_px = _project(joints, camera)
        tolerance = _JOINT_DEPTH_MM * shape.girth[:, None] * shape.size[:, None]
        visible = _seen(joints, joints_px, tolerance, parts, depth, _OWN)
        face = apply_rotation(surface.face_points, view[:, None]) + place[:, None]
        face_px = _project(face, camera)
        face_seen = _seen(face, face_px, _FACE_DEPTH_MM * scene.size[:, None], parts, depth)
        neck = 0.5 * (joints[:, 11:12] + joints[:, 14:15])
        neck_px = _project(neck, camera)
        neck_seen = _seen(neck, neck_px, tolerance[:, 8:9], parts, depth, _OWN[8:9])
        return PeopleBatch(
            image=torch.from_numpy(image),
            mask=torch.from_numpy(parts >= 0)[:, None],
            parts=torch.from_numpy(parts),
            joints_mm=_tensor(joints),
            joints_px=_tensor(joints_px),
            visible=torch.from_numpy(visible),
            keypoints_px=_tensor(
                np.concatenate(
                    [face_px[:, :1], neck_px, joints_px[:, _OPENPOSE_FROM], face_px[:, 1:]], axis=1
                )
            ),
            keypoint_visible=torch.from_numpy(
                np.concatenate(
                    [face_seen[:, :1], neck_seen, visible[:, _OPENPOSE_FROM], face_seen[:, 1:]],
                    axis=1,
                )
            ),
            identity=torch.from_numpy(who + self.identities.start),
            outfit=torch.from_numpy(wears + self.outfits.start),
            camera=torch.from_numpy(scene.camera),
            pose_row=torch.from_numpy(rows),
        )

    def _places(self, rng: CounterRng, view: FloatArray, floor: FloatArray) -> FloatArray:
        """Where the hip is [B, 3]; the camera stays above the floor."""
        c = self.config
        distance = rng.uniform("distance", low=c.distance_mm[0], high=c.distance_mm[1])
        aside = rng.uniform("off_axis", 2, low=-1.0, high=1.0) * np.array(c.off_axis)
        # y of the hip in the world, by the world's vertical in the camera.
        vertical = view[:, 1]
        lowest = (250.0 - floor) / distance
        height = aside[:, 0] * vertical[:, 0] + aside[:, 1] * vertical[:, 1] + vertical[:, 2]
        aside[:, 1] += np.maximum(lowest - height, 0.0) / vertical[:, 1]
        return np.concatenate([aside, np.ones((len(rng), 1))], axis=1) * distance[:, None]

    def _crop(self, rng: CounterRng, nodes: FloatArray, radii: FloatArray) -> FloatArray:
        """Cameras [B, 4] whose image is the crop around the person."""
        c = self.config
        height, width = self.size
        depth = np.maximum(nodes[..., 2], 100.0)
        reach = np.where(radii > 0, radii / depth, -np.inf)
        places = nodes[..., :2] / depth[..., None]
        low = (places - reach[..., None]).min(axis=1, where=radii[..., None] > 0, initial=np.inf)
        high = (places + reach[..., None]).max(axis=1, where=radii[..., None] > 0, initial=-np.inf)
        margin = rng.uniform("margin", low=c.margin[0], high=c.margin[1])
        extent = (high - low) / np.array([width, height])
        focal = 1.0 / (extent.max(axis=1) * margin)
        shift = rng.normal("shift", 2, std=c.shift_std) * np.array([width, height])
        middle = 0.5 * (low + high) * focal[:, None] + shift
        center = 0.5 * np.array([width - 1.0, height - 1.0]) - middle
        return np.concatenate([focal[:, None], focal[:, None], center], axis=1)

    def _occluders(
        self, rng: CounterRng, place: FloatArray, camera: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Poles and rounded blocks before the person: nodes [B, 2 * N, 3] and radii."""
        u = rng.uniform("occluder", _OCCLUDERS, 5)
        shown = rng.chance("occluder.shown", self.config.occluder_chance, _OCCLUDERS)
        depth = place[:, None, 2] * (0.45 + 0.25 * u[..., 0])
        height, width = self.size
        x = (u[..., 1] * width - camera[:, None, 2]) / camera[:, None, 0] * depth
        low = (height * 1.1 - camera[:, None, 3]) / camera[:, None, 1] * depth
        top = (height * (0.75 * u[..., 2] - 0.2) - camera[:, None, 3]) / camera[:, None, 1] * depth
        lean = (u[..., 3] - 0.5) * 0.2 * (low - top)
        nodes = np.empty((len(rng), 2 * _OCCLUDERS, 3))
        nodes[:, 0::2] = np.stack([x, low, depth], axis=-1)
        nodes[:, 1::2] = np.stack([x + lean, top, depth], axis=-1)
        radius = np.where(shown, (0.02 + 0.1 * u[..., 4]) * width / camera[:, None, 0] * depth, 0.0)
        return nodes, np.repeat(radius, 2, axis=1)

    def _paint(
        self,
        rng: CounterRng,
        scene: _Scene,
        image: npt.NDArray[np.float32],
        parts: npt.NDArray[np.int16],
        depth: npt.NDArray[np.float32],
    ) -> None:
        """Fill the three maps."""
        lights, photo = sample_lights(rng), sample_camera_look(rng)
        places = sample_places(rng, unseen=self._test)
        directions = apply_rotation(lights.direction, scene.view[:, None])
        origins = apply_rotation(scene.surface.origins, scene.view[:, None]) + scene.place[:, None]
        axes = apply_rotation(scene.surface.axes, scene.view[:, None, None])
        world = np.swapaxes(scene.view, 1, 2)
        stand = apply_rotation(scene.place, world)
        floor = stand[:, 1] + scene.surface.floor
        strength = rng.uniform("shadow", low=0.25, high=0.7)
        occluder_color = rng.uniform("occluder.color", 3, low=0.1, high=0.8)
        height, width = self.size
        edges = torch.from_numpy(_ALL_EDGES)
        kernel = max(3, round(max(height, width) / 14) | 1)

        for start in range(0, len(rng), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            z_map, edge_map, normal_map = (
                t.numpy()
                for t in capsule_depth(
                    torch.from_numpy(scene.nodes[chunk]),
                    edges,
                    torch.from_numpy(scene.radii[chunk]),
                    torch.from_numpy(scene.camera[chunk]),
                    (height, width),
                    return_normals=True,
                )
            )
            depth[chunk] = z_map
            parts[chunk] = _EDGE_PART[edge_map]
            for b in range(start, min(start + _CHUNK, len(rng))):
                fx, fy, cx, cy = scene.camera[b]
                ray_x = np.broadcast_to(
                    (np.arange(width, dtype=np.float32) - cx) / fx, (height, width)
                )
                ray_y = np.broadcast_to(
                    ((np.arange(height, dtype=np.float32) - cy) / fy)[:, None], (height, width)
                )
                to = world[b].astype(np.float32)
                rays = Rays(*(ray_x * to[0, i] + ray_y * to[1, i] + to[2, i] for i in range(3)))
                sun = lights.direction[b, 0]
                fall = -sun[[0, 2]] / max(-sun[1], 0.3) * 900.0
                under = (float(stand[b, 0]), float(stand[b, 2]))
                shadow = Shadow(
                    under,
                    (under[0] + float(fall[0]), under[1] + float(fall[1])),
                    230.0,
                    float(strength[b]),
                )
                picture = paint_place(
                    places, b, rays, float(floor[b]), float(stand[b, 2]), shadow, self._tiles
                )
                flat = picture.reshape(-1, 3)
                flat *= (lights.ambient[b] + 0.45 * lights.color[b, 0]).astype(np.float32)

                part = parts[b].ravel()
                z = z_map[b - start].ravel()
                person = z > 0
                filled = np.where(person, z, np.float32(scene.place[b, 2] + 400.0))
                around = cv2.blur(filled.reshape(height, width), (kernel, kernel)).ravel()
                openness = 1 - 0.45 * np.clip((filled - around) * np.float32(1 / 140.0), 0, 1)
                pixels = np.flatnonzero(part >= 0)
                normals = normal_map[b - start].reshape(3, -1)
                at = z.take(pixels)
                beams = (
                    lights.ambient[b].astype(np.float32),
                    directions[b].astype(np.float32),
                    lights.color[b].astype(np.float32),
                )
                flat[pixels] = shade(
                    pixels,
                    part.take(pixels),
                    (ray_x.ravel().take(pixels) * at, ray_y.ravel().take(pixels) * at, at),
                    (normals[0].take(pixels), normals[1].take(pixels), normals[2].take(pixels)),
                    openness.take(pixels),
                    PartFrames(origins[b].astype(np.float32), axes[b].astype(np.float32)),
                    scene.look,
                    b,
                    beams,
                    float(scene.size[b]),
                    self._tiles,
                )
                hidden = np.flatnonzero(person & (part < 0))
                if hidden.size:
                    lit = 0.45 - 0.35 * normals[2].take(hidden)
                    flat[hidden] = lit[:, None] * occluder_color[b].astype(np.float32)
                image[b] = expose(picture, photo, b, self._tiles)


class _Scene(NamedTuple):
    """B dressed people before their cameras; nodes and places in the camera."""

    nodes: npt.NDArray[np.float32]
    radii: npt.NDArray[np.float32]
    camera: npt.NDArray[np.float32]
    view: FloatArray
    place: FloatArray
    surface: BodySurface
    size: FloatArray  # of the head
    look: Appearance


def _taken(outfits: Outfits, rows: IntArray) -> Outfits:
    cloth = Cloth._make(field[rows] for field in outfits.cloth)
    return Outfits._make((*(field[rows] for field in outfits[:-1]), cloth))


def _project(points: FloatArray, camera: FloatArray) -> FloatArray:
    """Pixels [B, J, 2] of points [B, J, 3]."""
    pixels: FloatArray = (
        points[..., :2] / points[..., 2:] * camera[:, None, :2] + camera[:, None, 2:]
    )
    return pixels


def _seen(
    points: FloatArray,
    pixels: FloatArray,
    tolerance: FloatArray,
    parts: npt.NDArray[np.int16],
    depth: npt.NDArray[np.float32],
    own: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.bool_]:
    """Whether each point [B, J, 3] lies inside the image and nothing hides it but its
    ``own`` parts [J, P]."""
    height, width = depth.shape[1:]
    nearest = np.rint(np.clip(pixels, -1.0, max(height, width) + 1.0)).astype(np.int64)
    x, y = nearest[..., 0], nearest[..., 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    b = np.arange(len(points))[:, None]
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    part = parts[b, y, x]
    allowed = tolerance
    if own is not None:
        allowed = np.where(own[np.arange(own.shape[0]), part], _OWN_MM, tolerance)
    before = points[..., 2] - depth[b, y, x]
    seen: npt.NDArray[np.bool_] = inside & (part >= 0) & (before < allowed)
    return seen


def _require_option(name: str, value: str, options: Sequence[str]) -> None:
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}")


def _tensor(values: FloatArray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
