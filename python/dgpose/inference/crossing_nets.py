"""CrossingNetsEstimator: Crossing Nets on depth images, in `HandEstimator`'s way."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dgpose.data.cameras import Camera, project, unproject
from dgpose.data.hand_pool import stretch_to_nearest_pixel
from dgpose.inference.depth_estimator import DepthEstimator
from dgpose.inference.depth_input import Depth, Place
from dgpose.inference.hand_calibration import calibration_crops
from dgpose.inference.hand_crop import CropOptions, crop_view
from dgpose.inference.hand_engine import (
    Engine,
    Hand,
    Precision,
    check_options,
    chosen_engine,
    compiled,
    described,
)
from dgpose.inference.hand_pose import Look
from dgpose.model_zoo import model_path
from dgpose.models.crossing_nets import CrossingNets, CrossingNetsPath, load_crossing_nets
from dgpose.skeletons import hand_skeleton
from dgpose_ext import depth_crop

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["CrossingNetsEstimator"]


class CrossingNetsEstimator(DepthEstimator):
    """Estimates one hand in a depth image with Crossing Nets; make one with `load`.

    The joints are those of the data set that the networks learned from, told by their number:
    NYU36, ICVL16 or MSRA21. For NYU's the check of a pose is `HandEstimator`'s; of the others it
    only knows whether the joints lie on something seen, and `confidence` is their share.

    Networks that were trained as published, on crops around a known centre, want one here, too:
    they are lost where `find_hand_center`'s lies 40 mm off, towards the forearm.
    """

    def __init__(
        self,
        nets: CrossingNets,
        network: Callable[[Tensor], Tensor],
        *,
        hand: str,
        cube_mm: float,
        description: dict[str, Any],
    ) -> None:
        common = nets.config.cube_mm
        super().__init__(
            network, hand=hand, cube_mm=cube_mm, common_cube_mm=common, description=description
        )
        self.skeleton = hand_skeleton(nets.config.joints)
        self._nets = nets

    @classmethod
    def load(
        cls,
        model: str | Path = "crossing_nets",
        *,
        hand: Hand = "right",
        engine: Engine = "auto",
        cube_mm: float | None = None,
        precision: Precision = "float32",
    ) -> CrossingNetsEstimator:
        """Load a model.

        Args:
            model: name of a shipped model, or a weight file of
                `dgpose.models.crossing_nets.save_crossing_nets`.
            hand: which hand is looked for. One network serves both: a left hand is mirrored.
            engine: "native" is `dgpose_ext.HandNet`, "torch" the plain module; "auto" takes the
                native one where the compiled core is there and the networks do not turn poses into
                the palm's frame, which it cannot.
            cube_mm: edge of the cube that the hand lies in, less for a child's hand; None: what the
                networks were trained with.
            precision: of the native engine, as for `HandEstimator.load`.

        Raises:
            ValueError: an unknown name or option, a damaged file, networks of other joints, an
                engine that does not run them, or a precision that the engine does not have.
            FileNotFoundError: no such file.
            RuntimeError: engine="native", or another precision than float32, and the compiled core
                is missing.
        """
        nets, _ = load_crossing_nets(model_path(model))
        return cls.from_module(
            nets, hand=hand, engine=engine, cube_mm=cube_mm, precision=precision, name=str(model)
        )

    @classmethod
    def from_module(
        cls,
        nets: CrossingNets,
        *,
        hand: Hand = "right",
        engine: Engine = "torch",
        cube_mm: float | None = None,
        precision: Precision = "float32",
        name: str = "unnamed",
    ) -> CrossingNetsEstimator:
        """An estimator from networks in memory; arguments and errors as for `load`."""
        config = nets.config
        edge = float(config.cube_mm if cube_mm is None else cube_mm)
        check_options(hand, engine, precision, edge)
        nets = copy.deepcopy(nets).eval()  # the caller's may go on training
        if engine == "auto" and config.palm_joints is not None:
            engine = "torch"
        chosen = chosen_engine(engine, precision)
        module: nn.Module = _Estimation(nets) if chosen == "torch" else CrossingNetsPath(nets)

        def crops() -> Tensor:
            crop = calibration_crops(size=config.image_size, cube_mm=config.cube_mm)
            return _normalised(nets, crop)

        network = compiled(module, chosen, precision, config.image_size, crops)
        joints = hand_skeleton(config.joints).name
        description = described(name, chosen, precision, nets, joints, hand, edge)
        estimator = cls(nets, network, hand=hand, cube_mm=edge, description=description)
        # The first call allocates workspaces: it must not be a user's first frame.
        estimator.regress(torch.ones(1, 1, config.image_size, config.image_size))
        return estimator

    def latent(self, crop: Depth, **shows: Unpack[CropOptions]) -> npt.NDArray[np.float32]:
        """The place of a crop in the shared latent space, from the posterior head.

        Args:
            crop, shows: as for `from_crop`.

        Returns:
            `[L]` float32: the pose's numbers, then those of its place in the cube
            (`CrossingNetsConfig.latent`), of a left hand those of its mirror image. `CrossingNets`
            decodes it into joints (`joints_of`) and into a depth map (`depth_of`).
        """
        view = crop_view(crop, self._cube_mm, **shows)
        cube = self._crop(torch.from_numpy(view.depth), view.camera, view.center)
        with torch.inference_mode():
            latent = self._nets.posterior_of(_normalised(self._nets, cube)).latent
        return latent[0].numpy()

    def regress(self, crop: Tensor) -> Tensor:
        """The network alone: crops [B, 1, S, S] of right hands, normalised as the networks'
        configuration says -> joints [B, J, 3], (joint - centre of the cube) / `unit_mm`."""
        return super().regress(crop)

    def _crop(self, image: Tensor, optics: Camera, place: Place) -> Tensor:
        """[1, 1, S, S] of a right hand, normalised over the cube."""
        centers = torch.tensor([place], dtype=torch.float64)
        size = self._nets.config.image_size
        crop = depth_crop(image[None], centers, optics, self._cube_mm, size)
        return crop.flip(-1) if self._mirrored else crop

    def _look(self, image: Tensor, optics: Camera, place: Place) -> Look:
        config = self._nets.config
        crop = self._crop(image, optics, place)
        joints = self.regress(_normalised(self._nets, crop)).numpy()[0]
        # What the network knows of sizes, it knows in terms of its cube.
        joints = joints * np.float32(config.unit_mm * self._cube_mm / config.cube_mm)
        if self._mirrored:
            joints = joints * np.array([-1, 1, 1], np.float32)
            crop = crop.flip(-1)
        uvd = project(joints + unproject(np.array(place, np.float32), optics), optics)
        half = self._cube_mm / 2
        scale = np.array([half * optics.fx / place[2], half * optics.fy / place[2], half])
        coords = ((uvd - np.array(place)) / scale).astype(np.float32)
        return Look(crop.numpy()[0, 0], coords, uvd)


class _Estimation(nn.Module):
    """`CrossingNets.estimate` as a module; it turns poses into the palm's frame where they are."""

    def __init__(self, nets: CrossingNets) -> None:
        super().__init__()
        self.nets = nets

    def forward(self, crop: Tensor) -> Tensor:
        return self.nets.estimate(crop)


def _normalised(nets: CrossingNets, crop: Tensor) -> Tensor:
    """Crops of "cube" normalisation as the networks take them."""
    nearest = nets.config.normalize == "nearest_pixel"
    return stretch_to_nearest_pixel(crop) if nearest else crop
