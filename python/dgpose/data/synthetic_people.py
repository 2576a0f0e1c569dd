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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dgpose.data.body_capsules import BODY_PARTS, sample_gesture
from dgpose.data.body_kinematics import (
    BONE_PARENTS,
    sample_body_poses,
    with_bone_lengths,
)
from dgpose.data.body_poses import POSE_FILE, SPLIT_KINDS, SPLITS, BodyPoses
from dgpose.data.body_surface import body_surface
from dgpose.data.counter_rng import CounterRng, FloatArray, IntArray
from dgpose.data.people_appearance import (
    Cloth,
    IdentityConfig,
    Outfits,
    People,
    sample_outfits,
    sample_people,
    wear,
)
from dgpose.data.people_backgrounds import NoiseTiles
from dgpose.data.people_labels import find_keypoints
from dgpose.data.people_painter import Scene, paint
from dgpose.data.people_props import sample_props
from dgpose.data.people_views import ViewConfig, crop_cameras, place_hips, sample_views
from dgpose.data.rotations import apply_rotation, rotate_about

__all__ = ["BODY_PARTS", "PeopleBatch", "SyntheticPeople", "SyntheticPeopleConfig"]

_AT_ONCE = 256


@dataclass(frozen=True)
class SyntheticPeopleConfig(IdentityConfig, ViewConfig):
    """What varies in the rendered people, and by how much.

    How people differ is in ``IdentityConfig``, where cameras are in ``ViewConfig``.

    Raises:
        ValueError: nobody, nothing to wear, a share outside [0, 1], or a distance or margin that is
            not positive and ascending.
    """

    identities: int = 2000  # of each split
    outfits: int = 1200  # of each split
    kinematic_share: float = 0.3  # of poses="mixed"
    occluder_chance: float = 0.06

    def __post_init__(self) -> None:
        for name in ("identities", "outfits"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("kinematic_share", "occluder_chance", "hat_chance", "bag_chance"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("distance_mm", "margin"):
            low, high = getattr(self, name)
            if not 0 < low <= high < np.inf:
                raise ValueError(f"{name} must have 0 < low <= high, got {low} and {high}")


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
            ``config.kinematic_share``), or "auto": "mixed" with a data folder, else "kinematic".
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
        FileNotFoundError: ``poses`` needs the data folder and it is not there, or ``data_dir`` has
            no poses.
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
        edges = tuple(size) if isinstance(size, Sequence) else (size, size)
        if len(edges) != 2 or not all(
            isinstance(edge, int) and 16 <= edge <= 1024 for edge in edges
        ):
            raise ValueError(f"size must be S or (H, W), 16 to 1024 each, got {size}")
        self.size: tuple[int, int] = (edges[0], edges[1])
        folder = data_dir if data_dir is not None else os.environ.get("DGPOSE_DATA")
        if poses == "auto":
            known = folder is not None and (Path(folder) / POSE_FILE).is_file()
            if data_dir is not None and not known:
                raise FileNotFoundError(f"data_dir must hold {POSE_FILE}, got {data_dir}")
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
        view = sample_views(rng, self.config)
        return self._render(rng, apply_rotation(poses, view[:, None]), view, who, rows)

    def batches(
        self, count: int, *, progress: Callable[[int, int], None] | None = None
    ) -> Iterator[PeopleBatch]:
        """The first `count` samples, some hundred at a time.

        Args:
            count: samples.
            progress: called with (samples done, samples in all).

        Raises:
            ValueError: a count below 1.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        for first in range(0, count, _AT_ONCE):
            last = min(first + _AT_ONCE, count)
            yield self.batch(np.arange(first, last))
            if progress is not None:
                progress(last, count)

    def posed(
        self,
        joints_mm: Tensor | npt.NDArray[np.floating],
        identities: Sequence[int] | Tensor | npt.NDArray[np.integer],
        indices: Sequence[int] | npt.NDArray[np.integer],
        *,
        camera: Tensor | npt.NDArray[np.floating] | None = None,
    ) -> PeopleBatch:
        """Given people in given poses; place, light and camera are those of ``indices``.

        Args:
            joints_mm: [B, 17, 3] H36M17 in camera coordinates (x right, y DOWN, z forward), mm;
                without ``camera`` only differences to the hip count. The lengths of bones are kept
                as they are:
                ``with_bone_lengths(joints, people.bone_lengths(identities))`` gives a pose the
                proportions of these people first.
            identities: B members of ``self.identities``.
            indices: B samples.
            camera: [B, 4] (fx, fy, cx, cy), the crop to render, such as that of another batch: the
                people then stand where ``joints_mm`` says, in front of the camera. None: the crop
                around each person.

        Raises:
            ValueError: joints or cameras of another shape or not finite, a hip that is not in front
                of the given camera, an identity of another split.
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
        view = sample_views(rng, self.config)
        if camera is None:
            return self._render(rng, joints - joints[:, :1], view, who, rows)
        crop = np.asarray(camera, np.float64)
        if crop.shape != (len(rng), 4) or not np.isfinite(crop).all():
            raise ValueError(
                f"camera must be finite, of shape [{len(rng)}, 4], got {list(crop.shape)}"
            )
        hip = joints[:, 0]
        if len(rng) and not hip[:, 2].min() > 0:
            raise ValueError(
                f"joints_mm must have hips before the camera, got z = {hip[:, 2].min():g}"
            )
        return self._render(rng, joints - joints[:, :1], view, who, rows, hip, crop)

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

    def _render(
        self,
        rng: CounterRng,
        poses: FloatArray,
        view: FloatArray,
        who: IntArray,
        rows: IntArray,
        place: FloatArray | None = None,
        camera: FloatArray | None = None,
    ) -> PeopleBatch:
        """``poses`` [B, 17, 3] from the hip, in the camera's axes; ``place`` [B, 3] of the hip and
        ``camera`` [B, 4] are drawn, where they are not given."""
        wears = self._wears[who]
        lengths = np.sqrt(((poses[:, 1:] - poses[:, list(BONE_PARENTS)]) ** 2).sum(axis=-1))
        shape, look = wear(
            People._make(field[who] for field in self._people),
            _taken(self._outfits, wears),
            lengths,
        )
        world = np.swapaxes(view, 1, 2)
        surface = body_surface(apply_rotation(poses, world[:, None]), shape, sample_gesture(rng))
        if place is None:
            place = place_hips(rng, view, surface.floor, self.config)
        joints = poses + place[:, None]
        nodes = apply_rotation(surface.nodes, view[:, None]) + place[:, None]
        if camera is None:
            camera = crop_cameras(rng, nodes, surface.radii, self.size, self.config)
        props, prop_radii = sample_props(
            rng, joints, camera, view[:, 1], surface.floor, self.size, self.config.occluder_chance
        )
        scene = Scene(
            nodes=np.concatenate([nodes, props], axis=1).astype(np.float32),
            radii=np.concatenate([surface.radii, prop_radii], axis=1).astype(np.float32),
            camera=camera.astype(np.float32),
            origins=apply_rotation(surface.origins, view[:, None]) + place[:, None],
            axes=apply_rotation(surface.axes, view[:, None, None]),
            hip=place,
            floor=apply_rotation(place, world)[:, 1] + surface.floor,
            view=view,
            head=shape.size * shape.head,
            look=look,
        )
        painted = paint(rng, scene, self.size, self._tiles, unseen=self._test)
        known = find_keypoints(
            joints,
            apply_rotation(surface.face_points, view[:, None]) + place[:, None],
            scene.camera.astype(np.float64),
            painted.parts,
            painted.depth,
            shape.size * shape.girth,
        )
        return PeopleBatch(
            image=torch.from_numpy(painted.image),
            mask=torch.from_numpy(painted.parts >= 0)[:, None],
            parts=torch.from_numpy(painted.parts),
            joints_mm=_tensor(joints),
            joints_px=_tensor(known.joints_px),
            visible=torch.from_numpy(known.visible),
            keypoints_px=_tensor(known.keypoints_px),
            keypoint_visible=torch.from_numpy(known.keypoint_visible),
            identity=torch.from_numpy(who + self.identities.start),
            outfit=torch.from_numpy(wears + self.outfits.start),
            camera=torch.from_numpy(scene.camera),
            pose_row=torch.from_numpy(rows),
        )


def _taken(outfits: Outfits, rows: IntArray) -> Outfits:
    cloth = Cloth._make(field[rows] for field in outfits.cloth)
    return Outfits._make((*(field[rows] for field in outfits[:-1]), cloth))


def _require_option(name: str, value: str, options: Sequence[str]) -> None:
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}")


def _tensor(values: FloatArray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
